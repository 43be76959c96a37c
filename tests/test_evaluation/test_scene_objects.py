# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The score of a scene is mmdet's, and that of files the one of what is in them."""

import sys

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS

from mmrsfm.errors import ConfigError
from mmrsfm.evaluation.scene_objects import score_objects
from mmrsfm.utils.vector_writing import write_geojson, write_geopackage
from tools.analysis_tools.score_scene import main, score_scene

pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')


def boxes(rng, count, spread=300):
    corners = rng.uniform(0, spread, (count, 2))
    return np.hstack([corners, corners + rng.uniform(10, 40, (count, 2))])


@pytest.mark.parametrize('iou', [0.5, 0.3])
def test_average_precision_is_that_of_mmdet(iou):
    from mmdet.evaluation import eval_map

    rng = np.random.default_rng(0)
    truth = boxes(rng, 60)
    near = truth[rng.integers(0, 60, 90)] + rng.normal(0, 4, (90, 4))
    found = np.concatenate([near, boxes(rng, 30)])
    scores = rng.uniform(0, 1, len(found))
    result = score_objects(shapely.box(*found.T), scores, shapely.box(*truth.T), iou)
    detections = np.hstack([found, scores[:, None]]).astype(np.float64)
    annotation = dict(bboxes=truth, labels=np.zeros(60, int))
    theirs, _ = eval_map([[detections]], [annotation], iou_thr=iou, logger='silent', nproc=1)
    assert 0.1 < result.average_precision < 0.9
    assert result.average_precision == pytest.approx(float(theirs), abs=1e-6)
    # At the best threshold F1 is no less than at any other.
    for least in np.linspace(0, 1, 11):
        one = score_objects(shapely.box(*found.T), scores, shapely.box(*truth.T), iou, least)
        assert one.f1 <= result.f1 + 1e-12


def test_counts_by_hand():
    truth = np.array([shapely.box(0, 0, 10, 10), shapely.box(20, 0, 30, 10)], object)
    found = np.array(
        [shapely.box(0, 0, 10, 9), shapely.box(0, 0, 10, 10), shapely.box(50, 0, 60, 10)]
    )
    one = score_objects(found, np.array([0.9, 0.8, 0.7]), truth, min_score=0.75)
    # The second finds the first object again; the third nothing; the second object nobody.
    assert (one.precision, one.recall, one.objects, one.found) == (0.5, 0.5, 2, 3)
    assert one.average_precision == 0.5
    best = score_objects(found, np.array([0.9, 0.8, 0.7]), truth)
    assert best.min_score == 0.9 and best.precision == 1 and best.f1 == pytest.approx(2 / 3)
    nothing = score_objects(found[:0], np.zeros(0), truth)
    assert nothing.average_precision == 0 and nothing.recall == 0 and np.isnan(nothing.precision)
    empty = score_objects(found, np.ones(3), truth[:0])
    assert np.isnan(empty.average_precision) and empty.precision == 0 and empty.found == 3
    with pytest.raises(ConfigError, match='3 objects, but 1 scores'):
        score_objects(found, np.ones(1), truth)
    with pytest.raises(ConfigError, match=r'\(0, 1\]'):
        score_objects(found, np.ones(3), truth, 0)


@pytest.mark.parametrize('georeferenced', [True, False])
def test_files(tmp_path, georeferenced):
    crs = CRS.from_epsg(32618) if georeferenced else None
    transform = Affine(0.5, 0, 4e5, 0, -0.5, 4e6) if georeferenced else Affine.identity()
    scene = tmp_path / 'scene.tif'
    with rasterio.open(scene, 'w', driver='GTiff', width=300, height=200, count=1, dtype='uint8',
                       crs=crs, transform=transform) as out:  # fmt: skip
        out.write(np.zeros((1, 200, 300), np.uint8))
    turned = shapely.affinity.rotate(shapely.box(10, 10, 40, 20), 45)
    truth = np.array([turned, shapely.box(100, 50, 130, 90), shapely.box(200, 50, 220, 90)], object)
    kinds = np.array(['ship', 'ship', 'car'], object)
    write_geojson(tmp_path / 'truth.geojson', truth, {'kind': kinds}, crs, transform)
    found = np.array([turned, shapely.box(0, 150, 30, 190), shapely.box(200, 50, 221, 90)], object)
    fields = {'class': kinds, 'score': np.array([0.9, 0.8, 0.7])}
    write_geopackage(tmp_path / 'found.gpkg', found, fields, crs, transform)
    options = dict(classes=['ship', 'car'], field='kind', pixels=not georeferenced)
    scores = score_scene(tmp_path / 'found.gpkg', tmp_path / 'truth.geojson', scene, **options)
    assert scores['ship'].average_precision == pytest.approx(0.5)
    assert scores['car'].average_precision == pytest.approx(1)
    assert (scores['ship'].objects, scores['ship'].found) == (2, 2)
    # The box around the turned one is twice as large.
    scores = score_scene(tmp_path / 'found.gpkg', tmp_path / 'truth.geojson', scene,
                         truth_as='box', **options)  # fmt: skip
    assert scores['ship'].average_precision == 0
    nothing = {name: values[:0] for name, values in fields.items()}
    write_geopackage(tmp_path / 'none.gpkg', found[:0], nothing, crs, transform)
    scores = score_scene(tmp_path / 'none.gpkg', tmp_path / 'truth.geojson', scene, **options)
    assert scores['ship'].average_precision == 0 and scores['ship'].found == 0


def test_the_command(tmp_path, monkeypatch, capsys):
    scene, boxes_file = tmp_path / 'scene.tif', tmp_path / 'scene.csv'
    with rasterio.open(
        scene, 'w', driver='GTiff', width=30, height=20, count=1, dtype='uint8'
    ) as f:
        f.write(np.zeros((1, 20, 30), np.uint8))
    boxes_file.write_text('xmin,ymin,xmax,ymax,label\n1,1,9,9,tree\n')
    write_geojson(tmp_path / 'found.geojson', np.array([shapely.box(1, 1, 9, 9)], object),
                  {'class': np.array(['tree'], object), 'score': np.array([0.9])}, None,
                  Affine.identity())  # fmt: skip
    command = ['score_scene.py', 'found.geojson', 'scene.csv', 'scene.tif', '--classes', 'tree',
               '--json', 'scores.json']  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', command)
    main()
    assert 'tree: AP50 1.000, 1 objects, 1 found' in capsys.readouterr().out
    assert '"average_precision": 1.0' in (tmp_path / 'scores.json').read_text()
