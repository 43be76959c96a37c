# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Maps of a scene out of overlapping maps of its tiles, block by block, in bounded memory.

The value of a pixel is the weighted mean of what its tiles say (of logits, heights, features). The
weight of a tile is 0 in the outer quarter of its overlap, where a model sees least around a pixel,
rises as a raised cosine over the middle half, and is 1 in the rest; at borders of the scene, where
no tile knows more, it stays 1. So a model that sees no further than a quarter of the overlap gives
what it gives for the whole scene at once.

The mean is kept as a running one, ``mean += (value - mean) * weight / sum``: where all tiles say
the same it is that, to the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from mmrsfm.apis.scene.area import Region
from mmrsfm.apis.scene.grid import Tile, TileGrid


@dataclass(frozen=True)
class Block:
    """A part of a map that is finished, and written, at once.

    Attributes:
        index: Its number.
        panel: Number of the vertical panel that it belongs to; blocks of one panel follow each
            other from top to bottom.
        region: Its pixels, in pixels of the map.
    """

    index: int
    panel: int
    region: Region


def plan_blocks(
    height: int, width: int, channels: int, tile: int, step: int, unit: int, memory: int
) -> list[Block]:
    """Divides a map into blocks.

    Args:
        height: Rows of the map.
        width: Columns.
        channels: Channels of what is blended.
        tile: Side of the tiles in pixels of the map.
        step: Pixels from tile to tile.
        unit: Sides of blocks are multiples of this, except at the right and at the bottom.
        memory: About as many bytes may be held while a block is blended.

    Returns:
        The blocks, panel by panel, each from top to bottom.
    """
    rows = -(-max(step, 1) // unit) * unit
    per_column = 4 * (channels + 2) * (rows + tile)
    columns = max(memory // per_column // unit, 1) * unit
    panels = max(-(-width // columns), 1)
    columns = -(-width // panels // unit) * unit  # of about equal width
    result: list[Block] = []
    for panel, left in enumerate(range(0, width, columns)):
        for top in range(0, height, rows):
            region = Region(top, left, min(rows, height - top), min(columns, width - left))
            result.append(Block(len(result), panel, region))
    return result


class Blender:
    """Blends the maps of tiles, for the blocks of one panel from top to bottom.

    Args:
        grid: The tiles, in pixels of the scene.
        region: What the grid covers, in pixels of the scene: the map's pixel (0, 0) is its corner.
        stride: Pixels of the scene that a pixel of the map is wide.
        scene: Height and width of the scene: at its borders tiles keep their weight.
    """

    def __init__(self, grid: TileGrid, region: Region, stride: int, scene: tuple[int, int]) -> None:
        self.grid, self.region, self.stride, self.scene = grid, region, stride, scene
        self.size = grid.tile_size // stride
        self._profiles: dict[tuple[bool, bool], torch.Tensor] = {}
        self._block: Block | None = None
        self._mean: torch.Tensor | None = None
        self._total = torch.zeros((0, 0))
        self._valid = torch.zeros((0, 0), dtype=torch.bool)

    def tiles_of(self, block: Block, before: Block | None) -> list[Tile]:
        """The tiles that have to be predicted for a block.

        Args:
            block: The block.
            before: The block that was finished just before it, whose rest is kept; ``None``: none.

        Returns:
            The tiles, row by row.
        """
        grid, stride = self.grid, self.stride
        top = self.region.row + block.region.row * stride
        left = self.region.col + block.region.col * stride
        rows = grid.touching(grid.rows, top, top + block.region.height * stride)
        cols = grid.touching(grid.cols, left, left + block.region.width * stride)
        first = rows.start
        if before is not None and follows(block, before):
            last = self.region.row + (before.region.row + before.region.height) * stride
            done = grid.touching(grid.rows, last - before.region.height * stride, last)
            first = max(first, done.stop)
        return list(grid.tiles(range(first, rows.stop), cols))

    def begin(self, block: Block, channels: int | None) -> None:
        """Starts a block, with the rest of the one above where that was the last one.

        Args:
            block: The block.
            channels: Channels of the maps; ``None``: not known before the first one.
        """
        height = block.region.height + self.size
        kept = self._block is not None and follows(block, self._block)
        old = self._block.region.height if kept and self._block is not None else 0
        shape = (height, block.region.width)
        fresh_valid = torch.zeros(shape, dtype=torch.bool)
        fresh_total = torch.zeros(shape)
        if kept:
            rest = min(self._valid.shape[0] - old, height)
            fresh_valid[:rest] = self._valid[old : old + rest]
            fresh_total[:rest] = self._total[old : old + rest]
        mean: torch.Tensor | None = None
        if kept and self._mean is not None:
            mean = torch.zeros((len(self._mean), *shape))
            mean[:, :rest] = self._mean[:, old : old + rest]
        elif channels is not None:
            mean = torch.zeros((channels, *shape))
        self._block, self._mean, self._total, self._valid = block, mean, fresh_total, fresh_valid

    def add(self, tile: Tile, values: torch.Tensor | None, valid: np.ndarray) -> None:
        """Adds what one tile says.

        Args:
            tile: The tile.
            values: (K, h, w) float32, at the size of the tile divided by the stride; ``None``: the
                tile has no valid pixel, and was not predicted.
            valid: (H, W) bool, where the scene has data.
        """
        assert self._block is not None
        stride, block = self.stride, self._block.region
        top = (tile.row - self.region.row) // stride - block.row
        left = (tile.col - self.region.col) // stride - block.col
        rows = slice(max(top, 0), min(top + self.size, self._total.shape[0]))
        cols = slice(max(left, 0), min(left + self.size, self._total.shape[1]))
        if rows.start >= rows.stop or cols.start >= cols.stop:
            return
        inner = (
            slice(rows.start - top, rows.stop - top),
            slice(cols.start - left, cols.stop - left),
        )
        mask = torch.from_numpy(np.ascontiguousarray(valid))
        if stride > 1:
            mask = mask.reshape(self.size, stride, self.size, stride).any(3).any(1)
        self._valid[rows, cols] |= mask[inner]
        if values is None:
            return
        if self._mean is None:
            self._mean = torch.zeros((len(values), *self._total.shape))
        weight = self._weight(tile)[inner]
        total = self._total[rows, cols]
        total += weight
        ratio = weight / total.clamp(min=1e-30)
        mean = self._mean[:, rows, cols]
        mean += (values[(slice(None), *inner)] - mean) * ratio

    def finish(self) -> tuple[torch.Tensor | None, torch.Tensor]:
        """The block.

        Returns:
            (K, h, w) float32, the means; ``None`` where no tile of the panel had data so far; and
            (h, w) bool, where they mean something.
        """
        assert self._block is not None
        height = self._block.region.height
        mean = None if self._mean is None else self._mean[:, :height]
        return mean, self._valid[:height] & (self._total[:height] > 0)

    def _weight(self, tile: Tile) -> torch.Tensor:
        bottom = tile.row + tile.height >= self.scene[0]
        right = tile.col + tile.width >= self.scene[1]
        rows = self._profile(tile.row <= 0, bottom)
        return rows[:, None] * self._profile(tile.col <= 0, right)[None]

    def _profile(self, first: bool, last: bool) -> torch.Tensor:
        key = (first, last)
        if key not in self._profiles:
            overlap = self.grid.overlap // self.stride
            self._profiles[key] = torch.from_numpy(profile(self.size, overlap, first, last))
        return self._profiles[key]


def profile(size: int, overlap: int, first: bool, last: bool) -> np.ndarray:
    """The weights of a tile along one axis.

    Args:
        size: Pixels of the tile.
        overlap: Pixels that it shares with each neighbour.
        first: Whether its first pixel is at the border of the scene.
        last: Whether its last one is.

    Returns:
        (size,) float32 in [0, 1].
    """
    weights = np.ones(size, np.float32)
    trim = overlap // 4
    ramp = overlap - 2 * trim
    rise = np.zeros(overlap, np.float32)
    rise[trim : trim + ramp] = [
        0.5 - 0.5 * math.cos(math.pi * (n + 0.5) / ramp) for n in range(ramp)
    ]
    rise[trim + ramp :] = 1
    if not first:
        weights[:overlap] = rise
    if not last and overlap:
        weights[-overlap:] = np.minimum(weights[-overlap:], rise[::-1])
    return weights


def follows(block: Block, before: Block) -> bool:
    """Whether a block lies directly below another of its panel."""
    return (
        block.panel == before.panel and block.region.row == before.region.row + before.region.height
    )
