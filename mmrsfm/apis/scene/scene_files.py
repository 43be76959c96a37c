# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Opening scenes, the further ones on the grid of the first."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rasterio
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds

from mmrsfm.errors import CorruptImageError, DataError, ImageNotFoundError, ImageSizeError
from mmrsfm.utils.grids import outer_bounds, overlap


def open_scene(path: str, first: Any, resampling: Resampling, stack: list[Any]) -> Any:
    """Opens a scene.

    Args:
        path: The scene, anything that GDAL reads.
        first: The scene whose grid it is to have, open; ``None``: its own.
        resampling: How it is brought there, window by window, where its grid is another one; what
            it does not cover is masked then.
        stack: What has to be closed is added.

    Returns:
        An open dataset of rasterio.

    Raises:
        ImageNotFoundError: If it is not there.
        CorruptImageError: If it cannot be opened.
        ImageSizeError: If one of the two has no CRS, and their sizes differ.
        DataError: If the two do not overlap, one cannot be projected to the other, or their places
            differ and one of them has no CRS.
    """
    # NETCDF:"a.nc":band, GTIFF_DIR:2:a.tif and the like are no paths of files.
    inside = path.startswith('/vsi') or '://' in path or re.match('[A-Z0-9_]{2,}:', path)
    if not (inside or Path(path).exists()):
        raise ImageNotFoundError('no such scene', path=path)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        try:
            file = rasterio.open(path)
        except RasterioError as error:
            raise CorruptImageError(f'cannot be opened as an image ({error})', path=path) from error
    stack.append(file)
    if first is None or _same_grid(first, file):
        return file
    if first.crs is None or file.crs is None:
        placed = not (first.transform.is_identity or file.transform.is_identity)
        if first.shape == file.shape and not (placed and not _same_place(first, file)):
            return file  # nothing says where one of them is: pixel for pixel
        if first.shape == file.shape:
            raise DataError(
                f'lies elsewhere than the first scene {first.name}, and one of them has no CRS to '
                'reproject by',
                path=path,
            )
        raise ImageSizeError(
            f'{file.height} x {file.width} pixels, the first scene {first.height} x '
            f'{first.width}, and one of them has no CRS to reproject by',
            path=path,
            hint='Co-register the pair, or give both scenes their georeference',
        )
    return _reprojected(file, first, resampling, stack)


def _reprojected(file: Any, first: Any, resampling: Resampling, stack: list[Any]) -> Any:
    path = file.name
    try:
        bounds = transform_bounds(file.crs, first.crs, *outer_bounds(file))
    except RasterioError as error:
        raise DataError(
            f'cannot be reprojected from {file.crs} to {first.crs} ({error})', path=path
        ) from error
    here = outer_bounds(first)
    if not overlap(bounds, here):
        raise DataError(
            f'does not overlap the first scene {first.name}: it spans {_spans(bounds)} in '
            f'{first.crs}, the first {_spans(here)}',
            path=path,
        )
    nodata = file.nodata
    has_alpha = any(MaskFlags.alpha in flags for flags in file.mask_flag_enums)
    options: dict[str, Any] = {} if nodata is not None else {'add_alpha': not has_alpha}
    warped = WarpedVRT(
        file, crs=first.crs, transform=first.transform, width=first.width, height=first.height,
        resampling=resampling, nodata=nodata, **options,
    )  # fmt: skip
    stack.append(warped)
    return warped


def _same_grid(one: Any, other: Any) -> bool:
    return one.shape == other.shape and one.crs == other.crs and _same_place(one, other)


def _same_place(one: Any, other: Any) -> bool:
    near = 1e-6 * (abs(one.transform.a) + abs(one.transform.b))
    return one.transform.almost_equals(other.transform, near)


def _spans(bounds: Sequence[float]) -> str:
    return f'x {bounds[0]:g} to {bounds[2]:g}, y {bounds[1]:g} to {bounds[3]:g}'
