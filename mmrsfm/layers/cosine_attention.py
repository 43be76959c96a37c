# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Attention by the cosines of queries and keys, with a bias for each pair.

Liu et al., "Swin Transformer V2", CVPR 2022, arXiv 2111.09883, equation 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_TINY = 1e-24  # the square of the smallest length that vectors are divided by


def cosine_attention(qkv: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """``softmax(scale * cos(q, k) + bias) v``.

    Zero vectors (keys of padding) have the cosine 0 with everything, and get no gradient.

    Args:
        qkv: Queries, keys and values, (3, B * n, heads, N, d): n windows of each of B images.
        scale: Factor of the cosines, (heads,).
        bias: Shape (heads, N, N), or (n, heads, N, N) where the windows differ.

    Returns:
        Shape (B * n, heads, N, d).
    """
    query, key, value = qkv.unbind(0)
    query, key = _unit(query, scale[:, None, None]), _unit(key)
    if bias.ndim == 4:
        bias = bias.repeat(value.shape[0] // bias.shape[0], 1, 1, 1)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=bias.to(value.dtype), scale=1.0
    )


def _unit(x: Tensor, factor: Tensor | None = None) -> Tensor:
    """Vectors of length one (or ``factor``), in the type of ``x``."""
    full = x if x.dtype in (torch.float32, torch.float64) else x.float()
    square = full.square().sum(-1, keepdim=True)
    inverse = square.clamp(min=_TINY).rsqrt() * (square > 0)
    if factor is not None:
        inverse = inverse * factor
    return (full * inverse).to(x.dtype)
