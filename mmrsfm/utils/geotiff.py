# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Writing results on the grid of the image that they were made from."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetWriter

from mmrsfm.errors import ConfigError, ImageSizeError


def write_class_map(
    path: str | Path,
    class_map: np.ndarray,
    like: str | Path,
    class_names: Sequence[str] | None = None,
    palette: Sequence[Sequence[int]] | None = None,
    nodata: int | None = 255,
    tags: Mapping[str, str] | None = None,
) -> Path:
    """Writes a class map as a GeoTIFF with the CRS and the transform of its source.

    Args:
        path: The file to write; it appears only when it is complete.
        class_map: Class numbers, (H, W), 0 to 255, with ``nodata`` among them.
        like: The georeferenced image that the map belongs to.
        class_names: Written as a tag.
        palette: Colour of each class, red, green, blue in 0 to 255.
        nodata: The value of pixels without a class; ``None``: there are none.
        tags: More tags of the file.

    Returns:
        The path.

    Raises:
        ImageSizeError: If the map has another size than its source.
        ConfigError: If it holds numbers that 8 bits do not.
    """
    values = class_map.astype(np.uint8)
    if not np.array_equal(values, class_map):
        raise ConfigError(
            f'a class map of 8 bits holds 0 to 255, not {class_map.min()} to {class_map.max()}'
        )

    def describe(out: DatasetWriter) -> None:
        if palette is not None:
            out.write_colormap(1, {n: (*colour, 255) for n, colour in enumerate(palette)})
        if class_names is not None:
            out.update_tags(classes=','.join(class_names))
        if tags is not None:
            out.update_tags(**tags)

    return _write_like(Path(path), values, like, nodata, describe)


def write_float_map(
    path: str | Path,
    values: np.ndarray,
    like: str | Path,
    nodata: float | None = None,
) -> Path:
    """Writes a map of numbers, e.g. heights, as a float32 GeoTIFF on the grid of its source.

    Args:
        path: The file to write; it appears only when it is complete.
        values: (H, W).
        like: The image that the map belongs to; without a georeference the map has none.
        nodata: What the file declares as the value of pixels without a number.

    Returns:
        The path.

    Raises:
        ImageSizeError: If the map has another size than its source.
    """
    return _write_like(Path(path), values.astype(np.float32), like, nodata)


def _write_like(
    path: Path,
    values: np.ndarray,
    like: str | Path,
    nodata: float | None,
    describe: Callable[[DatasetWriter], None] | None = None,
) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        with rasterio.open(like) as source:
            crs, transform, shape = source.crs, source.transform, source.shape
    if values.shape != shape:
        raise ImageSizeError(f'the map is {values.shape}, its source {shape} pixels', path=like)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + '.partial')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', NotGeoreferencedWarning)
            with rasterio.open(
                partial, 'w', driver='GTiff', count=1, dtype=values.dtype.name, height=shape[0],
                width=shape[1], crs=crs, transform=transform, nodata=nodata, compress='deflate',
                tiled=True, blockxsize=256, blockysize=256,
            ) as out:  # fmt: skip
                out.write(values, 1)
                if describe is not None:
                    describe(out)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
