# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Makes an image of a feature map in steps of two."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.registry import MODELS


@MODELS.register_module()
class PixelShuffleDecoder(BaseModule):
    """Doubles a map by sub-pixel convolutions until it has the size of the image.

    Each step is a 3 x 3 convolution to four times the channels, a pixel shuffle (Shi et al., arXiv
    1609.05158) and GELU; the filters of the four pixels of a cell start alike, so that there is no
    checkerboard in the beginning (Aitken et al., arXiv 1707.02937). At full size, features of the
    image that is translated are put beside the result, since a map of stride 4 has no edges of one
    pixel, and two convolutions make the image. :class:`mmrsfm.PixelShuffleHead` is the one-step
    decoder of the pretraining.

    Args:
        in_channels: Channels of the map.
        out_channels: Channels of the image that is made.
        stride: Pixels a cell; a power of two.
        channels: Channels inside, halved in each step (down to 16).
        image_channels: Channels of the image that is translated; 0: it is not looked at.
        detail_channels: Channels of its features.
        init_cfg: See MMEngine.

    Raises:
        ConfigError: If ``stride`` is no power of two, or a number is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 4,
        channels: int = 128,
        image_channels: int = 0,
        detail_channels: int = 32,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        steps = int(math.log2(stride)) if stride > 0 else -1
        if 2**steps != stride:
            raise ConfigError(f'PixelShuffleDecoder: stride={stride} is no power of two')
        if min(in_channels, out_channels, channels) < 1 or image_channels < 0:
            raise ConfigError(
                f'PixelShuffleDecoder: in_channels={in_channels}, out_channels={out_channels}, '
                f'channels={channels} must be at least 1, image_channels={image_channels} at '
                'least 0'
            )
        self.stride = stride
        self.steps = nn.ModuleList()
        width = in_channels
        for step in range(steps):
            wider = max(16, channels // 2**step)
            self.steps.append(nn.Conv2d(width, 4 * wider, 3, padding=1))
            width = wider
        self.detail: nn.Module | None = None
        if image_channels:
            self.detail = nn.Sequential(
                nn.Conv2d(image_channels, detail_channels, 3, padding=1),
                nn.GELU(),
                nn.Conv2d(detail_channels, detail_channels, 3, padding=1),
            )
            width += detail_channels
        self.last = nn.Sequential(
            nn.Conv2d(width, max(16, channels // 2), 3, padding=1),
            nn.GELU(),
            nn.Conv2d(max(16, channels // 2), out_channels, 3, padding=1),
        )

    def init_weights(self) -> None:
        """Gives the four pixels of a cell the same filters."""
        super().init_weights()
        with torch.no_grad():
            for convolution in self.steps:
                for tensor in convolution.parameters():
                    tensor.copy_(tensor[::4].repeat_interleave(4, dim=0))

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        """Makes images.

        Args:
            features: Shape (B, in_channels, h, w).
            image: The image that is translated, (B, image_channels, H, W), normalised; it gives the
                size too. H is at most h * stride, W at most w * stride.

        Returns:
            Shape (B, out_channels, H, W).
        """
        x = features
        for convolution in self.steps:
            x = F.gelu(F.pixel_shuffle(convolution(x), 2))
        height, width = image.shape[2:]
        if x.shape[2] < height or x.shape[3] < width:
            raise ConfigError(
                f'PixelShuffleDecoder: stride={self.stride} makes {x.shape[2]} x {x.shape[3]} '
                f'pixels of the features, the image has {height} x {width}: give the stride of '
                'the map'
            )
        x = x[:, :, :height, :width]  # backbones round sizes up
        if self.detail is not None:
            x = torch.cat([x, self.detail(image)], dim=1)
        return self.last(x)
