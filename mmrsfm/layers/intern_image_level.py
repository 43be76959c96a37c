# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The parts of InternImage around its layers: stem, levels, downsampling.

InternImage: Wang et al., CVPR 2023, arXiv 2211.05778.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmrsfm.layers.channel_norm import channel_norm
from mmrsfm.layers.dcn_v3 import activation
from mmrsfm.layers.intern_image_layer import InternImageLayer


class Stem(nn.Module):
    """Two convolutions of stride 2, each with a norm; an activation between them."""

    def __init__(self, in_channels: int, channels: int, norm_type: str, act_type: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels // 2, 3, 2, 1)
        self.norm1 = channel_norm(channels // 2, norm_type, source='first', target='first')
        self.act = activation(act_type)
        self.conv2 = nn.Conv2d(channels // 2, channels, 3, 2, 1)
        self.norm2 = channel_norm(channels, norm_type, source='first')

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, ceil(H / 4), ceil(W / 4), channels)."""
        # Stored so, the norms and all that follows read their channels in one piece.
        x = x.contiguous(memory_format=torch.channels_last)
        return self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))


class Downsample(nn.Module):
    """A convolution of stride 2 that doubles the channels, and a norm."""

    def __init__(self, channels: int, norm_type: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, 2, 1, bias=False)
        self.norm = channel_norm(2 * channels, norm_type, source='first')

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, H, W, C) to (B, ceil(H / 2), ceil(W / 2), 2 * C)."""
        return self.norm(self.conv(x.permute(0, 3, 1, 2)))


class Level(nn.Module):
    """The layers of one stride, and the downsampling to the next.

    Args:
        channels: Number of channels.
        groups: Groups of the deformable convolutions.
        drop_path_rates: Stochastic depth of each layer.
        downsample: Whether there is a next level.
        extra_norms: Layers that are followed by one more norm.
        with_cp: Whether to recompute the layers in the backward pass.
        norm_type: Norm of the downsampling and of the deformable convolutions.
        post_norm: See :class:`mmrsfm.layers.intern_image_layer.InternImageLayer`.
        center_feature_scale: See :class:`mmrsfm.layers.dcn_v3.DCNv3`.
        **layer: More arguments of :class:`InternImageLayer`.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        drop_path_rates: Sequence[float],
        downsample: bool,
        extra_norms: Sequence[int],
        with_cp: bool,
        norm_type: str,
        post_norm: bool,
        center_feature_scale: bool,
        **layer: Any,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.blocks = nn.ModuleList(
            InternImageLayer(
                channels,
                groups,
                drop_path_rate=rate,
                norm_type=norm_type,
                post_norm=post_norm,
                center_feature_scale=center_feature_scale,
                **layer,
            )
            for rate in drop_path_rates
        )
        self.norm = None if post_norm and not center_feature_scale else channel_norm(channels)
        self.extra_norms = {block: number for number, block in enumerate(extra_norms)}
        if extra_norms:
            self.post_norms = nn.ModuleList(channel_norm(channels) for _ in extra_norms)
        self.downsample = Downsample(channels, norm_type) if downsample else None

    def forward(self, x: Tensor) -> Tensor:
        """Runs the layers, not the downsampling; (B, H, W, C) to the same shape."""
        recompute = self.with_cp and self.training and torch.is_grad_enabled()
        for number, block in enumerate(self.blocks):
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
            if number in self.extra_norms:
                x = self.post_norms[self.extra_norms[number]](x)
        return x if self.norm is None else self.norm(x)
