# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Weighted sums of rows of a table: the inner step of deformable sampling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def weighted_rows(table: Tensor, entries: Tensor, weights: Tensor) -> Tensor:
    """Adds a few rows of a table for each bag: ``sum_k weights[i, k] * table[entries[i, k]]``.

    An embedding bag, which never writes the single rows down. While a model is exported it is a
    product of gathered rows instead: ONNX has no bags, and the loop over bags that stands for them
    there takes thousands of times as long.

    Args:
        table: Shape (R, C).
        entries: Rows, int32 or int64, shape (B, K), values in [0, R).
        weights: Shape (B, K), in the dtype of ``table``.

    Returns:
        Shape (B, C).
    """
    if torch.compiler.is_exporting():
        rows = F.embedding(entries, table)
        return torch.matmul(weights.unsqueeze(1), rows).squeeze(1)
    return F.embedding_bag(entries, table, mode='sum', per_sample_weights=weights)
