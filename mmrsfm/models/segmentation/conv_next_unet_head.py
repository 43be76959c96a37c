# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The decoder of MMEarth's UNet, as a head of mmseg."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.models.utils.norm import LayerNorm2d
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.registry import MODELS


@MODELS.register_module()
class ConvNeXtUNetHead(BaseDecodeHead):
    """Enlarges the coarsest map step by step, and appends the next finer one after each step.

    Ronneberger et al., "U-Net", MICCAI 2015, in the form in which MMEarth (ECCV 2024, arXiv
    2405.02771) fine-tunes for segmentation. A step: nearest neighbour to the size of the finer
    map, 3x3 convolution to its channels, LayerNorm over the channels, GELU; then both are
    concatenated. At the end a 3x3 convolution to half the channels of the finest map, LayerNorm,
    GELU, and the classification.

    For :class:`mmrsfm.ConvNeXtV2` with ``out_indices=(1, 2, 3), stem_maps=True``, whose maps of
    MMEarth's stem are ``initial_conv`` (stride 1), the stem, and the stages 1, 2, 3; logits have
    the size of the image. With ``stem='original'`` there is no map at stride 1: ``last_scale``
    enlarges the finest one by the stride of the stem, without a map to append.

    Parameters are named as published, but for the classification (``conv_seg``, there ``head``).

    Args:
        in_channels: Channels of the maps, the finest first.
        last_scale: ``None``: the finest map has the size of the logits. A number: after the steps
            is one more, by this factor.
        channels: What is classified; by default half the channels of the finest map.
        in_index: Which maps; by default all.
        dropout_ratio: Before the classification; published: none.
        **kwargs: Of mmseg's BaseDecodeHead: ``num_classes``, ``loss_decode``, ``ignore_index``, ...

    Raises:
        ConfigError: If there are fewer than two maps.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        last_scale: int | None = None,
        channels: int | None = None,
        in_index: Sequence[int] | None = None,
        dropout_ratio: float = 0.0,
        **kwargs: Any,
    ) -> None:
        widths = list(in_channels)
        if len(widths) < 2:
            raise ConfigError(f'{type(self).__name__}: in_channels={widths}: two maps at least')
        kwargs.setdefault('init_cfg', dict(type='TruncNormal', layer='Conv2d', std=0.02, bias=0.0))
        super().__init__(
            in_channels=widths,
            channels=channels or widths[0] // 2,
            in_index=list(range(len(widths))) if in_index is None else list(in_index),
            input_transform='multiple_select',
            dropout_ratio=dropout_ratio,
            **kwargs,
        )
        self.last_scale = last_scale
        coarse_to_fine = widths[::-1]
        steps = []
        for number, (width, finer) in enumerate(itertools.pairwise(coarse_to_fine)):
            steps.append(_Step(width if number == 0 else 2 * width, finer))
        if last_scale is not None:
            steps.append(_Step(2 * widths[0], widths[0]))
        self.upsample_layers = nn.ModuleList(steps)
        last = widths[0] if last_scale is not None else 2 * widths[0]
        self.initial_conv_upsample = nn.Sequential(
            nn.Conv2d(last, self.channels, 3, padding=1),
            LayerNorm2d(self.channels, eps=1e-6),
            nn.GELU(),
        )

    def decode(self, inputs: Sequence[Tensor]) -> Tensor:
        """What is classified.

        Args:
            inputs: Maps of the backbone.

        Returns:
            (B, channels, H, W), of the size of the finest map, or ``last_scale`` times that.
        """
        maps = self._transform_inputs(inputs)[::-1]
        x = maps[0]
        for step, finer in zip(self.upsample_layers, maps[1:], strict=False):
            x = torch.cat([step(x, tuple(finer.shape[2:])), finer], dim=1)
        if self.last_scale is not None:
            size = (x.shape[2] * self.last_scale, x.shape[3] * self.last_scale)
            x = self.upsample_layers[-1](x, size)
        return self.initial_conv_upsample(x)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits (B, num_classes, H, W) of the maps of the backbone, see :meth:`decode`."""
        return self.cls_seg(self.decode(inputs))


class _Step(nn.Module):
    def __init__(self, width: int, finer: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, finer, 3, padding=1)
        self.norm = LayerNorm2d(finer, eps=1e-6)

    def forward(self, x: Tensor, size: tuple[int, ...]) -> Tensor:
        x = F.interpolate(x, size=size, mode='nearest')
        return F.gelu(self.norm(self.conv(x)))
