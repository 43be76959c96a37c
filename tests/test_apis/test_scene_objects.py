# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Objects of a scene do not depend on its tiles: every one once, also where tiles cut it."""

import io
from itertools import pairwise

import numpy as np
import pytest
import shapely
import torch
from affine import Affine
from mmengine.structures import InstanceData
from rasterio.crs import CRS
from rasterio.features import rasterize
from shapely import STRtree, affinity

from mmrsfm.apis.scene.grid import Tile, TileGrid
from mmrsfm.apis.scene.merging import merge_objects
from mmrsfm.apis.scene.object_files import write_objects
from mmrsfm.apis.scene.objects import TileObjects, box_of, mask_polygon, tile_objects
from mmrsfm.errors import ConfigError
from mmrsfm.utils.dota import read_dota_objects
from mmrsfm.utils.vector import read_polygons
from mmrsfm.utils.vector_writing import to_map

HEIGHT, WIDTH = 620, 760
KINDS = ['horizontal', 'rotated', 'mask']
# Tile and overlap; the second pair also has tiles that are moved back at the edges.
TILINGS = [(256, 96), (170, 80), (800, 0)]


def seams():
    """Corners of the tiles."""
    for size, overlap in TILINGS:
        grid = TileGrid(HEIGHT, WIDTH, size, overlap)
        for x in (*grid.cols, *(at + size for at in grid.cols)):
            yield from ((x, y) for y in grid.rows)
            yield from ((x, y + size) for y in grid.rows)


def make_objects(kind, seed=0, count=90, large=0):
    """Polygons apart from each other, in the scene, with classes; some on all seams and corners."""
    rng = np.random.default_rng(seed)
    centres = [(rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)) for _ in range(count * 4)]
    centres += [(x + rng.uniform(-9, 9), y + rng.uniform(-9, 9)) for x, y in seams()]
    found, labels = [], []
    for number in rng.permutation(len(centres)):
        sides = rng.uniform(12, 48, 2)
        if len(found) < large:  # rotated ones are long: the rectangle around a piece is that of all
            sides = rng.uniform(110, 170, 2) * (1, 0.15 if kind == 'rotated' else 1)
        shape = shapely.box(-sides[0] / 2, -sides[1] / 2, sides[0] / 2, sides[1] / 2)
        if kind == 'mask':  # an ellipse with a hole
            shape = affinity.scale(shapely.Point(0, 0).buffer(0.5), *sides)
            shape = shape.difference(affinity.scale(shape, 0.3, 0.3))
        if kind != 'horizontal':
            shape = affinity.rotate(shape, rng.uniform(0, 180), (0, 0))
        shape = affinity.translate(shape, *centres[number])
        inside = shapely.box(2, 2, WIDTH - 2, HEIGHT - 2).contains(shape)
        if inside and all(shape.distance(other) > 3 for other in found):
            found.append(shape)
            labels.append(int(rng.integers(3)))
        if len(found) == count:
            break
    if kind == 'mask':
        numbers = drawn(found)
        found = [mask_polygon(numbers == number) for number in range(1, len(found) + 1)]
    return np.array(found, object), np.array(labels)


def drawn(objects):
    """The numbers of objects, from 1, in the pixels of the scene."""
    shapes = [(one, number) for number, one in enumerate(objects, start=1)]
    return rasterize(shapes, (HEIGHT, WIDTH), dtype='uint8')


def look(kind, objects, labels, tile, numbers, jitter=0.0, least=0.08, equal=False):
    """A detector that finds what lies in a tile, cut where the tile cuts it."""
    rng = np.random.default_rng(tile.index + 1000 * tile.width)
    window = shapely.box(tile.col, tile.row, tile.col + tile.width, tile.row + tile.height)
    inside = shapely.intersection(objects, window)
    kept = np.flatnonzero(shapely.area(inside) > least * shapely.area(objects))
    seen = shapely.transform(inside[kept], lambda points: points - [tile.col, tile.row])
    found = InstanceData(labels=torch.tensor(labels[kept]))
    found.scores = torch.tensor(
        np.full(len(kept), 0.5) if equal else rng.uniform(0.3, 1, len(kept))
    )
    if kind == 'rotated':
        boxes = box_of(seen)
        boxes[:, :4] += rng.uniform(-jitter, jitter, (len(kept), 4))
    else:
        boxes = shapely.bounds(seen).reshape(-1, 4) + rng.uniform(-jitter, jitter, (len(kept), 4))
    found.bboxes = torch.tensor(boxes)
    if kind == 'mask':
        masks = np.zeros((len(kept), tile.height, tile.width), bool)
        crop = numbers[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width]
        masks[:, : crop.shape[0], : crop.shape[1]] = crop == (kept + 1)[:, None, None]
        found.masks = torch.tensor(masks)
    return found


def detect(kind, objects, labels, size, overlap, order=1, merging=(), **options):
    numbers = drawn(objects) if kind == 'mask' else None
    parts = [
        tile_objects(look(kind, objects, labels, tile, numbers, **options), tile, (HEIGHT, WIDTH))
        for tile in TileGrid(HEIGHT, WIDTH, size, overlap)
    ]
    return merge_objects(parts[::order], **dict(merging))


def match(found, polygons):
    """For each polygon the IoU with the best object; each object must be that of one polygon."""
    assert len(found) == len(polygons)
    best, used = [], set()
    tree = STRtree(found.polygons)
    for polygon in polygons:
        near = tree.query(polygon)
        ious = [found.polygons[n].intersection(polygon).area / found.polygons[n].union(polygon).area
                for n in near]  # fmt: skip
        assert ious, f'not found: {polygon.bounds}'
        best.append((max(ious), int(near[int(np.argmax(ious))])))
        used.add(best[-1][1])
    assert len(used) == len(polygons)
    return np.array([iou for iou, _ in best]), np.array([number for _, number in best])


@pytest.mark.parametrize(('kind', 'equal'), [*((kind, False) for kind in KINDS), ('rotated', True)])
def test_every_object_once_for_every_tile_size(kind, equal):
    count = 40 if kind == 'mask' else 90
    objects, labels = make_objects(kind, count=count)
    assert len(objects) == count
    results = [detect(kind, objects, labels, *tiling, equal=equal) for tiling in TILINGS]
    results += [
        detect(kind, objects, labels, *TILINGS[1], equal=equal, merging={'keep_cut': True}),
        detect(kind, objects, labels, *TILINGS[1], equal=equal, merging={'measure': 'ios'}),
    ]
    for found in results:
        ious, numbers = match(found, objects)
        assert ious.min() > 0.999 and not found.cut.any()
        assert np.array_equal(found.labels[numbers], labels)
        assert found.kind == kind and np.all(np.diff(found.scores) <= 0)
    for one, other in pairwise(results):
        assert match(one, other.polygons)[0].min() > 0.999


@pytest.mark.parametrize('kind', KINDS)
def test_objects_larger_than_the_overlap_are_joined(kind):
    objects, labels = make_objects(kind, seed=3, count=30, large=6)
    assert sum(max(np.ptp(shapely.get_coordinates(one), axis=0)) > 96 for one in objects) >= 5
    results = [detect(kind, objects, labels, *tiling) for tiling in [(256, 96), (224, 64)]]
    for found in results:
        ious, numbers = match(found, objects)
        assert ious.min() > 0.9, ious.min()
        assert np.array_equal(found.labels[numbers], labels)
    assert match(results[0], results[1].polygons)[0].min() > 0.9


@pytest.mark.parametrize('kind', ['horizontal', 'rotated'])
def test_boxes_that_differ_a_little_between_tiles(kind):
    objects, labels = make_objects(kind, seed=5)
    for size, overlap in TILINGS[: 2 if kind == 'rotated' else 1]:
        found = detect(kind, objects, labels, size, overlap, jitter=1.0)
        assert match(found, objects)[0].min() > 0.7
        # The order of the parts does not matter: ranks finish as they like.
        again = detect(kind, objects, labels, size, overlap, order=-1, jitter=1.0)
        assert np.array_equal(found.boxes, again.boxes)
        assert np.array_equal(found.scores, again.scores)


def part(index, window, boxes, labels=None, scores=None, scene=(200, 300)):
    boxes = torch.tensor(np.array(boxes, np.float64).reshape(-1, 4))
    found = InstanceData(bboxes=boxes - torch.tensor([window[0], window[1]] * 2))
    found.scores = torch.tensor(scores or [0.9] * len(boxes))
    found.labels = torch.tensor(labels or [0] * len(boxes))
    tile = Tile(index, window[1], window[0], window[3] - window[1], window[2] - window[0])
    return tile_objects(found, tile, scene)


LEFT, RIGHT = (0, 0, 160, 200), (120, 0, 300, 200)


def test_what_a_tile_cuts_is_the_neighbours():
    cut, whole = [140, 50, 160, 70], [140, 50, 172, 70]
    # The whole one, even with a lower score; and nothing, where the neighbour finds nothing.
    found = merge_objects([part(0, LEFT, [cut]), part(1, RIGHT, [whole], scores=[0.3])])
    assert found.boxes.tolist() == [whole] and not found.cut.any()
    none = part(1, RIGHT, np.zeros((0, 4)))
    assert len(merge_objects([part(0, LEFT, [cut]), none])) == 0
    # It can be kept, once; not where an object, also one of another class, covers it.
    twice = part(0, LEFT, [cut, [139, 51, 160, 70]], scores=[0.5, 0.6])
    found = merge_objects([twice, none], keep_cut=True)
    assert found.boxes.tolist() == [[139, 51, 160, 70]] and found.cut.tolist() == [True]
    for other in ([whole], [1]), ([[130, 40, 230, 90]], [0]):
        found = merge_objects([twice, part(1, RIGHT, *other)], keep_cut=True)
        assert found.boxes.tolist() == other[0] and not found.cut.any()
    # A tile that was not looked at has no say: what is left says that it is cut.
    found = merge_objects([part(0, LEFT, [cut])])
    assert found.boxes.tolist() == [cut] and found.cut.tolist() == [True]
    # The border of the scene cuts nothing.
    assert not part(1, RIGHT, [[280, 150, 300, 200]]).touches.any()


def test_a_piece_that_ends_before_the_border():
    # A detector that stops 8 pixels short: the neighbour sees that it goes on.
    found = merge_objects([part(0, LEFT, [[125, 20, 152, 60]], scores=[0.99]),
                           part(1, RIGHT, [[125, 20, 230, 60]], scores=[0.4])])  # fmt: skip
    assert found.boxes.tolist() == [[125, 20, 230, 60]]


def test_an_object_in_the_corner_of_four_tiles():
    windows = [(0, 0, 160, 120), (120, 0, 300, 120), (0, 80, 160, 200), (120, 80, 300, 200)]
    whole = np.array([60, 40, 240, 170])
    parts = [part(n, w, [np.clip(whole, [w[0], w[1]] * 2, [w[2], w[3]] * 2)])
             for n, w in enumerate(windows)]  # fmt: skip
    found = merge_objects(parts)
    assert found.boxes.tolist() == [whole.tolist()] and not found.cut.any()
    # Without the fourth tile it is joined as far as it was seen, and says so.
    found = merge_objects(parts[:3])
    assert found.boxes.tolist() == [[60, 40, 240, 170]] or found.cut.all()


def test_classes_and_neighbours_stay_apart():
    box = [125, 20, 155, 50]
    # Within a tile nothing is compared: the model has.
    assert len(merge_objects([part(0, LEFT, [box, [125, 20, 155, 51]])])) == 2
    inner = [[125, 20, 150, 50]]
    two = [part(0, LEFT, inner, [0]), part(1, RIGHT, inner, [1])]
    assert len(merge_objects(two)) == 2
    assert len(merge_objects(two, class_agnostic=True)) == 1
    # A threshold of the model's suppression: 0.1 for rotated boxes.
    apart = [
        part(0, LEFT, [[124, 20, 140, 50]]),
        part(1, RIGHT, [[134, 20, 150, 50]], scores=[0.5]),
    ]
    assert len(merge_objects(apart)) == 2 and len(merge_objects(apart, 0.1)) == 1
    # By the smaller area: what another tile sees smaller; pieces are joined as before.
    smaller = [part(0, LEFT, [[124, 20, 150, 60]]),
               part(1, RIGHT, [[126, 20, 140, 50]], scores=[0.5])]  # fmt: skip
    assert len(merge_objects(smaller)) == 2
    assert len(merge_objects(smaller, measure='ios')) == 1
    assert len(merge_objects(apart, measure='ios')) == 2
    with pytest.raises(ConfigError, match="iou, ios, not 'area'"):
        merge_objects(smaller, measure='area')
    # A small object in a large one, both seen by both tiles.
    nested = [[126, 20, 154, 90], [128, 40, 138, 50]]
    for measure in ('iou', 'ios'):
        both = [part(0, LEFT, nested), part(1, RIGHT, nested)]
        assert len(merge_objects(both, measure=measure)) == 2


def test_thousands_of_objects_take_no_square_of_time():
    rng = np.random.default_rng(0)
    grid = TileGrid(9000, 9000, 1000, 100)
    parts, total = [], 0
    corners = np.stack(np.meshgrid(*[np.arange(0, 9000, 125)] * 2), -1)
    corners = corners.reshape(-1, 2) + rng.uniform(5, 80, (72 * 72, 2))
    boxes = np.hstack([corners, corners + rng.uniform(10, 35, corners.shape)])
    for tile in grid:
        window = [tile.col, tile.row, tile.col + 1000, tile.row + 1000]
        hit = (boxes[:, 2:] > window[:2]).all(1) & (boxes[:, :2] < window[2:]).all(1)
        seen = np.clip(boxes[hit], window[:2] * 2, window[2:] * 2)
        total += len(seen)
        parts.append(part(tile.index, window, seen, scene=(9000, 9000)))
    found = merge_objects(parts)
    assert len(found) == len(boxes) == 5184 < total
    assert np.allclose(np.sort(found.boxes[:, 0]), np.sort(boxes[:, 0]))


def test_predictions_of_a_tile():
    tile = Tile(4, 50, 100, 64, 64)
    found = InstanceData(
        bboxes=torch.tensor([[0, 0, 10, 10], [-5, 5, 80, 20], [9, 9, 9, 12], [float('nan')] * 4,
                             [1, 1, 4, 4]]),
        scores=torch.tensor([0.9, 0.8, 0.7, 0.6, 0.1]), labels=torch.arange(5),
    )  # fmt: skip
    objects = tile_objects(found, tile, (200, 140), min_score=0.2)
    # Clipped to the tile and to the scene, which ends at 140; without area and NaN left out.
    assert objects.boxes.tolist() == [[100, 50, 110, 60], [100, 55, 140, 70]]
    assert objects.labels.tolist() == [0, 1] and objects.scores.dtype == np.float32
    assert objects.touches.tolist() == [[True, True, False, False], [True, False, False, False]]
    again = TileObjects.from_arrays(saved(objects.to_arrays()))
    assert again.window == objects.window == (100, 50, 140, 114)
    assert np.array_equal(again.touches, objects.touches)
    assert shapely.equals(again.polygons, objects.polygons).all()
    nothing = tile_objects(found[:0], tile, (200, 140))
    assert len(TileObjects.from_arrays(saved(nothing.to_arrays()))) == 0
    assert len(merge_objects([nothing])) == 0 and len(merge_objects([])) == 0
    with pytest.raises(ConfigError, match='4, 5 or 8 numbers'):
        tile_objects(InstanceData(bboxes=torch.zeros(1, 6), scores=torch.ones(1),
                                  labels=torch.zeros(1)), tile, (9, 9))  # fmt: skip
    with pytest.raises(ConfigError, match=r'\(0, 1\]'):
        merge_objects([], 0)


def saved(arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    buffer.seek(0)
    return dict(np.load(buffer, allow_pickle=False))


def test_rotated_boxes_keep_their_form():
    quad = torch.tensor([[10.0, 10, 30, 10, 30, 20, 10, 20]])
    rotated = torch.tensor([[20.0, 15, 20, 10, 0.3], [2.0, 2, 30, 4, 0.0]])
    for boxes in (quad, rotated):
        found = InstanceData(bboxes=boxes, scores=torch.ones(len(boxes)),
                             labels=torch.zeros(len(boxes)))  # fmt: skip
        objects = tile_objects(found, Tile(0, 7, 5, 64, 64), (100, 100))
        assert objects.kind == 'rotated'
        assert np.allclose(objects.boxes[0, :4], [25, 22, 20, 10])
        assert np.allclose(box_of(objects.polygons)[0], objects.boxes[0], atol=1e-5)
    # It reaches out of its tile, and is cut there.
    assert objects.touches[1].tolist() == [True, True, False, False]


def test_mask_to_polygon():
    mask = np.zeros((9, 9), np.uint8)
    mask[1:6, 1:6] = 1
    mask[3, 3] = 0
    mask[6, 6] = 1  # meets at a corner: a part of its own
    polygon = mask_polygon(mask)
    assert polygon.is_valid and polygon.area == mask.sum() == 25
    assert np.array_equal(rasterize([(polygon, 1)], (9, 9), dtype='uint8'), mask)
    assert mask_polygon(np.zeros((4, 4))).is_empty
    assert mask_polygon(mask, (3, 9)).area == mask[:, :3].sum()


@pytest.mark.parametrize('kind', KINDS)
def test_files(tmp_path, kind):
    objects, labels = make_objects(kind, count=12)
    found = detect(kind, objects, labels, 700, 0)
    names = ['plane', 'small car', 'ship']
    crs, transform = CRS.from_epsg(32618), Affine(0.5, 0, 4e5, 0, -0.5, 4e6)
    paths = write_objects(tmp_path / 'out', 'scene', found, names, crs, transform,
                          description={'model': 'a'})  # fmt: skip
    assert [path.name for path in paths] == ['scene.geojson', 'scene.gpkg', 'scene_dota.txt']
    for path in paths[:2]:
        ours = read_polygons(path, crs)
        assert [one.properties['class'] for one in ours] == [names[k] for k in found.labels]
        assert [one.properties['score'] for one in ours] == pytest.approx(found.scores, abs=1e-6)
        polygons = to_map([shapely.geometry.shape(one.geometry) for one in ours], ~transform)
        shared = shapely.intersection(polygons, found.polygons)
        together = shapely.union(polygons, found.polygons)
        # Masks lose corners, but no more than half a pixel.
        assert (shapely.area(shared) > 0.9 * shapely.area(together)).all()
        assert (shapely.hausdorff_distance(polygons, found.polygons) < 0.75).all()
    lines = read_dota_objects(paths[2])
    assert [one.name for one in lines] == [names[k].replace(' ', '-') for k in found.labels]
    corners = shapely.polygons([np.reshape(one.corners, (4, 2)) for one in lines])
    assert shapely.covers(shapely.buffer(corners, 0.05), found.polygons).all()
    # Without objects there are files all the same.
    for path in write_objects(tmp_path / 'none', 'scene', found[:0], names, crs, transform):
        assert path.is_file()
    with pytest.raises(ConfigError, match='not as shp'):
        write_objects(tmp_path, 'a', found, names, crs, transform, ['shp'])
    with pytest.raises(ConfigError, match='there are 1 names: plane'):
        write_objects(tmp_path, 'a', found, names[:1], crs, transform)
