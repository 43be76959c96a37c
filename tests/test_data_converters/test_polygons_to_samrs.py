# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Polygons and boxes become the three kinds of label, on their objects, and can be trained on."""

import json
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from mmengine.registry import DATASETS
from PIL import Image
from rasterio.warp import transform_geom
from shapely.geometry import Polygon, shape

from data_converters.polygons_to_samrs import label_tile, make_tiles, polygons_to_samrs
from mmrsfm.engine.run_config import register_scope
from mmrsfm.errors import ConfigError, DataError, DatasetNotFoundError
from mmrsfm.utils.dota import read_dota_objects
from mmrsfm.utils.image_objects import Thing, read_things
from tests.formats.drawing import generator, rectangles, terrain, world

pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
CLASSES = ['house', 'shed']
TRANSFORM = Affine(0.5, 0, 733601, 0, -0.5, 3725139)
SYSTEM = 'EPSG:32616'


def make_scene(root: Path, system: str | None = None, height=160, width=240) -> tuple[Path, Path]:
    """A GeoTIFF of 16 bits and its polygons; those of class 1 are brighter. The last has a hole."""
    rng = generator(5)
    picture = terrain(rng, height, width)[..., :1].astype(np.uint16) * 4
    features = []
    for number, corners in enumerate(rectangles(rng, height, width, 7)):
        rings = [corners, np.array([0.5 * corners + 0.5 * corners.mean(0)])[0]]
        rings = rings[: 2 if number == 0 else 1]
        mask = rasterio.features.rasterize(
            [(Polygon(rings[0], [r.tolist() for r in rings[1:]]), 1)], (height, width)
        )
        picture[mask > 0] = 800 + 200 * (number % 2)
        coordinates = [
            [world(TRANSFORM, x, y) for x, y in (*ring.tolist(), ring[0].tolist())]
            for ring in rings
        ]
        geometry = {'type': 'Polygon', 'coordinates': coordinates}
        if system is not None:
            geometry = transform_geom(SYSTEM, system, geometry)
        features.append({'properties': {'kind': CLASSES[number % 2]}, 'geometry': geometry})
    scene = root / 'scene.tif'
    with rasterio.open(
        scene, 'w', driver='GTiff', count=1, dtype='uint16', height=height, width=width,
        crs=SYSTEM, transform=TRANSFORM,
    ) as out:  # fmt: skip
        out.write(picture.transpose(2, 0, 1))
    content = {'type': 'FeatureCollection', 'features': features}
    if system != 'EPSG:4326':
        content['crs'] = {'type': 'name', 'properties': {'name': system or SYSTEM}}
    labels = root / 'labels.geojson'
    labels.write_text(json.dumps(content))
    return scene, labels


def convert(scene, labels, target, **options):
    options = {'name': 'town', 'classes': CLASSES, 'stretch': (0, 100), 'quiet': True, **options}
    return polygons_to_samrs(scene, labels, target, **options)


def read(root, part='train'):
    register_scope('mmdet')
    return DATASETS.build(
        dict(
            type='mmrsfm.SAMRSDataset', name='town', data_root=str(root),
            ann_file=f'town_rbb_{part}_ins_segmentation.json', metainfo=dict(classes=CLASSES),
            pipeline=[
                dict(type='mmrsfm.LoadMultiBandImage'), dict(type='mmrsfm.LoadMultiTaskAnnotations')
            ],
        )
    )  # fmt: skip


@pytest.mark.parametrize('system', [None, 'EPSG:4326'])
def test_a_scene(tmp_path, system):
    scene, labels = make_scene(tmp_path, system)
    found = convert(scene, labels, tmp_path / 'out', field='kind', size=96)
    dataset = read(tmp_path / 'out')
    assert found[0] == len(dataset) == 6
    assert found[1] == sum(len(sample['gt_bboxes']) for sample in dataset) >= 7
    for sample in dataset:
        assert sample['img'].shape == (96, 96, 3) and sample['gt_seg_map'].shape == (96, 96)
        # Every pixel of a class is as bright as its objects, and no other is.
        bright = sample['img'][..., 0] > 150
        assert np.array_equal(bright, sample['gt_seg_map'] > 0)
        assert np.array_equal(sample['img'][..., 0] > 240, sample['gt_seg_map'] == 2)
        assert len(sample['gt_rboxes']) == len(sample['gt_bboxes'])
        masks = sample['gt_masks'].to_array() > 0
        assert not (masks.any(axis=0) & ~bright).any()
        for mask, box, label, turned in zip(
            masks, sample['gt_bboxes'].tensor, sample['gt_bboxes_labels'],
            sample['gt_rboxes'].tensor, strict=True,
        ):  # fmt: skip
            assert (sample['gt_seg_map'][mask] == label + 1).all()
            rows, columns = np.nonzero(mask)
            assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            # The rectangle holds the pixels, and is not much larger than the object.
            x, y, width, height, angle = (float(value) for value in turned)
            moved = np.stack([columns + 0.5 - x, rows + 0.5 - y])
            along = [np.cos(angle), np.sin(angle)] @ moved
            across = [-np.sin(angle), np.cos(angle)] @ moved
            assert 2 * abs(along).max() < width + 0.1 and 2 * abs(across).max() < height + 0.1
            assert 2 * abs(along).max() > width - 3 and 2 * abs(across).max() > height - 3


def test_parts_of_a_scene(tmp_path):
    scene, labels = make_scene(tmp_path)
    out, options = tmp_path / 'out', dict(field='kind', size=80)
    train = convert(scene, labels, out, window=(0, 0, 120, 160), **options)
    valid = convert(scene, labels, out, window=(140, 0, 100, 160), part='valid', **options)
    before = {path: path.read_bytes() for path in out.rglob('*.*')}
    assert (train[0], valid[0]) == (4, 4)
    assert convert(scene, labels, out, window=(0, 0, 120, 160), **options) == train
    assert before == {path: path.read_bytes() for path in out.rglob('*.*')}
    assert len(read(out, 'valid')) == 4
    with pytest.raises(ConfigError, match=r"are in the part 'train' already"):
        convert(scene, labels, out, window=(0, 0, 120, 160), part='test', **options)
    with pytest.raises(ConfigError, match='files of another conversion'):
        convert(scene, labels, out, field='kind', size=64)
    with pytest.raises(ConfigError, match=r'does not lie in .*240 x 160'):
        convert(scene, labels, out, window=(200, 0, 120, 160), **options)
    with pytest.raises(ConfigError, match=r"has the classes \['house', 'shed'\]"):
        convert(scene, labels, out, field='kind', part='other', size=33, classes=CLASSES[::-1])


def test_pixels_of_objects_that_are_cut():
    things = [Thing(0, Polygon([(2, 2), (12, 2), (12, 6), (2, 6)])),
              Thing(1, Polygon([(4, 3), (6, 3), (6, 5), (4, 5)])),
              Thing(1, Polygon([(40, 40), (50, 40), (50, 50)]))]  # fmt: skip
    tile = make_tiles('a', (0, 0, 5, 8), 8)[0]
    assert (tile.width, tile.height) == (5, 8)
    found = label_tile(things, tile, keep=0.4)
    # Three tenths of the first are inside: pixels, but no instance. The smaller one is on top.
    assert [(label, int(mask[2].sum())) for label, mask, _ in found.instances] == [(1, 2)]
    assert (found.classes == 0).sum() == 10 and (found.classes == 1).sum() == 2
    assert len(label_tile(things, tile, keep=0.0).instances) == 2
    names = [one.name for one in make_tiles('a', (10, 0, 20, 8), 8, (8, 6))]
    assert names == ['a__8__10___0', 'a__8__16___0', 'a__8__22___0']


@pytest.mark.parametrize('kind', ['csv', 'folder of csv', 'xml', 'geojson'])
def test_boxes_over_pictures(tmp_path, kind):
    images, boxes = tmp_path / 'images', tmp_path / 'boxes'
    images.mkdir(), boxes.mkdir()
    rows = {'a': [(4, 6, 14, 20, 'house')], 'b': [(30, 2, 50, 12, 'shed'), (1, 1, 5, 9, 'house')]}
    lines = []
    for stem, found in rows.items():
        picture = np.zeros((40, 60, 3), np.uint8)
        for left, top, right, bottom, name in found:
            picture[top:bottom, left:right] = 200 + 50 * CLASSES.index(name)
        Image.fromarray(picture).save(images / f'{stem}.png')
        own = [f'{stem}.png,{",".join(map(str, one))}' for one in found]
        lines += own
        if kind == 'folder of csv':
            text = 'image_path,xmin,ymin,xmax,ymax,label\n' + '\n'.join(own)
        elif kind == 'xml':
            text = ''.join(
                f'<object><name>{n}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>'
                f'<ymax>{d}</ymax></bndbox></object>'
                for a, b, c, d, n in found
            )
            text = f'<annotation>{text}</annotation>'
        else:
            features = []
            for a, b, c, d, n in found:
                ring = [[a, b], [c, b], [c, d], [a, d], [a, b]]
                geometry = {'type': 'Polygon', 'coordinates': [ring]}
                features.append({'properties': {'label': n}, 'geometry': geometry})
            text = json.dumps({'features': features})
        (boxes / f'{stem}.{kind.split()[-1]}').write_text(text)
    (tmp_path / 'all.csv').write_text('image_path,xmin,ymin,xmax,ymax,label\n' + '\n'.join(lines))
    labels = tmp_path / 'all.csv' if kind == 'csv' else boxes
    options = dict(stretch=None, field='label', pixels=True)
    assert convert(images, labels, tmp_path / 'out', names=['b.png'], **options) == (1, 2)
    assert convert(images, labels, tmp_path / 'out', part='valid', names=['a'], **options) == (1, 1)
    sample = read(tmp_path / 'out')[0]
    assert sample['gt_bboxes'].tensor.tolist() == [[30, 2, 50, 12], [1, 1, 5, 9]]
    assert sample['gt_masks'].areas.tolist() == [200, 32]
    table = np.array([0, 200, 250])
    assert np.array_equal(sample['img'][..., 0], table[sample['gt_seg_map']])
    text = tmp_path / 'out/trainval/rbbtxts/b.txt'
    one = read_dota_objects(text)[0]
    corners = np.array(one.corners).reshape(4, 2)
    assert one.name == 'shed'
    assert [*corners.min(0), *corners.max(0)] == [30, 2, 50, 12]


def test_tiles_without_objects(tmp_path):
    scene, labels = make_scene(tmp_path)
    (tmp_path / 'none.geojson').write_text('')
    assert convert(scene, tmp_path / 'none.geojson', tmp_path / 'a', field='kind', size=80)[1] == 0
    assert len(read(tmp_path / 'a')) == 6 and len(read(tmp_path / 'a')[0]['gt_rboxes']) == 0
    options = dict(field='kind', size=16, skip_empty=True)
    tiles, instances = convert(scene, labels, tmp_path / 'b', **options)
    assert 0 < tiles < 100 and instances >= tiles


def test_what_is_wrong_is_named(tmp_path):
    scene, labels = make_scene(tmp_path)
    out, empty = tmp_path / 'out', tmp_path / 'empty'
    empty.mkdir()
    with pytest.raises(ConfigError, match='--field'):
        convert(scene, labels, out)
    with pytest.raises(DataError, match='feature 0 is of the class None'):
        convert(scene, labels, out, field='color')
    with pytest.raises(DataError, match='--stretch'):
        convert(scene, labels, out, field='kind', stretch=None)
    with pytest.raises(DatasetNotFoundError, match='no such geojson'):
        convert(scene, tmp_path / 'x.geojson', out, field='kind')
    with pytest.raises(DatasetNotFoundError, match='no file of labels'):
        convert(scene, empty, out, field='kind')
    for wrong in (dict(classes=['a b']), dict(classes=['a', 'a']), dict(keep=2)):
        with pytest.raises(ConfigError):
            convert(scene, labels, out, field='kind', **wrong)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / 'plain.png')
    with pytest.raises(DataError, match=r'no georeference.*--pixels'):
        read_things(labels, tmp_path / 'plain.png', ['house'])
    table = tmp_path / 'table.csv'
    table.write_text('xmin,ymin,xmax,ymax\n1,2,0,9\n')
    with pytest.raises(DataError, match='line 2 has no area'):
        read_things(table, scene, ['house'])
    table.write_text('xmin,ymin,xmax\n')
    with pytest.raises(DataError, match="no column 'ymax'"):
        read_things(table, scene, ['house'])
    content = json.loads(labels.read_text())
    content.pop('crs')
    (tmp_path / 'nowhere.geojson').write_text(json.dumps(content))
    with pytest.raises(DataError, match=r'feature 0 cannot be transformed.*has to name its system'):
        read_things(tmp_path / 'nowhere.geojson', scene, ['house'])
    # What is no vector file, and what is one of another format.
    package = tmp_path / 'a.gpkg'
    package.write_bytes(b'')
    with pytest.raises(DataError, match=r'a.gpkg: cannot be read as a vector file'):
        read_things(package, scene, ['house'])
    package.unlink()
    with pytest.raises(DatasetNotFoundError, match='no such vector file'):
        read_things(package, scene, ['house'])
    pyogrio.raw.write(
        str(package), *as_layer(labels), fields=['kind'], geometry_type='Polygon', crs=SYSTEM,
        driver='GPKG',
    )  # fmt: skip
    ours = read_things(package, scene, CLASSES, field='kind')
    theirs = read_things(labels, scene, CLASSES, field='kind')
    assert len(ours) == 7 and [one.label for one in ours] == [one.label for one in theirs]
    assert all(a.polygon.equals(b.polygon) for a, b in zip(ours, theirs, strict=True))


def as_layer(labels: Path):
    """Geometries and the column ``kind`` of a geojson."""
    features = json.loads(labels.read_text())['features']
    geometries = shapely.to_wkb([shape(one['geometry']) for one in features])
    return geometries, [np.array([one['properties']['kind'] for one in features], object)]
