# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""From the files of a scene to labelled tiles: grids, labels, strips, and what can go wrong."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from data_converters.cut_tiles import cut_tiles
from data_converters.spectral_index_labels import label_scene, spectral_index_labels
from data_converters.stack_bands import find_bands, stack_bands
from mmrsfm.errors import BandMismatchError, ConfigError, CorruptImageError, ImageSizeError
from mmrsfm.utils.strips import make_strips

REPO = Path(__file__).resolve().parents[2]


def write(path, array, left=500000.0, top=4000000.0, step=10.0, crs='EPSG:32618', **options):
    array = np.atleast_3d(array.T).T if array.ndim == 2 else array
    profile = dict(driver='GTiff', count=array.shape[0], dtype=array.dtype, crs=crs)
    transform = from_origin(left, top, step, step)
    with rasterio.open(
        path, 'w', height=array.shape[1], width=array.shape[2], transform=transform, **profile
    ) as out:
        out.write(array)
        for key, value in options.items():
            setattr(out, key, value)
    return path


@pytest.fixture
def scene(tmp_path):
    rng = np.random.default_rng(0)
    array = rng.integers(1, 4000, (4, 320, 96), dtype=np.uint16)
    return write(tmp_path / 'scene.tif', array, descriptions=('B03', 'B04', 'B08', 'B11'))


class TestStackBands:
    def test_one_grid_of_the_finest_over_the_common_area(self, tmp_path):
        fine = np.arange(40 * 40, dtype=np.uint16).reshape(40, 40)
        coarse = np.full((19, 21), 7, dtype=np.uint16)
        # Another origin and another extent, as the 20 m bands of real scenes have.
        write(tmp_path / 's2_B02.tif', fine)
        write(tmp_path / 's2_B11.tif', coarse, left=499990.0, step=20.0)
        bands = find_bands(str(tmp_path / 's2_B*.tif'))
        assert list(bands) == ['B02', 'B11']
        stack_bands(bands, tmp_path / 'out.tif', quiet=True)
        with rasterio.open(tmp_path / 'out.tif') as out:
            assert out.descriptions == ('B02', 'B11')
            assert out.dtypes == ('uint16', 'uint16')
            assert out.transform == from_origin(500000.0, 4000000.0, 10.0, 10.0)
            assert out.shape == (38, 40)
            # The finest band is copied, bit by bit.
            np.testing.assert_array_equal(out.read(1), fine[:38])
            assert (out.read(2) == 7).all()
        assert not list(tmp_path.glob('*.partial'))

    def test_sensor_order(self, tmp_path):
        for name in ('B11', 'B8A', 'B08', 'B09', 'B01'):
            (tmp_path / f'T18_{name}.jp2').touch()
        found = find_bands(str(tmp_path / '*.jp2'))
        assert list(found) == ['B01', 'B08', 'B8A', 'B09', 'B11']

    def test_the_same_band_twice(self, tmp_path):
        (tmp_path / 'a_B02.jp2').touch()
        (tmp_path / 'b_B02.jp2').touch()
        with pytest.raises(BandMismatchError, match='B02'):
            find_bands(str(tmp_path / '*.jp2'))

    def test_nothing_found(self, tmp_path):
        with pytest.raises(BandMismatchError, match='no file name has a band'):
            find_bands(str(tmp_path / '*.jp2'))

    def test_truncated_band_is_named(self, tmp_path):
        whole = write(tmp_path / 'a_B02.tif', np.ones((64, 64), np.uint16))
        (tmp_path / 'a_B03.tif').write_bytes(whole.read_bytes()[:-4000])
        with pytest.raises(CorruptImageError, match='a_B03') as caught:
            stack_bands(find_bands(str(tmp_path / '*.tif')), tmp_path / 'out.tif', quiet=True)
        assert caught.value.band == 'B03'
        assert not (tmp_path / 'out.tif').exists()

    def test_other_projection(self, tmp_path):
        write(tmp_path / 'a_B02.tif', np.ones((8, 8), np.uint16))
        write(tmp_path / 'a_B03.tif', np.ones((8, 8), np.uint16), crs='EPSG:32619')
        with pytest.raises(BandMismatchError, match='EPSG:32619'):
            stack_bands(find_bands(str(tmp_path / '*.tif')), tmp_path / 'o.tif', quiet=True)

    def test_nodata_stays_declared(self, tmp_path):
        array = np.full((16, 16), 0.5, np.float32)
        array[:4] = -9999
        for name in ('B02', 'B03'):
            write(tmp_path / f'a_{name}.tif', array, nodata=-9999)
        bands = find_bands(str(tmp_path / '*.tif'))
        with rasterio.open(stack_bands(bands, tmp_path / 'o.tif', quiet=True)) as out:
            assert out.nodata == -9999
            np.testing.assert_array_equal(out.read(2), array)
        write(tmp_path / 'a_B03.tif', array, nodata=0)
        with pytest.raises(BandMismatchError, match=r"no-data values differ.*'B03': 0\.0"):
            stack_bands(bands, tmp_path / 'o.tif', quiet=True)

    def test_no_overlap(self, tmp_path):
        write(tmp_path / 'a_B02.tif', np.ones((8, 8), np.uint16))
        write(tmp_path / 'a_B03.tif', np.ones((8, 8), np.uint16), left=900000.0)
        with pytest.raises(BandMismatchError, match='do not overlap'):
            stack_bands(find_bands(str(tmp_path / '*.tif')), tmp_path / 'o.tif', quiet=True)


class TestLabels:
    def test_each_class_by_its_index(self):
        #                 water  plant  bare   other  no data
        green = np.array([[1000, 500, 500, 1000, 0]])
        red = np.array([[800, 300, 900, 1000, 500]])
        nir = np.array([[200, 4000, 1000, 1400, 500]])
        swir = np.array([[100, 1500, 2500, 1000, 500]])
        labels = spectral_index_labels(green, red, nir, swir, dark_percentile=None)
        assert labels.tolist() == [[0, 1, 2, 3, 255]]

    def test_written_on_the_grid_of_the_scene(self, scene, tmp_path):
        labels = label_scene(scene, tmp_path / 'labels.tif')
        with rasterio.open(scene) as source, rasterio.open(tmp_path / 'labels.tif') as out:
            assert out.crs == source.crs and out.transform == source.transform
            assert out.nodata == 255
            np.testing.assert_array_equal(out.read(1), labels)
            assert out.colormap(1)[0][:3] == (30, 90, 200)

    def test_missing_band_is_named(self, tmp_path):
        path = write(tmp_path / 's.tif', np.ones((2, 8, 8), np.uint16), descriptions=('B03', 'B04'))
        with pytest.raises(BandMismatchError, match='band B08: needed as nir'):
            label_scene(path, tmp_path / 'labels.tif')


class TestCutTiles:
    def test_strips_do_not_touch_and_hold_whole_tiles(self):
        strips = make_strips(1946, 128, 64, {'train': 0.6, 'val': 0.15, 'test': 0.25})
        assert [strip.name for strip in strips] == ['train', 'val', 'test']
        for strip in strips:
            assert (strip.bottom - strip.top) % 128 == 0 and strip.bottom > strip.top
        for above, below in itertools.pairwise(strips):
            assert below.top - above.bottom == 64
        assert strips[-1].bottom <= 1946

    def test_small_scene_still_gives_every_split_a_tile(self):
        strips = make_strips(3 * 32 + 20, 32, 10, {'train': 0.9, 'val': 0.05, 'test': 0.05})
        assert [strip.bottom - strip.top for strip in strips] == [32, 32, 32]

    def test_too_small(self):
        with pytest.raises(ConfigError, match='too few'):
            make_strips(100, 64, 0, {'train': 0.5, 'test': 0.5})

    def test_tiles_are_the_pixels_at_their_place(self, scene, tmp_path):
        labels = tmp_path / 'labels.tif'
        label_scene(scene, labels)
        counts = cut_tiles(scene, tmp_path / 'out', labels, size=32, gap=16, quiet=True)
        assert counts == {'train': 15, 'val': 3, 'test': 6}
        with rasterio.open(scene) as source, rasterio.open(labels) as label_source:
            for kind, whole in (('images', source), ('labels', label_source)):
                tiles = sorted((tmp_path / 'out' / kind).rglob('*.tif'))
                assert len(tiles) == 24
                for path in tiles:
                    row, column = map(int, path.stem.split('_'))
                    with rasterio.open(path) as tile:
                        assert tile.crs == whole.crs
                        assert tile.descriptions == whole.descriptions
                        assert whole.index(*tile.xy(0, 0)) == (row, column)
                        expected = whole.read()[:, row : row + 32, column : column + 32]
                        np.testing.assert_array_equal(tile.read(), expected)
        with rasterio.open(tmp_path / 'out' / 'strips' / 'test.tif') as strip:
            assert strip.shape == (64, 96)

    def test_goes_on_where_it_stopped(self, scene, tmp_path):
        cut_tiles(scene, tmp_path / 'out', size=32, gap=0, quiet=True)
        tiles = sorted((tmp_path / 'out').rglob('*.tif'))
        before = {path: path.stat().st_mtime_ns for path in tiles}
        tiles[3].unlink()
        cut_tiles(scene, tmp_path / 'out', size=32, gap=0, quiet=True)
        after = {path: path.stat().st_mtime_ns for path in tiles}
        assert [path for path in tiles if before[path] != after[path]] == [tiles[3]]

    def test_label_of_another_size(self, scene, tmp_path):
        labels = write(tmp_path / 'labels.tif', np.zeros((10, 10), np.uint8))
        with pytest.raises(ImageSizeError, match=r'labels.tif: is \(10, 10\)'):
            cut_tiles(scene, tmp_path / 'out', labels, size=32, quiet=True)


@pytest.mark.parametrize('name', ['stack_bands', 'spectral_index_labels', 'cut_tiles'])
def test_commands_explain_themselves_and_fail_in_one_sentence(name, tmp_path):
    script = str(REPO / 'data_converters' / f'{name}.py')
    run = subprocess.run([sys.executable, script, '--help'], capture_output=True, text=True)
    assert run.returncode == 0 and 'usage' in run.stdout
    small = write(tmp_path / 'small.tif', np.ones((1, 8, 8), np.uint16))
    source = str(tmp_path / 'none_*.tif') if name == 'stack_bands' else str(small)
    run = subprocess.run(
        [sys.executable, script, source, str(tmp_path / 'out')], capture_output=True, text=True
    )
    assert run.returncode == 1
    assert run.stderr.startswith('error: ') and 'Traceback' not in run.stderr


class TestCutAgain:
    def test_a_stopped_cut_goes_on(self, scene, tmp_path):
        first = cut_tiles(scene, tmp_path / 'd', size=32, gap=16, quiet=True)
        gone = sorted((tmp_path / 'd/images/train').glob('*.tif'))[0]
        gone.unlink()
        assert cut_tiles(scene, tmp_path / 'd', size=32, gap=16, quiet=True) == first
        assert gone.exists()

    @pytest.mark.parametrize('other', [dict(size=16), dict(size=32, stride=64), dict(gap=0)])
    def test_another_cut_does_not_mix_with_it(self, scene, tmp_path, other):
        cut_tiles(scene, tmp_path / 'd', size=32, gap=16, quiet=True)
        with pytest.raises(ConfigError, match='another size, stride, gap or scene'):
            cut_tiles(scene, tmp_path / 'd', **{'size': 32, 'gap': 16, **other}, quiet=True)

    def test_another_scene_is_refused_or_lies_beside_it(self, scene, tmp_path):
        """Its tiles have the same names: it would be left out without a word."""
        with rasterio.open(scene) as source:
            values, transform, profile = source.read(), source.transform, source.profile
        shifted = tmp_path / 'shifted.tif'
        profile.update(transform=transform @ transform.translation(1000, 0))
        with rasterio.open(shifted, 'w', **profile) as target:
            target.write(values)
        other = write(tmp_path / 'other.tif', values[:, ::-1])
        options = dict(size=32, gap=16, quiet=True)
        first = cut_tiles(scene, tmp_path / 'd', **options)
        for path in (shifted, other):
            with pytest.raises(ConfigError, match=rf'not of .*{path.stem}\.tif.*--prefix'):
                cut_tiles(path, tmp_path / 'd', **options)
        for path in (shifted, other):
            cut_tiles(path, tmp_path / 'e', prefix=path.stem, **options)
        assert cut_tiles(other, tmp_path / 'e', prefix='other', **options) == {
            split: 2 * count for split, count in first.items()
        }
        with rasterio.open(tmp_path / 'e/images/train/other_00000_00032.tif') as tile:
            np.testing.assert_array_equal(tile.read(), values[:, ::-1][:, :32, 32:64])
        assert (tmp_path / 'e/strips/shifted_test.tif').is_file()
        with pytest.raises(ConfigError, match='another size, stride, gap or scene'):
            cut_tiles(scene, tmp_path / 'e', **options)
        with pytest.raises(ConfigError, match='another size, stride, gap or scene'):
            cut_tiles(other, tmp_path / 'e', size=32, stride=64, prefix='other', quiet=True)

    def test_a_scene_that_is_not_there(self, tmp_path):
        with pytest.raises(CorruptImageError, match=r'nothing\.tif'):
            cut_tiles(tmp_path / 'nothing.tif', tmp_path / 'd')
