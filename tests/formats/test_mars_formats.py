# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Data of several sensors is written as described, and the sensors see the same objects."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from tests import formats
from tests.formats import multimodal, sar_detection

pytestmark = pytest.mark.filterwarnings('ignore', category=NotGeoreferencedWarning)


def read(path: Path) -> np.ndarray:
    """(H, W) or (H, W, C)."""
    with rasterio.open(path) as source:
        image = source.read()
    return image[0] if len(image) == 1 else image.transpose(1, 2, 0)


def same_objects(rgb: np.ndarray, radar: np.ndarray) -> bool:
    """Whether radar is strong where something bright stands."""
    stands = rgb[..., :3].min(-1) > 115
    radar = radar if radar.ndim == 2 else radar[..., 0]
    known = np.isfinite(radar) & (radar != 0)
    return np.median(radar[stands & known]) > 1.3 * np.median(radar[~stands & known])


def test_mars_16m(tmp_path):
    root = formats.make_mars_16m(tmp_path)
    for sensor, number_type in (('Umbra', np.uint8), ('Capella', np.uint16)):
        folder = root / f'{sensor}_patches'
        names = [{file.name for file in (folder / part).iterdir()} for part in ('rgb', 'sar')]
        assert len(names[0] & names[1]) == 3
        assert len(names[0] - names[1]) == 2, 'one without radar, one that is no image'
        assert len(names[1] - names[0]) == 1
        empty = []
        for name in sorted(names[0] & names[1]):
            rgb, radar = (read(folder / part / name) for part in ('rgb', 'sar'))
            assert (rgb.dtype, rgb.shape) == (np.uint8, (96, 96, 3))
            assert (radar.dtype, radar.shape) == (number_type, (96, 96))
            assert same_objects(rgb, radar)
            empty.append((radar == 0).mean())
        assert empty[:2] == [0, 0]
        assert 0.1 < empty[2] < 0.3
    assert radar.max() > 8 * np.median(radar[radar > 0]), 'heavy tail'


def test_spacenet6_and_scenes(tmp_path):
    root = formats.make_spacenet6(tmp_path / 'a')
    optical, radar = (sorted((root / part).iterdir()) for part in ('PS-RGB', 'SAR-Intensity'))
    outside = [np.isnan(read(file)).mean() for file in radar]
    assert 0.3 < outside[0] < 0.5
    assert outside[1] < 0.1
    assert read(radar[0]).shape == (96, 96, 4)
    assert [a.name.replace('PS-RGB', 'SAR-Intensity') for a in optical] == [b.name for b in radar]
    root = formats.make_scene_pairs(tmp_path / 'b')
    grids = []
    for file in sorted((root / 'optical').iterdir()):
        with rasterio.open(file) as a, rasterio.open(root / 'sar' / file.name) as b:
            grids.append((a.crs == b.crs, a.transform == b.transform, b.dtypes[0], b.nodata))
    assert grids == [(False, False, 'uint16', 0), (True, False, 'uint8', None)]


@pytest.mark.parametrize('name', ['guso', 'scene_labels', 'scene_multilabels'])
def test_pairs(name, tmp_path):
    root = formats.MAKERS[name](tmp_path)
    optical, other = ('opt', 'sar') if name == 'guso' else ('rgb', 'sar')
    seen = 0
    for file in sorted(root.rglob(f'*/{optical}/**/*.*')):
        parts = list(file.parts)
        parts[len(parts) - 1 - parts[::-1].index(optical)] = other
        second = Path(*parts)
        if not second.exists():
            assert name == 'scene_labels'
            continue
        first, second = read(file), read(second)
        assert first.shape == (*second.shape, 3)
        if (first.min(-1) > 115).any():
            assert same_objects(first, second)
            seen += 1
    assert seen or name == 'scene_multilabels'


def test_earthmiss(tmp_path):
    root = formats.make_earthmiss(tmp_path)
    cities = {city for part in multimodal.EARTHMISS_CITIES.values() for city in part}
    assert {path.name for path in root.iterdir()} == cities
    values = set()
    for file in root.glob('*/masks/*.tif'):
        stem = file.stem.removesuffix('_mask')
        images = file.parent.parent / 'images'
        rgb = Image.open(images / 'RGB' / f'{stem}.tif')
        radar = Image.open(images / 'SAR' / f'{stem}_SAR.tif')
        assert rgb.info['compression'] == radar.info['compression'] == 'tiff_lzw'
        mask = read(file)
        assert mask.dtype == np.float32
        assert rgb.size == radar.size == mask.shape
        assert (rgb.mode, radar.mode) == ('RGB', 'L')
        values |= set(np.unique(mask).tolist())
    assert values == set(range(9))
    assert len([*root.rglob('*(1)*')]) == 1


@pytest.mark.parametrize('name', ['bright', 'dfc25'])
def test_bright(name, tmp_path):
    root = formats.MAKERS[name](tmp_path, count=2)
    lists = sorted(root.rglob('*.txt'))
    assert len(lists) == 3
    for file in lists:
        part = root
        if name == 'dfc25':
            part = root / ('val' if file.name.startswith('val') else 'train')
        for stem in file.read_text().split():
            before = read(part / 'pre-event' / f'{stem}_pre_disaster.tif')
            after = read(part / 'post-event' / f'{stem}_post_disaster.tif')
            assert before.shape == (*after.shape, 3)
            assert before.dtype == after.dtype == np.uint8
            target = part / 'target' / f'{stem}_building_damage.tif'
            assert target.exists() == (part.name != 'val')
            if target.exists():
                damage = read(target)
                assert set(np.unique(damage)) == {0, 1, 2, 3}
                powers = [np.median(after[damage == value]) for value in (1, 2, 3)]
                assert powers[0] > powers[1] > powers[2]


def test_heights_and_roads(tmp_path):
    root = formats.make_dfc23(tmp_path / 'a')
    missing = []
    for file in sorted((root / 'train' / 'dsm').iterdir()):
        metres, radar = read(file), read(root / 'train' / 'sar' / file.name)
        assert metres.dtype == radar.dtype == np.float32
        missing.append(np.isnan(metres).any())
        assert np.nanmin(metres) == 0
        assert 3 <= np.nanmax(metres) <= 183.2
        assert 0.1 < radar.mean() < 1 < radar.max()
    assert missing == [False, False, True]
    root = formats.make_deepglobe(tmp_path / 'b')
    ids = [(root / f'{part}.txt').read_text().split() for part in ('train', 'val')]
    assert len(set(ids[0]) | set(ids[1])) == 6
    for name in ids[0] + ids[1]:
        mask = Image.open(root / 'train' / f'{name}_mask.png')
        assert mask.mode == 'RGB'
        assert set(np.unique(mask)) == {1, 254}
        assert (root / 'train' / f'{name}_sat.jpg').exists()
    assert not [*(root / 'valid').glob('*_mask.png')]


@pytest.mark.parametrize('name', ['sardet', 'ubcv2'])
def test_boxes_and_polygons_lie_on_objects(name, tmp_path):
    root = formats.MAKERS[name](tmp_path)
    modes, suffixes = set(), set()
    for file in sorted(root.glob('[aA]nnotations/*.json')):
        content = json.loads(file.read_text())
        names = [entry['name'] for entry in content['categories']]
        assert names == (list(sar_detection.SARDET) if name == 'sardet' else ['building'])
        split = next(part for part in ('train', 'val', 'test') if part in file.stem)
        folder = root / ('JPEGImages' if name == 'sardet' else '') / split
        for entry in content['images']:
            if name == 'sardet':
                picture = Image.open(folder / entry['file_name'])
                modes.add(picture.mode)
                suffixes.add(Path(entry['file_name']).suffix)
                radar = np.array(picture.convert('L'))
            else:
                merged = read(folder / 'merge' / entry['file_name'])
                assert merged.dtype == np.float32
                assert np.array_equal(merged[..., :3], read(folder / 'rgb' / entry['file_name']))
                radar = read(folder / 'sar' / entry['file_name'])
                assert np.array_equal(merged[..., 3], radar)
            assert radar.shape == (entry['height'], entry['width'])
            for one in content['annotations']:
                if one['image_id'] == entry['id']:
                    left, top, width, height = one['bbox']
                    x, y = left + width // 2, top + height // 2
                    around = radar[y - 2 : y + 3, x - 2 : x + 3]
                    assert around.mean() > 2 * np.median(radar)
                    assert bool(one['segmentation']) == (name == 'ubcv2')
        annotated = {one['image_id'] for one in content['annotations']}
        assert len(annotated) == len(content['images']) - 1
    assert name == 'ubcv2' or (modes, suffixes) == ({'L', 'RGB'}, {'.jpg', '.png'})
