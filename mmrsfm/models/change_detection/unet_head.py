# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The decoder of U-Net as a head of mmseg."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import nn

from mmrsfm.errors import ConfigError
from mmrsfm.layers.batch_norm import has_one_value, running_statistics
from mmrsfm.registry import MODELS


@MODELS.register_module()
class UNetHead(BaseDecodeHead):
    """Decodes the maps of a backbone, from the coarsest to the finest, with skip connections.

    Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI
    2015; in the form that MTP (Wang et al., 2024) fine-tunes for change detection, whose parameter
    names it has. Any number of levels and channels. Each block doubles the size (nearest), appends
    the next finer map, resized to fit (bilinear), and convolves twice (3x3, normalisation, ReLU);
    the last block has no map left. The logits are then doubled once more.

    Maps at strides 4, 8, 16, 32 thus give logits of the size of the image, and the four maps of a
    plain ViT, all at stride 16, logits of twice that size; the losses and predictions of mmseg
    resize them. The doubling comes after the classification here: both are linear and each
    other's order does not matter, but two maps are doubled instead of ``channels``.

    Args:
        encoder_channels: Channels of the maps, the finest first.
        decoder_channels: Channels after each block; the last one is ``channels``.
        n_blocks: Number of blocks: as many as maps and decoder channels.
        use_batchnorm: ``True``: convolutions without bias, normalised by ``norm_cfg``; ``False``:
            with bias, no normalisation; ``'inplace'``: as ``True`` (the in-place layer of
            that name computes the same).
        attention_type: ``'scse'``: concurrent spatial and channel squeeze & excitation (Roy et al.,
            2018) after the concatenation and after the convolutions of each block; ``None``.
        center: Two convolutions on the coarsest map before the first block. (In the code of
            MTP this option raises.)
        norm_cfg: The normalisation; by default batch normalisation. Blocks never see a map smaller
            than 2 x 2, so that they train with a batch of one; ``center`` may, and uses its
            running statistics then.
        **kwargs: Of mmseg's BaseDecodeHead: ``num_classes``, ``channels``, ``in_channels`` and
            ``in_index`` (by default all maps), ``dropout_ratio``, ``loss_decode``,
            ``align_corners``, ``ignore_index``, ...

    Raises:
        ConfigError: If the numbers of blocks, maps and channels contradict each other, or an option
            is unknown.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        decoder_channels: Sequence[int],
        n_blocks: int = 4,
        use_batchnorm: bool | str = True,
        attention_type: str | None = None,
        center: bool = False,
        norm_cfg: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        levels = len(encoder_channels)
        if not n_blocks == len(decoder_channels) == levels:
            raise ConfigError(
                f'UNetHead: n_blocks={n_blocks}, {len(decoder_channels)} decoder_channels and '
                f'{levels} encoder_channels must be the same number'
            )
        if use_batchnorm not in (True, False, 'inplace'):
            raise ConfigError(
                f"UNetHead: use_batchnorm is True, False or 'inplace', got {use_batchnorm!r}"
            )
        if attention_type not in (None, 'scse'):
            raise ConfigError(f"UNetHead: attention_type is None or 'scse', got {attention_type!r}")
        kwargs.setdefault('in_channels', list(encoder_channels))
        kwargs.setdefault('in_index', list(range(levels)))
        kwargs.setdefault('channels', decoder_channels[-1])
        kwargs['input_transform'] = 'multiple_select'
        if list(kwargs['in_channels']) != list(encoder_channels):
            raise ConfigError(
                f'UNetHead: in_channels={kwargs["in_channels"]} and '
                f'encoder_channels={list(encoder_channels)} differ'
            )
        if kwargs['channels'] != decoder_channels[-1]:
            raise ConfigError(
                f'UNetHead: channels={kwargs["channels"]} must be the last of '
                f'decoder_channels={list(decoder_channels)}'
            )
        norm_cfg = dict(type='BN') if norm_cfg is None else norm_cfg
        super().__init__(norm_cfg=norm_cfg, **kwargs)
        norm = norm_cfg if use_batchnorm else None
        coarse_to_fine = list(encoder_channels)[::-1]
        self.center = nn.Sequential()
        if center:
            self.center = nn.Sequential(
                *(_conv_norm_relu(coarse_to_fine[0], coarse_to_fine[0], norm) for _ in range(2))
            )
        inputs = [coarse_to_fine[0], *decoder_channels[:-1]]
        skips = [*coarse_to_fine[1:], 0]
        self.blocks = nn.ModuleList(
            _DecoderBlock(before, skip, after, norm, attention_type)
            for before, skip, after in zip(inputs, skips, decoder_channels, strict=True)
        )

    def forward(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Decodes maps to logits.

        Args:
            inputs: Maps (B, C_i, H_i, W_i), the finest first.

        Returns:
            Logits (B, num_classes, H, W): the coarsest map, doubled once for each block and once
            more.

        Raises:
            ConfigError: If the maps have other channels than ``encoder_channels``.
        """
        maps = self._transform_inputs(inputs)
        channels = [level.shape[1] for level in maps]
        if channels != list(self.in_channels):
            raise ConfigError(
                f'UNetHead: encoder_channels={list(self.in_channels)}, but the maps that come in '
                f'(finest first) have {channels} channels. Of two dates, the policy '
                "'concat' of the neck doubles those of the backbone, the others keep them."
            )
        coarsest, *skips = maps[::-1]
        x = self._apply_center(coarsest)
        for block, skip in zip(self.blocks, [*skips, None], strict=True):
            x = block(x, skip)
        return F.interpolate(self.cls_seg(x), scale_factor=2, mode='bilinear', align_corners=False)

    def _apply_center(self, x: torch.Tensor) -> torch.Tensor:
        norms = [module for module in self.center.modules() if isinstance(module, nn.SyncBatchNorm)]
        if self.training and has_one_value(norms[0] if norms else self.center, x):
            with running_statistics(self.center):
                return self.center(x)
        return self.center(x)


class _DecoderBlock(nn.Module):
    """Doubles a map, appends a skip, convolves twice."""

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        out_channels: int,
        norm: dict[str, Any] | None,
        attention: str | None,
    ) -> None:
        super().__init__()
        self.conv1 = _conv_norm_relu(in_channels + skip_channels, out_channels, norm)
        # Without a skip it is not used; released files have it all the same. It gets no gradient:
        # DistributedDataParallel need not look for it.
        self.attention1 = _attention(attention, in_channels + skip_channels)
        self.attention1.requires_grad_(skip_channels > 0)
        self.conv2 = _conv_norm_relu(out_channels, out_channels, norm)
        self.attention2 = _attention(attention, out_channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        """Returns (B, out_channels, 2H, 2W)."""
        x = F.interpolate(x, scale_factor=2, mode='nearest')
        if skip is not None:
            if skip.shape[2:] != x.shape[2:]:
                skip = F.interpolate(skip, size=x.shape[2:], mode='bilinear', align_corners=False)
            x = self.attention1(torch.cat([x, skip], dim=1))
        return self.attention2(self.conv2(self.conv1(x)))


class _SCSE(nn.Module):
    """Weighs channels by what the whole map holds, and pixels by what their channels hold."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.cSE = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid(),
        )
        self.sSE = nn.Sequential(nn.Conv2d(channels, 1, 1), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns a map of the same shape."""
        return x * (self.cSE(x) + self.sSE(x))


class _Attention(nn.Module):
    """Gives the parameters their released names, ``attention1.attention.*``."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns a map of the same shape."""
        return self.attention(x)


def _attention(kind: str | None, channels: int) -> nn.Module:
    return _Attention(nn.Identity() if kind is None else _SCSE(channels))


def _conv_norm_relu(
    in_channels: int, out_channels: int, norm: dict[str, Any] | None
) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=norm is None)
    layers = [conv, nn.ReLU(inplace=True)]
    if norm is not None:
        layers.insert(1, build_norm_layer(norm, out_channels)[1])
    return nn.Sequential(*layers)
