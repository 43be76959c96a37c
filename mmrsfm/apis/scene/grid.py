# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The tiles of a scene: windows of one size that cover it with an overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mmrsfm.errors import ConfigError


@dataclass(frozen=True)
class Tile:
    """A window of a scene, in pixels of the scene.

    Attributes:
        index: Number of the tile in its grid, row by row, from 0.
        row: First row.
        col: First column.
        height: Rows. The window may reach over the lower edge of a scene that is smaller.
        width: Columns; likewise over the right edge.
    """

    index: int
    row: int
    col: int
    height: int
    width: int


class TileGrid:
    """The tiles that cover a rectangle.

    Tiles are ``tile_size - overlap`` pixels apart; the last one of each axis is moved back so that
    it ends with the rectangle, where that is not smaller than a tile.

    Args:
        height: Rows of the rectangle.
        width: Columns.
        tile_size: Side of the tiles in pixels.
        overlap: Pixels that neighbours share, 0 to ``tile_size - 1``.
        align: First rows and columns of the tiles are multiples of this; the last tile then
            reaches over the edge by less than that.
        origin: Row and column at which the rectangle begins.

    Attributes:
        rows: First row of each row of tiles, ascending.
        cols: First column of each column of tiles, ascending.

    Raises:
        ConfigError: If the sizes are none, or the overlap leaves no progress.
    """

    def __init__(
        self,
        height: int,
        width: int,
        tile_size: int,
        overlap: int = 0,
        align: int = 1,
        origin: tuple[int, int] = (0, 0),
    ) -> None:
        if min(height, width, tile_size, align) < 1 or not 0 <= overlap < tile_size:
            raise ConfigError(
                f'no tiles of {tile_size} pixels with an overlap of {overlap} cover {height} x '
                f'{width} pixels: sizes are at least 1, the overlap is smaller than a tile'
            )
        if tile_size % align:
            raise ConfigError(f'tiles of {tile_size} pixels are no multiple of {align}')
        self.height, self.width = height, width
        self.tile_size, self.overlap = tile_size, overlap
        step = max((tile_size - overlap) // align * align, align)
        self.rows = [origin[0] + at for at in _starts(height, tile_size, step, align)]
        self.cols = [origin[1] + at for at in _starts(width, tile_size, step, align)]

    def __len__(self) -> int:
        return len(self.rows) * len(self.cols)

    def __iter__(self) -> Iterator[Tile]:
        return self.tiles(range(len(self.rows)), range(len(self.cols)))

    def tiles(self, rows: Sequence[int], cols: Sequence[int]) -> Iterator[Tile]:
        """The tiles of some rows and columns of the grid, row by row.

        Args:
            rows: Numbers of rows of tiles.
            cols: Numbers of columns of tiles.

        Yields:
            The tiles.
        """
        for i in rows:
            for j in cols:
                yield Tile(
                    i * len(self.cols) + j,
                    self.rows[i],
                    self.cols[j],
                    self.tile_size,
                    self.tile_size,
                )

    def touching(self, starts: Sequence[int], first: int, last: int) -> range:
        """Which of the starts of an axis have tiles that touch a range of pixels.

        Args:
            starts: ``rows`` or ``cols``.
            first: First pixel of the range.
            last: The pixel after its last.

        Returns:
            Numbers in ``starts``, without gaps.
        """
        hit = [n for n, at in enumerate(starts) if at < last and at + self.tile_size > first]
        return range(hit[0], hit[-1] + 1)


def _starts(length: int, size: int, step: int, align: int) -> list[int]:
    """First pixels of the tiles along one axis."""
    if length <= size:
        return [0]
    last = -(-(length - size) // align) * align
    return [*range(0, last, step), last]
