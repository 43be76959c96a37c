# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The decoder of MaRS for roads, change and height, as a head of mmseg."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import nn

from mmrsfm.errors import ConfigError
from mmrsfm.layers.deconvolution import DeconvBlock, FusionBlock, doubling_conv
from mmrsfm.registry import MODELS


@MODELS.register_module()
class DeconvHead(BaseDecodeHead):
    """Decodes one map of a backbone, usually the coarsest, by doubling it again and again.

    The decoders of three tasks of MaRS (AAAI 2026) are this one with other arguments; C is
    ``in_channels``, and every block doubles the size::

        change     fuse_channels=256, block_channels=(128, 64, 32, 32, 32)
        roads      block_channels=(C/2, C/4, C/8, C/8), last_channels=32, last_convs=1
        height     block_channels=(C/2, C/4, C/8, C/16), last_channels=32 (mmrsfm.HeightHead)

    all of them five doublings, from stride 32 to the size of the image; logits of another size are
    resized by mmseg's losses and predictions. Skip connections, which LinkNet has, are commented
    out in the published code. The change decoder takes the maps of two dates behind each
    other: ``opencd.FeatureFusionNeck`` with ``policy='concat'``, and twice the channels.

    Parameters are named as in the published decoders (``block.*``, ``upsample_blocks.*``) but for
    the last convolution, which every head of mmseg calls ``conv_seg`` (there: ``final``).

    Of roads and height only the widths are known, not the padding of the last two convolutions:
    here they keep, or double, the size exactly.

    Args:
        in_channels: Channels of the map.
        block_channels: Channels after each block.
        fuse_channels: First two 3x3 convolutions to so many channels. ``None``: none.
        last_channels: After the blocks a transposed convolution to so many channels, with a ReLU.
            ``None``: none.
        last_convs: Then so many 3x3 convolutions with a ReLU.
        norm_cfg: The normalisation; by default batch normalisation.
        in_index: Which of the maps.
        dropout_ratio: Before the last convolution; published: none.
        **kwargs: Of mmseg's BaseDecodeHead: ``num_classes``, ``out_channels=1`` with ``threshold``
            for a binary head, ``loss_decode``, ``ignore_index``, ... (``channels``, of what is
            classified, follows from the others; without ``init_cfg``: torch's weights.)

    Raises:
        ConfigError: If a number of channels makes no decoder.
    """

    def __init__(
        self,
        in_channels: int,
        block_channels: Sequence[int],
        fuse_channels: int | None = None,
        last_channels: int | None = None,
        last_convs: int = 0,
        norm_cfg: dict[str, Any] | None = None,
        in_index: int = -1,
        dropout_ratio: float = 0.0,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        widths = [in_channels if fuse_channels is None else fuse_channels, *block_channels]
        if len(widths) < 2 or min(widths) < 1 or min(widths[:-1]) < 4:
            raise ConfigError(
                f'{name}: block_channels={tuple(block_channels)} after {widths[0]} channels: there '
                'is at least one block, and what comes into a block has at least 4 channels'
            )
        channels = widths[-1] if last_channels is None else last_channels
        if kwargs.pop('channels', channels) != channels:
            raise ConfigError(f'{name}: channels={channels} follows from the other arguments')
        norm_cfg = dict(type='BN') if norm_cfg is None else norm_cfg
        # Torch's. With mmseg's (a deviation of 0.01 in the last convolution) so few channels behind
        # a ReLU say for long that all is background, as their biases alone decide.
        kwargs.setdefault('init_cfg', None)
        super().__init__(
            in_channels=in_channels,
            channels=channels,
            norm_cfg=norm_cfg,
            in_index=in_index,
            dropout_ratio=dropout_ratio,
            **kwargs,
        )
        self.block: nn.Module = nn.Identity()
        if fuse_channels is not None:
            self.block = FusionBlock(in_channels, fuse_channels, norm_cfg)
        self.upsample_blocks = nn.Sequential(
            *(DeconvBlock(before, after, norm_cfg) for before, after in itertools.pairwise(widths))
        )
        last: OrderedDict[str, nn.Module] = OrderedDict()
        if last_channels is not None:
            last['deconv'] = doubling_conv(widths[-1], last_channels)
            last['relu'] = nn.ReLU(inplace=True)
        for number in range(last_convs):
            last[f'conv{number}'] = nn.Conv2d(channels, channels, 3, padding=1)
            last[f'relu{number}'] = nn.ReLU(inplace=True)
        self.last = nn.Sequential(last)

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Decodes one of the maps.

        Args:
            inputs: Maps (B, C_i, H_i, W_i); the one of ``in_index`` has ``in_channels``.

        Returns:
            Logits (B, out_channels, H, W): that map, doubled by each block and by the last
            transposed convolution.

        Raises:
            ConfigError: If the map has other channels.
        """
        x = self._transform_inputs(inputs)
        if x.shape[1] != self.in_channels:
            raise ConfigError(
                f'{type(self).__name__}: in_channels={self.in_channels}, but map {self.in_index} '
                f'has {x.shape[1]} channels. (Of two dates or modalities, "concat" adds up '
                'those of both.)'
            )
        return self.cls_seg(self.last(self.upsample_blocks(self.block(x))))

    def loss_by_feat(self, seg_logits: torch.Tensor, batch_data_samples: Any) -> dict[str, Any]:
        """As of mmseg, with an ``acc_seg`` that is right for a binary head of one output, too.

        Args:
            seg_logits: (B, out_channels, H, W).
            batch_data_samples: With ``gt_sem_seg``.

        Returns:
            Losses by their names, and ``acc_seg`` in percent.
        """
        losses: dict[str, Any] = super().loss_by_feat(seg_logits, batch_data_samples)
        if self.out_channels == 1:
            # mmseg takes the larger of all outputs, which is always the only one.
            label = self._stack_batch_gt(batch_data_samples)
            logits = nn.functional.interpolate(
                seg_logits.detach(), size=label.shape[2:], mode='bilinear', align_corners=False
            )
            counted = label != self.ignore_index
            right = ((logits.sigmoid() > self.threshold) == (label == 1)) & counted
            losses['acc_seg'] = 100.0 * right.sum() / counted.sum().clamp(min=1)
        return losses
