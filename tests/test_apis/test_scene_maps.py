# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Maps of scenes: independent of tiles, on the grid of the scene, whole after a kill."""

import json
import shutil
import signal
import threading
import warnings
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from affine import Affine

from mmrsfm.apis import SceneInferencer
from mmrsfm.apis.scene.area import Region
from mmrsfm.apis.scene.blending import plan_blocks, profile
from mmrsfm.apis.scene.grid import TileGrid
from mmrsfm.apis.scene.scene_run import agree
from mmrsfm.errors import ConfigError, CorruptImageError, DataError, DiskSpaceError
from tests.processes import FORK
from tests.ranks import run_ranks
from tests.test_apis.scenes import ToyModel, picture, read
from tests.test_datasets.imagery import TRANSFORM, write_tif

warnings.filterwarnings('ignore', category=rasterio.errors.NotGeoreferencedWarning)


def infer(scene, out, model=None, overlap=None, memory=1 << 20, batch_size=2, **options):
    model = model or ToyModel()
    inferencer = SceneInferencer.of(model, overlap, batch_size, memory)
    scenes = scene if isinstance(scene, tuple) else (scene,)
    return inferencer(*scenes, out_dir=out, **options)


def truth(model, *arrays):
    logits = model.logits([array.transpose(1, 2, 0) for array in arrays])
    return logits.numpy() if model.task == 'height' else logits.argmax(0).numpy()[None]


class TestTiles:
    @pytest.mark.parametrize('overlap', [0, 5, 16, 40])
    @pytest.mark.parametrize('length', [30, 64, 65, 128, 300])
    def test_every_pixel_has_weight(self, length, overlap):
        grid = TileGrid(length, 64, 64, overlap)
        total = np.zeros(max(length, 64))
        for at in grid.rows:
            weights = profile(64, overlap, at == 0, at + 64 >= length)
            assert 0 <= weights.min() <= weights.max() == 1
            total[at : at + 64] += weights
        assert (total[:length] > 0).all()
        assert grid.rows[-1] + 64 == max(length, 64)

    @pytest.mark.parametrize('align', [1, 4, 16])
    @pytest.mark.parametrize('size', [30, 64, 100, 130, 301])
    def test_a_region_smaller_than_a_tile_lies_in_a_tile_inside_of_the_scene(self, size, align):
        scene = Region(0, 0, size, size)
        for row in range(0, size - 10, align):
            wide = Region(row, row, 10, 10).widened(64, scene, align)
            assert wide.row == wide.col and wide.row % align == 0
            assert wide.row >= 0 and wide.row + wide.height <= size
            assert wide.row <= row and wide.row + wide.height >= row + 10
            assert wide.height >= min(64, size)

    def test_overlaps_and_sizes_that_are_none(self):
        with pytest.raises(ConfigError, match='overlap of 64'):
            TileGrid(100, 100, 64, 64)
        with pytest.raises(ConfigError, match='no multiple of 5'):
            TileGrid(100, 100, 64, 0, align=5)

    @pytest.mark.parametrize(('channels', 'size'), [(1, 500), (6, 20000), (40, 3000)])
    def test_blocks_cover_the_map_and_keep_to_their_memory(self, channels, size):
        memory = 256 << 20
        blocks = plan_blocks(size, size, channels, 512, 384, 256, memory)
        held = [4 * (channels + 2) * (one.region.height + 512) * one.region.width for one in blocks]
        assert max(held) <= memory
        assert sum(one.region.height * one.region.width for one in blocks) == size**2
        assert all(one.region.row % 256 == one.region.col % 256 == 0 for one in blocks)


class TestIndependenceOfTiles:
    @pytest.mark.parametrize('task', ['segmentation', 'height'])
    def test_a_pixelwise_model_gives_what_it_gives_for_the_whole_scene(self, tmp_path, task):
        array = picture(400, 330)
        scene = write_tif(tmp_path / 'a.tif', array)
        wanted = truth(ToyModel(task), array)
        for tile, overlap in ((128, None), (256, 50), (512, 0), (1024, None)):
            model = ToyModel(task, tile)
            # Little memory: several panels and blocks.
            result = infer(scene, tmp_path / str(tile), model, overlap, memory=4 << 20)
            np.testing.assert_array_equal(read(result.outputs['map']), wanted)

    def test_with_context_the_result_converges_with_the_overlap_and_is_reached(self, tmp_path):
        array = picture(200, 180)
        scene = write_tif(tmp_path / 'a.tif', array)
        wanted = truth(ToyModel(reach=8), array)
        wrong = []
        for overlap in (0, 16, 32):
            result = infer(scene, tmp_path / str(overlap), ToyModel(reach=8), overlap)
            wrong.append((read(result.outputs['map']) != wanted).sum())
        assert wrong[0] > wrong[1] > wrong[2] == 0

    def test_probabilities_and_one_channel(self, tmp_path):
        array = picture(90, 100)
        array[:, 20:30] = 0
        scene = write_tif(tmp_path / 'a.tif', array, nodata=0)
        model = ToyModel()
        result = infer(scene, tmp_path / 'out', model, probabilities=True)
        found = read(result.outputs['probabilities'])
        logits = model.logits([array.transpose(1, 2, 0)])
        valid = (array != 0).any(0)
        np.testing.assert_allclose(found[:, valid], logits.softmax(0).numpy()[:, valid], atol=1e-6)
        assert np.isnan(found[:, ~valid]).all() and (~valid).any()
        with rasterio.open(result.outputs['probabilities']) as file:
            assert file.descriptions == ('low', 'middle', 'high')


def rotated():
    return Affine.translation(5e5, 4.2e6) @ Affine.rotation(30) @ Affine.scale(10, -7)


class TestGrids:
    @pytest.mark.parametrize(
        ('bands', 'dtype', 'transform'),
        [
            (3, 'uint8', TRANSFORM),
            (1, 'uint16', TRANSFORM),
            (13, 'uint16', rotated()),
            (4, 'float32', Affine(10, 0, 5e5, 0, 10, 4.2e6)),  # south up
            (2, 'int16', None),
        ],
        ids=['8-bit', 'one-band', '13-bands-rotated', 'south-up', 'no-crs'],
    )
    def test_crs_transform_and_values(self, tmp_path, bands, dtype, transform):
        array = picture(100, 75, bands, dtype)
        scene = tmp_path / 'scene.tif'
        georeference = {} if transform is None else {'crs': 'EPSG:32618', 'transform': transform}
        with rasterio.open(
            scene, 'w', driver='GTiff', count=bands, height=100, width=75, dtype=dtype,
            **georeference,
        ) as out:  # fmt: skip
            out.write(array)
        result = infer(scene, tmp_path / 'out')
        np.testing.assert_array_equal(read(result.outputs['map']), truth(ToyModel(), array))
        with rasterio.open(result.outputs['map']) as file, rasterio.open(scene) as source:
            assert file.crs == source.crs
            assert file.transform == source.transform
            assert file.nodata == 255
            assert file.colormap(1)[255] == (0, 0, 0, 0)
            assert file.is_tiled and file.compression.name == 'deflate'
            assert file.tags()['classes'] == 'low,middle,high'
        # By a reader of its own: the tags of GeoTIFF as they are stored.
        pages = [tifffile.TiffFile(path).pages[0] for path in (scene, result.outputs['map'])]
        stored = [page.geotiff_tags if transform is not None else None for page in pages]
        if transform is not None:
            keys = ('ModelTransformation', 'ModelPixelScale', 'ModelTiepoint')
            geo = [{k: tags[k] for k in keys if k in tags} for tags in stored]
            assert geo[0]
            for key, values in geo[0].items():
                np.testing.assert_array_equal(values, geo[1][key])
            assert stored[0]['ProjectedCSTypeGeoKey'] == stored[1]['ProjectedCSTypeGeoKey']
        assert (result.info['crs'] is None) == (transform is None)

    def test_a_scene_smaller_than_a_tile(self, tmp_path):
        array = picture(20, 33)
        result = infer(write_tif(tmp_path / 'a.tif', array), tmp_path / 'out')
        np.testing.assert_array_equal(read(result.outputs['map']), truth(ToyModel(), array))

    def test_pixels_without_data_and_tiles_without_any(self, tmp_path):
        array = picture(200, 150, 2, 'float32')
        array[:, :70, :] = np.nan
        array[0, 100:120] = -1
        array[:, 150:160] = -1
        scene = write_tif(tmp_path / 'a.tif', array, nodata=-1)
        model = ToyModel()
        result = infer(scene, tmp_path / 'out', model, overlap=0)
        found = read(result.outputs['map'])[0]
        empty = np.zeros((200, 150), bool)
        empty[:70] = empty[150:160] = True  # one band is enough elsewhere
        np.testing.assert_array_equal(found == 255, empty)
        assert result.info['empty_tiles'] == 3 and result.info['tiles'] == 9

    def test_an_area_of_interest_is_the_same_part_of_the_whole_map(self, tmp_path):
        array = picture(300, 260)
        scene = write_tif(tmp_path / 'a.tif', array)
        wanted = truth(ToyModel(reach=4), array)[0]
        bounds = (TRANSFORM.c + 500, TRANSFORM.f - 2100, TRANSFORM.c + 1505, TRANSFORM.f - 1000)
        result = infer(scene, tmp_path / 'one', ToyModel(reach=4), 16, aoi=bounds)
        with rasterio.open(result.outputs['map']) as file:
            assert file.shape == (110, 101)
            assert file.transform == TRANSFORM @ Affine.translation(50, 100)
            np.testing.assert_array_equal(file.read(1), wanted[100:210, 50:151])
        triangle = [[500500, 4198000], [501500, 4198000], [501500, 4199000], [500500, 4198000]]
        content = {
            'type': 'FeatureCollection',
            'crs': {'type': 'name', 'properties': {'name': 'EPSG:32618'}},
            'features': [
                {'type': 'Feature', 'geometry': {'type': 'Polygon', 'coordinates': [triangle]}}
            ],
        }
        (tmp_path / 'aoi.geojson').write_text(json.dumps(content))
        result = infer(scene, tmp_path / 'two', ToyModel(), 16, aoi=tmp_path / 'aoi.geojson')
        found = read(result.outputs['map'])[0]
        assert found.shape == (100, 100)
        assert abs((found != 255).mean() - 0.5) < 0.01
        inside = found != 255
        np.testing.assert_array_equal(
            found[inside], truth(ToyModel(), array)[0][100:200, 50:150][inside]
        )

    def test_features_are_on_a_grid_coarser_by_their_stride(self, tmp_path):
        array = picture(102, 75)
        model = ToyModel('features', 32)
        result = infer(write_tif(tmp_path / 'a.tif', array), tmp_path / 'out', model, 8)
        with rasterio.open(result.outputs['map']) as file:
            assert file.shape == (26, 19) and file.count == 3
            assert file.transform == TRANSFORM @ Affine.scale(4)
            whole = model.logits([array.transpose(1, 2, 0)])[:, :100, :72].reshape(3, 25, 4, 18, 4)
            np.testing.assert_allclose(file.read()[:, :25, :18], whole.mean((2, 4)), atol=1e-5)

    def test_classes_of_cells(self, tmp_path):
        array = picture(100, 64)
        scene = write_tif(tmp_path / 'a.tif', array)
        model = ToyModel('classification', 32)
        result = infer(scene, tmp_path / 'out', model)
        cells = json.loads(result.outputs['geojson'].read_text())['features']
        assert len(cells) == 8
        scores = [cell['properties']['score_low'] for cell in cells]
        first = model.logits([array[:, :32, :32].transpose(1, 2, 0)]).mean((1, 2)).softmax(0)
        assert scores[0] == pytest.approx(float(first[0]), abs=1e-5)
        import pyogrio

        meta, _, geometry, _ = pyogrio.raw.read(result.outputs['gpkg'])
        assert meta['crs'] == 'EPSG:32618' and len(geometry) == 8


class TestReliability:
    def test_a_killed_run_goes_on_and_loses_at_most_a_block(self, tmp_path):
        array = picture(600, 300)
        scene = write_tif(tmp_path / 'a.tif', array)
        wanted = truth(ToyModel(reach=4), array)
        model = ToyModel(reach=4, fail_after=50, kill=True)
        process = FORK.Process(target=infer, args=(scene, tmp_path / 'out', model, 16))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert not (tmp_path / 'out/a.tif').exists()
        parts = len(list((tmp_path / 'out/.a.parts').glob('block_*.npz')))
        assert parts > 0
        (tmp_path / 'out/.a.parts/.block_000099.npz.1.incomplete').write_bytes(b'half')
        again = ToyModel(reach=4)
        result = infer(scene, tmp_path / 'out', again, 16)
        np.testing.assert_array_equal(read(result.outputs['map']), wanted)
        fresh = ToyModel(reach=4)
        infer(scene, tmp_path / 'fresh', fresh, 16)
        assert len(again.seen) < len(fresh.seen)
        assert not (tmp_path / 'out/.a.parts').exists()

    def test_a_finished_scene_is_not_done_again_and_never_mixed(self, tmp_path):
        scene = write_tif(tmp_path / 'a.tif', picture(100, 100))
        infer(scene, tmp_path / 'out')
        model = ToyModel()
        result = infer(scene, tmp_path / 'out', model)
        assert model.seen == [] and result.outputs['map'].exists()
        with pytest.raises(ConfigError, match='run with other settings'):
            infer(scene, tmp_path / 'out', ToyModel(reach=2))
        infer(scene, tmp_path / 'out', ToyModel(reach=2), overwrite=True)
        with pytest.raises(RuntimeError, match='killed'):
            infer(scene, tmp_path / 'half', ToyModel(fail_after=2))
        with pytest.raises(ConfigError, match='parts of a run with other settings'):
            infer(scene, tmp_path / 'half', ToyModel(), overlap=3)
        (tmp_path / 'other').mkdir()
        shutil.copy(scene, tmp_path / 'other/a.tif')
        with pytest.raises(ConfigError, match=r'a\.tif is there, and nothing says what of'):
            infer(scene, tmp_path / 'other')

    def test_blocks_that_cannot_be_decoded(self, tmp_path):
        array = picture(256, 256)
        scene = write_tif(
            tmp_path / 'a.tif', array, tiled=True, blockxsize=64, blockysize=64,
            compress='deflate', interleave='pixel',
        )  # fmt: skip
        with tifffile.TiffFile(scene) as file:
            page = file.pages[0]
            at, length = page.dataoffsets[5], page.databytecounts[5]  # row 1, column 1 of blocks
        with open(scene, 'r+b') as file:
            file.seek(at)
            file.write(b'\xff' * length)
        with pytest.raises(CorruptImageError, match=r'a\.tif: cannot be decoded at rows'):
            infer(scene, tmp_path / 'out', ToyModel(tile_size=96))
        result = infer(scene, tmp_path / 'skip', ToyModel(tile_size=96), on_error='skip')
        found = read(result.outputs['map'])[0]
        bad = np.zeros((256, 256), bool)
        bad[64:128, 64:128] = True
        np.testing.assert_array_equal(found == 255, bad)
        np.testing.assert_array_equal(found[~bad], truth(ToyModel(), array)[0][~bad])
        (note,) = result.info['unreadable']
        assert (note['row'], note['col'], note['height'], note['width']) == (64, 64, 64, 64)

    def test_a_scene_is_never_replaced_by_its_map(self, tmp_path):
        scene = write_tif(tmp_path / 'a.tif', picture(40, 40))
        before = Path(scene).read_bytes()
        with pytest.raises(ConfigError, match=r'a\.tif is a scene that is read'):
            infer(scene, tmp_path, overwrite=True)
        shown = write_tif(tmp_path / 'b.png', picture(40, 40))  # the page has a picture b.png
        with pytest.raises(ConfigError, match=r'b\.png is a scene that is read'):
            infer(shown, tmp_path, page=True)
        assert Path(scene).read_bytes() == before
        infer(scene, tmp_path, name='map_of_a')

    def test_what_was_asked_for_later_and_what_is_left_of_before(self, tmp_path):
        scene = write_tif(tmp_path / 'a.tif', picture(40, 40))
        infer(scene, tmp_path / 'out')
        model = ToyModel()
        result = infer(scene, tmp_path / 'out', model, page=True)
        assert model.seen == [] and result.outputs['html'].exists()
        assert json.loads(result.outputs['report'].read_text())['outputs']['html'] == 'a.html'
        infer(scene, tmp_path / 'out', probabilities=True, overwrite=True)
        assert (tmp_path / 'out/a_probabilities.tif').exists()
        assert not (tmp_path / 'out/a.html').exists()  # of the run before
        # The same command, killed, goes on although it says --overwrite.
        again = ToyModel()
        with pytest.raises(RuntimeError, match='killed'):
            infer(write_tif(tmp_path / 'b.tif', picture(600, 100)), tmp_path / 'out',
                  ToyModel(fail_after=15), overwrite=True)  # fmt: skip
        infer(tmp_path / 'b.tif', tmp_path / 'out', again, overwrite=True)
        assert 0 < len(again.seen) < 24

    def test_an_area_of_interest_that_changes_is_another_run(self, tmp_path):
        scene = write_tif(tmp_path / 'a.tif', picture(100, 100))
        aoi = tmp_path / 'aoi.geojson'
        for width in (300, 400):
            x, y = TRANSFORM.c + 100, TRANSFORM.f - 100
            ring = [[x, y], [x + width, y], [x + width, y - 300], [x, y - 300], [x, y]]
            crs = {'type': 'name', 'properties': {'name': 'EPSG:32618'}}
            polygon = {'type': 'Polygon', 'coordinates': [ring]}
            feature = {'type': 'Feature', 'geometry': polygon, 'properties': {}}
            aoi.write_text(
                json.dumps({'type': 'FeatureCollection', 'crs': crs, 'features': [feature]})
            )
            if width == 300:
                infer(scene, tmp_path / 'out', aoi=aoi)
        with pytest.raises(ConfigError, match='run with other settings'):
            infer(scene, tmp_path / 'out', aoi=aoi)

    def test_what_is_no_number_has_no_class(self, tmp_path):
        class Broken(ToyModel):
            def predict(self, tiles):
                found = super().predict(tiles)
                for one in found:
                    if self.task == 'classification':
                        one.scores[:] = float('nan') if one.tile.col else 0.5
                    else:
                        one.logits[:, :10] = float('nan')
                return found

        scene = write_tif(tmp_path / 'a.tif', picture(60, 60))
        result = infer(scene, tmp_path / 'out', Broken())
        found = read(result.outputs['map'])[0]
        assert (found[:10] == 255).all() and (found[10:] != 255).all()
        assert result.info['not_a_number'] == 600
        result = infer(scene, tmp_path / 'cells', Broken('classification', 32))
        assert result.info['cells'] == result.info['not_a_number'] == 2

    def test_the_reading_thread_has_ended_when_an_error_is_told(self, tmp_path, monkeypatch):
        # It would read from files that are closed.
        def full(*_):
            raise OSError('no space left')

        monkeypatch.setattr('mmrsfm.apis.scene.journal.Journal.write', full)
        scene = write_tif(tmp_path / 'a.tif', picture(900, 300))
        try:
            infer(scene, tmp_path / 'out')
        except OSError:
            assert not [one for one in threading.enumerate() if 'read-ahead' in one.name]
        else:
            pytest.fail('an error was lost')

    def test_a_disk_without_room_is_said_before_anything_is_computed(self, tmp_path, monkeypatch):
        scene = write_tif(tmp_path / 'a.tif', picture(100, 100))
        usage = namedtuple('usage', 'total used free')(10**9, 10**9, 10**6)
        monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage)
        model = ToyModel()
        with pytest.raises(DiskSpaceError, match=r'0\.00 GB are free'):
            infer(scene, tmp_path / 'out', model)
        assert model.seen == []

    def test_ranks_share_the_blocks(self, tmp_path):
        array = picture(600, 200)
        scene = write_tif(tmp_path / 'a.tif', array)
        (tmp_path / 'store').mkdir()
        seen = run_ranks(_infer_in_a_rank, tmp_path / 'store', scene, str(tmp_path / 'out'))
        assert min(seen) > 0
        alone = ToyModel()
        infer(scene, tmp_path / 'alone', alone)
        assert max(seen) < len(alone.seen)
        np.testing.assert_array_equal(read(tmp_path / 'out/a.tif'), truth(ToyModel(), array))

    def test_no_rank_waits_for_one_that_failed(self, tmp_path):
        scene = write_tif(tmp_path / 'a.tif', picture(600, 200))
        (tmp_path / 'store').mkdir()
        said = run_ranks(_fail_in_a_rank, tmp_path / 'store', scene, str(tmp_path / 'out'))
        assert said[0] == ['rank 1 could not go on: nothing here', 'rank_1_failed', 12]
        assert said[1] == ['nothing here', 'killed', 0]


def _fail_in_a_rank(rank, scene, out):
    """Rank 1 fails: before anything is computed, then in the middle; then all goes well."""
    said = []
    try:
        agree(DataError('nothing here') if rank else None)
    except DataError as error:
        said.append(str(error))
    try:
        infer(scene, out, ToyModel(fail_after=3 if rank else None))
    except RuntimeError as error:
        said.append(str(error).split(':')[0])
    result = infer(scene, out)
    return [*said, result.info.get('map_size', [0])[0] // 50 if rank == 0 else 0]


def _infer_in_a_rank(rank, scene, out):
    model = ToyModel()
    infer(scene, out, model)
    return len(model.seen)
