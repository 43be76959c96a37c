# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Blocks that double a map by a transposed convolution, as LinkNet's decoder has them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from torch import nn


class DeconvBlock(nn.Sequential):
    """Doubles a map: a bottleneck of 1x1, transposed 3x3 and 1x1 convolutions.

    Each has a bias and is followed by a normalisation and a ReLU; the width inside is a quarter of
    what comes in. (Chaurasia and Culurciello, "LinkNet", VCIP 2017, arXiv 1707.03718, Figure 2; the
    parameter names are those of the decoders of MaRS.)

    Args:
        in_channels: Channels that come in; at least 4.
        out_channels: Channels that go out.
        norm_cfg: The normalisation.
    """

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict[str, Any]) -> None:
        hidden = in_channels // 4
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(in_channels, hidden, 1),
                norm1=build_norm_layer(norm_cfg, hidden)[1],
                relu1=nn.ReLU(inplace=True),
                deconv2=doubling_conv(hidden, hidden),
                norm2=build_norm_layer(norm_cfg, hidden)[1],
                relu2=nn.ReLU(inplace=True),
                conv3=nn.Conv2d(hidden, out_channels, 1),
                norm3=build_norm_layer(norm_cfg, out_channels)[1],
                relu3=nn.ReLU(inplace=True),
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) to (B, out_channels, 2H, 2W)."""
        return super().forward(x)


class FusionBlock(nn.Sequential):
    """Two 3x3 convolutions, each with a normalisation and a ReLU: mixes the maps of two dates.

    MaRS calls it CDBlock, and its parameter names are those.

    Args:
        in_channels: Channels that come in, those of all dates together.
        out_channels: Channels that go out.
        norm_cfg: The normalisation.
    """

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict[str, Any]) -> None:
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(in_channels, out_channels, 3, padding=1),
                bn1=build_norm_layer(norm_cfg, out_channels)[1],
                relu1=nn.ReLU(inplace=True),
                conv2=nn.Conv2d(out_channels, out_channels, 3, padding=1),
                bn2=build_norm_layer(norm_cfg, out_channels)[1],
                relu2=nn.ReLU(inplace=True),
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H, W)."""
        return super().forward(x)


def doubling_conv(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """A transposed 3x3 convolution that exactly doubles height and width.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
    """
    return nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)
