# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""One fine map from the maps of several strides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.registry import MODELS


@MODELS.register_module()
class TopDownNeck(BaseModule):
    """The top-down path of a feature pyramid, of which only the finest map is kept.

    Each map goes through a 1 x 1 convolution; from the coarsest on, the sum so far is enlarged
    (bilinear, to the size of the next map, whatever the strides are) and added; a 3 x 3
    convolution with group normalisation and GELU smooths the result. (Lin et al., "Feature Pyramid
    Networks", arXiv 1612.03144.) mmdet's and mmseg's FPN make all levels and need their libraries;
    this one serves heads for one dense map.

    Args:
        in_channels: Channels of each map of the backbone, the finest first.
        channels: Channels inside.
        out_channels: Channels of the result; ``None``: ``channels``.
        out_level: The map whose size the result has; finer ones are not used.
        activation: Whether GELU follows the last normalisation; off for features that are to be
            compared by their angle.
        init_cfg: See MMEngine.

    Attributes:
        out_channels: Channels of the result.

    Raises:
        ConfigError: If ``out_level`` is not one of the maps; in forward, for another number of
            maps.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        out_channels: int | None = None,
        out_level: int = 0,
        activation: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if not 0 <= out_level < len(in_channels):
            raise ConfigError(
                f'TopDownNeck: out_level={out_level} is none of the {len(in_channels)} maps of '
                f'in_channels={list(in_channels)}'
            )
        self.in_channels = list(in_channels)
        self.out_level = out_level
        self.out_channels = out_channels or channels
        self.laterals = nn.ModuleList(
            nn.Conv2d(count, channels, 1) for count in self.in_channels[out_level:]
        )
        steps: list[nn.Module] = [
            nn.Conv2d(channels, self.out_channels, 3, padding=1, bias=False),
            nn.GroupNorm(math.gcd(32, self.out_channels), self.out_channels),
        ]
        if activation:
            steps.append(nn.GELU())
        self.smooth = nn.Sequential(*steps)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Merges the maps.

        Args:
            inputs: One (B, C_i, H_i, W_i) for each of ``in_channels``, the finest first.

        Returns:
            Shape (B, out_channels, H, W), of the size of map ``out_level``.
        """
        if len(inputs) != len(self.in_channels):
            raise ConfigError(
                f'TopDownNeck: the backbone gives {len(inputs)} map(s), in_channels='
                f'{self.in_channels} names {len(self.in_channels)}: correct its out_indices'
            )
        maps = [
            lateral(one)
            for lateral, one in zip(self.laterals, inputs[self.out_level :], strict=True)
        ]
        merged = maps[-1]
        for finer in reversed(maps[:-1]):
            size: Any = finer.shape[2:]
            merged = finer + F.interpolate(merged, size, mode='bilinear', align_corners=False)
        return self.smooth(merged)
