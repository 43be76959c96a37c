# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""PairedModalityDataset and MaRS16M: pairs, missing partners, the index and its age."""

import os

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate

from mmrsfm.datasets import AddressedDataset, pair_index
from mmrsfm.errors import ConfigError, DatasetNotFoundError
from mmrsfm.registry import DATASETS, MODELS
from tests.test_datasets.imagery import write_tif

LOAD = dict(
    type='mmrsfm.LoadModalities',
    modalities=dict(rgb=dict(channels=3, names=['R', 'G', 'B']), sar=1),
)


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'')


def make(root, **options):
    return DATASETS.build(dict(type='mmrsfm.PairedModalityDataset', data_root=str(root), **options))


def names(dataset) -> list[str]:
    return [os.path.basename(dataset.get_data_info(i)['img_path']) for i in range(len(dataset))]


@pytest.fixture
def root(tmp_path):
    root = tmp_path / 'pairs'
    for name in ('b.tif', 'a.tif', 'c.TIF'):
        touch(root / 'rgb' / name, root / 'sar' / name)
    touch(root / 'rgb' / '.hidden.tif', root / 'rgb' / '._b.tif', root / 'rgb' / 'notes.txt')
    touch(root / 'rgb' / 'thumbs.db', root / 'rgb' / 'below' / 'd.tif', root / 'sar/below/d.tif')
    return root


@pytest.mark.parametrize('serialize', [True, False])
def test_samples_are_sorted_pairs(root, serialize):
    dataset = make(root, sensor='umbra', serialize_data=serialize)
    assert names(dataset) == ['a.tif', 'b.tif', 'c.TIF']
    assert dataset.get_data_info(-1) == {
        'modality_paths': {'rgb': str(root / 'rgb/c.TIF'), 'sar': str(root / 'sar/c.TIF')},
        'img_path': str(root / 'rgb/c.TIF'),
        'sensor': 'umbra',
        'sample_idx': 2,
    }
    assert 'sensor' not in make(root).get_data_info(0)
    assert names(dataset.get_subset([1])) == ['b.tif']
    assert names(make(root, indices=[2, 0])) == ['c.TIF', 'a.tif']
    assert names(make(root, recursive=True)) == ['a.tif', 'b.tif', 'd.tif', 'c.TIF']


def test_names_with_endings_of_their_own(tmp_path):
    for name in ('x', 'y'):
        touch(tmp_path / 'pre' / f'{name}_pre.png', tmp_path / 'post' / f'{name}_post.tif')
    touch(tmp_path / 'pre' / 'x_pre.tif')
    options = dict(
        data_prefix=dict(rgb='pre', sar='post'), file_suffix=dict(rgb='_pre.png', sar='_post.tif')
    )
    dataset = make(tmp_path, **options)
    paths = dataset.get_data_info(1)['modality_paths']
    assert paths == {
        'rgb': str(tmp_path / 'pre/y_pre.png'), 'sar': str(tmp_path / 'post/y_post.tif')
    }  # fmt: skip
    (tmp_path / 'test.txt').write_text('y\n\n')
    assert names(make(tmp_path, ann_file='test.txt', **options)) == ['y_pre.png']


def test_a_list_selects(root):
    (root / 'train.txt').write_text('c\nb.tif\n')
    assert names(make(root, ann_file='train.txt')) == ['b.tif', 'c.TIF']
    (root / 'bad.txt').write_text('b\nz\n')
    with pytest.raises(DatasetNotFoundError, match=r'bad\.txt: line 2: there is no z'):
        make(root, ann_file='bad.txt')
    with pytest.raises(DatasetNotFoundError, match='no such list'):
        make(root, ann_file='gone.txt')
    for kind in ('rgb', 'sar'):
        touch(root / kind / 'c.png')
    with pytest.raises(DatasetNotFoundError, match='line 1: c is more than one file'):
        make(root, ann_file='train.txt')
    (root / 'train.txt').write_text('c.png\n')
    assert names(make(root, ann_file='train.txt')) == ['c.png']


def test_missing_partners(root, monkeypatch):
    warnings = []
    monkeypatch.setattr(
        'mmrsfm.datasets.paired_modality_dataset.print_log', lambda text, **_: warnings.append(text)
    )
    touch(root / 'sar' / 'aa.tif', root / 'rgb' / 'z.tif')
    with pytest.raises(
        DatasetNotFoundError, match=r'sar/aa\.tif: has no rgb of the same name \(2 image.*Expected'
    ):
        make(root)
    skipping = make(root, on_missing='skip')
    assert names(skipping) == ['a.tif', 'b.tif', 'c.TIF']
    assert skipping.num_incomplete == 2
    keeping = make(root, on_missing='keep')
    assert names(keeping) == ['a.tif', 'aa.tif', 'b.tif', 'c.TIF', 'z.tif']
    assert keeping.get_data_info(1)['modality_paths'] == {
        'rgb': None, 'sar': str(root / 'sar/aa.tif')
    }  # fmt: skip
    assert [text.split('; ')[-1] for text in warnings] == [
        'they are left out', 'that modality is missing'
    ]  # fmt: skip
    assert all('2 image(s) have no partner' in text for text in warnings)
    (root / 'list.txt').write_text('a\n')
    assert len(make(root, ann_file='list.txt')) == 1  # what is not asked for is not missed


def test_unusable_folders(root, tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"'dem'.*Expected: one folder a modality"):
        make(root, data_prefix=dict(rgb='rgb', dem='dem'))
    (tmp_path / 'rgb').mkdir()
    (tmp_path / 'sar').mkdir()
    with pytest.raises(DatasetNotFoundError, match='holds no pair'):
        make(tmp_path)
    touch(tmp_path / 'rgb' / 'a\tb.tif')
    with pytest.raises(DatasetNotFoundError, match='a tab or a line break'):
        make(tmp_path)
    for options in ({'on_missing': 'ignore'}, {'data_prefix': {}}, {'file_suffix': {'rgb': 'x'}}):
        with pytest.raises(ConfigError):
            make(root, **options)


def settle(root, seconds=60):
    """Makes folders look as if they had been changed some time ago."""
    for folder in [root, *root.rglob('*')]:
        if folder.is_dir():
            changed = folder.stat().st_mtime - seconds
            os.utime(folder, (changed, changed))


@pytest.fixture
def scans(monkeypatch):
    """Counts how often folders are listed."""
    count = []
    build = pair_index.build_index
    monkeypatch.setattr(pair_index, 'build_index', lambda *args: count.append(1) or build(*args))
    return count


def test_the_index_is_written_once_and_read(root, tmp_path, scans):
    settle(root)
    file = tmp_path / 'elsewhere' / 'index.txt'
    first = make(root, index_file=str(file), recursive=True)
    content = file.read_bytes()
    second = make(root, index_file=str(file), recursive=True)
    assert len(scans) == 1
    assert file.read_bytes() == content
    assert [path.name for path in file.parent.iterdir()] == ['index.txt']
    assert names(first) == names(second)
    assert len(first) == 4


def test_the_index_is_made_again_when_files_change(root, tmp_path, scans):
    settle(root)
    options = dict(index_file=str(tmp_path / 'index.txt'), recursive=True)
    assert len(make(root, **options)) == 4
    for change in ('add', 'rename', 'remove', 'below'):
        if change == 'add':
            touch(root / 'rgb/e.tif', root / 'sar/e.tif')
        elif change == 'rename':
            for kind in ('rgb', 'sar'):
                (root / kind / 'e.tif').rename(root / kind / 'f.tif')
        elif change == 'remove':
            for kind in ('rgb', 'sar'):
                (root / kind / 'f.tif').unlink()
        else:
            touch(root / 'rgb/below/g.tif', root / 'sar/below/g.tif')
        before = len(scans)
        found = names(make(root, **options))
        assert len(scans) == before + 1, change
        assert ('e.tif' in found, 'f.tif' in found, 'g.tif' in found) == (
            change == 'add', change == 'rename', change == 'below'
        )  # fmt: skip
        settle(root, 10)
        make(root, **options)
    before = len(scans)
    make(root, **options)
    assert len(scans) == before
    make(root, index_file=options['index_file'])  # other rules
    assert len(scans) == before + 1


def test_the_index_of_other_folders_is_not_taken(root, tmp_path, scans):
    # Archives give all their folders one time.
    for kind in ('rgb', 'sar'):
        touch(root / 'val' / kind / 'v.tif')
    for folder in root.rglob('*'):
        if folder.is_dir():
            os.utime(folder, (1_600_000_000, 1_600_000_000))
    file = str(tmp_path / 'index.txt')
    assert len(make(root, index_file=file)) == 3
    val = make(root, index_file=file, data_prefix=dict(rgb='val/rgb', sar='val/sar'))
    assert names(val) == ['v.tif']


def test_a_folder_that_has_just_changed_is_not_trusted(root, tmp_path, scans):
    # Within one tick of the file system's clock a second file leaves the time as it is.
    file = str(tmp_path / 'index.txt')
    make(root, index_file=file)
    changed = {kind: (root / kind).stat() for kind in ('rgb', 'sar')}
    touch(root / 'rgb/e.tif', root / 'sar/e.tif')
    for kind, stat in changed.items():
        os.utime(root / kind, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert 'e.tif' in names(make(root, index_file=file))
    assert len(scans) == 2


def test_a_damaged_or_unwritable_index_is_no_harm(root, tmp_path, scans, monkeypatch):
    settle(root)
    file = tmp_path / 'index.txt'
    whole = None
    for content in (b'', b'{}\n', b'\xff\xfe', None, 'cut', 'longer'):
        if content == 'cut':
            file.write_bytes(whole[:-8])
        elif content == 'longer':
            file.write_bytes(whole + b'x\n')
        elif content is not None:
            file.write_bytes(content)
        else:
            file.unlink()
        before = len(scans)
        assert len(make(root, index_file=str(file))) == 3
        assert len(scans) == before + 1, content
        whole = file.read_bytes()
    warnings = []
    monkeypatch.setattr(pair_index, 'print_log', lambda text, **_: warnings.append(text))
    (tmp_path / 'plain').write_text('')
    assert len(make(root, index_file=str(tmp_path / 'plain' / 'index.txt'))) == 3
    assert 'index_file=' in warnings[0]


def test_other_ranks_read_what_the_first_wrote(root, tmp_path, scans, monkeypatch):
    sent = []
    monkeypatch.setattr(pair_index, 'is_distributed', lambda: True)
    monkeypatch.setattr(pair_index, 'broadcast_object_list', sent.append)
    file = str(tmp_path / 'index.txt')
    make(root, index_file=file)
    assert len(scans) == 1
    ((times,),) = sent

    def received(outcome):
        outcome[0] = times

    monkeypatch.setattr(pair_index, 'broadcast_object_list', received)
    monkeypatch.setattr(pair_index, 'is_main_process', lambda: False)
    assert len(make(root, index_file=file)) == 3
    assert len(scans) == 1
    assert len(make(root, index_file=str(tmp_path / 'not_here.txt'))) == 3  # another file system
    assert len(scans) == 2
    assert not (tmp_path / 'not_here.txt').exists()
    touch(root / 'rgb/e.tif', root / 'sar/e.tif')
    times = [times[0] + 1]  # the first process has made its index anew, this disk holds an old one
    assert len(make(root, index_file=file)) == 4
    assert len(scans) == 3

    def failed(outcome):
        outcome[0] = DatasetNotFoundError('no such folder', path='there')

    monkeypatch.setattr(pair_index, 'broadcast_object_list', failed)
    with pytest.raises(DatasetNotFoundError, match='there: no such folder'):
        make(root, index_file=file)


def test_many_names_take_little_memory(tmp_path, monkeypatch):
    keys = [f'place_{number:08d}.tif' for number in range(50_000)]
    index = pair_index.PairIndex(keys, {}, {'rgb': {}, 'sar': {}}, 0, '')
    file = tmp_path / 'index.txt'
    pair_index.write_index(file, [index])
    monkeypatch.setattr(pair_index, 'build_index', lambda *_: index)
    dataset = make(tmp_path)
    assert len(dataset) == 50_000
    assert dataset.data_bytes.nbytes < 25 * 50_000
    assert dataset.get_data_info(49_999)['img_path'].endswith('place_00049999.tif')


def write_pair(folder, name, dtype, seed):
    generator = np.random.default_rng(seed)
    rgb = generator.integers(0, 255, (3, 24, 20)).astype('uint8')
    sar = generator.integers(0, 250 if dtype == 'uint8' else 9000, (1, 24, 20)).astype(dtype)
    write_tif(folder / 'rgb' / name, rgb)
    write_tif(folder / 'sar' / name, sar)


@pytest.fixture
def mars(tmp_path):
    for number in range(2):
        write_pair(tmp_path / 'Umbra_patches', f'u{number}.tif', 'uint8', number)
        write_pair(tmp_path / 'Capella_patches', f'c{number}.tif', 'uint16', 9 + number)
    return tmp_path


def test_mars16m_is_normalised_by_sensor(mars):
    rgb = dict(mean=[87.01, 91.52, 83.51], std=[62.66, 54.58, 53.11])
    sensors = {
        name: {key: [*rgb[key], value] for key, value in sar.items()}
        for name, sar in {
            'umbra': dict(mean=36.42, std=33.89), 'capella': dict(mean=2353.35, std=4327.07)
        }.items()
    }  # fmt: skip
    pipeline = [LOAD, dict(type='mmrsfm.PackInputs')]
    dataset = DATASETS.build(
        dict(
            type='mmrsfm.MaRS16M',
            data_root=str(mars),
            pipeline=pipeline,
            index_file=str(mars / 'i'),
        )
    )
    assert names(dataset) == ['u0.tif', 'u1.tif', 'c0.tif', 'c1.tif']
    addressed = AddressedDataset(dataset)
    items = [addressed[i] for i in (0, 3)]
    inputs = [item['inputs'].double() for item in items]
    preprocessor = MODELS.build(
        dict(
            type='mmrsfm.MultiBandDataPreprocessor', sensors=sensors, scale=1.0,
            band_names=['R', 'G', 'B', 'sar'],
        )
    )  # fmt: skip
    batch = preprocessor(pseudo_collate(items))
    for image, source, sensor in zip(batch['inputs'], inputs, ('umbra', 'capella'), strict=True):
        mean, std = (torch.tensor(sensors[sensor][key])[:, None, None] for key in ('mean', 'std'))
        assert torch.allclose(image.double(), (source - mean) / std, atol=1e-5)
    assert [sample.sensor for sample in batch['data_samples']] == ['umbra', 'capella']


def test_mars16m_of_one_sensor_and_without_its_layout(mars, tmp_path):
    one = DATASETS.build(dict(type='mmrsfm.MaRS16M', data_root=str(mars), sensors=['capella']))
    assert names(one) == ['c0.tif', 'c1.tif']
    assert one.get_data_info(0)['sensor'] == 'capella'
    with pytest.raises(ConfigError, match='sensors are some of'):
        DATASETS.build(dict(type='mmrsfm.MaRS16M', data_root=str(mars), sensors=['iceye']))
    with pytest.raises(ConfigError, match='below those of the sensors, got /else/rgb'):
        DATASETS.build(
            dict(type='mmrsfm.MaRS16M', data_root=str(mars), data_prefix=dict(rgb='/else/rgb'))
        )
    (mars / 'Umbra_patches' / 'sar').rename(mars / 'moved')
    with pytest.raises(DatasetNotFoundError, match=r"'sar'.*Expected: \{Umbra,Capella\}_patches"):
        DATASETS.build(dict(type='mmrsfm.MaRS16M', data_root=str(mars)))
