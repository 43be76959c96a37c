# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from mmrsfm.apis.geotiff import write_class_map
from mmrsfm.errors import ConfigError, ImageSizeError


@pytest.fixture
def source(tmp_path):
    # Rotated and south-up: nothing may be assumed of a transform.
    transform = Affine(3.0, 1.0, 1000.0, -1.0, 4.0, 2000.0)
    path = tmp_path / 'image.tif'
    with rasterio.open(
        path, 'w', driver='GTiff', count=3, dtype='uint8', height=20, width=30,
        crs='EPSG:32633', transform=transform,
    ):  # fmt: skip
        pass
    return path


def test_same_grid_as_its_source(source, tmp_path):
    classes = np.random.default_rng(0).integers(0, 3, (20, 30)).astype(np.uint8)
    path = write_class_map(
        tmp_path / 'maps' / 'a.tif', classes, source, ['a', 'b', 'c'], [[1, 2, 3]] * 3
    )
    with rasterio.open(path) as out, rasterio.open(source) as image:
        assert out.crs == image.crs and out.transform == image.transform
        assert out.nodata == 255 and out.tags()['classes'] == 'a,b,c'
        assert out.colormap(1)[2] == (1, 2, 3, 255)
        np.testing.assert_array_equal(out.read(1), classes)


def test_another_size(source, tmp_path):
    with pytest.raises(ImageSizeError, match=r'the map is \(5, 5\)'):
        write_class_map(tmp_path / 'a.tif', np.zeros((5, 5), np.uint8), source)
    assert not (tmp_path / 'a.tif').exists()


def test_numbers_that_do_not_fit(source, tmp_path):
    with pytest.raises(ConfigError, match='holds 0 to 255, not 0 to 256'):
        write_class_map(tmp_path / 'a.tif', np.array([[0, 256] * 15] * 20), source)
    with pytest.raises(ValueError):  # a palette that is none: nothing is left behind
        write_class_map(tmp_path / 'a.tif', np.zeros((20, 30)), source, palette=[['red']])
    assert not list(tmp_path.glob('a.tif*'))
