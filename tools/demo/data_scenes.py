# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The SpaceNet scene of Atlanta as whole scenes: as the models know it, and as a simulated pair."""

from __future__ import annotations

from pathlib import Path

import data_atlanta
import numpy as np
import rasterio
from rasterio.features import rasterize

CHANGE = 'change.tif'
_UNSEEN = 255


def build_scenes(source: Path, target: Path) -> None:
    """Writes ``atlanta.tif``, ``before.tif``, ``after.tif`` (three equal 8-bit bands) and CHANGE.

    CHANGE is 1 where a building came or went, 0 where none did, 255 where a model of change was
    trained.

    Args:
        source: The unpacked sample.
        target: The folder to fill.
    """
    scene, transform = data_atlanta.read_scene(source / data_atlanta.SCENE)
    buildings = data_atlanta.read_buildings(source / data_atlanta.LABELS, transform)
    with rasterio.open(source / data_atlanta.SCENE) as file:
        crs = file.crs
    occupied = rasterize([(one, 1) for one in buildings], scene.shape, dtype='uint8')
    rng = np.random.default_rng(0)
    fate = rng.integers(0, 4, len(buildings))  # 0: gone, 1: new, else as it was
    gone = [one for one, f in zip(buildings, fate, strict=True) if f == 0]
    new = [one for one, f in zip(buildings, fate, strict=True) if f == 1]
    before = data_atlanta.remove_buildings(scene, new, scene, occupied, rng)
    after = data_atlanta.remove_buildings(scene, gone, scene, occupied, rng)
    change = data_atlanta.polygon_mask(gone + new, len(scene))
    change[:, data_atlanta.AREAS['test'][1] :] = _UNSEEN
    shared = dict(
        driver='GTiff', height=scene.shape[0], width=scene.shape[1], dtype='uint8', crs=crs,
        transform=transform, tiled=True, blockxsize=256, blockysize=256, compress='deflate',
    )  # fmt: skip
    pictures = {'atlanta': scene, 'before': before, 'after': data_atlanta.other_date(after, rng)}
    for name, image in pictures.items():
        with rasterio.open(target / f'{name}.tif', 'w', count=3, **shared) as out:
            for band in (1, 2, 3):
                out.write(image, band)
            out.descriptions = ('red', 'green', 'blue')
    with rasterio.open(target / CHANGE, 'w', count=1, nodata=_UNSEEN, **shared) as out:
        out.write(change, 1)
