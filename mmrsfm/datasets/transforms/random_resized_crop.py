# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Crops a random part of the image and resamples it to one size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.transforms import BaseTransform

from mmrsfm.datasets.transforms import geometry
from mmrsfm.errors import ConfigError
from mmrsfm.registry import TRANSFORMS


def check_size(size: int | Sequence[int], who: str) -> tuple[int, int]:
    """Turns one number or (H, W) into (H, W)."""
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
        raise ConfigError(f'{who}: a size is one number or (height, width), got {size!r}')
    return pair


def check_interpolation(interpolation: str, who: str) -> str:
    """Raises for an interpolation that does not exist."""
    if interpolation not in geometry.INTERPOLATIONS:
        raise ConfigError(
            f'{who}: interpolation must be one of {geometry.INTERPOLATIONS}, got {interpolation!r}'
        )
    return interpolation


@TRANSFORMS.register_module()
class RandomResizedCrop(BaseTransform):
    """Crops a random area and aspect, and resamples it; for any number of bands.

    The rectangle is drawn as torchvision defines it (ten tries, then the centred fallback); image,
    ``valid_mask`` and label maps stay aligned, ``geo`` follows. Mean and standard deviation are
    applied later, on the device: interpolation is linear, so that the result is the same as with
    the order normalise - crop of the reference pipelines.

    Required keys: ``img`` (H, W, C). Modified: ``img`` (float32 unless ``keep_dtype``),
    ``valid_mask``, label maps, ``geo``, ``img_shape``, ``scale_factor``. Added: ``crop_box`` (top,
    left, h, w).

    Args:
        size: New size, one number or (H, W).
        scale: Range of the area, as a fraction of the image.
        ratio: Range of the aspect, width / height.
        interpolation: ``'nearest'``, ``'bilinear'`` or ``'bicubic'``.
        antialias: Widen the kernel when shrinking.
        keep_dtype: Round and clip back to an integer image's type: faster on its way to the device,
            not what the reference pipelines do.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        scale: Sequence[float] = (0.25, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: str = 'bicubic',
        antialias: bool = True,
        keep_dtype: bool = False,
    ) -> None:
        self.size = check_size(size, 'RandomResizedCrop')
        self.scale = (float(scale[0]), float(scale[1]))
        self.ratio = (float(ratio[0]), float(ratio[1]))
        if not 0 < self.scale[0] <= self.scale[1] or not 0 < self.ratio[0] <= self.ratio[1]:
            raise ConfigError(
                f'RandomResizedCrop: scale {scale} and ratio {ratio} must be (low, high), above 0'
            )
        self.interpolation = check_interpolation(interpolation, 'RandomResizedCrop')
        self.antialias = antialias
        self.keep_dtype = keep_dtype

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Crops and resamples; see the class."""
        geometry.refuse_boxes(results, 'RandomResizedCrop')
        h, w = results['img'].shape[:2]
        box = geometry.draw_crop(h, w, self.scale, self.ratio)
        results['crop_box'] = box
        geometry.crop(results, *box)
        return geometry.resize(
            results, self.size, self.interpolation, self.antialias, self.keep_dtype
        )

    def __repr__(self) -> str:
        options = ', '.join(f'{key}={value!r}' for key, value in vars(self).items())
        return f'{type(self).__name__}({options})'
