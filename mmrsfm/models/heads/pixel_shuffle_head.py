# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The lightest decoder: one linear map from the channels of a token to the pixels of its cell."""

from __future__ import annotations

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.registry import MODELS


@MODELS.register_module()
class PixelShuffleHead(BaseModule):
    """Makes an image of a feature map: a 1x1 convolution and a pixel shuffle (arXiv 1609.05158).

    As in SimMIM (arXiv 2111.09886) and MaRS, whose raw checkpoints call it ``decoder_<modality>.0``
    (here ``projection``).

    Args:
        in_channels: Channels of the feature map.
        out_channels: Channels of the image.
        stride: Pixels of the image in a cell of the map, in each direction.
        init_cfg: MMEngine's initialisation config.

    Raises:
        ConfigError: If a number is not positive.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 32,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if min(in_channels, out_channels, stride) < 1:
            raise ConfigError(
                'PixelShuffleHead: in_channels, out_channels and stride must be at least 1, got '
                f'{in_channels}, {out_channels} and {stride}'
            )
        self.stride = stride
        self.projection = nn.Conv2d(in_channels, out_channels * stride**2, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Makes images.

        Args:
            x: Shape (B, in_channels, H, W).

        Returns:
            Shape (B, out_channels, H * stride, W * stride).
        """
        return F.pixel_shuffle(self.projection(x), self.stride)
