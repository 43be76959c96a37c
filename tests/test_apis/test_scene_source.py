# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Reading scenes: bands by name, a second scene on another grid, and what is refused."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.warp import transform as transform_points

from mmrsfm.apis.scene.bands import choose_bands
from mmrsfm.apis.scene.grid import Tile
from mmrsfm.apis.scene.pipeline import InputSpec
from mmrsfm.apis.scene.source import SceneSource
from mmrsfm.errors import (
    BandMismatchError,
    ConfigError,
    CorruptImageError,
    DataError,
    ImageNotFoundError,
    ImageSizeError,
)
from tests.test_datasets.imagery import TRANSFORM, numbers, write_tif

PAIR = (InputSpec('first'), InputSpec('second'))
NAMED = InputSpec('image', ('B04', 'B03', 'B02'), 3)
RGB = InputSpec('image', None, 3, eight_bit=True)


class TestBands:
    @pytest.mark.parametrize(
        ('names', 'options', 'found'),
        [
            (('B2', 'B3', 'B4', 'B8'), {}, [2, 1, 0]),
            (None, {'file_bands': ('B02', 'B03', 'B04', 'B08')}, [2, 1, 0]),
            (None, {'bands': {'B04': 1, 'B03': 2, 'B02': 4}}, [0, 1, 3]),
            (('r', 'g', 'b', 'B02'), {'bands': {'B04': 'r', 'B03': 'g'}}, [0, 1, 3]),
            (None, {'bands': [4, 3, 2]}, [3, 2, 1]),
        ],
    )
    def test_by_name_and_by_number(self, names, options, found):
        assert choose_bands(NAMED, 4, names, 'a.tif', **options) == (found, NAMED.bands)

    @pytest.mark.parametrize(
        ('spec', 'count', 'names', 'options', 'message'),
        [
            (NAMED, 3, None, {}, r'a\.tif: band B04: asked for by name, .*trained on'),
            (NAMED, 2, ('B04', 'B03'), {}, r'band B02: not among .*trained on'),
            (NAMED, 3, None, {'bands': [1, 2]}, r'2 band\(s\) were chosen, .*takes 3'),
            (NAMED, 3, None, {'bands': [1, 2, 9]}, r'band 9: the file has 3'),
            (NAMED, 3, None, {'file_bands': ['B04']}, '3 band.*1 names were given'),
            (RGB, 13, None, {}, r'13 band\(s\), the model takes 3'),
        ],
    )
    def test_what_is_missing_is_named(self, spec, count, names, options, message):
        with pytest.raises(BandMismatchError, match=message):
            choose_bands(spec, count, names, 'a.tif', **options)

    def test_what_a_file_states_wins_over_what_is_known_of_the_dataset(self, tmp_path):
        values = np.stack([np.full((8, 8), n, 'uint8') for n in (4, 3, 2)])
        known = {'known_names': ('B02', 'B03', 'B04')}
        named = write_tif(tmp_path / 'a.tif', values, names=['B04', 'B03', 'B02'])
        plain = write_tif(tmp_path / 'b.tif', values)
        for scene, options, found in (
            (named, known, [4, 3, 2]),
            (plain, known, [2, 3, 4]),
            (named, {'band_names': ('B02', 'B03', 'B04'), **known}, [2, 3, 4]),
        ):
            with SceneSource((scene,), (NAMED,), **options) as source:
                assert source.read(Tile(0, 0, 0, 8, 8)).arrays[0][0, 0].tolist() == found
        with pytest.raises(BandMismatchError, match=r'3 band\(s\), but 2 names were given'):
            SceneSource((named,), (NAMED,), band_names=('B02', 'B03'))

    def test_the_opacity_of_a_picture_is_no_band(self):
        assert choose_bands(RGB, 4, ('R', 'G', 'B', 'A'), 'a.png')[0] == [0, 1, 2]


class TestTwoScenes:
    def test_a_second_scene_of_another_system_lies_on_the_first(self, tmp_path):
        # What a pixel holds is its place: the reprojection can be checked at every pixel.
        first = write_tif(tmp_path / 'a.tif', np.ones((1, 60, 50), 'uint8'))
        lon, lat = transform_points('EPSG:32618', 'EPSG:4326', [500150], [4199750])
        step = 0.00005
        place = Affine(step, 0, lon[0], 0, -step, lat[0])
        cols, rows = np.meshgrid(np.arange(150) + 0.5, np.arange(120) + 0.5)
        east, south = (lon[0] + cols * step).ravel(), (lat[0] - rows * step).ravel()
        xs, ys = transform_points('EPSG:4326', 'EPSG:32618', east, south)
        values = np.stack([np.array(xs) - 500000, 4200000 - np.array(ys)]).reshape(2, 120, 150)
        with rasterio.open(
            tmp_path / 'b.tif', 'w', driver='GTiff', count=2, height=120, width=150,
            dtype='float32', crs='EPSG:4326', transform=place,
        ) as out:  # fmt: skip
            out.write(values.astype('f4'))
        with SceneSource((first, tmp_path / 'b.tif'), PAIR) as source:
            item = source.read(Tile(0, 0, 0, 64, 64))
        inside = item.valid[:60, :50]
        assert not inside[:20].any() and not inside[:, :10].any() and inside[30:55, 20:45].all()
        assert not item.valid[60:].any() and not item.valid[:, 50:].any()
        cols, rows = np.meshgrid(np.arange(50) * 10 + 5, np.arange(60) * 10 + 5)
        core = np.zeros((60, 50), bool)
        core[28:58, 18:48] = True
        found = item.arrays[1][:60, :50]
        np.testing.assert_allclose(found[core], np.stack([cols, rows], -1)[core], atol=1.0)

    def test_pairs_that_are_none(self, tmp_path):
        first = write_tif(tmp_path / 'a.tif', numbers())
        away = tmp_path / 'away.tif'
        with rasterio.open(
            away, 'w', driver='GTiff', count=4, height=9, width=9, dtype='uint8', crs='EPSG:4326',
            transform=Affine(0.1, 0, 10, 0, -0.1, 50),
        ):  # fmt: skip
            pass
        with pytest.raises(DataError, match=r'away\.tif: does not overlap the first scene'):
            SceneSource((first, away), PAIR)
        plain = write_tif(tmp_path / 'plain.tif', numbers(height=9), geo=False)
        with pytest.raises(ImageSizeError, match='no CRS to reproject by'):
            SceneSource((first, plain), PAIR)
        same = write_tif(tmp_path / 'same.tif', numbers(), geo=False)
        with SceneSource((first, same), PAIR) as source:
            assert source.read(Tile(0, 0, 0, 8, 8)).valid.all()
        local = tmp_path / 'local.tif'
        with rasterio.open(
            local, 'w', driver='GTiff', count=4, height=source.height, width=source.width,
            dtype='uint8', transform=TRANSFORM @ Affine.translation(3, 0),
        ):  # fmt: skip
            pass
        with pytest.raises(DataError, match=r'lies elsewhere .* has no CRS'):
            SceneSource((first, local), PAIR)
        with pytest.raises(ConfigError, match=r'takes 2 scene\(s\)'):
            SceneSource((first,), PAIR)
        with pytest.raises(ConfigError, match=r'takes 2 scene\(s\)'):
            SceneSource((first, first, first), PAIR)

    def test_a_modality_may_be_missing(self, tmp_path):
        first = write_tif(tmp_path / 'a.tif', numbers())
        inputs = (InputSpec('rgb', None, 4), InputSpec('sar', None, 1, optional=True))
        with SceneSource((first,), inputs) as source:
            item = source.read(Tile(0, 0, 0, 8, 8))
        assert item.arrays[1] is None and item.valid.all()
        assert item.rasters()[1] is None


class TestBadInput:
    def test_files_that_are_none(self, tmp_path):
        with pytest.raises(ImageNotFoundError, match='no such scene'):
            SceneSource((tmp_path / 'a.tif',), (RGB,))
        (tmp_path / 'b.tif').write_text('no image')
        with pytest.raises(CorruptImageError, match=r'b\.tif: cannot be opened'):
            SceneSource((tmp_path / 'b.tif',), (RGB,))

    def test_values_that_are_not_those_of_pictures(self, tmp_path):
        array = numbers(3, 8, 8)
        scene = write_tif(tmp_path / 'a.tif', array, nodata=0)
        with pytest.raises(DataError, match=r'holds uint16, .*8 bits.*stretch'):
            SceneSource((scene,), (RGB,))
        with SceneSource((scene,), (RGB,), stretch=(0, 100)) as source:
            item = source.read(Tile(0, 0, 0, 8, 8))
        assert item.arrays[0].dtype == np.uint8
        expected = np.clip(array * 2.55, 0, 255).transpose(1, 2, 0)
        np.testing.assert_allclose(item.arrays[0], expected, atol=0.501)
        assert item.valid.all()

    def test_complex_values(self, tmp_path):
        scene = write_tif(tmp_path / 'a.tif', np.ones((1, 8, 8), 'complex64'))
        with pytest.raises(BandMismatchError, match='complex'):
            SceneSource((scene,), (InputSpec('image'),))

    def test_a_mask_band_is_no_data(self, tmp_path):
        path = tmp_path / 'a.tif'
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            write_tif(path, numbers(3, 16, 16, 'uint8'))
            with rasterio.open(path, 'r+') as file:
                mask = np.full((16, 16), 255, 'uint8')
                mask[:5] = 0
                file.write_mask(mask)
        with SceneSource((path,), (RGB,)) as source:
            assert source.transform == TRANSFORM
            item = source.read(Tile(0, 0, 0, 16, 16))
        np.testing.assert_array_equal(item.valid, mask > 0)

    @pytest.mark.parametrize(
        'options',
        [{'on_error': 'ignore'}, {'resampling': 'magic'}, {'stretch': (9, 9)}],
        ids=['policy', 'resampling', 'stretch'],
    )
    def test_options_that_are_none(self, tmp_path, options):
        scene = write_tif(tmp_path / 'a.tif', numbers(3))
        with pytest.raises(ConfigError):
            SceneSource((scene,), (RGB,), **options)
