# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""From a scene to vector files of its objects, by a detector that reads the pixels."""

import json

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from mmengine.structures import InstanceData
from rasterio.features import rasterize
from scipy import ndimage

from mmrsfm.apis import SceneInferencer
from mmrsfm.apis.scene import object_product
from mmrsfm.apis.scene.grid import TileGrid
from mmrsfm.apis.scene.object_product import suppression_threshold
from mmrsfm.apis.scene.objects import box_of, mask_polygon
from mmrsfm.apis.scene.pipeline import InputSpec
from mmrsfm.apis.scene.tile_data import TilePrediction
from mmrsfm.errors import ConfigError
from mmrsfm.utils.dota import read_dota_objects

pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
HEIGHT, WIDTH = 310, 390
TRANSFORMS = {
    'north-up': Affine(0.5, 0, 4e5, 0, -0.5, 4e6),
    'south-up': Affine(0.5, 0, 4e5, 0, 0.5, 4e6),
    'rotated': Affine.translation(4e5, 4e6) @ Affine.rotation(30) @ Affine.scale(0.5, -0.5),
}
TASKS = {'detection': 4, 'rotated_detection': 5, 'instance_segmentation': 4}


class Blobs:
    """Finds what is brighter than 50: of the first class below 150, else of the second."""

    checkpoint, contract, file_bands, inputs = 'blobs.pth', None, None, (InputSpec('image'),)
    classes, palette = ['small hut', 'barn'], [(255, 0, 0), (0, 0, 255)]
    threshold, multi_label, amp, device = 0.5, False, False, torch.device('cpu')
    channels, settings = None, {}

    def __init__(self, task='detection', tile_size=140, fail_after=None):
        self.task, self.tile_size = task, tile_size
        self.fail_after, self.seen = fail_after, 0

    def predict(self, tiles):
        return [TilePrediction(tile.tile, instances=self._find(tile)) for tile in tiles]

    def _find(self, tile):
        self.seen += 1
        if self.fail_after is not None and self.seen > self.fail_after:
            raise RuntimeError('killed')
        image = tile.arrays[0][..., 0]
        numbers, count = ndimage.label(image > 50)
        masks = np.arange(1, count + 1)[:, None, None] == numbers
        polygons = np.array([*(mask_polygon(mask) for mask in masks), None], object)[:-1]
        found = InstanceData(scores=torch.full((count,), 0.9))
        # What a border cuts is a little less sure, as with real detectors.
        found.scores -= torch.tensor([0.3 * (mask[0].any() or mask[:, 0].any()) for mask in masks])
        bright = [int(image[mask].max() > 150) for mask in masks]
        found.labels = torch.tensor(bright, dtype=torch.int64)
        boxes = box_of(polygons) if self.task == 'rotated_detection' else shapely.bounds(polygons)
        found.bboxes = torch.tensor(boxes.reshape(count, TASKS[self.task]))
        if self.task == 'instance_segmentation':
            found.masks = torch.tensor(masks.reshape(count, *image.shape))
        return found


def cut_by_tiles(outlines, size, overlap=40):
    """How many objects the borders of tiles cut."""
    grid = TileGrid(HEIGHT, WIDTH, size, overlap)
    frames = [shapely.box(t.col, t.row, t.col + size, t.row + size).exterior for t in grid]
    return sum(any(frame.intersects(one) for frame in frames) for one in outlines)


def make_scene(path, transform, crs='EPSG:32618', turned=True):
    """Rectangles on a grid that no tiles share, some at the edges; returns them in pixels."""
    rng = np.random.default_rng(1)
    shapes, values = [], []
    for number, (x, y) in enumerate(
        (x, y) for x in range(22, WIDTH, 44) for y in range(20, HEIGHT, 45)
    ):
        half = rng.uniform(4, 13, 2)
        shape = shapely.box(x - half[0], y - half[1], x + half[0], y + half[1])
        shapes.append(shapely.affinity.rotate(shape, rng.uniform(0, 90)) if turned else shape)
        values.append((100, 200)[number % 2])
    array = rasterize(zip(shapes, values, strict=True), (HEIGHT, WIDTH), dtype='uint8')
    with rasterio.open(path, 'w', driver='GTiff', height=HEIGHT, width=WIDTH, count=1,
                       dtype='uint8', crs=crs, transform=transform) as out:  # fmt: skip
        out.write(array, 1)
    numbers, count = ndimage.label(array > 50)
    outlines = np.array([mask_polygon(numbers == n) for n in range(1, count + 1)], object)
    return path, outlines, [int(array[numbers == n].max() > 150) for n in range(1, count + 1)]


def infer(scene, out, task='detection', size=140, overlap=40, fail_after=None, **options):
    model = Blobs(task, size, fail_after)
    return SceneInferencer.of(model, overlap, 2)(scene, out_dir=out, **options)


def objects_of(path, transform):
    """Classes and outlines in pixels, by a reader that is not ours."""
    meta, _, shapes, columns = pyogrio.raw.read(path)
    a, b, c, d, e, f = tuple(~transform)[:6]
    outlines = shapely.transform(
        shapely.from_wkb(shapes), lambda p: p @ np.array([[a, d], [b, e]]) + [c, f]
    )
    return outlines, dict(zip(meta['fields'], columns, strict=True)), meta['crs']


def agree(found, truth):
    """The least IoU of each outline with its own, every one once."""
    assert len(found) == len(truth)
    pairs = shapely.STRtree(found).query(truth, predicate='intersects')
    ious = shapely.area(shapely.intersection(truth[pairs[0]], found[pairs[1]])) / shapely.area(
        shapely.union(truth[pairs[0]], found[pairs[1]])
    )
    kept = ious > 0.5
    assert sorted(pairs[0][kept]) == sorted(pairs[1][kept]) == list(range(len(truth)))
    return ious[kept].min(), pairs[1][kept][np.argsort(pairs[0][kept])]


@pytest.mark.parametrize(
    ('task', 'name'),
    [
        ('detection', 'south-up'),
        ('rotated_detection', 'rotated'),
        ('instance_segmentation', 'rotated'),
    ],
)
def test_every_object_once_at_its_place(tmp_path, task, name):
    transform = TRANSFORMS[name]
    scene, truth, labels = make_scene(tmp_path / 'scene.tif', transform)
    if task == 'detection':
        truth = shapely.envelope(truth)
    elif task == 'rotated_detection':
        truth = shapely.minimum_rotated_rectangle(truth)
    found = {}
    for size in (140, 200):
        assert cut_by_tiles(truth, size) > 10
        result = infer(scene, tmp_path / str(size), task, size, page=size == 140)
        outlines, fields, crs = objects_of(result.outputs['gpkg'], transform)
        least, order = agree(outlines, truth)
        # Outlines of masks lose corners, by half a pixel.
        assert least > (0.9 if task == 'instance_segmentation' else 0.999)
        assert [Blobs.classes[label] for label in labels] == fields['class'][order].tolist()
        assert crs == 'EPSG:32618' and not fields['cut'].any()
        assert result.info['objects'] == len(truth) < result.info['found_in_tiles']
        found[size] = outlines
        assert pyogrio.read_info(result.outputs['geojson'])['features'] == len(truth)
        assert len(read_dota_objects(result.outputs['dota'])) == len(truth)
        assert ('html' in result.outputs) == ('png' in result.outputs) == (size == 140)
    assert agree(found[140], found[200])[0] > 0.9


def test_without_a_place_and_without_objects(tmp_path):
    scene, truth, _ = make_scene(tmp_path / 'scene.tif', Affine.identity(), None, turned=False)
    result = infer(scene, tmp_path / 'out', formats=['geojson', 'gpkg'])
    content = json.loads(result.outputs['geojson'].read_text())
    assert content['coordinates'].startswith('Pixel coordinates')
    outlines, _, crs = objects_of(result.outputs['gpkg'], Affine.identity())
    assert crs is None and agree(outlines, shapely.envelope(truth))[0] > 0.999
    assert not (tmp_path / 'out' / 'scene_dota.txt').exists()
    # Nothing scores so well: files all the same, and a page.
    result = infer(scene, tmp_path / 'none', min_score=0.95, page=True)
    assert result.info['objects'] == 0
    assert pyogrio.read_info(result.outputs['gpkg'])['features'] == 0
    assert json.loads(result.outputs['geojson'].read_text())['features'] == []
    assert result.outputs['dota'].read_text() == ''
    with pytest.raises(ConfigError, match='not as shp'):
        infer(scene, tmp_path / 'other', formats=['shp'])


def test_areas_and_pixels_without_data(tmp_path):
    transform = TRANSFORMS['north-up']
    scene, truth, _ = make_scene(tmp_path / 'scene.tif', transform, turned=False)
    truth = shapely.envelope(truth)
    centres = shapely.get_coordinates(shapely.centroid(truth))
    left, top, right, bottom = 100, 60, 260, 250
    bounds = (4e5 + 0.5 * left, 4e6 - 0.5 * bottom, 4e5 + 0.5 * right, 4e6 - 0.5 * top)
    result = infer(scene, tmp_path / 'area', aoi=bounds, page=True)
    outlines, _, _ = objects_of(result.outputs['gpkg'], transform)
    inside = ((centres > [left, top]) & (centres < [right, bottom])).all(axis=1)
    assert 4 < inside.sum() < len(truth) and agree(outlines, truth[inside])[0] > 0.999
    # Where the scene has no data, nothing is found, whatever the numbers there.
    with rasterio.open(scene, 'r+') as file:
        array = file.read(1)
        file.nodata = 100
    result = infer(scene, tmp_path / 'nodata', overwrite=True)
    outlines, fields, _ = objects_of(result.outputs['gpkg'], transform)
    _, count = ndimage.label(array == 200)
    assert len(outlines) == count and set(fields['class']) == {'barn'}


class Forgetful(Blobs):
    """Finds only what the left border of its tile cuts."""

    def _find(self, tile):
        found = super()._find(tile)
        return found[found.bboxes[:, 0] < 1]


def test_what_only_one_tile_finds_is_counted_and_can_be_kept(tmp_path):
    scene, _, _ = make_scene(tmp_path / 'scene.tif', TRANSFORMS['north-up'], turned=False)
    infer_with = SceneInferencer.of(Forgetful(), 40, 2)
    dropped = infer_with(scene, out_dir=tmp_path / 'dropped')
    kept = infer_with(scene, out_dir=tmp_path / 'kept', keep_cut=True)
    count = dropped.info['unconfirmed_pieces']
    assert 0 < count == kept.info['unconfirmed_pieces']
    assert kept.info['objects'] == dropped.info['objects'] + count
    assert kept.info['cut_objects'] == dropped.info['cut_objects'] + count


def test_what_tiles_cannot_do_is_said(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(object_product, '_warn', said.append)
    scene, _, _ = make_scene(tmp_path / 'scene.tif', TRANSFORMS['north-up'], turned=False)
    infer(scene, tmp_path / 'none', overlap=0)
    assert len(said) == 1 and 'without an overlap' in said[0]
    # What one tile alone finds at its border, and none can judge.
    SceneInferencer.of(Forgetful(tile_size=120), 8, 2)(scene, out_dir=tmp_path / 'little')
    assert len(said) == 2 and '--overlap, now 8' in said[1]
    infer(scene, tmp_path / 'enough')
    infer(scene, tmp_path / 'one tile', size=400, overlap=0)
    assert len(said) == 2


def test_a_run_that_was_killed_goes_on(tmp_path):
    transform = TRANSFORMS['north-up']
    scene, _, _ = make_scene(tmp_path / 'scene.tif', transform)
    whole = infer(scene, tmp_path / 'whole')
    with pytest.raises(RuntimeError, match='killed'):
        infer(scene, tmp_path / 'out', fail_after=11)
    assert not (tmp_path / 'out' / 'scene.gpkg').exists()
    model = Blobs()
    again = SceneInferencer.of(model, 40, 2)(scene, out_dir=tmp_path / 'out')
    assert model.seen < whole.info['tiles']
    for name in ('geojson', 'dota'):
        assert again.outputs[name].read_bytes() == whole.outputs[name].read_bytes()
    assert not list((tmp_path / 'out').glob('.*'))


def test_the_threshold_is_the_models():
    from mmengine.config import Config

    class Model:
        pass

    model = Model()
    assert suppression_threshold(model) == 0.5
    for test_cfg, expected in (
        (dict(rcnn=dict(nms=dict(type='nms_rotated', iou_threshold=0.1))), 0.1),
        (dict(nms=dict(iou_threshold=0.6), score_thr=0.1), 0.6),
        (dict(rcnn=dict(nms=None)), 0.5),
        (None, 0.5),
    ):
        model.cfg = Config(dict(model=dict(test_cfg=test_cfg)))
        assert suppression_threshold(model) == expected
