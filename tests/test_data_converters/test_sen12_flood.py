# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""SEN12-FLOOD from the download to samples: alignment, pairs, resuming, failures."""

import csv
import json
import sys

import numpy as np
import pytest
import rasterio

from data_converters import sen12_flood
from mmrsfm.datasets import SEN12Flood
from mmrsfm.datasets.transforms import LoadImagePair, PackImagePair, RandomFlip
from mmrsfm.errors import (
    BandMismatchError,
    ConfigError,
    CorruptImageError,
    DataError,
    DatasetNotFoundError,
    ImageNotFoundError,
    ImageSizeError,
)
from mmrsfm.randomness import seeded
from tests import formats


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    return formats.SOURCES['sen12_flood'](tmp_path_factory.mktemp('source'))


@pytest.fixture(scope='module')
def prepared(source, tmp_path_factory):
    target = tmp_path_factory.mktemp('prepared')
    splits = {
        name: sen12_flood.read_folders(source / f'sen12_{name}.csv') for name in ('train', 'test')
    }
    counts = sen12_flood.prepare(source, target, splits, size=128, quiet=True)
    return target, counts


def rows(path):
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def test_pairs_and_what_is_left_out(prepared):
    target, counts = prepared
    # The first sequence: two dry dates, a flooded one (another is half empty); the second: four
    # dry ones; the third has no optical image; the fourth, of the test: two dry, two flooded.
    assert counts['train'] == {'sequences': 2, 'pairs': 3 + 6, 'flood': 2, 'no flood': 1 + 6}
    assert counts['test'] == {'sequences': 1, 'pairs': 5, 'flood': 4, 'no flood': 1}
    left_out = rows(target / 'skipped.csv')
    assert counts['skipped'] == {'entries': len(left_out)} == {'entries': 2}
    assert 'has no optical image' in left_out[1]['why']
    assert 'is missing' in left_out[0]['why']
    listed = rows(target / 'pairs_train.csv')
    assert len({frozenset((row['first'], row['second'])) for row in listed}) == len(listed)


def test_images_lie_on_the_optical_grid(source, prepared):
    target, _ = prepared
    (optical,) = sorted((source / '0001').glob('S2*B04.tif'))[:1]
    row = next(row for row in rows(target / 'pairs_train.csv') if row['label'] == '1')
    flooded = target / 'aligned' / row['sequence'] / f'{row["second"]}.tif'
    with rasterio.open(optical) as grid, rasterio.open(flooded) as image:
        assert (image.crs, image.transform, image.shape) == (grid.crs, grid.transform, grid.shape)
        assert image.descriptions == ('VH', 'VV')
        after = image.read()
    with rasterio.open(flooded.with_name(f'{row["first"]}.tif')) as image:
        before = image.read()
    # The made-up dates differ by speckle and by the water, where images are aligned.
    assert (after == 0).mean() < 0.02
    darker = np.median(after, axis=0) < 0.1 * np.median(before, axis=0)
    inside = darker[48:80, 48:80].mean()
    assert inside > 0.5 > darker[:8].mean()
    truth = formats.sen12_flood._power(0, 0, 128, flooded=True, date=2)
    assert np.median(np.abs(after[1] - truth[1]) / truth[1]) < 0.02


def test_a_second_run_keeps_what_is_there(source, prepared, monkeypatch):
    target, counts = prepared
    calls = []
    warp = sen12_flood._warp
    monkeypatch.setattr(
        sen12_flood, '_warp', lambda *args: (calls.append(args[0].name), warp(*args))[1]
    )
    splits = {name: sorted({row['sequence'] for row in rows(target / f'pairs_{name}.csv')})
              for name in ('train', 'test')}  # fmt: skip
    lists = (target / 'pairs_train.csv').read_bytes()
    again = sen12_flood.prepare(source, target, splits, size=128, quiet=True)
    assert not calls
    assert again['train'] == counts['train']
    assert (target / 'pairs_train.csv').read_bytes() == lists
    one = next((target / 'aligned' / '0001').iterdir())
    one.unlink()
    sen12_flood.prepare(source, target, splits, size=128, quiet=True)
    assert len(calls) == 2 and one.exists()


def test_rules_of_pairs():
    images = [
        sen12_flood.Image(name, date, flooded)
        for name, date, flooded in (
            ('a', '2019-01-09', False), ('b', '2019-01-01', False), ('c', '2019-01-05', True),
            ('d', '2019-02-01', True),
        )
    ]  # fmt: skip
    zeros = dict.fromkeys('abcd', (0.0, 0.1))
    pairs = sen12_flood.pairs_of(images, zeros)
    assert pairs == [('a', 'b', 0), ('a', 'c', 1), ('a', 'd', 1), ('b', 'c', 1), ('b', 'd', 1)]
    pairs = sen12_flood.pairs_of(images, zeros, later=True)
    assert pairs == [('a', 'd', 1), ('b', 'a', 0), ('b', 'c', 1), ('b', 'd', 1)]
    zeros['a'] = (0.25, 0.0)
    assert len(sen12_flood.pairs_of(images, zeros)) == 2
    assert len(sen12_flood.pairs_of(images, zeros, max_zeros=0.3)) == 5


def test_command_and_failures(source, tmp_path, monkeypatch, capsys):
    argv = ['sen12_flood', str(source), str(tmp_path / 'out'), '--size', '128']
    monkeypatch.setattr(sys, 'argv', argv)
    sen12_flood.main()
    printed = capsys.readouterr().out
    assert 'train: ' in printed and ' flood, ' in printed and 'no flood' in printed
    # Optical images of 128 pixels are not 512.
    counts = sen12_flood.prepare(source, tmp_path / 'none', quiet=True)
    assert counts['train']['pairs'] == counts['test']['pairs'] == 0
    with pytest.raises(ConfigError, match='is in train and in test'):
        sen12_flood.prepare(source, tmp_path, {'train': ['0001'], 'test': ['0001']})
    with pytest.raises(DataError, match='names 7, which is no sequence'):
        sen12_flood.prepare(source, tmp_path, {'train': ['7']})
    with pytest.raises(ConfigError, match='resampling is one of'):
        sen12_flood.prepare(source, tmp_path, resampling='best')
    with pytest.raises(DatasetNotFoundError, match='no such list of radar images'):
        sen12_flood.read_sequences(tmp_path)
    (tmp_path / 'S1list.json').write_text(json.dumps({'0': {'1': {'date': 'x'}}}))
    with pytest.raises(DataError, match='not the list of SEN12-FLOOD'):
        sen12_flood.read_sequences(tmp_path)
    (tmp_path / 'titled.csv').write_text('folder\n0001\n0014\n')
    assert sen12_flood.read_folders(tmp_path / 'titled.csv') == ['0001', '0014']


def test_samples_of_both_layouts(prepared, tmp_path):
    target, _ = prepared
    published = formats.make_sen12_flood(tmp_path / 'published', size=32)
    datasets = {
        'lists': SEN12Flood(data_root=str(target), ann_file='pairs_train.csv'),
        'arrays': SEN12Flood(data_root=str(published), data_prefix='train'),
    }
    for name, dataset in datasets.items():
        assert dataset.metainfo['classes'] == ('no flood', 'flood')
        assert {dataset[i]['gt_label'] for i in range(len(dataset))} == {0, 1}
        assert len({dataset[i]['sample_name'] for i in range(len(dataset))}) == len(dataset)
        sample = LoadImagePair(band_names=['VH', 'VV'])(dataset[0])
        size = 128 if name == 'lists' else 32
        assert sample['img'].shape == (size, size, 4)
        assert sample['band_names'] == ('VH', 'VV')
        assert sample['img'].dtype == np.float32
    raw = np.load(datasets['arrays'][0]['img_path'])
    assert np.array_equal(sample['img'][..., 2], raw[1, 0])
    # No sequence is in two parts.
    parts = [
        {one['sequence'] for one in SEN12Flood(
            data_root=str(published), data_prefix='train', split=split, val_fraction=0.34,
        )}
        for split in ('train', 'val')
    ]  # fmt: skip
    assert [len(part) for part in parts] == [2, 1] and not parts[0] & parts[1]


def test_a_pair_is_flipped_alike_and_taken_apart(tmp_path):
    pair = np.random.default_rng(0).random((2, 2, 6, 6), dtype=np.float32) + 1
    pair[1, 0, 0, 0] = 0
    np.save(tmp_path / 'a.npy', pair)
    load = LoadImagePair(band_names=['VH', 'VV'], nodata=0)
    with seeded(1):
        sample = load({'img_path': str(tmp_path / 'a.npy'), 'gt_label': 1})
        sample = RandomFlip(prob=1.0, direction='horizontal')(sample)
    packed = PackImagePair()(sample)
    first, second = (one.numpy() for one in packed['inputs'])
    assert np.array_equal(first, pair[0, ..., ::-1])
    assert np.isnan(second[0, 0, -1]) and np.isnan(second).sum() == 1
    assert np.array_equal(second[1], pair[1, 1, :, ::-1])
    assert packed['data_samples'].gt_label.item() == 1
    assert packed['data_samples'].band_names == ('VH', 'VV')


def test_damaged_data(prepared, tmp_path):
    target, _ = prepared
    with pytest.raises(DatasetNotFoundError, match='no such folder'):
        SEN12Flood(data_root=str(tmp_path), ann_file='pairs_train.csv')
    with pytest.raises(ConfigError, match='split is one of'):
        SEN12Flood(data_root=str(target), split='test')
    with pytest.raises(DatasetNotFoundError, match='leaves no sequence'):
        SEN12Flood(data_root=str(target), ann_file='pairs_test.csv', split='val', val_fraction=0.1)
    (tmp_path / 'aligned').mkdir()
    for text, message in (
        ('a,b\n', 'its first line is'),
        ('sequence,first,second,label\n1,a,b,2\n', 'line 2'),
        ('sequence,first,second,label\n1,a,b,1\n', '2 images of .* are missing'),
        ('sequence,first,second,label\n', 'holds no pair'),
    ):
        (tmp_path / 'list.csv').write_text(text)
        with pytest.raises(DataError, match=message):
            SEN12Flood(data_root=str(tmp_path), ann_file='list.csv')
    (tmp_path / 'aligned' / 'x__y__1.npy').write_bytes(b'')
    with pytest.raises(DataError, match='is not named'):
        SEN12Flood(data_root=str(tmp_path))
    for array, error in ((np.zeros((2, 2, 4)), ImageSizeError), (None, CorruptImageError)):
        path = tmp_path / 'broken.npy'
        path.write_bytes(b'no array') if array is None else np.save(path, array)
        with pytest.raises(error):
            LoadImagePair()({'img_path': str(path)})
    with pytest.raises(ImageNotFoundError):
        LoadImagePair()({'img_path': str(tmp_path / 'none.npy')})
    np.save(path, np.zeros((2, 3, 4, 4), np.float32))
    with pytest.raises(BandMismatchError):
        LoadImagePair(band_names=['VH', 'VV'])({'img_path': str(path)})
    with pytest.raises(ConfigError, match='takes one array'):
        PackImagePair()({'img': np.zeros((4, 4, 3), np.float32)})
    with pytest.raises(ConfigError, match='LoadImagePair'):
        LoadImagePair(bend_names=['VH'])
    images = [np.full((3, 8, 8), value, np.float32) for value in (1, 2)]
    for number, image in enumerate((images[0][:2], images[1])):
        with rasterio.open(
            tmp_path / f'{number}.tif', 'w', driver='GTiff', count=len(image), height=8, width=8,
            dtype='float32', crs='EPSG:32631', transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
        ) as out:  # fmt: skip
            out.write(image)
    with pytest.raises(BandMismatchError, match='its partner'):
        LoadImagePair()({'pair_paths': [str(tmp_path / '0.tif'), str(tmp_path / '1.tif')]})
    broken = tmp_path / 'S2_a_B04.tif'
    broken.write_bytes(b'no image')
    with pytest.raises(CorruptImageError, match='cannot be opened'):
        sen12_flood.align_sequence(tmp_path, tmp_path / 'out', [], size=None)
