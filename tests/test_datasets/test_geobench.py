# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""GEO-Bench v1.0: every set, bands by name, partitions, labels, and what is refused."""

import json
import os
import pickle

import h5py
import numpy as np
import pytest
from mmengine.registry import init_default_scope

from mmrsfm.datasets import GeoBench
from mmrsfm.datasets.geobench_files import read_sample, read_task
from mmrsfm.errors import (
    BandMismatchError,
    ConfigError,
    CorruptImageError,
    DataError,
    DatasetNotFoundError,
)
from mmrsfm.registry import DATASETS, TRANSFORMS
from mmrsfm.utils.plain_pickle import PlainObject, load_plain_pickle
from tests.formats import make_geobench
from tests.formats.geobench import SETS

SENTINEL2 = [
    'B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B11', 'B12'
]  # fmt: skip


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_geobench(tmp_path_factory.mktemp('geobench'), names=list(SETS), count=4, size=24)


def folder_of(root, name):
    kind = 'segmentation' if SETS[name][0] == 'segmentation' else 'classification'
    return root / f'{kind}_v1.0' / name


def build(root, name, **arguments):
    packing = 'PackSegInputs' if SETS[name][0] == 'segmentation' else 'PackInputs'
    pipeline = [dict(type='mmrsfm.LoadGeoBench'), dict(type=f'mmrsfm.{packing}')]
    arguments = dict(pipeline=pipeline) | arguments
    return DATASETS.build(
        dict(type='mmrsfm.GeoBench', data_root=str(folder_of(root, name)), **arguments)
    )


@pytest.mark.parametrize('name', SETS)
def test_every_set_is_read_as_its_task_specs_say(root, name):
    kind, bands, classes = SETS[name][:3]
    assert name in GeoBench.SETS['segmentation' if kind == 'segmentation' else 'classification']
    data = build(root, name)
    assert len(data) == 4
    assert data.metainfo['task_kind'] == kind
    assert len(data.metainfo['classes']) == classes and data.metainfo['classes'][0] == 'class 0'
    folder = folder_of(root, name)
    with open(folder / 'band_stats.json') as file:
        stats = json.load(file)
    with open(folder / 'default_partition.json') as file:
        first = json.load(file)['train'][0]
    item = data[0]
    with h5py.File(folder / f'{first}.hdf5') as file:
        for number, (band, *_) in enumerate(bands):
            stored = file[next(key for key in file if key.startswith(band))][()].astype(np.float64)
            expected = (stored - stats[band]['mean']) / stats[band]['std']
            assert np.allclose(item['inputs'][number], expected, atol=1e-4)
        label = file['label'][()] if kind == 'segmentation' else None
    sample = item['data_samples']
    assert sample.band_names == data.metainfo['band_names']
    if kind == 'segmentation':
        assert np.array_equal(sample.gt_sem_seg.data[0], label)
        assert len(data.metainfo['palette']) == classes
    elif kind == 'multi_label':
        assert sample.gt_score.shape == (classes,) and float(sample.gt_score.sum()) == 3
    else:
        assert int(sample.gt_label) == 0


def test_bands_are_chosen_by_any_of_their_names(root):
    data = build(root, 'm-cashew-plant', bands=['B8A', 'red', '02 - Blue', '11', 'B1'])
    stored = [band.name for band in data.get_data_info(0)['stored_bands']]
    assert stored == [
        '08A - Vegetation Red Edge', '04 - Red', '02 - Blue', '11 - SWIR', '01 - Coastal aerosol',
    ]  # fmt: skip
    assert data[0]['data_samples'].band_names == ('B8A', 'red', '02 - Blue', '11', 'B1')
    # The radar bands of So2Sat are numbered as those of Sentinel-2.
    data = build(root, 'm-so2sat', bands=['B02', '02 - VH.Imaginary'])
    stored = [band.name for band in data.get_data_info(0)['stored_bands']]
    assert stored == ['02 - Blue', '02 - VH.Imaginary']
    with pytest.raises(BandMismatchError, match=r'B01.*substitutes=dict\(B01=\.\.\.\)'):
        build(root, 'm-so2sat', bands=['B01'])
    data = build(root, 'm-so2sat', bands=SENTINEL2, substitutes=dict(B01='B02', B09='B8A'))
    image = data[0]['inputs'].numpy()
    assert np.array_equal(image[0], image[1]) and np.array_equal(image[8], image[9])
    assert data[0]['data_samples'].band_names == tuple(SENTINEL2)
    with pytest.raises(ConfigError, match='which bands has not'):
        build(root, 'm-so2sat', bands=['B02'], substitutes=dict(B01='B02'))
    for wrong in (dict(bands='B02'), dict(names='other')):
        with pytest.raises(ConfigError):
            build(root, 'm-so2sat', **wrong)


@pytest.mark.parametrize(
    ('name', 'band', 'really', 'published'),
    [
        ('m-eurosat', 'B8A', '12 - SWIR', '08A - Vegetation Red Edge'),
        ('m-eurosat', 'B12', '11 - SWIR', '12 - SWIR'),
        ('m-eurosat', 'B08', '08 - NIR', '08 - NIR'),
        ('m-brick-kiln', 'B12', '09 - Water vapour', '12 - SWIR'),
        ('m-brick-kiln', 'B07', '06 - Vegetation Red Edge', '07 - Vegetation Red Edge'),
    ],
)
def test_wrong_names_of_two_sets_are_corrected_unless_published_numbers_are_wanted(
    root, name, band, really, published
):
    for names, expected in (('corrected', really), ('as_published', published)):
        data = build(root, name, bands=[band], names=names)
        assert data.get_data_info(0)['stored_bands'][0].name == expected
    if name == 'm-brick-kiln':
        with pytest.raises(BandMismatchError, match='B06'):
            build(root, name, bands=['B06'])
        build(root, name, bands=['B06'], names='as_published')


def test_partitions_and_splits(root, tmp_path):
    assert len(build(root, 'm-eurosat', partition='0.50x_train')) == 2
    assert len(build(root, 'm-eurosat', partition='0.01x_train')) == 1
    for split in ('valid', 'val', 'test'):
        assert len(build(root, 'm-eurosat', partition='0.01x_train', split=split)) == 2
    with pytest.raises(DatasetNotFoundError, match=r"there are \['0.01x_train'.*'default'"):
        build(root, 'm-eurosat', partition='0.03x_train')[0]
    with pytest.raises(DatasetNotFoundError, match="no samples for 'else'"):
        build(root, 'm-eurosat', split='else')[0]
    with pytest.raises(DatasetNotFoundError, match=r'task_specs\.pkl.*geobench-download'):
        GeoBench(data_root=str(tmp_path))


def test_statistics_of_other_units_are_recognised(tmp_path):
    names = ['m-so2sat', 'm-eurosat', 'm-pv4ger']
    root = make_geobench(tmp_path, names=names, count=2, size=24, statistics_factor=1e4)
    fair = make_geobench(tmp_path / 'fair', names=names, count=2, size=24)
    image = build(root, 'm-so2sat', bands=['B02', 'B03'])[0]['inputs']
    wanted = build(fair, 'm-so2sat', bands=['B02', 'B03'])[0]['inputs']
    assert np.allclose(image, wanted, atol=1e-4)
    given = build(root, 'm-so2sat', bands=['B02'], statistics_scale=1)
    assert abs(float(given[0]['inputs'].mean())) > 1
    # Numbers of up to 10000, and bytes, are left alone.
    for name in ('m-eurosat', 'm-pv4ger'):
        assert abs(float(build(fair, name)[0]['inputs'].mean())) < 3


def test_several_dates_are_chosen_from(tmp_path):
    root = make_geobench(tmp_path, names=['m-forestnet'], count=2, size=24, dates=2)
    with pytest.raises(BandMismatchError, match=r"of 2 dates.*date='first'"):
        build(root, 'm-forestnet', bands=['red'])[0]
    for date in ('first', 'last', '2019-05-03'):
        assert build(root, 'm-forestnet', bands=['red'], date=date)[0]['inputs'].shape[0] == 1
    with pytest.raises(BandMismatchError, match='none is 2011'):
        build(root, 'm-forestnet', bands=['red'], date='2011-01-01')[0]


def spoil(tmp_path, name='m-eurosat', **changes):
    """A set of which the first training sample is changed."""
    root = make_geobench(tmp_path, names=[name], count=2, size=24)
    path = sorted(folder_of(root, name).glob('train_*.hdf5'))[0]
    with h5py.File(path, 'a') as file:
        for key, value in changes.items():
            if key == 'pickle':
                file.attrs['pickle'] = value
            else:
                del file[key]
                if value is not None:
                    file[key] = value
    return root, path


class Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ['GEOBENCH_EVIL'],)


@pytest.mark.parametrize('protocol', [0, 4])
def test_no_pickle_is_run(tmp_path, monkeypatch, protocol):
    monkeypatch.setenv('GEOBENCH_EVIL', str(tmp_path / 'made'))
    evil = pickle.dumps({'label': Evil()}, protocol=protocol)
    root, path = spoil(tmp_path, pickle=str(evil))
    with pytest.raises(CorruptImageError, match=r'mkdir.*no plain data.*Nothing of it was run'):
        build(root, 'm-eurosat')[0]
    (path.parent / 'task_specs.pkl').write_bytes(evil)
    with pytest.raises(CorruptImageError, match='mkdir'):
        read_task(path.parent)
    assert not (tmp_path / 'made').exists()


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('exec("1")', "no attribute|has no attribute 'pickle'"),
        ("b'\\x80", 'is damaged'),
        (str(b'abc'), 'its pickle: '),
        (str(pickle.dumps({'bands_order': []})), 'has no label'),
        (str(pickle.dumps({'label': 10})), 'no class of 0..9'),
        (str(pickle.dumps({'label': [1, 2]})), 'no class of 0..9'),
    ],
)
def test_damaged_labels_are_named(tmp_path, text, message):
    root, path = spoil(tmp_path, pickle=text)
    with pytest.raises(DataError, match=message) as caught:
        build(root, 'm-eurosat')[0]
    assert caught.value.path == str(path)


def test_damaged_samples_are_named(tmp_path, root):
    wrong = np.full((24, 24), 7, np.uint8)
    spoiled, _ = spoil(tmp_path / 'a', 'm-cashew-plant', label=wrong)
    with pytest.raises(DataError, match=r'the label holds \[7\], the classes are 0\.\.6'):
        build(spoiled, 'm-cashew-plant')[0]
    spoiled, path = spoil(tmp_path / 'b', 'm-cashew-plant', label=wrong[:5] * 0)
    with pytest.raises(DataError, match=r'shape \(5, 24\)'):
        build(spoiled, 'm-cashew-plant')[0]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorruptImageError, match='cannot be read as HDF5'):
        build(spoiled, 'm-cashew-plant')[0]
    path.unlink()
    with pytest.raises(DatasetNotFoundError, match='no such file'):
        build(spoiled, 'm-cashew-plant')[0]
    spoiled, _ = spoil(tmp_path / 'c', **{'04 - Red': None})
    with pytest.raises(BandMismatchError, match='04 - Red'):
        build(spoiled, 'm-eurosat', bands=['B04'])[0]
    folder = folder_of(spoiled, 'm-eurosat')
    (folder / 'band_stats.json').write_text('{"a": 1}')
    with pytest.raises(CorruptImageError, match='no statistics'):
        build(spoiled, 'm-eurosat')
    (folder / 'band_stats.json').write_text('{')
    with pytest.raises(CorruptImageError, match='no JSON'):
        build(spoiled, 'm-eurosat')
    (folder / 'band_stats.json').write_text('{"a": {"mean": 1, "std": 2}}')
    with pytest.raises(BandMismatchError, match='are not about'):
        build(spoiled, 'm-eurosat')
    (folder / 'task_specs.pkl').write_bytes(pickle.dumps({'a': 1}))
    with pytest.raises(CorruptImageError, match='describes no task'):
        build(spoiled, 'm-eurosat')


def test_coarse_bands_are_enlarged_and_what_is_not_finite_is_marked(tmp_path):
    red = np.linspace(0, 1, 144, dtype=np.float32).reshape(12, 12)
    blue = np.ones((24, 24), np.float32)
    blue[3, 4] = np.nan
    root, _ = spoil(tmp_path, 'm-so2sat', **{'04 - Red': red, '02 - Blue': blue})
    init_default_scope('mmpretrain')
    item = build(root, 'm-so2sat', bands=['B04', 'B02'])[0]
    assert item['inputs'].shape == (2, 24, 24) and bool(item['inputs'].isfinite().all())
    assert (~item['data_samples'].valid_mask).nonzero().tolist() == [[1, 3, 4]]


def test_blocks_of_bands_and_values_as_stored(tmp_path, root):
    path = next(folder_of(root, 'm-eurosat').glob('train_*.hdf5'))
    (stored,), label = read_sample(path, ['04 - Red'], 'classification')
    data = build(root, 'm-eurosat', bands=['B04'])
    index = next(i for i in range(4) if path.stem == data.get_data_info(i)['sample_name'])
    plain = TRANSFORMS.build(dict(type='mmrsfm.LoadGeoBench', normalize=False))
    results = plain(data.get_data_info(index))
    assert np.array_equal(results['img'][..., 0], stored) and results['gt_label'] == label
    assert 'normalize=False' in repr(plain)
    # NeonTree has a block of hyperspectral bands in one dataset.
    folder = folder_of(
        make_geobench(tmp_path, names=['m-NeonTree'], count=2, size=24), 'm-NeonTree'
    )
    specs = (folder / 'task_specs.pkl').read_bytes()
    one = read_task(folder).bands[3]
    assert one.name == 'Canopy Height Model' and one.count == 1
    for file_path in folder.glob('*.hdf5'):
        with h5py.File(file_path, 'a') as file:
            block = np.stack([file['Canopy Height Model'][::2, ::2]] * 3, axis=2)
            del file['Canopy Height Model']
            file['Canopy Height Model'] = block
    with pytest.raises(DataError, match='has 3 channels, the set says 1'):
        build(tmp_path, 'm-NeonTree')[0]
    content = load_plain_pickle(specs, arrays=True, objects=['geobench'])
    assert isinstance(content, PlainObject) and content.name == 'geobench.task.TaskSpecifications'


def test_the_data_set_is_small_in_memory_and_pickled_for_workers(root):
    data = pickle.loads(pickle.dumps(build(root, 'm-bigearthnet', split='test')))
    assert len(data) == 2 and data[1]['data_samples'].img_path.endswith('.hdf5')
    assert data.get_data_info(-1)['sample_name'] == data.get_data_info(1)['sample_name']
