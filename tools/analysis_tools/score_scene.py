# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Scores the objects that were found in a scene against those that are there.

Example, what ``tools/infer_scene.py`` found against boxes of Pascal VOC, and against polygons::

    python tools/analysis_tools/score_scene.py out/scene.gpkg scene.xml scene.tif --classes tree
    python tools/analysis_tools/score_scene.py out/town.geojson buildings.geojson town.tif \
        --classes building --truth-as rotated

Prints average precision, precision, recall and F1 of each class, and their mean.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import shapely

from mmrsfm.errors import ConfigError
from mmrsfm.evaluation.scene_objects import ObjectScore, score_objects
from mmrsfm.utils.conversion import errors_end_command, write_json
from mmrsfm.utils.image_objects import read_things
from mmrsfm.utils.rgb import open_raster
from mmrsfm.utils.vector import read_polygons
from mmrsfm.utils.vector_writing import to_map

TRUTH_FORMS = ('outline', 'box', 'rotated')


def score_scene(
    found: str | Path,
    truth: str | Path,
    scene: str | Path,
    classes: Sequence[str],
    field: str | None = None,
    pixels: bool = False,
    truth_as: str = 'outline',
    iou: float = 0.5,
    min_score: float | None = None,
) -> dict[str, ObjectScore]:
    """Scores the objects of a scene.

    Args:
        found: GeoPackage or GeoJSON with the properties ``class`` and ``score``.
        truth: Vector file, XML of Pascal VOC or CSV; see
            :func:`mmrsfm.utils.image_objects.read_things`.
        scene: The scene of both.
        classes: Names of the classes.
        field: Property of ``truth`` that names the class, where there are several.
        pixels: Whether ``truth`` is a vector file in pixels.
        truth_as: What the objects of ``truth`` are taken for: their ``'outline'``, the ``'box'``
            around it, or the ``'rotated'`` one of least area.
        iou: See :func:`score_objects`.
        min_score: See :func:`score_objects`.

    Returns:
        The score of each class.

    Raises:
        DataError: If a file cannot be used.
        ConfigError: If there is no such form.
    """
    if truth_as not in TRUTH_FORMS:
        raise ConfigError(f'truth_as is one of {", ".join(TRUTH_FORMS)}, got {truth_as!r}')
    with open_raster(scene) as source:
        crs, transform = source.crs, source.transform
    there = read_things(truth, scene, classes, field, pixels)
    outlines = np.array([one.polygon for one in there] + [None], object)[:-1]
    if truth_as == 'box':
        outlines = shapely.envelope(outlines)
    elif truth_as == 'rotated':
        outlines = shapely.minimum_rotated_rectangle(outlines)
    labels = np.array([one.label for one in there], int)
    ours = read_polygons(found, crs)
    # Parts of one object are features of one number.
    features: dict[int, list] = {}
    for one in ours:
        features.setdefault(one.feature, []).append(one)
    shapes = [
        shapely.union_all([shapely.geometry.shape(part.geometry) for part in parts])
        for parts in features.values()
    ]
    polygons = np.array([*shapes, None], object)[:-1]
    polygons = to_map(polygons, ~transform) if len(polygons) else polygons
    firsts = [parts[0].properties for parts in features.values()]
    if any('class' not in one or 'score' not in one for one in firsts):
        raise ConfigError(f'{found} has features without "class" or "score"')
    names = np.array([one['class'] for one in firsts], object)
    scores = np.array([one['score'] for one in firsts], float)
    return {
        name: score_objects(
            polygons[names == name], scores[names == name], outlines[labels == label], iou,
            min_score,
        )
        for label, name in enumerate(classes)
    }  # fmt: skip


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('found', help='GeoPackage or GeoJSON of tools/infer_scene.py')
    parser.add_argument('truth', help='vector file, XML of Pascal VOC or CSV')
    parser.add_argument('scene', help='the scene of both')
    parser.add_argument('--classes', required=True, nargs='+', help='names of the classes')
    parser.add_argument('--field', help='property or column of the truth with the class')
    parser.add_argument('--pixels', action='store_true', help='the truth is in pixels')
    parser.add_argument('--truth-as', choices=TRUTH_FORMS, default='outline')
    parser.add_argument('--iou', type=float, default=0.5, help='least overlap (default: 0.5)')
    parser.add_argument('--min-score', type=float, help='default: where F1 is largest')
    parser.add_argument('--json', help='a file for the scores')
    args = vars(parser.parse_args())
    target = args.pop('json')
    with errors_end_command():
        scores = score_scene(**args)
        if target:
            # JSON knows no NaN.
            plain = json.loads(json.dumps({k: asdict(v) for k, v in scores.items()}),
                               parse_constant=lambda _: None)  # fmt: skip
            write_json(target, plain)
    for name, one in scores.items():
        print(
            f'{name}: AP{round(100 * args["iou"])} {one.average_precision:.3f}, {one.objects} '
            f'objects, {one.found} found; from score {one.min_score:.2f} on precision '
            f'{one.precision:.3f}, recall {one.recall:.3f}, F1 {one.f1:.3f}'
        )
    values = [one.average_precision for one in scores.values() if one.objects]
    if len(scores) > 1 and values:
        print(f'mean: AP{round(100 * args["iou"])} {np.mean(values):.3f} of {len(values)} classes')


if __name__ == '__main__':
    main()
