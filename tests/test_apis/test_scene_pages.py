# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pictures and pages of results show the scene where it is, in its colours."""

import base64
import json
import re

import cv2
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image

from mmrsfm.apis.scene.area import Region
from mmrsfm.apis.scene.objects import SceneObjects
from mmrsfm.apis.scene.pages import read_overview, write_pages
from mmrsfm.errors import CorruptImageError

pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
TRANSFORM = Affine(0.5, 0, 4e5, 0, -0.5, 4e6)


def write(path, values, nodata=None, names=None, **options):
    with rasterio.open(
        path, 'w', driver='GTiff', count=len(values), height=values.shape[1],
        width=values.shape[2], dtype=values.dtype.name, nodata=nodata, crs='EPSG:32618',
        transform=TRANSFORM, **options,
    ) as out:  # fmt: skip
        out.write(values)
        for number, name in enumerate(names or (), 1):
            out.set_band_description(number, name)
    return path


def quadrants(height=200, width=300):
    """RGB: red, green, blue and white."""
    values = np.zeros((3, height, width), np.uint8)
    values[0, : height // 2, : width // 2] = 250
    values[1, : height // 2, width // 2 :] = 250
    values[2, height // 2 :, : width // 2] = 250
    values[:, height // 2 :, width // 2 :] = 250
    return values


def page_of(path):
    data = re.search(r'id="data">(.*?)</script>', path.read_text(), re.S).group(1)
    return json.loads(data)


def embedded(source):
    content = base64.b64decode(source.split(',', 1)[1])
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def test_overviews(tmp_path):
    whole = Region(0, 0, 200, 300)
    with rasterio.open(write(tmp_path / 'a.tif', quadrants())) as file:
        full = read_overview(file, whole)
        assert np.array_equal(full, quadrants().transpose(1, 2, 0))
        small = read_overview(file, whole, max_side=30)
        assert small.shape == (20, 30, 3)
        assert small[5, 5].tolist() == [250, 0, 0] and small[15, 5].tolist() == [0, 0, 250]
        part = read_overview(file, Region(90, 140, 20, 20))
        assert part[0, 0].tolist() == [250, 0, 0] and part[19, 19].tolist() == [250] * 3
    # Thirteen bands by name, of another type, with padding; blue and red are not in this order.
    many = np.full((13, 200, 300), 500, np.uint16)
    rng = np.random.default_rng(0)
    many[[1, 2, 3]] = quadrants()[::-1].astype(np.uint16) * 20 + rng.integers(
        1, 9, (3, 200, 300), dtype=np.uint16
    )
    many[:, :, :30] = 0
    names = [f'B{n:02d}' for n in range(1, 14)]
    for stated, given in ((names, None), (None, names)):
        with rasterio.open(write(tmp_path / 'b.tif', many, names=stated)) as file:
            picture = read_overview(file, whole, given)
            assert picture[50, 80].argmax() == 0 and picture[150, 80].argmax() == 2
            assert picture[:, :30].max() == 0 and picture[150, 200].min() > 200
    one = np.linspace(0.1, 1, 60000, dtype=np.float32).reshape(1, 200, 300)
    one[0, 0, 0] = np.nan
    with rasterio.open(write(tmp_path / 'c.tif', one)) as file:
        picture = read_overview(file, whole)
        assert picture[0, 0].tolist() == [0, 0, 0] and picture[199, 299].tolist() == [255] * 3
        assert np.ptp(picture.astype(int), axis=2).max() == 0


def test_what_cannot_be_read_is_black(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(1, 255, (3, 256, 256), dtype=np.uint8)
    path = write(tmp_path / 'a.tif', values, tiled=True, blockxsize=64, blockysize=64,
                 compress='deflate')  # fmt: skip
    content = bytearray(path.read_bytes())
    content[-30000:-10000] = bytes(20000)
    path.write_bytes(content)
    with rasterio.open(path) as file:
        picture = read_overview(file, Region(0, 0, 256, 256))
    assert np.array_equal(picture[:64], values.transpose(1, 2, 0)[:64])
    assert picture[192:].max(axis=(1, 2)).min() == 0
    (tmp_path / 'none.tif').write_bytes(b'II*')
    with pytest.raises(CorruptImageError):
        write_pages(tmp_path, 'x', [tmp_path / 'none.tif'], Region(0, 0, 9, 9), None)


def test_objects(tmp_path):
    scene = write(tmp_path / 'a.tif', quadrants())
    boxes = np.array([[60, 60, 100, 90], [120, 110, 160, 150]], np.float64)
    objects = SceneObjects('horizontal', boxes, np.array([0.9, 0.5], np.float32),
                           np.array([1, 0]), shapely.box(*boxes.T), np.zeros(2, bool))  # fmt: skip
    region = Region(50, 40, 120, 160)
    files = write_pages(tmp_path / 'out', 'a', [scene], region, ['p', 'q'],
                        [(1, 2, 3), (255, 0, 255)], objects, facts={'Tiles': 4})  # fmt: skip
    assert sorted(path.name for path in files.values()) == ['a.html', 'a.png']
    picture = np.asarray(Image.open(files['png']))
    assert picture.shape == (120, 160, 3)
    # The outline of the first box, moved into the region: from (20, 10) on.
    assert picture[25, 19:21, 2].min() > 150 and picture[25, 30].tolist() == [250, 0, 0]
    data = page_of(files['html'])
    assert data['size'] == [160, 120] and data['objects']['labels'] == [1, 0]
    corners = np.reshape(data['objects']['rings'][0], (-1, 2)) / 10
    assert corners.min(axis=0).tolist() == [20, 10] and corners.max(axis=0).tolist() == [60, 40]
    assert data['transform'] == [0.5, 0, 4e5 + 20, 0, -0.5, 4e6 - 25]
    assert data['crs'] == 'EPSG:32618'
    # Without objects there is a page all the same.
    files = write_pages(tmp_path / 'none', 'a', [scene], region, ['p', 'q'], None, objects[:0])
    assert page_of(files['html'])['objects']['labels'] == []


def test_maps(tmp_path):
    scene = write(tmp_path / 'a.tif', quadrants())
    later = write(tmp_path / 'b.tif', quadrants()[::-1].copy())
    classes = np.full((1, 200, 300), 255, np.uint8)
    classes[0, :100], classes[0, 100:150] = 0, 2
    result = write(tmp_path / 'map.tif', classes, nodata=255)
    whole = Region(0, 0, 200, 300)
    files = write_pages(tmp_path / 'out', 'a', [scene, later], whole, ['p', 'q', 'r'],
                        result=result)  # fmt: skip
    data = page_of(files['html'])
    assert [one['name'] for one in data['images']] == ['a.tif', 'b.tif']
    assert np.array_equal(embedded(data['map']['source']), classes[0])
    assert data['map']['shares'] == ['66.7%', '0.0%', '33.3%']
    assert Image.open(files['png']).size[0] > 1000
    # Without names of classes; and numbers that are no classes.
    files = write_pages(tmp_path / 'out', 'b', [scene], whole, None, result=result)
    assert page_of(files['html'])['classes'] == ['class 0', 'class 1', 'class 2']
    heights = np.linspace(0, 30, 60000, dtype=np.float32).reshape(1, 200, 300)
    heights[0, :10] = np.nan
    result = write(tmp_path / 'heights.tif', heights, nodata=float('nan'))
    data = page_of(write_pages(tmp_path / 'out', 'c', [scene], whole, None, result=result)['html'])
    assert [one['name'] for one in data['images']] == ['a.tif', 'result'] and 'map' not in data
    assert embedded(data['images'][1]['source'])[:5].max() < 12
