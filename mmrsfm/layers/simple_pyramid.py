# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The pyramid of the RVSA backbones, under the names of their released weights.

Strides 4, 8, 16, 32 out of one stride: the idea of ViTDet (arXiv 2203.16527) and of the dense heads
of BEiT (arXiv 2106.08254). (:class:`mmrsfm.layers.pyramid.ScalePyramid` is the same idea under the
names of this library.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.layers.doubling import Doubling

STRIDES = (4, 8, 16, 32)


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of a map (B, C, H, W).

    Args:
        channels: Number of channels.
        eps: Added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        return self.ln(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def add_pyramid(module: nn.Module, channels: int, patch_size: int, ceil_mode: bool = True) -> None:
    """Adds ``fpn1`` to ``fpn4`` to a backbone.

    Args:
        module: The backbone.
        channels: Number of channels of all maps.
        patch_size: 16 or 8 pixels.
        ceil_mode: Whether the coarse levels keep an odd last row and column.

    Raises:
        ConfigError: If the patches have another size.
    """
    levels: list[nn.Module]
    if patch_size == 16:
        finest = [Doubling(channels), ChannelNorm(channels), nn.GELU(), Doubling(channels)]
        levels = [
            nn.Sequential(*finest),
            nn.Sequential(Doubling(channels)),
            nn.Identity(),
            nn.MaxPool2d(2, 2, ceil_mode=ceil_mode),
        ]
    elif patch_size == 8:
        levels = [
            nn.Sequential(Doubling(channels)),
            nn.Identity(),
            nn.Sequential(nn.MaxPool2d(2, 2, ceil_mode=ceil_mode)),
            nn.Sequential(nn.MaxPool2d(4, 4, ceil_mode=ceil_mode)),
        ]
    else:
        raise ConfigError(f'the pyramid is made for patches of 8 or 16 pixels, not {patch_size}')
    for number, level in enumerate(levels, start=1):
        module.add_module(f'fpn{number}', level)


def apply_pyramid(
    module: nn.Module,
    tokens: Sequence[Tensor],
    grid: tuple[int, int],
    size: tuple[int, int] | None,
) -> tuple[Tensor, ...]:
    """Makes the four maps.

    Args:
        module: A backbone with ``fpn1`` to ``fpn4``.
        tokens: Four tensors (B, rows * columns, C), or the same one four times.
        grid: Rows and columns.
        size: Height and width of the image in pixels without its padding: the map of stride s then
            has at most ``ceil(height / s)`` rows. ``None``: all that the levels make is kept.

    Returns:
        Maps (B, C, height / s, width / s) for the strides s of 4, 8, 16 and 32, contiguous:
        RoIAlign of mmcv takes every memory for that of NCHW, without a word.
    """
    maps = []
    for number, (stride, x) in enumerate(zip(STRIDES, tokens, strict=True), start=1):
        level = getattr(module, f'fpn{number}')
        out = level(x.transpose(1, 2).unflatten(2, grid))
        if size is not None:
            out = out[:, :, : math.ceil(size[0] / stride), : math.ceil(size[1] / stride)]
        maps.append(out.contiguous())
    return tuple(maps)
