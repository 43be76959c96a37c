# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Attention by the cosines of queries and keys, with a bias for each pair.

Liu et al., "Swin Transformer V2", CVPR 2022, arXiv 2111.09883, equation 2.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_TINY = 1e-12  # the smallest length that vectors are divided by
_FULL = (torch.float32, torch.float64)


def cosine_attention(qkv: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """``softmax(scale * cos(q, k) + bias) v``.

    Zero vectors (keys of padding) have the cosine 0 with everything, and get no gradient.

    On accelerators, and in half precision, this is one fused attention of PyTorch, which need not
    keep the weights of the pairs. For full precision on a CPU, whose fused attention gives the bias
    no gradient, it is a function of its own with far fewer passes over memory than autograd makes.

    Args:
        qkv: Queries, keys and values, (3, B * n, heads, N, d): n windows of each of B images.
        scale: Factor of the cosines, (heads,).
        bias: Shape (heads, N, N), or (n, heads, N, N) where the windows differ.

    Returns:
        Shape (B * n, heads, N, d).
    """
    if _runs_here(qkv):
        out: Tensor = _CosineAttention.apply(qkv.contiguous(), scale, bias)
        return out
    query, key, value = qkv.unbind(0)
    query, key = _unit(query, scale[:, None, None]), _unit(key)
    if bias.ndim == 4:
        bias = bias.repeat(value.shape[0] // bias.shape[0], 1, 1, 1)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=bias.to(value.dtype), scale=1.0
    )


def _runs_here(qkv: Tensor) -> bool:
    """Whether the function below is the better one."""
    return qkv.device.type == 'cpu' and qkv.dtype in _FULL


def _unit(x: Tensor, factor: Tensor | None = None) -> Tensor:
    """Vectors of length one (or ``factor``), in the type of ``x``."""
    full = x if x.dtype in _FULL else x.float()
    inverse = _inverse_length(full)
    return (full * (inverse if factor is None else inverse * factor)).to(x.dtype)


def _inverse_length(x: Tensor) -> Tensor:
    """One over the length of the vectors of the last axis, which is kept; 0 for zero vectors."""
    square = torch.linalg.vecdot(x, x).unsqueeze(-1)
    return square.clamp(min=_TINY**2).rsqrt() * (square > 0)


class _CosineAttention(torch.autograd.Function):
    """Keeps queries, keys, values and the weights of the pairs; all else is cheap to make again."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        windows, heads, tokens, depth = qkv.shape[1:]
        inverse = _inverse_length(qkv[:2])
        inverse[0] *= scale[:, None, None]
        query, key = (qkv[:2] * inverse).view(2, -1, tokens, depth).unbind(0)
        logits = torch.bmm(query, key.transpose(1, 2))
        kinds = bias.shape[0] if bias.ndim == 4 else 1
        logits.view(windows // kinds, kinds, heads, tokens, tokens).add_(bias)
        weights = logits.softmax(-1)
        ctx.save_for_backward(qkv, scale, inverse, weights)
        ctx.bias_shape = bias.shape
        return torch.bmm(weights, qkv[2].view(-1, tokens, depth)).view_as(qkv[2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        qkv, scale, inverse, weights = ctx.saved_tensors
        tokens, depth = qkv.shape[3:]
        flat = (-1, tokens, depth)
        gradient = gradient.reshape(flat)
        result = torch.empty_like(qkv)
        torch.bmm(weights.transpose(1, 2), gradient, out=result[2].view(flat))
        of_weights = torch.bmm(gradient, qkv[2].view(flat).transpose(1, 2))
        of_logits = torch._softmax_backward_data(of_weights, weights, -1, qkv.dtype)
        of_bias = of_logits.view(-1, *ctx.bias_shape).sum(0)
        unit = qkv[:2] * inverse  # the queries times the scale
        torch.bmm(of_logits, unit[1].view(flat), out=result[0].view(flat))
        torch.bmm(of_logits.transpose(1, 2), unit[0].view(flat), out=result[1].view(flat))
        # What points along a vector of fixed length is taken out.
        along = torch.linalg.vecdot(result[:2], unit).unsqueeze(-1)
        of_scale = along[0].sum((0, 2, 3)) / scale
        along[0] /= scale[:, None, None] ** 2
        result[:2].addcmul_(unit, along, value=-1).mul_(inverse)
        return result, of_scale, of_bias
