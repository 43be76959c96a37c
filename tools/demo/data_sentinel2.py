# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The Sentinel-2 scene of the demonstrations: stacked, labelled by index, and as tiles of a class.

The classes follow from thresholds on NDWI, NDVI and NDBI
(``data_converters/spectral_index_labels.py``); nobody has surveyed them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window
from sample_data import fetch_sample

from data_converters.spectral_index_labels import CLASSES as PIXEL_CLASSES
from data_converters.spectral_index_labels import IGNORE, label_scene
from data_converters.stack_bands import find_bands, stack_bands
from mmrsfm.utils.strips import make_strips

CLASSES = ('water', 'coast', 'vegetation', 'bare_built')
PALETTE = ((30, 90, 200), (90, 200, 220), (40, 150, 60), (205, 165, 110))
SPLITS = {'train': 0.60, 'val': 0.15, 'test': 0.25}


def prepare_scene(folder: Path) -> tuple[Path, Path]:
    """Fetches the scene, stacks its bands and derives labels, where not yet done.

    Args:
        folder: For ``source/``, ``scene.tif`` and ``labels.tif``.

    Returns:
        The scene and the labels.
    """
    bands = fetch_sample('sentinel2', folder / 'source')
    scene, labels = folder / 'scene.tif', folder / 'labels.tif'
    if not scene.exists():
        stack_bands(find_bands(str(bands / 's2_B*.jp2')), scene)
    if not labels.exists():
        label_scene(scene, labels)
    return scene, labels


def tile_class(labels: np.ndarray) -> str | None:
    """The class of a tile, by the shares of its pixels.

    ``water``: at least 90 % water; ``coast``: at least 20 % water; else ``vegetation``: at least
    60 %; else ``bare_built``: at least 40 %.

    Args:
        labels: Class numbers of the pixels, (H, W); 255 is no data.

    Returns:
        The class, or ``None`` for a tile that is a mixture of something else.
    """
    counts = np.bincount(labels[labels != IGNORE], minlength=len(PIXEL_CLASSES))
    share = dict(zip(PIXEL_CLASSES, counts / labels.size, strict=True))
    if share['water'] >= 0.2:
        return 'water' if share['water'] >= 0.9 else 'coast'
    if share['vegetation'] >= 0.6:
        return 'vegetation'
    return 'bare_built' if share['bare_built'] >= 0.4 else None


def build_class_tiles(
    source: Path, target: Path, size: int = 32, gap: int = 64
) -> dict[str, dict[str, int]]:
    """Writes ``{train,val,test}/<class>/<row>_<column>.tif``: one folder of tiles for each class.

    Tiles of no class are left out. The splits are strips with a gap between them.

    Args:
        source: The folder with ``scene.tif`` and ``labels.tif``.
        target: The folder to fill.
        size: Side of the tiles in pixels.
        gap: Rows between strips.

    Returns:
        Number of tiles by split and class.
    """
    counts: dict[str, dict[str, int]] = {}
    with (
        rasterio.open(source / 'scene.tif') as scene,
        rasterio.open(source / 'labels.tif') as labels,
    ):
        label_map = labels.read(1)
        profile = dict(scene.profile, width=size, height=size, tiled=False, interleave='pixel')
        for option in ('compress', 'blockxsize', 'blockysize'):
            profile.pop(option, None)
        for strip in make_strips(scene.height, size, gap, SPLITS):
            counts[strip.name] = dict.fromkeys(CLASSES, 0)
            for row in range(strip.top, strip.bottom - size + 1, size):
                for column in range(0, scene.width - size + 1, size):
                    name = tile_class(label_map[row : row + size, column : column + size])
                    if name is None:
                        continue
                    path = target / strip.name / name / f'{row:05d}_{column:05d}.tif'
                    path.parent.mkdir(parents=True, exist_ok=True)
                    window = Window(column, row, size, size)
                    profile['transform'] = scene.window_transform(window)
                    with rasterio.open(path, 'w', **profile) as out:
                        out.write(scene.read(window=window))
                        out.descriptions = scene.descriptions
                    counts[strip.name][name] += 1
    return counts
