# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A transposed convolution that doubles the size of a map, with a fast backward pass on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class _Doubling(torch.autograd.Function):
    """Kernel 2, stride 2: cells don't overlap, so both gradients are plain matrix products.

    PyTorch's backward pass of transposed convolutions takes two to three times as long there.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv_transpose2d(x, weight, bias, stride=2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        batch, channels, height, width = x.shape
        grad_x = grad_weight = grad_bias = None
        # (B, C, H, 2, W, 2) -> (B, C * 2 * 2, H * W)
        cells = gradient.unflatten(3, (width, 2)).unflatten(2, (height, 2))
        cells = cells.permute(0, 1, 3, 5, 2, 4).reshape(batch, -1, height * width)
        if ctx.needs_input_grad[0]:
            grad_x = torch.matmul(weight.flatten(1), cells).view_as(x)
        if ctx.needs_input_grad[1]:
            tokens = x.reshape(batch, channels, -1)
            grad_weight = sum(a @ b.t() for a, b in zip(tokens, cells, strict=True))
            grad_weight = grad_weight.view_as(weight)  # type: ignore[union-attr]
        if ctx.needs_input_grad[2]:
            grad_bias = gradient.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias


class Doubling(nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` with kernel and stride 2: the same numbers and parameters.

    Args:
        channels: Number of channels, before and after.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 2, 2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Maps (B, C, H, W) to (B, C, 2 H, 2 W); ``output_size`` must be that or ``None``."""
        # Accelerators have kernels of their own, and autocast chooses the dtype by operator.
        plain = x.device.type != 'cpu' or torch.is_autocast_enabled('cpu')
        if plain or output_size is not None or not torch.is_grad_enabled():
            return super().forward(x, output_size)
        return _Doubling.apply(x, self.weight, self.bias)
