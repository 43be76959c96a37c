# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Areas of interest: polygons or bounds, on the pixels of a scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.features import rasterize
from shapely.geometry import shape

from mmrsfm.apis.scene.grid import Tile
from mmrsfm.errors import DataError, OutsideAreaError
from mmrsfm.utils.vector import read_polygons

Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class Region:
    """A rectangle of pixels.

    Attributes:
        row: First row.
        col: First column.
        height: Rows.
        width: Columns.
    """

    row: int
    col: int
    height: int
    width: int

    def grown(self, pixels: int, limits: Region) -> Region:
        """The rectangle with a margin, inside of another.

        Args:
            pixels: The margin.
            limits: What it must not leave.
        """
        top = max(self.row - pixels, limits.row)
        left = max(self.col - pixels, limits.col)
        bottom = min(self.row + self.height + pixels, limits.row + limits.height)
        right = min(self.col + self.width + pixels, limits.col + limits.width)
        return Region(top, left, bottom - top, right - left)

    def widened(self, least: int, limits: Region, align: int = 1) -> Region:
        """The rectangle, on all sides larger where it is smaller than a tile, inside of another.

        Args:
            least: Its sides in pixels at least, where the other one has as many.
            limits: What it must not leave.
            align: The first row and column are multiples of this.
        """
        row, height = _widened(self.row, self.height, least, limits.row, limits.height, align)
        col, width = _widened(self.col, self.width, least, limits.col, limits.width, align)
        return Region(row, col, height, width)


@dataclass
class Area:
    """Where results are wanted.

    Attributes:
        region: The rectangle of pixels around it, inside of the scene.
        polygons: Its polygons in pixels of the scene, x to the right and y down; ``None``: the
            whole rectangle.
    """

    region: Region
    polygons: list[Any] | None = None
    _tree: Any = field(default=None, repr=False)

    def mask(self, tile: Tile) -> np.ndarray:
        """Which pixels of a tile have their centre in the area.

        Args:
            tile: The window.

        Returns:
            (H, W) bool.
        """
        region = self.region
        inside = np.zeros((tile.height, tile.width), bool)
        top, left = max(region.row - tile.row, 0), max(region.col - tile.col, 0)
        bottom = region.row + region.height - tile.row
        right = region.col + region.width - tile.col
        if bottom <= 0 or right <= 0:
            return inside
        inside[top:bottom, left:right] = True
        if self.polygons is None or not inside.any():
            return inside
        if self._tree is None:
            self._tree = shapely.STRtree(self.polygons)
        window = shapely.box(tile.col, tile.row, tile.col + tile.width, tile.row + tile.height)
        near = [self.polygons[number] for number in self._tree.query(window)]
        if not near:
            return np.zeros_like(inside)
        burnt = rasterize(
            near, out_shape=inside.shape, transform=Affine.translation(tile.col, tile.row),
            fill=0, default_value=1, dtype='uint8',
        )  # fmt: skip
        return inside & (burnt > 0)


def _widened(
    start: int, size: int, least: int, first: int, limit: int, align: int
) -> tuple[int, int]:
    """First pixel and number of pixels of one axis."""
    if size >= least:
        return start, size
    end = start + size
    start = min(start - (least - size) // 2, first + limit - least)
    start = max(start, first) // align * align
    return start, min(max(start + least, end), first + limit) - start


def find_area(
    aoi: str | Path | Sequence[float] | None,
    height: int,
    width: int,
    crs: CRS | None,
    transform: Affine,
) -> Area | None:
    """Brings an area of interest onto the pixels of a scene.

    Args:
        aoi: A vector file (GeoJSON without a CRS is in longitude and latitude), or bounds (left,
            bottom, right, top) in the CRS of the scene; without georeference pixels, with the
            origin at the upper left corner. ``None``: everywhere.
        height: Rows of the scene.
        width: Columns.
        crs: Its CRS.
        transform: Its transform.

    Returns:
        The area; ``None`` for everywhere.

    Raises:
        OutsideAreaError: If it does not lie in the scene.
        DataError: If the file is none.
    """
    if aoi is None:
        return None
    inverse = ~transform
    where: str | None = None
    if isinstance(aoi, (str, Path)):
        where = str(aoi)
        if crs is None and not transform.is_identity:
            raise DataError('the scene has no CRS that polygons could be brought to', path=where)
        found = [shape(one.geometry) for one in read_polygons(aoi, crs)]
        if not found:
            raise DataError('holds no polygon', path=where)
    else:
        if len(aoi) != 4:
            raise DataError(f'bounds are left, bottom, right, top, got {list(aoi)}')
        left, bottom, right, top = (float(value) for value in aoi)
        if not (left < right and bottom != top):
            raise DataError(f'the bounds {list(aoi)} (left, bottom, right, top) are empty')
        found = [shapely.box(left, min(bottom, top), right, max(bottom, top))]
    a, b, c, d, e, f = tuple(inverse)[:6]
    pixels = [
        shapely.transform(one, lambda xy: np.stack(
            [a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f], axis=1
        ))
        for one in found
    ]  # fmt: skip
    scene = shapely.box(0, 0, width, height)
    pixels = [one for one in pixels if one.intersects(scene)]
    bounds = shapely.total_bounds([one.intersection(scene) for one in pixels]) if pixels else None
    if bounds is None or not (bounds[2] > bounds[0] and bounds[3] > bounds[1]):
        raise OutsideAreaError('the area of interest does not lie in the scene', path=where)
    left, top, right, bottom = bounds
    row, col = int(np.floor(top + 1e-6)), int(np.floor(left + 1e-6))
    region = Region(
        row, col, int(np.ceil(bottom - 1e-6)) - row, int(np.ceil(right - 1e-6)) - col
    )  # fmt: skip
    upright = abs(transform.b) + abs(transform.d) < 1e-12
    whole = len(pixels) == 1 and upright and not isinstance(aoi, (str, Path))
    return Area(region, None if whole else pixels)
