# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Attention by dot products with a bias for each pair of tokens."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_FULL = (torch.float32, torch.float64)


def biased_attention(qkv: Tensor, bias: Tensor, scale: float) -> Tensor:
    """``softmax(scale * q k + bias) v``.

    On accelerators, and in half precision, this is one fused attention of PyTorch, which need not
    keep the weights of the pairs. For full precision on a CPU, whose fused attention gives the bias
    no gradient, it is a function of its own with far fewer passes over memory than autograd makes.

    Args:
        qkv: Queries, keys and values, (3, B * n, heads, N, d): n windows of each of B images.
        bias: Shape (heads, N, N), or (k, heads, N, N) where windows differ, k = n or B * n.
            Minus infinity keeps a pair apart; every token needs one that it may look at.
        scale: Factor of the products.

    Returns:
        Shape (B * n, heads, N, d).
    """
    if qkv.device.type == 'cpu' and qkv.dtype in _FULL:
        out: Tensor = _BiasedAttention.apply(qkv.contiguous(), bias.to(qkv.dtype), scale)
        return out
    query, key, value = qkv.unbind(0)
    if bias.ndim == 4 and len(bias) > 1:  # one kind is broadcast, without a copy
        bias = bias.repeat(value.shape[0] // bias.shape[0], 1, 1, 1)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=bias.to(value.dtype), scale=scale
    )


class _BiasedAttention(torch.autograd.Function):
    """Keeps queries, keys, values and the weights of the pairs."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor, scale: float) -> Tensor:
        windows, heads, tokens, depth = qkv.shape[1:]
        query, key, value = qkv.view(3, -1, tokens, depth).unbind(0)
        logits = torch.bmm(query * scale, key.transpose(1, 2))
        kinds = bias.shape[0] if bias.ndim == 4 else 1
        logits.view(windows // kinds, kinds, heads, tokens, tokens).add_(bias)
        weights = logits.softmax(-1)
        ctx.save_for_backward(qkv, weights)
        ctx.bias_shape, ctx.scale = bias.shape, scale
        return torch.bmm(weights, value).view(windows, heads, tokens, depth)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        qkv, weights = ctx.saved_tensors
        tokens, depth = qkv.shape[3:]
        query, key, value = qkv.view(3, -1, tokens, depth).unbind(0)
        gradient = gradient.reshape(-1, tokens, depth)
        result = torch.empty_like(qkv)
        of_query, of_key, of_value = result.view(3, -1, tokens, depth).unbind(0)
        torch.bmm(weights.transpose(1, 2), gradient, out=of_value)
        of_weights = torch.bmm(gradient, value.transpose(1, 2))
        of_logits = torch._softmax_backward_data(of_weights, weights, -1, qkv.dtype)
        of_bias = of_logits.view(-1, *ctx.bias_shape).sum(0) if ctx.needs_input_grad[1] else None
        torch.bmm(of_logits, key, out=of_query)
        torch.bmm(of_logits.transpose(1, 2), query, out=of_key)
        result[:2].mul_(ctx.scale)
        return result, of_bias, None
