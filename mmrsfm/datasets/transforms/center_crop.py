# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Crops the middle of the image and everything that is aligned with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.transforms import BaseTransform

from mmrsfm.datasets.transforms import geometry
from mmrsfm.datasets.transforms.random_resized_crop import check_size
from mmrsfm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class CenterCrop(BaseTransform):
    """Crops the middle; for any number of bands.

    Required keys: ``img`` (H, W, C). Modified: ``img``, ``valid_mask``, label maps, ``geo``,
    ``img_shape``.

    Args:
        size: Size of the crop, one number or (H, W).

    Raises:
        ImageSizeError: The image is smaller than the crop (put ``mmrsfm.Pad`` or ``mmrsfm.Resize``
            before).
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = check_size(size, 'CenterCrop')

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Crops; see the class."""
        geometry.refuse_boxes(results, 'CenterCrop')
        h, w = geometry.require_size(results, self.size)
        # Rounded as torchvision does, so that an odd margin gives the same pixels.
        top, left = round((h - self.size[0]) / 2), round((w - self.size[1]) / 2)
        return geometry.crop(results, top, left, *self.size)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.size})'
