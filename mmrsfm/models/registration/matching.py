# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Dense correlation of two feature maps in blocks: no matrix of all pairs is ever kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Matches:
    """Pairs of points of two images.

    Attributes:
        source: Shape (K, 2), x and y in pixels of the first image; (0, 0) is the centre of the
            first pixel.
        target: Shape (K, 2), the same for the second image.
        confidence: Shape (K,), in [0, 1], the highest first.
    """

    source: Tensor
    target: Tensor
    confidence: Tensor

    def __len__(self) -> int:
        return len(self.confidence)


def cell_centres(grid: tuple[int, int], stride: int, device: torch.device) -> Tensor:
    """Centres of the cells of a feature map in pixels of its image, float64 (rows * columns, 2)."""
    ys, xs = (
        (torch.arange(count, dtype=torch.float64, device=device) + 0.5) * stride - 0.5
        for count in grid
    )
    return torch.stack(torch.meshgrid(xs, ys, indexing='xy'), dim=-1).reshape(-1, 2)


def to_cells(points: Tensor, stride: int) -> Tensor:
    """Pixels to cells: (0, 0) is the centre of the first cell, 1 is one cell further."""
    return (points + 0.5) / stride - 0.5


def to_pixels(cells: Tensor, stride: int) -> Tensor:
    """The inverse of :func:`to_cells`."""
    return (cells + 0.5) * stride - 0.5


def sample_cells(maps: Tensor, positions: Tensor) -> Tensor:
    """Bilinear interpolation between cells; outside there are zeros.

    Args:
        maps: Shape (D, h, w).
        positions: Shape (K, 2), x and y in cells.

    Returns:
        Shape (K, D).
    """
    size = positions.new_tensor([maps.shape[2], maps.shape[1]])
    grid = ((2 * positions + 1) / size - 1).to(maps.dtype)
    sampled = F.grid_sample(
        maps[None], grid[None, None], mode='bilinear', padding_mode='zeros', align_corners=False
    )
    return sampled[0, :, 0].T


@torch.no_grad()
def mutual_matches(
    source: Tensor, target: Tensor, temperature: float, block: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs that prefer each other among all, with their dual-softmax probability.

    With scores s_ij = source_i . target_j / temperature, the confidence of a pair is softmax over j
    times softmax over i (Sun et al., "LoFTR", arXiv 2104.00680, section 3.3; Rocco et al., arXiv
    1810.10510).

    Args:
        source: Shape (N, D), of length 1 each.
        target: Shape (M, D), of length 1 each.
        temperature: Above 0.
        block: Largest number of scores at a time.

    Returns:
        Rows of ``source``, rows of ``target`` and confidence in [0, 1], each (K,), in the order of
        the rows of ``source``.
    """
    count = len(target)
    if not len(source) or not count:
        empty = torch.zeros(0, dtype=torch.long, device=source.device)
        return empty, empty, source.new_zeros(0)
    scaled = target / temperature
    rows = max(1, block // count)
    best, choice, row_sum = [], [], []
    column_best = source.new_full((count,), -torch.inf)
    column_choice = torch.zeros(count, dtype=torch.long, device=source.device)
    column_sum = source.new_full((count,), -torch.inf)
    for start in range(0, len(source), rows):
        scores = source[start : start + rows] @ scaled.T
        value, index = scores.max(dim=1)
        best.append(value)
        choice.append(index)
        row_sum.append(torch.logsumexp(scores, dim=1))
        value, index = scores.max(dim=0)
        better = value > column_best
        column_best = torch.where(better, value, column_best)
        column_choice = torch.where(better, index + start, column_choice)
        column_sum = torch.logaddexp(column_sum, torch.logsumexp(scores, dim=0))
    partner = torch.cat(choice)
    every = torch.arange(len(source), device=source.device)
    mutual = (column_choice[partner] == every).nonzero().squeeze(1)
    partner = partner[mutual]
    log_confidence = 2 * torch.cat(best)[mutual] - torch.cat(row_sum)[mutual] - column_sum[partner]
    return mutual, partner, log_confidence.exp().clamp(max=1.0)


def soft_argmax(
    queries: Tensor,
    maps: Tensor,
    around: Tensor,
    radius: int,
    temperature: float,
    allowed: Tensor | None = None,
) -> Tensor:
    """Refines matches below the size of a cell: the expected position in a window.

    Args:
        queries: Shape (K, D), of length 1 each.
        maps: Shape (D, h, w), of length 1 in each cell.
        around: Shape (K, 2), column and row of the cells in the middle of the windows, integers.
        radius: Cells on each side of the middle; 0 gives the middle.
        temperature: Above 0.
        allowed: Shape (h * w,), bool, the cells that take part; ``None``: all. The middle always
            does.

    Returns:
        Shape (K, 2), x and y in cells.
    """
    depth, height, width = maps.shape
    steps = torch.arange(-radius, radius + 1, device=maps.device)
    offsets = torch.stack(torch.meshgrid(steps, steps, indexing='xy'), dim=-1).reshape(-1, 2)
    cells = around[:, None] + offsets  # (K, W, 2)
    x, y = cells.unbind(-1)
    usable = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    if allowed is not None:
        usable &= allowed[index] | (offsets == 0).all(dim=1)
    near = maps.reshape(depth, -1).T[index]  # (K, W, D)
    scores = torch.einsum('kd,kwd->kw', queries, near) / temperature
    weights = scores.masked_fill(~usable, -torch.inf).softmax(dim=1)
    return around.to(weights.dtype) + weights @ offsets.to(weights.dtype)
