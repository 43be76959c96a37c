# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Scenes seen by several sensors: optical, radar, height and labels show the same objects.

Radar is drawn as radar is: power with speckle (gamma distributed, as a few looks leave it), heavy
tails on buildings, dark water. What is bright in it is not what is bright in the picture, but both
follow the same objects, so that a model can learn the one from the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import Affine, from_origin

from .drawing import Array, colour, paint, rectangles, terrain


@dataclass(frozen=True)
class Scene:
    """What stands on a piece of ground.

    Attributes:
        rgb: (H, W, 3) uint8.
        label: (H, W) uint8; 0 where nothing stands, otherwise the class from 1.
        height: (H, W) float32, metres above ground; 0 where nothing stands.
        polygons: (n, 4, 2) of x and y in pixels.
        classes: Class of each polygon, from 1.
    """

    rgb: Array
    label: Array
    height: Array
    polygons: Array
    classes: tuple[int, ...]


def draw(
    rng: np.random.Generator,
    height: int,
    width: int,
    *,
    count: int = 5,
    classes: Sequence[int] = (1,),
    rotated: bool = True,
) -> Scene:
    """A scene with up to ``count`` objects, of the classes (from 1) in turn."""
    rgb = terrain(rng, height, width)
    label = np.zeros((height, width), np.uint8)
    metres = np.zeros((height, width), np.float32)
    polygons = rectangles(rng, height, width, count, rotated=rotated)
    names = tuple(classes[k % len(classes)] for k in range(len(polygons)))
    for polygon, name in zip(polygons, names, strict=True):
        rgb, label = paint(rgb, polygon, colour(name)), paint(label, polygon, name)
        stands = paint(np.zeros_like(label), polygon, 1).astype(bool)
        metres[stands] = rng.uniform(3, 60)
    return Scene(rgb, label, metres, polygons, names)


def backscatter(rng: np.random.Generator, scene: Scene, *, looks: float = 4.0) -> Array:
    """(H, W) float32 > 0: power, 1 on average over bare ground, 4 to 40 on objects, with speckle.

    Ground returns follow the slow waves of the picture (rough ground is dark and scatters), an
    object's strength its class and height, and its edge that faces the sensor (left) glares.
    """
    ground = 1.6 - scene.rgb.mean(-1).astype(np.float32) / 115
    power = np.clip(ground, 0.2, 1.4)
    stands = scene.label > 0
    power[stands] = 4 + 2 * scene.label[stands] + 0.2 * scene.height[stands]
    edge = stands & ~np.roll(stands, 1, axis=1)
    power[edge] *= 4
    return (power * rng.gamma(looks, 1 / looks, power.shape)).astype(np.float32)


def as_uint8(power: Array) -> Array:
    """Amplitudes stretched to 8 bits, as Umbra's products of the corpus: 0 is kept for no data."""
    return np.clip(32 * np.sqrt(power), 1, 255).astype(np.uint8)


def as_uint16(power: Array) -> Array:
    """Raw 16-bit amplitudes with heavy tails, as Capella's: 0 is kept for no data."""
    return np.clip(1500 * power, 1, 65535).astype(np.uint16)


def save_tif(
    path: Path,
    image: Array,
    *,
    transform: Affine | None = None,
    crs: str | None = None,
    nodata: float | None = None,
    compress: str | None = None,
) -> Path:
    """Writes (H, W) or (H, W, C) of any number type as a tif; with ``crs`` as a GeoTIFF.

    Without ``crs`` there is no trace of a map in the file, as scientific image writers leave it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = image.ndim == 2 or image.dtype == np.uint8  # what an image library writes
    if crs is None and nodata is None and plain:
        options = {'compression': f'tiff_{compress}'} if compress else {}
        Image.fromarray(image).save(path, **options)
        return path
    stack = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    if transform is None:
        transform = from_origin(590_000.0, 5_750_000.0, 0.5, 0.5)
        crs = crs or 'EPSG:32631'
    with rasterio.open(
        path, 'w', driver='GTiff', height=image.shape[0], width=image.shape[1], count=len(stack),
        dtype=stack.dtype.name, crs=crs, transform=transform, nodata=nodata, compress=compress,
    ) as target:  # fmt: skip
        target.write(stack)
    return path


def swath(height: int, width: int, share: float = 0.4) -> Array:
    """(H, W) bool: True within a swath whose slanted edge leaves about ``share`` outside."""
    rows, columns = np.mgrid[:height, :width]
    return columns / width + 0.3 * (rows / height - 0.5) >= share
