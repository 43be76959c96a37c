# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Maps of tokens cut into windows that do not overlap, for maps of any size."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[int, int]
_PADDING = 2  # the group of the tokens beyond the map


def divide(size: int, limit: int) -> int:
    """Side of equal windows along an axis, at most ``limit``, with little or no padding.

    The largest divisor of ``size``, if it is at least half the limit; else as few windows as can
    be, as equal as can be.

    Args:
        size: Number of tokens along the axis.
        limit: Largest side.

    Returns:
        The side, from 1 to ``limit``; ``size`` where that is not larger than the limit.
    """
    if size <= limit:
        return size
    divisor = max(side for side in range(1, limit + 1) if size % side == 0)
    return divisor if 2 * divisor >= limit else -(-size // -(-size // limit))


def to_windows(x: Tensor, window: Pair, padding: float = 0.0) -> Tensor:
    """Cuts maps into windows, after padding them at the bottom and the right.

    Args:
        x: Shape (B, H, W, C).
        window: Height h and width w of the windows.
        padding: Value of the tokens beyond the map.

    Returns:
        Shape (B, n, h * w, C), windows and the tokens in them row by row.
    """
    batch, height, width, channels = x.shape
    bottom, right = -height % window[0], -width % window[1]
    if bottom or right:
        x = F.pad(x, (0, 0, 0, right, 0, bottom), value=padding)
    rows, columns = (height + bottom) // window[0], (width + right) // window[1]
    x = x.view(batch, rows, window[0], columns, window[1], channels).transpose(2, 3)
    return x.reshape(batch, rows * columns, window[0] * window[1], channels)


def from_windows(x: Tensor, window: Pair, grid: Pair) -> Tensor:
    """The inverse of :func:`to_windows`.

    Args:
        x: Anything with the elements of (B, n, h * w, C).
        window: Height h and width w of the windows.
        grid: Height H and width W of the maps.

    Returns:
        Shape (B, H, W, C).
    """
    height, width = grid
    rows, columns = -(-height // window[0]), -(-width // window[1])
    x = x.reshape(-1, rows, columns, window[0], window[1], x.shape[-1]).transpose(2, 3)
    x = x.reshape(x.shape[0], rows * window[0], columns * window[1], -1)
    return x[:, :height, :width]


def pairs_apart(
    mask: Tensor | None, cell: int, grid: Pair, window: Pair, device: torch.device
) -> Tensor | None:
    """Pairs of tokens of a window that must not see each other.

    Those are tokens of two images that were mixed, and tokens of the map and of its padding.

    Args:
        mask: Which image each cell of tokens comes from, bool, (M, ceil(H / cell), ceil(W / cell)),
            M = 1 or the number of images; ``None``: nothing was mixed.
        cell: Side of a cell in tokens.
        grid: Height H and width W of the map.
        window: Height h and width w of the windows.
        device: Where the result is wanted; that of the mask.

    Returns:
        Bool, (M * n, N, N) for N = h * w, or ``None`` where there are no such pairs.
    """
    padded = grid[0] % window[0] or grid[1] % window[1]
    if mask is None:
        return _padding_apart(grid, window, device) if padded else None
    if not padded and cell % window[0] == 0 and cell % window[1] == 0:
        return None  # no window is larger than a cell
    groups = enlarge(mask, cell, grid).to(torch.uint8)
    return _different(to_windows(groups.unsqueeze(-1), window, _PADDING))


def enlarge(mask: Tensor, cell: int, grid: Pair) -> Tensor:
    """Repeats each value of (M, rows, columns) for ``cell`` x ``cell`` tokens, cut to the grid."""
    mask = mask.repeat_interleave(cell, 1).repeat_interleave(cell, 2)
    return mask[:, : grid[0], : grid[1]]


@lru_cache(maxsize=16)
def _padding_apart(grid: Pair, window: Pair, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        inside = torch.zeros(1, *grid, 1, dtype=torch.uint8, device=device)
        return _different(to_windows(inside, window, _PADDING))


def _different(groups: Tensor) -> Tensor:
    groups = groups.flatten(0, 1).squeeze(-1)
    return groups[:, :, None] != groups[:, None, :]
