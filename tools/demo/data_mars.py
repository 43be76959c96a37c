# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pairs of optical and SAR tiles of the port of Rotterdam (SpaceNet 6), with places held out."""

from __future__ import annotations

from pathlib import Path

import rasterio
from rasterio.windows import Window

from data_converters.cut_pairs import PairCounts, cut_pairs

SCENES = {'rgb': 'rgb_unmasked.tif', 'sar': 'sar_masked.tif'}
# Rows, and columns, of the scene of 200 x 200 pixels; four rows between them are in neither. SAR
# begins at about row 78: above, the training sees optical images alone.
AREAS = {'train': Window(0, 0, 200, 148), 'test': Window(0, 152, 192, 48)}
# Training tiles overlap, and each step takes a part of them; test tiles do not.
TILES = {
    'train': dict(size=48, stride=12, min_valid=0.0),
    'test': dict(size=16, stride=16, min_valid=0.7),
}


def build_pairs(source: Path, target: Path) -> dict[str, PairCounts]:
    """Writes ``{train,test}/{rgb,sar}/<area>_<row>_<column>.tif`` and the two areas whole.

    Args:
        source: The folder with the two scenes.
        target: The folder to fill.

    Returns:
        What became of the windows of each area.
    """
    counts = {}
    for area, window in AREAS.items():
        strips = {}
        for kind, name in SCENES.items():
            strips[kind] = target / 'areas' / kind / f'{area}.tif'
            strips[kind].parent.mkdir(parents=True, exist_ok=True)
            with rasterio.open(source / name) as scene:
                profile = {
                    **scene.profile, 'height': window.height, 'width': window.width,
                    'transform': scene.window_transform(window),
                }  # fmt: skip
                with rasterio.open(strips[kind], 'w', **profile) as out:
                    out.write(scene.read(window=window))
        counts[area] = cut_pairs(
            strips['rgb'], strips['sar'], target / area, quiet=True, **TILES[area]
        )
    return counts
