# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Structural similarity (Wang et al., IEEE Trans. Image Processing 13(4), 2004)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrsfm.errors import ConfigError


def structural_similarity(
    x: Tensor, y: Tensor, data_range: float = 1.0, window: int = 11, sigma: float = 1.5
) -> Tensor:
    """Mean SSIM of two batches of images, not below zero for any channel of any image.

    Gaussian window without padding, K1 = 0.01, K2 = 0.03; the map is averaged over each channel of
    each image, clipped at 0, then averaged.

    Args:
        x: Shape (B, C, H, W).
        y: Shape (B, C, H, W).
        data_range: Largest minus smallest possible value.
        window: Width of the window in pixels; H and W must not be smaller.
        sigma: Standard deviation of the window in pixels.

    Returns:
        A scalar in [0, 1].

    Raises:
        ConfigError: If the images are smaller than the window.
    """
    if min(x.shape[2:]) < window:
        raise ConfigError(
            f'SSIM needs images of at least {window} pixels, got {x.shape[2]}x{x.shape[3]}'
        )
    # The variances are small differences of squares: half precision has none of their digits.
    with torch.autocast(x.device.type, enabled=False):
        dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
        return _similarity(x.to(dtype), y.to(dtype), data_range, window, sigma)


def _similarity(x: Tensor, y: Tensor, data_range: float, window: int, sigma: float) -> Tensor:
    channels = x.shape[1]
    offsets = torch.arange(window, dtype=torch.float32, device=x.device) - window // 2
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).to(x.dtype)
    # The five moments in one pass.
    moments = torch.cat([x, y, x * x, y * y, x * y], dim=1)
    column = kernel.view(1, 1, -1, 1).expand(5 * channels, 1, -1, 1)
    row = kernel.view(1, 1, 1, -1).expand(5 * channels, 1, 1, -1)
    smooth = F.conv2d(moments, column, groups=5 * channels)
    smooth = F.conv2d(smooth, row, groups=5 * channels)
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = smooth.chunk(5, dim=1)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    covariance = mean_xy - mean_x * mean_y
    variances = mean_xx - mean_x**2 + mean_yy - mean_y**2
    contrast = (2 * covariance + c2) / (variances + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * contrast).flatten(2).mean(-1).relu().mean()
