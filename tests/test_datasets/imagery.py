# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Small imagery for tests, written to files."""

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

TRANSFORM = Affine(10.0, 0.0, 500000.0, 0.0, -10.0, 4200000.0)


def numbers(bands=4, height=24, width=20, dtype='uint16') -> np.ndarray:
    """(C, H, W): every pixel of every band has a number of its own."""
    count = bands * height * width
    return (np.arange(count).reshape(bands, height, width) % 60000).astype(dtype)


def write_tif(path, array, names=None, nodata=None, geo=True, driver='GTiff', **options) -> str:
    """Writes (C, H, W) to a GeoTIFF or another format of GDAL, and returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {'crs': 'EPSG:32618', 'transform': TRANSFORM} if geo else {}
    count, height, width = array.shape
    with rasterio.open(
        path, 'w', driver=driver, count=count, height=height, width=width, dtype=array.dtype,
        nodata=nodata, **profile, **options,
    ) as target:  # fmt: skip
        target.write(array)
        for number, name in enumerate(names or (), start=1):
            target.set_band_description(number, name)
    return str(path)


def truncate(source, target, fraction=0.6) -> str:
    """Copies the first part of a file."""
    data = Path(source).read_bytes()
    Path(target).write_bytes(data[: int(len(data) * fraction)])
    return str(target)
