# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Real scenes with three kinds of label each, in the form of SAMRS.

Buildings of SpaceNet Atlanta: polygons, so that semantic, instance and rotated labels are three.
Trees of NEON: boxes only, so that a mask is a filled box and a rotated box lies upright. The areas
for training and for tests are those of the single tasks (:mod:`data_atlanta`, :mod:`data_neon`).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import data_atlanta
import data_neon

from data_converters.polygons_to_samrs import polygons_to_samrs
from mmrsfm.utils.conversion import read_names
from mmrsfm.utils.samrs import Layout

SIZE = 192
# Between the windows of Yellowstone lie 256 pixels (26 m) that nobody sees.
YELLOWSTONE = '2019_YELL_2_528000_4978000_image_crop2.png'
WINDOWS = {'train': (0, 0, 1000, 1152), 'test': (1256, 0, 1000, 1152)}
# No tile sees the trees of another: a hundred of them in the tiles of one image.
STRIDE = (208, 208)


def build_atlanta(source: Path, target: Path) -> dict[str, tuple[int, int]]:
    """Writes the buildings: two parts, ``train`` and ``test``, of one data set.

    Args:
        source: The unpacked sample, with the scene and its polygons.
        target: The folder to fill.

    Returns:
        Numbers of tiles and of instances by part.
    """
    counts = {}
    for part, (first, end) in data_atlanta.AREAS.items():
        counts[part] = polygons_to_samrs(
            source / data_atlanta.SCENE,
            source / data_atlanta.LABELS,
            target,
            name='atlanta',
            classes=data_atlanta.CLASSES,
            part=part,
            window=(first, 0, end - first, 900),
            size=SIZE,
            stride=data_atlanta.STRIDES[part],
            skip_empty=part == 'train',
            stretch=(1, 99),
            quiet=True,
        )
    return counts


def build_neon(source: Path, target: Path) -> dict[str, tuple[int, int]]:
    """Writes the trees of three forests: of two for training, of another for tests.

    Args:
        source: The unpacked sample, with the images and their boxes.
        target: The folder to fill.

    Returns:
        Numbers of tiles and of instances by part.
    """
    return {
        part: polygons_to_samrs(
            source,
            source,
            target,
            name='neon',
            classes=data_neon.CLASSES,
            part=part,
            names=names,
            size=SIZE,
            stride=STRIDE,
            skip_empty=True,
            quiet=True,
        )
        for part, names in data_neon.SPLITS.items()
    }


def build_yellowstone(source: Path, target: Path) -> dict[str, tuple[int, int]]:
    """Writes trees that no pretraining saw, as a model of each task library reads them.

    Both areas are a data set in the form of SAMRS, ``train`` and ``test``: ``{part}.json`` for
    mmdet, ``images`` and ``labelTxt`` for mmrotate, ``masks`` (0: ground, 1: tree) for mmseg.

    Args:
        source: As of :func:`build_neon`.
        target: The folder to fill.

    Returns:
        Numbers of tiles and of instances by part.
    """
    layout, counts = Layout(), {}
    for part, window in WINDOWS.items():
        root = target / f'{part}.samrs'
        counts[part] = polygons_to_samrs(
            source / YELLOWSTONE,
            (source / YELLOWSTONE).with_suffix('.xml'),
            root,
            name='yellowstone',
            classes=data_neon.CLASSES,
            part=part,
            window=window,
            size=SIZE,
            stride=(SIZE, SIZE),
            skip_empty=True,
            quiet=True,
        )
        (target / part / 'masks').mkdir(parents=True)
        for name in read_names(root / f'{part}.txt'):
            label = cv2.imread(str(root / layout.classes / f'{name}.png'), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(target / part / 'masks' / f'{name}.png'), (label == 0).astype('uint8'))
        (root / layout.images).rename(target / part / 'images')
        (root / layout.rotated).rename(target / part / 'labelTxt')
        next(root.glob('*.json')).rename(target / f'{part}.json')
        shutil.rmtree(root)
    return counts
