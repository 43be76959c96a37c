# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The positions of a batch of maps that count, and what is computed on these alone.

A convolutional masked autoencoder must not let hidden positions leak into visible ones. Sparse
libraries keep lists of coordinates for that; here a map stays a map for the convolutions over
space, with zeros where it is not active, and everything that acts on single positions works on
rows, one a position: on the active ones only, or on all of them, which gives the same numbers.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

STATISTICS = ('batch', 'sample')


class ActiveSites:
    """Which positions of maps (N, C, H, W) are active, and the way from maps to rows and back.

    Rows are (N, H * W, C) for all positions, and (M, C) for the M active ones, in the order of
    samples, rows and columns, if they are ``packed``.

    Args:
        shape: N, H, W.
        active: (N, H, W), True where a position is active. ``None``: all of them are.
        packed: Whether rows are of the active positions alone.
    """

    def __init__(
        self, shape: tuple[int, int, int], active: Tensor | None = None, packed: bool = False
    ) -> None:
        self.shape = shape
        self.active = active
        self.index: Tensor | None = None
        self.counts: list[int] = []
        if packed and active is not None:
            self.index = active.flatten().nonzero().squeeze(1)
            self.counts = active.flatten(1).sum(1).tolist()

    @property
    def packed(self) -> bool:
        """Whether rows are of the active positions alone."""
        return self.index is not None

    def reduced(self, factor: int, shape: tuple[int, int, int] | None = None) -> ActiveSites:
        """The sites after a convolution of that stride: active where one below them is.

        Args:
            factor: The stride, and the side of the windows, which do not overlap.
            shape: N, H, W of the result. Default: H and W divided, rounded up.
        """
        batch, height, width = self.shape
        shape = shape or (batch, -(-height // factor), -(-width // factor))
        if self.active is None:
            return ActiveSites(shape)
        if factor == 1:
            return self
        active = F.max_pool2d(self.active.unsqueeze(1).float(), factor, ceil_mode=True)
        return ActiveSites(shape, active.squeeze(1) > 0, self.packed)

    def rows(self, maps: Tensor) -> Tensor:
        """Rows of maps, (N, C, H, W) in any memory format."""
        last = maps.permute(0, 2, 3, 1)
        if self.index is None:
            return last.flatten(1, 2)
        return _Take.apply(last.flatten(0, 2), self.index)  # type: ignore[no-any-return]

    def maps(self, rows: Tensor) -> Tensor:
        """Maps (N, C, H, W) of rows, stored with the channels last; 0 where not active."""
        batch, height, width = self.shape
        if self.index is not None:
            rows = _Put.apply(rows, self.index, batch * height * width)
        last = rows.view(batch, height, width, rows.shape[-1])
        if self.active is not None and self.index is None:
            last = last * self.active.unsqueeze(-1)
        return last.permute(0, 3, 1, 2)

    def norms(self, rows: Tensor, statistics: str = 'sample') -> Tensor:
        """L2 norms of every channel over the active positions, at least in float32.

        Args:
            rows: Of these sites.
            statistics: ``'sample'``: over the positions of each sample; ``'batch'``: over those of
                all samples together.

        Returns:
            (N, C), or (1, C) over the batch.
        """
        batch = self.shape[0]
        if self.index is None:
            if self.active is not None:
                rows = rows * self.active.flatten(1).unsqueeze(-1)
            dims: Any = 1 if statistics == 'sample' else (0, 1)
        elif statistics == 'batch':
            dims = 0
        elif self._even:
            rows, dims = rows.view(batch, -1, rows.shape[-1]), 1
        else:
            parts = [_norm(part, 0) for part in rows.split(self.counts)]
            return torch.stack(parts)
        norms = _norm(rows, dims)
        return norms if statistics == 'sample' else norms.unsqueeze(0)

    def scaled(self, rows: Tensor, factors: Tensor) -> Tensor:
        """Rows times numbers of their sample.

        Args:
            rows: Of these sites.
            factors: (N, C) or (N, 1), or with 1 for N: the same for all samples.
        """
        if self.index is None:
            return rows * factors.unsqueeze(1)
        if len(factors) == 1:
            return rows * factors
        if self._even:
            return (rows.view(len(factors), -1, rows.shape[-1]) * factors.unsqueeze(1)).flatten(
                0, 1
            )
        counts = torch.tensor(self.counts, device=rows.device)
        return rows * factors.repeat_interleave(counts, 0, output_size=len(rows))

    @property
    def _even(self) -> bool:
        return min(self.counts) == max(self.counts)


def _norm(rows: Tensor, dims: Any) -> Tensor:
    # Not in half precision, whose squares overflow. Its gradient at zero is zero, not NaN.
    dtype = torch.promote_types(rows.dtype, torch.float32)
    return torch.linalg.vector_norm(rows, dim=dims, dtype=dtype)


class _Take(torch.autograd.Function):
    """Rows of a table at positions that occur once each, so that the gradient need not add up."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = len(table)
        return table.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return _Put.apply(gradient, index, ctx.size), None


class _Put(torch.autograd.Function):
    """The reverse: a table of zeros with rows at some positions."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(index)
        return rows.new_zeros(size, rows.shape[1]).index_copy_(0, index, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return _Take.apply(gradient, index), None, None
