# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""SARDet-100K and UBCv2: COCO json with radar images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from .drawing import Array, bounds, generator, save
from .modalities import Scene, as_uint8, backscatter, draw, save_tif

SARDET = ('ship', 'aircraft', 'car', 'tank', 'bridge', 'harbor')


def _area(polygon: Array) -> float:
    x, y = polygon.T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def _content(
    scenes: dict[str, Scene], categories: dict[int, str], first: int, polygons: bool
) -> dict[str, Any]:
    """A COCO json; classes of the scenes, from 1, are the categories in their order."""
    ids = list(categories)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, scene) in enumerate(scenes.items()):
        height, width = scene.label.shape
        image = {'file_name': name, 'height': height, 'width': width, 'id': number + first}
        images.append(image)
        for polygon, label in zip(scene.polygons, scene.classes, strict=True):
            left, top, right, bottom = bounds(polygon)
            annotations.append(
                {
                    'id': len(annotations) + first,
                    'image_id': image['id'],
                    'category_id': ids[label - 1],
                    'bbox': [left, top, right - left, bottom - top],
                    'area': _area(polygon) if polygons else (right - left) * (bottom - top),
                    'iscrowd': 0,
                    'segmentation': [polygon.round(2).ravel().tolist()] if polygons else [],
                }
            )
    return {
        'images': images,
        'annotations': annotations,
        'categories': [{'id': key, 'name': name} for key, name in categories.items()],
    }


def make_sardet(root: Path, *, seed: int = 0, count: int = 3, size: int = 96) -> Path:
    """SARDet-100K as it is downloaded: ``Annotations/{train,val,test}.json``, ``JPEGImages/``.

    ``JPEGImages/{train,val,test}/<n>.{jpg,png}``: grey images gathered from ten sets, most of them
    kept as three equal bands, some as one, jpg and png, of many sizes; boxes only; categories 0 to
    5 with lower-case names (mars.md 5; Li et al., NeurIPS 2024 Datasets).

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images of each split; the last of several has no object.
        size: Shorter side of an image (real: 512 mostly).
    """
    root = Path(root)
    (root / 'Annotations').mkdir(parents=True, exist_ok=True)
    for place, split in enumerate(('train', 'val', 'test')):
        scenes: dict[str, Scene] = {}
        for number in range(count):
            rng = generator(seed, 111, place, number)
            objects = 0 if count > 1 and number == count - 1 else 5
            classes = [1 + (number + k) % 6 for k in range(6)]
            scene = draw(
                rng, size, size + 8 * (number % 2), count=objects, classes=classes, rotated=False
            )
            grey = as_uint8(backscatter(rng, scene))
            image = grey if number % 3 == 1 else np.repeat(grey[..., None], 3, axis=-1)
            name = f'{place * 10_000 + number:07d}' + ('.png' if number % 2 else '.jpg')
            save(root / 'JPEGImages' / split / name, image)
            scenes[name] = scene
        content = _content(scenes, dict(enumerate(SARDET)), first=0, polygons=False)
        (root / 'Annotations' / f'{split}.json').write_text(json.dumps(content))
    return root


def make_ubcv2(root: Path, *, seed: int = 0, count: int = 3, size: int = 96) -> Path:
    """UBCv2 as it is used: ``annotations/*.json``, ``<split>/{rgb,sar,merge}/<name>.tif``.

    ``annotations/roof_fine_{train,val,test}_single_category.json``: polygons, one category with id
    1; 512x512. rgb uint8 of three bands; radar float32 of one (mean 0.26, standard deviation 0.60
    are published); merge the four, R, G, B and radar, in one float32 tif (mars.md 5; the contest
    DFC23 track 1 has these folders; Huang et al., CVPRW 2022).

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images of each split; the last of several has no building.
        size: Side of an image.
    """
    root = Path(root)
    (root / 'annotations').mkdir(parents=True, exist_ok=True)
    for place, split in enumerate(('train', 'val', 'test')):
        scenes: dict[str, Scene] = {}
        for number in range(count):
            rng = generator(seed, 112, place, number)
            scene = draw(rng, size, size, count=0 if count > 1 and number == count - 1 else 6)
            radar = (0.12 * backscatter(rng, scene)).astype(np.float32)
            name = f'P_{place * 1000 + number:04d}.tif'
            save_tif(root / split / 'rgb' / name, scene.rgb)
            save_tif(root / split / 'sar' / name, radar)
            merged = np.concatenate([scene.rgb.astype(np.float32), radar[..., None]], -1)
            save_tif(root / split / 'merge' / name, merged)
            scenes[name] = scene
        content = _content(scenes, {1: 'building'}, first=1, polygons=True)
        name = f'roof_fine_{split}_single_category.json'
        (root / 'annotations' / name).write_text(json.dumps(content))
    return root
