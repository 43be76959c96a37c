# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Derives a land-cover map from spectral indices of a multispectral scene.

These are *derived labels*, not ground truth: thresholds on NDWI (McFeeters 1996), NDVI (Rouse
1974) and NDBI (Zha 2003), good for demonstrations and tests with real imagery. A model trained on
them learns the thresholds.

Example::

    python data_converters/spectral_index_labels.py scene.tif labels.tif
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import rasterio

from mmrsfm.apis.geotiff import write_class_map
from mmrsfm.errors import BandMismatchError, CorruptImageError
from mmrsfm.utils.conversion import errors_end_command
from mmrsfm.utils.raster_errors import decoding

CLASSES = ('water', 'vegetation', 'bare_built', 'other')
PALETTE = ((30, 90, 200), (40, 150, 60), (205, 165, 110), (150, 150, 150))
IGNORE = 255
# Band names of Sentinel-2; another sensor gives its own.
SENTINEL2 = {'green': 'B03', 'red': 'B04', 'nir': 'B08', 'swir': 'B11'}


def spectral_index_labels(
    green: np.ndarray,
    red: np.ndarray,
    nir: np.ndarray,
    swir: np.ndarray,
    ndwi_threshold: float = 0.1,
    ndvi_threshold: float = 0.6,
    ndbi_threshold: float = 0.1,
    dark_percentile: float | None = 0.1,
) -> np.ndarray:
    """Classifies each pixel: water, else vegetation, else bare or built, else other.

    Args:
        green: Green band of a scene, (H, W), any positive unit; zero is no data.
        red: Red band, likewise.
        nir: Near-infrared band, likewise.
        swir: Short-wave infrared band (1.6 µm), likewise.
        ndwi_threshold: Water where (green - nir) / (green + nir) is above it.
        ndvi_threshold: Vegetation where (nir - red) / (nir + red) is above it.
        ndbi_threshold: Bare or built where (swir - nir) / (swir + nir) is above it.
        dark_percentile: Before the indices, this percentile of each band is subtracted (dark
            object subtraction: top-of-atmosphere values hold haze, which is strongest in the
            visible and turns dark marsh into water). ``None`` for surface reflectance.

    Returns:
        Class numbers, uint8 (H, W): index into :data:`CLASSES`, 255 where a band has no data.
    """
    valid = (green > 0) & (red > 0) & (nir > 0) & (swir > 0)
    bands = []
    for band in (green, red, nir, swir):
        band = band.astype(np.float32)
        if dark_percentile is not None and valid.any():
            band = np.maximum(band - np.percentile(band[valid], dark_percentile), 1e-6)
        bands.append(band)
    green, red, nir, swir = bands
    with np.errstate(divide='ignore', invalid='ignore'):
        ndwi = (green - nir) / (green + nir)
        ndvi = (nir - red) / (nir + red)
        ndbi = (swir - nir) / (swir + nir)
    labels = np.full(green.shape, 3, dtype=np.uint8)
    labels[ndbi > ndbi_threshold] = 2
    labels[ndvi > ndvi_threshold] = 1
    labels[ndwi > ndwi_threshold] = 0
    labels[~valid] = IGNORE
    return labels


def label_scene(
    scene: str | Path,
    target: str | Path,
    band_names: Mapping[str, str] = SENTINEL2,
    **thresholds: float | None,
) -> np.ndarray:
    """Labels a GeoTIFF whose band descriptions are band names, and writes the map on its grid.

    Args:
        scene: A GeoTIFF.
        target: The label GeoTIFF to write: uint8, no data 255, colour table.
        band_names: Which band is green, red, nir and swir.
        **thresholds: Passed to :func:`spectral_index_labels`.

    Returns:
        The labels, uint8 (H, W).

    Raises:
        BandMismatchError: If the scene lacks a band.
    """
    with decoding(scene), rasterio.open(scene) as source:
        names = list(source.descriptions)
        for role, name in band_names.items():
            if name not in names:
                raise BandMismatchError(
                    f'needed as {role}, but the file has {names}',
                    path=scene,
                    band=name,
                    hint='Set band descriptions, or give other band names',
                )
        arrays = {role: source.read(names.index(name) + 1) for role, name in band_names.items()}
        labels = spectral_index_labels(**arrays, **thresholds)  # type: ignore[arg-type]
    tags = {'origin': 'derived from NDWI, NDVI, NDBI'}
    if (labels == IGNORE).all():
        raise CorruptImageError('has no pixel with data in all of its bands', path=scene)
    write_class_map(target, labels, scene, CLASSES, PALETTE, IGNORE, tags)
    return labels


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('scene', help='GeoTIFF with band names as descriptions')
    parser.add_argument('target', help='label GeoTIFF to write')
    for role, name in SENTINEL2.items():
        parser.add_argument(f'--{role}', default=name, help=f'name of the {role} band')
    args = parser.parse_args()
    with errors_end_command():
        labels = label_scene(
            args.scene, args.target, {role: getattr(args, role) for role in SENTINEL2}
        )
    counts = np.bincount(labels.ravel(), minlength=256)
    shares = ', '.join(
        f'{name} {counts[index] / labels.size:.1%}' for index, name in enumerate(CLASSES)
    )
    print(f'{args.target}: {shares}, no data {counts[IGNORE] / labels.size:.1%}')


if __name__ == '__main__':
    main()
