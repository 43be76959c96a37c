# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""One image from several files that hold one band each, at one or several resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmrsfm.datasets.raster import Raster, Window, image_shape, read_raster
from mmrsfm.datasets.transforms.geometry import resample_image
from mmrsfm.datasets.transforms.load_multi_band_image import check_nan
from mmrsfm.errors import BandMismatchError, ImageNotFoundError, ImageSizeError


def read_band_files(
    paths: Sequence[str],
    names: tuple[str, ...] | None,
    window: Window | None,
    missing: str = 'error',
    all_nan: str = 'error',
) -> Raster:
    """Reads single-band files of one scene and resamples them to the finest of them.

    Args:
        paths: One file a band. Every file covers the same ground; the resolution of each is the
            finest one divided by a whole number (10, 20 and 60 m for Sentinel-2, with edges
            rounded).
        names: Names of the bands.
        window: (row, column, height, width) in pixels of the finest grid; ``None`` reads
            everything.
        missing: ``'error'``; ``'invalid'``: a band whose file is not there is NaN, as long as one
            is there.
        all_nan: What a file is that holds nothing but NaN: ``'error'``, or ``'invalid'``, as it is.

    Raises:
        CorruptImageError: A file cannot be decoded, or holds nothing but NaN.
        ImageNotFoundError: A file is not there.
        BandMismatchError: A file holds more than one band.
        ImageSizeError: The shapes do not belong to one scene.
    """
    there = [path for path in paths if missing == 'error' or Path(path).exists()]
    if len(there) < len(paths):
        return _with_gaps(paths, there, names, window, all_nan)
    rasters = []
    shapes = [image_shape(path) for path in paths]
    finest = max(shapes)
    for position, (path, shape) in enumerate(zip(paths, shapes, strict=True)):
        step = round(finest[0] / shape[0])
        if any(
            abs(fine - coarse * step) >= step for fine, coarse in zip(finest, shape, strict=True)
        ):
            raise ImageSizeError(
                f'{shape[0]} x {shape[1]} pixels (H x W) do not cover the same ground as '
                f'{finest[0]} x {finest[1]} pixels of the finest band',
                path=path,
                band=None if names is None else names[position],
            )
        raster = _read_one(path, shape, step, finest, window)
        if raster.array.shape[2] != 1:
            raise BandMismatchError(
                f'one band a file is expected, got {raster.array.shape[2]}', path=path
            )
        band = None if names is None else names[position]
        check_nan(raster.array, raster.nodata, finest, path, band, all_nan)
        rasters.append(raster)
    first = rasters[shapes.index(finest)]
    array = np.concatenate([raster.array for raster in rasters], axis=2)
    masks = [raster.mask for raster in rasters if raster.mask is not None]
    return Raster(
        array,
        names,
        tuple(raster.nodata[0] for raster in rasters),
        np.logical_and.reduce(masks) if masks else None,
        first.geo,
        finest,
    )


def _with_gaps(
    paths: Sequence[str],
    there: Sequence[str],
    names: tuple[str, ...] | None,
    window: Window | None,
    all_nan: str,
) -> Raster:
    if not there:
        raise ImageNotFoundError(f'no such file, nor any of the {len(paths)} bands', path=paths[0])
    raster = read_band_files(there, None, window, all_nan=all_nan)
    array = np.full((*raster.array.shape[:2], len(paths)), np.nan, np.float32)
    at = [position for position, path in enumerate(paths) if path in there]
    array[..., at] = raster.array
    nodata: list[float | None] = [None] * len(paths)
    for position, value in zip(at, raster.nodata, strict=True):
        nodata[position] = value
    return Raster(array, names, tuple(nodata), raster.mask, raster.geo, raster.full_shape)


def _read_one(
    path: str, shape: tuple[int, int], step: int, finest: tuple[int, int], window: Window | None
) -> Raster:
    if step == 1:
        return read_raster(path, window=window)
    row, column, h, w = (0, 0, *finest) if window is None else window
    # The coarse pixels that the window touches, and one more on each side for the interpolation.
    top, left = max(row // step - 1, 0), max(column // step - 1, 0)
    bottom = min(-(-(row + h) // step) + 1, shape[0])
    right = min(-(-(column + w) // step) + 1, shape[1])
    raster = read_raster(path, window=(top, left, bottom - top, right - left))
    fine = ((bottom - top) * step, (right - left) * step)
    image = resample_image(raster.array, fine, 'bilinear', False, keep_dtype=True)
    rows = np.minimum(np.arange(row, row + h) - top * step, fine[0] - 1)
    columns = np.minimum(np.arange(column, column + w) - left * step, fine[1] - 1)
    raster.array = image[rows[:, None], columns[None, :]]
    if raster.mask is not None:
        raster.mask = np.repeat(np.repeat(raster.mask, step, 0), step, 1)[rows[:, None], columns]
    return raster
