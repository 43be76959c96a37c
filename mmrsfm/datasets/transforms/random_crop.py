# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Crops a random window of one size, without resampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmrsfm.datasets.transforms import geometry
from mmrsfm.datasets.transforms.random_resized_crop import check_size
from mmrsfm.errors import ConfigError
from mmrsfm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomCrop(BaseTransform):
    """Crops a random window; for any number of bands.

    Required keys: ``img`` (H, W, C). Modified: ``img``, ``valid_mask``, label maps, ``geo``,
    ``img_shape``.

    Args:
        size: Size of the window, one number or (H, W).
        min_valid: Least fraction of values in the window that must be valid and, where there is a
            label map, of pixels that must be labelled. Windows are drawn again up to ``attempts``
            times; the last one is taken as it is.
        attempts: See ``min_valid``.
        ignore_index: The label of unlabelled pixels.

    Raises:
        ImageSizeError: The image is smaller than the window (put ``mmrsfm.Pad`` before).
    """

    def __init__(
        self,
        size: int | Sequence[int],
        min_valid: float = 0.0,
        attempts: int = 10,
        ignore_index: int = 255,
    ) -> None:
        self.size = check_size(size, 'RandomCrop')
        if not 0 <= min_valid <= 1 or attempts < 1:
            raise ConfigError('RandomCrop: min_valid must be in [0, 1] and attempts at least 1')
        self.min_valid = min_valid
        self.attempts = attempts
        self.ignore_index = ignore_index

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Crops; see the class."""
        geometry.refuse_boxes(results, 'RandomCrop')
        h, w = geometry.require_size(results, self.size)
        for _ in range(self.attempts):
            top = int(np.random.randint(0, h - self.size[0] + 1))
            left = int(np.random.randint(0, w - self.size[1] + 1))
            if self._accept(results, top, left):
                break
        return geometry.crop(results, top, left, *self.size)

    def _accept(self, results: dict[str, Any], top: int, left: int) -> bool:
        if self.min_valid == 0:
            return True
        window = np.s_[top : top + self.size[0], left : left + self.size[1]]
        valid = results.get('valid_mask')
        if valid is not None and valid[window].mean() < self.min_valid:
            return False
        label = results.get('gt_seg_map')
        return label is None or (label[window] != self.ignore_index).mean() >= self.min_valid

    def __repr__(self) -> str:
        options = ', '.join(f'{key}={value!r}' for key, value in vars(self).items())
        return f'{type(self).__name__}({options})'
