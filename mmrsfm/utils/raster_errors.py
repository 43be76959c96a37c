# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""GDAL's errors as errors of mmrsfm, with the file and what really was wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmrsfm.errors import CorruptImageError


def innermost(error: BaseException) -> BaseException:
    """GDAL's own message hides behind rasterio's 'Read failed. See previous exception'."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error.args[2] if len(error.args) == 3 else error


@contextmanager
def decoding(path: str | Path, band: str | int | None = None) -> Iterator[None]:
    """Reading of one file within: what rasterio raises names it.

    Args:
        path: The file.
        band: The band, where it is a single one.

    Raises:
        CorruptImageError: If the file cannot be opened or decoded.
    """
    from rasterio.errors import RasterioError  # not before it is needed: it takes a while

    try:
        yield
    except RasterioError as error:
        raise CorruptImageError(
            f'cannot be decoded ({innermost(error)})', path=path, band=band
        ) from error
