# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Decomposed relative positions: a learned vector for each distance along each axis.

For a query at (row, column) ``(i, j)`` and a key at ``(i', j')`` the attention score gets
``q . R_h[i - i'] + q . R_w[j - j']`` (MViTv2, arXiv 2112.01526; ViTDet, arXiv 2203.16527).
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


@lru_cache(maxsize=64)
def distance_index(length: int, device: torch.device) -> Tensor:
    """Row of a table for each query and key: ``query - key + length - 1``.

    Args:
        length: Number of positions along the axis.
        device: Where the result is kept.

    Returns:
        int64 of shape (length, length), values in [0, 2 * length - 2]. It is shared: never write
        into it.
    """
    # A tensor made in inference mode could never be used in training, and this one is kept.
    with torch.inference_mode(False):
        positions = torch.arange(length, device=device)
        return positions[:, None] - positions[None, :] + (length - 1)


def relative_rows(table: Tensor, length: int) -> Tensor:
    """The vector of every pair of a query and a key.

    Args:
        table: Shape (at least 2 * length - 1, D); distance ``s`` is row ``s + length - 1``.
        length: Number of positions along the axis.

    Returns:
        Shape (length, length, D), query first.
    """
    return F.embedding(distance_index(length, table.device), table)


def resize_relative_table(table: Tensor, rows: int) -> Tensor:
    """Stretches a table of distances, so that it serves another number of positions.

    Bicubic without corner alignment, in float32: what the MTP loaders do to a checkpoint.

    Args:
        table: Shape (rows before, D).
        rows: Number of rows wanted, ``2 * length - 1``.

    Returns:
        Shape (rows, D), in the dtype of ``table``; ``table`` itself where the rows agree.
    """
    if table.shape[0] == rows:
        return table
    size = (rows, table.shape[1])
    image = table.float()[None, None]
    return F.interpolate(image, size, mode='bicubic', align_corners=False)[0, 0].to(table.dtype)


def decomposed_scores(query: Tensor, rows_h: Tensor, rows_w: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of every query, before they are added for every key.

    Args:
        query: Shape (..., H, W, D).
        rows_h: Shape (H, H', D), see :func:`relative_rows`.
        rows_w: Shape (W, W', D).

    Returns:
        Shapes (..., H, W, H') and (..., H, W, W'): the score of the key (i', j') is the sum of
        ``[i']`` of the first and ``[j']`` of the second.
    """
    return (
        torch.einsum('...ijc,ikc->...ijk', query, rows_h),
        torch.einsum('...ijc,jkc->...ijk', query, rows_w),
    )
