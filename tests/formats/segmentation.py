# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""SpaceNet-1 (Rio de Janeiro) and LoveDA: images with a label map each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

from .drawing import colour, generator, paint, rectangles, save, terrain, world


def make_spacenet_v1(root: Path, *, seed: int = 0, count: int = 2, size: int = 64) -> Path:
    """SpaceNet-1 as the benchmark reads it: ``{train,val}/{images,labels}/*.png``.

    Images are 8-bit RGB, labels 8-bit grey with 0 background and **1** building (not 255, which is
    the ignored value). Both have the name of the source, ``3band_AOI_1_RIO_img<n>.png``. Real ones
    are 438 or 439 by 406 or 407 pixels, so neither square nor of one size. Many have no building
    (mtp_finetune.md 2.1, 2.2, 3.5).

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images of each split.
        size: Shorter side of an image.
    """
    root = Path(root)
    for place, split in enumerate(('train', 'val')):
        for number in range(count):
            rng = generator(seed, 61, place, number)
            height, width = size, size + 5 + number % 2
            picture, mask = terrain(rng, height, width), np.zeros((height, width), np.uint8)
            empty = count > 1 and number == count - 1
            for polygon in [] if empty else rectangles(rng, height, width, 4):
                picture, mask = paint(picture, polygon, colour(3)), paint(mask, polygon, 1)
            name = f'3band_AOI_1_RIO_img{1 + number + place * count}.png'
            save(root / split / 'images' / name, picture)
            save(root / split / 'labels' / name, mask)
    return root


def make_spacenet_v1_source(root: Path, *, seed: int = 0, count: int = 3, size: int = 64) -> Path:
    """SpaceNet-1 as it is downloaded: ``3band/*.tif`` and ``geojson/*.geojson``.

    ``3band_AOI_1_RIO_img<n>.tif``: uint8 RGB GeoTIFF at 0.5 m in WGS 84 (EPSG:4326);
    ``Geo_AOI_1_RIO_img<n>.geojson``: a collection with polygons and multipolygons whose points have
    a third number, with holes, cut at the border of the tile; a tile without buildings has an
    empty list of features. Numbers run from 1 (mtp_finetune.md 3.5; parity/converters/
    process_spacenet/input; Van Etten et al., arXiv 1807.01232).

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Tiles; the last has no building.
        size: Shorter side of a tile.
    """
    root = Path(root)
    for folder in ('3band', 'geojson'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        rng = generator(seed, 62, number)
        height, width = size, size + 4 + number % 2
        transform = from_origin(-43.6 + number * 2e-4, -22.9, 4.5e-6, 4.5e-6)
        picture = terrain(rng, height, width)
        features: list[dict[str, Any]] = []

        def ring(polygon: np.ndarray, transform: Any = transform) -> list[list[float]]:
            points = [world(transform, x, y) for x, y in [*polygon, polygon[0]]]
            return [[x, y, 0.0] for x, y in points]

        found = list(rectangles(rng, height, width, 5)) if number < count else []
        for k, polygon in enumerate(found):
            picture = paint(picture, polygon, colour(3))
            rings = [ring(polygon)]
            if k == 0:  # a court in the building
                hole = (polygon - polygon.mean(0)) * 0.4 + polygon.mean(0)
                picture = paint(picture, hole, (70, 70, 70))
                rings.append(ring(hole[::-1]))
            geometry: dict[str, Any] = {'type': 'Polygon', 'coordinates': rings}
            if k == 1:  # a building in two parts
                part = np.array([[0, 0], [5, 0], [5, 6], [0, 6]], float)
                picture = paint(picture, part, colour(3))
                geometry = {'type': 'MultiPolygon', 'coordinates': [rings, [ring(part)]]}
            properties = {'OBJECTID': k + 1, 'FID_VEctor': 0, 'Shape_Area': 1e-8, 'partialDec': 1}
            features.append({'type': 'Feature', 'properties': properties, 'geometry': geometry})
        stem = f'AOI_1_RIO_img{number}'
        with rasterio.open(
            root / '3band' / f'3band_{stem}.tif', 'w', driver='GTiff', height=height, width=width,
            count=3, dtype='uint8', crs='EPSG:4326', transform=transform, photometric='RGB',
        ) as target:  # fmt: skip
            target.write(picture.transpose(2, 0, 1))
        crs = {'type': 'name', 'properties': {'name': 'urn:ogc:def:crs:OGC:1.3:CRS84'}}
        content = {'type': 'FeatureCollection', 'crs': crs, 'features': features}
        (root / 'geojson' / f'Geo_{stem}.geojson').write_text(json.dumps(content))
    return root


# Values of a mask: 0 no data, then the seven classes.
LOVEDA = ('background', 'building', 'road', 'water', 'barren', 'forest', 'agricultural')


def _loveda(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture and its mask (0 no data, 1 background ... 7 agricultural)."""
    picture, mask = terrain(rng, size, size), np.ones((size, size), np.uint8)
    for k, polygon in enumerate(rectangles(rng, size, size, 6)):
        value = 2 + k % 6
        picture, mask = paint(picture, polygon, colour(value)), paint(mask, polygon, value)
    picture[: size // 16] = 0  # outside of the survey
    mask[: size // 16] = 0
    return picture, mask


def make_loveda(root: Path, *, seed: int = 0, count: int = 2, size: int = 64) -> Path:
    """LoveDA as the benchmark reads it: ``trainval/{images,labels}`` and ``test/images``.

    Rural and urban, training and validation images in one flat folder (their numbers are unique
    over the whole set: training from 0, validation from 2522, test from 4191). Images are 8-bit RGB
    png of 1024x1024; masks 8-bit grey png with **0 for no data and 1 to 7** for the classes
    (mtp_finetune.md 2.1, 2.3; Wang et al., NeurIPS 2021 Datasets). Test images have no masks.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images of each split.
        size: Side of an image in pixels.
    """
    root = Path(root)
    for place, (split, first) in enumerate((('trainval', 2521), ('test', 4191))):
        for number in range(count):
            picture, mask = _loveda(generator(seed, 71, place, number), size)
            save(root / split / 'images' / f'{first + number}.png', picture)
            if split == 'trainval':
                save(root / split / 'labels' / f'{first + number}.png', mask)
    return root


def make_loveda_source(root: Path, *, seed: int = 0, count: int = 2, size: int = 64) -> Path:
    """LoveDA as it is downloaded: ``{Train,Val}/{Rural,Urban}/{images_png,masks_png}``, ``Test``.

    ``Test/{Rural,Urban}/images_png`` has no masks. Names are numbers without leading zeros, unique
    over the whole set: Train/Rural from 0, Train/Urban from 1366, Val/Rural from 2522, Val/Urban
    from 3514, Test/Rural from 4191, Test/Urban from 5167.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images of each split and scene.
        size: Side of an image in pixels.
    """
    root = Path(root)
    starts = {
        'Train': {'Rural': 0, 'Urban': 1366},
        'Val': {'Rural': 2522, 'Urban': 3514},
        'Test': {'Rural': 4191, 'Urban': 5167},
    }
    for split, scenes in starts.items():
        for scene, first in scenes.items():
            for number in range(first, first + count):
                picture, mask = _loveda(generator(seed, 72, number), size)
                save(root / split / scene / 'images_png' / f'{number}.png', picture)
                if split != 'Test':
                    save(root / split / scene / 'masks_png' / f'{number}.png', mask)
    return root
