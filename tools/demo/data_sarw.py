# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""VH and VV of an airborne SAR scene of Rotterdam's port (SpaceNet 6), with places held out."""

from __future__ import annotations

from pathlib import Path

import rasterio
from rasterio.windows import Window

SCENE = 'sar_masked.tif'
# Its bands are HH, HV, VH, VV.
BANDS = {'VH': 3, 'VV': 4}
# The swath begins at row 78 of 200; four columns between the two areas are in neither.
AREAS = {'train': Window(0, 78, 148, 122), 'test': Window(152, 78, 48, 122)}


def build_strips(source: Path, target: Path) -> None:
    """Writes ``{train,test}/strip.tif``, VH and VV in dB.

    Args:
        source: The folder with the scene.
        target: The folder to fill.
    """
    with rasterio.open(source / SCENE) as scene:
        for area, window in AREAS.items():
            profile = {
                **scene.profile, 'count': len(BANDS), 'height': window.height,
                'width': window.width, 'transform': scene.window_transform(window),
            }  # fmt: skip
            (target / area).mkdir(parents=True)
            with rasterio.open(target / area / 'strip.tif', 'w', **profile) as out:
                out.write(scene.read(list(BANDS.values()), window=window))
                out.descriptions = tuple(BANDS)
