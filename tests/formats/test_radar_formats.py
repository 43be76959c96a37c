# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""BigEarthNet and SEN12-FLOOD are written as described."""

import csv
import json
import re

import numpy as np
import pytest
import rasterio

from tests import formats
from tests.formats import bigearthnet


def read(path):
    with rasterio.open(path) as source:
        return source.read(1), source.crs.to_string(), source.transform


def check_patch(folder, name, optical):
    bands = bigearthnet.S2_METRES if optical else dict.fromkeys(('VH', 'VV'), 10)
    for band, metres in bands.items():
        image, crs, transform = read(folder / f'{name}_{band}.tif')
        assert image.shape == (1200 // metres, 1200 // metres)
        assert image.dtype == (np.uint16 if optical else np.float32)
        assert transform.a == metres
        assert crs.startswith('EPSG:326')
        if not optical:
            assert -45 < image.mean() < 0


def test_bigearthnet_v2(tmp_path):
    root = formats.make_bigearthnet_v2(tmp_path)
    with (root / 'metadata.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:5] == ['patch_id', 'labels', 'split', 'country', 's1_name']
    assert [row['split'] for row in rows] == 2 * ['train'] + 2 * ['validation'] + 2 * ['test']
    for row in rows:
        assert len(row['s1_name'].split('_')) == 8
        folder = root / 'BigEarthNet-S1' / '_'.join(row['s1_name'].split('_')[:5])
        check_patch(folder / row['s1_name'], row['s1_name'], optical=False)
        folder = root / 'BigEarthNet-S2' / '_'.join(row['patch_id'].split('_')[:6])
        check_patch(folder / row['patch_id'], row['patch_id'], optical=True)
        names = re.findall(r"'([^']*)'", row['labels'])
        assert names == sorted(set(names))
        assert set(names) <= set(bigearthnet.OLD_TO_NEW.values())
        assert "', '" not in row['labels']
    with (root / 'benv2_train_val.csv').open(newline='') as file:
        assert [len(row) for row in csv.reader(file)] == 5 * [5]


def test_bigearthnet_v1(tmp_path):
    zarr = pytest.importorskip('zarr')
    root = formats.make_bigearthnet_v1(tmp_path)
    formats.make_bigearthnet_v1_zarr(tmp_path)
    group = zarr.open_group(str(root / 'benv1.zarr'), mode='r')
    seen = set()
    for split in ('train', 'val', 'test'):
        for line in (root / f'{split}.csv').read_text().splitlines():
            patch, radar = line.split(',')
            check_patch(root / 'BigEarthNet-v1.0' / patch, patch, optical=True)
            folder = root / 'BigEarthNet-S1-v1.0' / radar
            check_patch(folder, radar, optical=False)
            content = json.loads((folder / f'{radar}_labels_metadata.json').read_text())
            assert content['corresponding_s2_patch'] == patch
            one = group[f'sentinel1/{radar}']
            assert one.attrs['labels'] == content['labels']
            assert np.array_equal(one['VV'][:], read(folder / f'{radar}_VV.tif')[0])
            seen |= set(content['labels'])
    assert 'Airports' in seen
    assert seen <= set(bigearthnet.OLD_TO_NEW)


def test_sen12_flood_source(tmp_path):
    root = formats.SOURCES['sen12_flood'](tmp_path)
    entries = json.loads((root / 'S1list.json').read_text())
    powers = {False: [], True: []}
    for number, sequence in entries.items():
        images = {key: one for key, one in sequence.items() if key.isdigit()}
        assert sequence['count'] == len(images)
        floods = [one['FLOODING'] for one in images.values()]
        assert floods == sorted(floods)
        assert any(floods) == (number != '1')
        folder = root / sequence['folder']
        optical = sorted(folder.glob('S2*B04.tif'))
        assert bool(optical) == (number != '2')
        for one in images.values():
            path = folder / f'{one["filename"]}_corrected_VH.tif'
            if one['filename'].endswith('absent'):
                assert not path.exists()
                continue
            image, crs, _ = read(path)
            assert (crs, image.dtype) == ('EPSG:4326', np.float32)
            assert image.min() == 0
            assert read(str(path).replace('_VH', '_VV'))[0].mean() > image.mean()
            assert one['FULL-DATA-COVERAGE'] == ((image == 0).mean() < 0.25)
            powers[one['FLOODING']].append(image[image.shape[0] // 2, image.shape[1] // 2])
        for path in optical:
            assert read(path)[0].shape == (128, 128)
    names = [(root / f'sen12_{part}.csv').read_text().split() for part in ('train', 'test')]
    assert sum(map(len, names)) == len(entries)


def test_sen12_flood_pairs_and_masks(tmp_path):
    root = formats.make_sen12_flood(tmp_path / 'a')
    for path in root.rglob('*.npy'):
        label = int(path.stem.split('__')[-1])
        pair = np.load(path)
        assert (pair.shape, pair.dtype) == ((2, 2, 128, 128), np.float32)
        assert pair[0].min() > 0
        assert (pair[1] == 0).mean() < 0.25
        darker = np.median(pair[1] / pair[0], axis=(1, 2)), (pair[1] < 0.1 * pair[0]).mean()
        assert (darker[1] > 0.1) == bool(label)
    root = formats.make_flood_masks(tmp_path / 'b')
    for path in root.rglob('masks/*.tif'):
        mask = read(path)[0]
        with rasterio.open(str(path).replace('masks', 'images')) as source:
            image = source.read()
        assert set(np.unique(mask)) <= {0, 1, 255}
        assert np.isnan(image[:, mask == 255]).all()
        assert np.median(image[:, mask == 1]) < np.median(image[:, mask == 0]) - 10
