# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Shifted-window cosine attention of Swin Transformer V2, for maps of any size.

Liu et al., "Swin Transformer V2", CVPR 2022, arXiv 2111.09883; the handling of sizes is that of
timm (Apache-2.0), whose SwinV2 MaRS is built on. Written anew from the published maths.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.models.utils import ShiftWindowMSA, WindowMSAV2
from torch import Tensor, nn

from mmrsfm.layers.cosine_attention import cosine_attention
from mmrsfm.layers.position_bias import ContinuousPositionBias, Pair, shift_masks, spread

# Largest factor of the cosines: log(1 / 0.01).
_MAX_LOG_SCALE = math.log(100.0)


class CosineWindowAttention(nn.Module):
    """The parameters of mmpretrain's ``WindowMSAV2`` under the same names, without its buffers.

    Args:
        built: The module whose parameters are taken over.
        pretrained_window: See :class:`mmrsfm.layers.position_bias.ContinuousPositionBias`.
    """

    def __init__(self, built: WindowMSAV2, pretrained_window: int = 0) -> None:
        super().__init__()
        self.num_heads = built.num_heads
        self.cpb_mlp = built.cpb_mlp
        self.logit_scale = built.logit_scale
        self.qkv = built.qkv
        self.q_bias = built.q_bias
        self.v_bias = built.v_bias
        self.proj = built.proj
        self.bias = ContinuousPositionBias((pretrained_window, pretrained_window))
        self.register_load_state_dict_post_hook(_forget)

    def table(self, window: Pair) -> Tensor | None:
        """The position table for a window if it must be made anew in each pass, else ``None``."""
        if self.training or torch.is_grad_enabled():
            return self.bias.table(self.cpb_mlp, window)
        return None

    def spread_bias(self, table: Tensor | None, window: Pair) -> Tensor:
        """The bias of all pairs, (heads, N, N), from the result of :meth:`table`."""
        if table is None:
            return self.bias.kept(self.cpb_mlp, window)
        return spread(table, window)

    def project(self, x: Tensor) -> Tensor:
        """Query, key and value: (..., C) to (..., 3C); keys have no bias."""
        bias = None
        if self.q_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        return F.linear(x, self.qkv.weight, bias)

    def scale(self) -> Tensor:
        """The factor of the cosines of each head, (heads,)."""
        return self.logit_scale.clamp(max=_MAX_LOG_SCALE).exp().flatten()

    def train(self, mode: bool = True) -> CosineWindowAttention:
        """Switches the mode; the kept tables are forgotten."""
        self.bias.clear()
        return super().train(mode)

    def _apply(self, fn: Callable, recurse: bool = True) -> CosineWindowAttention:
        self.bias.clear()
        return super()._apply(fn, recurse)


class ShiftedWindowAttention(nn.Module):
    """Attention within windows, every other time within windows that are shifted by half.

    The map may have any size. Where it does not reach beyond a window along an axis, the window
    shrinks to it, and is not shifted along that axis. Else the map is first rolled, then padded
    with zeros at the bottom and the right; the padding takes part as in timm. (mmpretrain pads
    first, which is another function, and refuses maps that are smaller than the window.)

    Args:
        built: mmpretrain's module, whose parameters and names are taken over.
        pretrained_window: Side of the windows that the position network was trained with; 0: that
            of the windows at hand.
    """

    def __init__(self, built: ShiftWindowMSA, pretrained_window: int = 0) -> None:
        super().__init__()
        self.window_size: int = built.window_size
        self.shift_size: int = built.shift_size
        self.w_msa = CosineWindowAttention(built.w_msa, pretrained_window)
        self.drop = built.drop  # used by the block, behind its norm

    def fit(self, grid: Pair) -> tuple[Pair, Pair]:
        """Window and shift, (rows, columns) each, for a map of ``grid`` rows and columns."""
        size, shift = self.window_size, self.shift_size
        window = (min(size, grid[0]), min(size, grid[1]))
        return window, (shift if grid[0] > size else 0, shift if grid[1] > size else 0)

    def table(self, grid: Pair) -> Tensor | None:
        """See :meth:`CosineWindowAttention.table`; for a map of ``grid`` rows and columns."""
        return self.w_msa.table(self.fit(grid)[0])

    def forward(self, x: Tensor, table: Tensor | None = None) -> Tensor:
        """Mixes the tokens of each window.

        Args:
            x: Shape (B, H, W, C).
            table: Result of :meth:`table`; ``None``: make or remember it.

        Returns:
            Shape (B, H, W, C).
        """
        msa = self.w_msa
        batch, height, width, channels = x.shape
        window, shift = self.fit((height, width))
        if table is None:
            table = msa.table(window)
        bias = msa.spread_bias(table, window)
        if any(shift):
            x = x.roll((-shift[0], -shift[1]), (1, 2))
        bottom, right = -height % window[0], -width % window[1]
        if bottom or right:
            x = F.pad(x, (0, 0, 0, right, 0, bottom))
        rows, columns = x.shape[1] // window[0], x.shape[2] // window[1]
        # (B, rows, h, columns, w, 3, heads, d) -> (3, B, rows, columns, heads, h, w, d)
        qkv = msa.project(x).view(
            batch, rows, window[0], columns, window[1], 3, msa.num_heads, -1
        )  # fmt: skip
        qkv = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(
            3, batch * rows * columns, msa.num_heads, window[0] * window[1], -1
        )
        if any(shift):
            masks = shift_masks(window, shift, x.device)
            kinds = _kinds_of_windows((rows, columns), x.device)
            bias = (bias + masks[:, None].to(bias.dtype))[kinds]
        x = cosine_attention(qkv, msa.scale(), bias)
        x = x.view(batch, rows, columns, msa.num_heads, window[0], window[1], -1)
        x = x.permute(0, 1, 4, 2, 5, 3, 6).reshape(
            batch, rows * window[0], columns * window[1], channels
        )
        x = msa.proj(x)
        if bottom or right:
            x = x[:, :height, :width]
        return x.roll(shift, (1, 2)) if any(shift) else x


def _kinds_of_windows(grid: Pair, device: torch.device) -> Tensor:
    """Index into :func:`mmrsfm.layers.position_bias.shift_masks` of each of the windows."""
    kinds = torch.zeros(grid, dtype=torch.long, device=device)
    kinds[-1, :] += 1
    kinds[:, -1] += 2
    return kinds.flatten()


def _forget(module: Any, _: Any) -> None:
    module.bias.clear()
