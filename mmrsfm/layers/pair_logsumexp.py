# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Log-sum-exp over rows and columns of a matrix of inner products that is never whole.

A contrastive loss over tokens needs the sums over the rows, and for its other direction over the
columns, of ``A @ B.T``. That matrix has a billion numbers where A and B have 32,000 rows; its sums
have 32,000. They are computed block by block with a running maximum (as in Milakov and Gimelshein,
arXiv 1805.02867), and the gradient from the blocks again: one more product, and nothing kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mmrsfm.errors import ConfigError


def pair_logsumexp(
    a: Tensor,
    b: Tensor,
    a_valid: Tensor | None = None,
    b_valid: Tensor | None = None,
    max_elements: int = 2**24,
    columns: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Log-sum-exp of ``a @ b.T`` over each row, and over each column.

    Both outputs are differentiable, in ``a`` and ``b``, once. No matrix of more than
    ``max_elements`` numbers exists at any time, forward or backward.

    Args:
        a: Shape (M, D).
        b: Shape (N, D).
        a_valid: Shape (M,), bool: the rows that take part; ``None``: all.
        b_valid: Shape (N,), bool: the columns that take part; ``None``: all.
        max_elements: Most numbers of a block.
        columns: Whether the sums over the columns are wanted.

    Returns:
        Shape (M,) over the valid columns, and shape (N,) over the valid rows or ``None``. Where
        nothing takes part (an invalid row or column, or no valid other), it is 0, with a gradient
        of 0.

    Raises:
        ConfigError: If ``max_elements`` is below 1.
    """
    if max_elements < 1:
        raise ConfigError(f'max_elements must be at least 1, got {max_elements}')
    rows, cols = _PairLogSumExp.apply(a, b, a_valid, b_valid, max_elements, columns)
    return rows, cols if columns else None


def _blocks(rows: int, columns: int, max_elements: int) -> Iterator[tuple[slice, slice]]:
    width = max(1, min(columns, max_elements))
    height = max(1, max_elements // width)
    for top in range(0, rows, height):
        for left in range(0, columns, width):
            yield slice(top, min(top + height, rows)), slice(left, min(left + width, columns))


def _logits(
    a: Tensor, b: Tensor, a_valid: Tensor | None, b_valid: Tensor | None, row: slice, col: slice
) -> Tensor:
    logits = a[row] @ b[col].T
    if a_valid is not None:
        logits.masked_fill_(~a_valid[row, None], -math.inf)
    if b_valid is not None:
        logits.masked_fill_(~b_valid[col], -math.inf)
    return logits


class _PairLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        a_valid: Tensor | None,
        b_valid: Tensor | None,
        max_elements: int,
        columns: bool,
    ) -> tuple[Tensor, Tensor]:
        over_rows = a.new_full((len(a),), -math.inf)
        over_columns = b.new_full((len(b) if columns else 0,), -math.inf)
        with torch.autocast(a.device.type, enabled=False):
            for row, col in _blocks(len(a), len(b), max_elements):
                logits = _logits(a, b, a_valid, b_valid, row, col)
                over_rows[row] = torch.logaddexp(over_rows[row], logits.logsumexp(1))
                if columns:
                    over_columns[col] = torch.logaddexp(over_columns[col], logits.logsumexp(0))
                del logits
        # Of nothing: 0 instead of the logarithm of 0, so that no difference of infinities comes up.
        over_rows.masked_fill_(over_rows == -math.inf, 0.0)
        over_columns.masked_fill_(over_columns == -math.inf, 0.0)
        ctx.save_for_backward(a, b, a_valid, b_valid, over_rows, over_columns)
        ctx.max_elements, ctx.columns = max_elements, columns
        return over_rows, over_columns

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        a, b, a_valid, b_valid, over_rows, over_columns = ctx.saved_tensors
        of_rows, of_columns = gradients
        grad_a = torch.zeros_like(a) if ctx.needs_input_grad[0] else None
        grad_b = torch.zeros_like(b) if ctx.needs_input_grad[1] else None
        with torch.autocast(a.device.type, enabled=False):
            for row, col in _blocks(len(a), len(b), ctx.max_elements):
                logits = _logits(a, b, a_valid, b_valid, row, col)
                if ctx.columns:
                    weight = (logits - over_columns[col]).exp_().mul_(of_columns[col])
                    shares = logits.sub_(over_rows[row, None]).exp_().mul_(of_rows[row, None])
                    shares.add_(weight)
                    del weight
                else:
                    shares = logits.sub_(over_rows[row, None]).exp_().mul_(of_rows[row, None])
                if grad_a is not None:
                    grad_a[row].addmm_(shares, b[col])
                if grad_b is not None:
                    grad_b[col].addmm_(shares.T, a[row])
                del logits, shares
        return grad_a, grad_b, None, None, None, None
