# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Where rasters lie: grids may be turned, or have the south on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def corners(raster: Any) -> np.ndarray:
    """x, y and 1 (the rows) of the four outer corners (the columns) of an open raster."""
    w, h = raster.width, raster.height
    pixels = np.array([[0, w, 0, w], [0, 0, h, h], [1, 1, 1, 1]], dtype=float)
    return np.reshape(raster.transform, (3, 3)) @ pixels


def outer_bounds(raster: Any) -> tuple[float, float, float, float]:
    """Least x and y, largest x and y of an open raster, whichever way its rows run.

    rasterio's ``bounds`` are those of upper left and lower right corner.
    """
    places = corners(raster)[:2]
    (left, bottom), (right, top) = places.min(axis=1).tolist(), places.max(axis=1).tolist()
    return left, bottom, right, top


def overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two boxes (least x and y, largest x and y) have an area in common."""
    return all(one[k] < other[k + 2] and other[k] < one[k + 2] for k in (0, 1))


def largest_shift(one: Any, other: Any) -> float:
    """How far the corners of two rasters in one CRS lie apart, in pixels of the first."""
    moved = np.linalg.solve(np.reshape(one.transform, (3, 3)), corners(other) - corners(one))
    return float(np.hypot(moved[0], moved[1]).max())
