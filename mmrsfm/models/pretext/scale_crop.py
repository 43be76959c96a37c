# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The second view of Cross-Scale MAE: a random rectangle of the image, enlarged to its size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import RandomResizedCrop

from mmrsfm.errors import ConfigError

Rectangle = tuple[int, int, int, int]


def draw_rectangle(
    size: tuple[int, int],
    scale: tuple[float, float] = (0.25, 0.75),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Rectangle:
    """Draws a rectangle from torch's global generator, as torchvision's RandomResizedCrop does.

    Args:
        size: Height and width of the image in pixels.
        scale: Smallest and largest share of the area.
        ratio: Smallest and largest width by height, log-uniform.

    Returns:
        Top, left, height and width in pixels.
    """
    top, left, height, width = RandomResizedCrop.get_params(
        torch.empty(0, *size), list(scale), list(ratio)
    )
    return top, left, height, width


def enlarge(images: Tensor, rectangle: Sequence[int]) -> Tensor:
    """Cuts a rectangle out and resizes it to the size of the images, bilinear with antialiasing.

    Args:
        images: Shape (B, C, H, W), floating point.
        rectangle: Top, left, height and width in pixels.

    Returns:
        Shape (B, C, H, W).

    Raises:
        ConfigError: If the rectangle is not inside the images.
    """
    top, left, height, width = (int(number) for number in rectangle)
    H, W = images.shape[-2:]
    inside = 0 <= top <= H - height and 0 <= left <= W - width and height > 0 and width > 0
    if not inside:
        raise ConfigError(
            f'the scale crop (top {top}, left {left}, height {height}, width {width}) is not '
            f'inside the image of {H}x{W} pixels: it must be drawn after the last resize'
        )
    crop = images[..., top : top + height, left : left + width]
    return F.interpolate(crop, (H, W), mode='bilinear', align_corners=False, antialias=True)


def enlarge_valid(valid: Tensor, rectangle: Sequence[int]) -> Tensor:
    """The validity of :func:`enlarge`: a pixel is valid only if all pixels it was made of are.

    Args:
        valid: Shape (B, C, H, W), bool.
        rectangle: Top, left, height and width in pixels.

    Returns:
        Shape (B, C, H, W), bool.
    """
    return enlarge((~valid).float(), rectangle) == 0
