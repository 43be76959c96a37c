# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The Sentinel-2 scene of the demonstrations in the form of MMEarth.

Real are Sentinel-2 and the position. Land cover is derived: the classes of
``data_converters/spectral_index_labels.py`` as those of Dynamic World that they resemble. What is
neither there nor derivable (radar, elevation, climate, ...) is missing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio

from data_converters.scene_to_mmearth import scene_to_mmearth
from data_converters.spectral_index_labels import CLASSES

NAME = 'sentinel2_demo'
# Numbers that MMEarth stores; 0 is missing.
DYNAMIC_WORLD = {'water': 1, 'vegetation': 2, 'bare_built': 8, 'other': 0}


def build_mmearth(source: Path, target: Path, size: int = 64, gap: int = 64) -> dict[str, int]:
    """Writes the data set, in a folder of its own below ``target``.

    Its strips are those of the class tiles (:mod:`data_sentinel2`): the pretraining sees nothing of
    their test strip.

    Args:
        source: The folder with ``scene.tif`` and ``labels.tif``.
        target: The folder to fill.
        size: Side of the tiles in pixels.
        gap: Rows between strips.

    Returns:
        Number of tiles by split.
    """
    table = np.zeros(256, np.uint8)
    table[: len(CLASSES)] = [DYNAMIC_WORLD[name] for name in CLASSES]
    cover = target / 'land_cover.tif'
    with rasterio.open(source / 'labels.tif') as labels:
        profile = {**labels.profile, 'nodata': 0}
        with rasterio.open(cover, 'w', **profile) as out:
            out.write(table[labels.read(1)], 1)
    return scene_to_mmearth(
        source / 'scene.tif', target / NAME, layers={'dynamic_world': cover}, size=size, gap=gap,
        quiet=True,
    )  # fmt: skip
