# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Resamples the image and everything that is aligned with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.transforms import BaseTransform

from mmrsfm.datasets.transforms import geometry
from mmrsfm.datasets.transforms.random_resized_crop import check_interpolation, check_size
from mmrsfm.errors import ConfigError
from mmrsfm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class Resize(BaseTransform):
    """Resamples to a size, a shorter edge or by a factor; for any number of bands.

    Required keys: ``img`` (H, W, C). Modified: ``img`` (float32 unless ``keep_dtype``),
    ``valid_mask``, label maps, ``geo``, ``img_shape``. Added: ``scale_factor`` (x, y).

    Args:
        size: (H, W); or one number: the length of the shorter edge, the aspect is kept.
        factor: Instead of ``size``: multiplies both edges, e.g. 0.25 for the scale sweep of a kNN
            evaluation. At least one pixel remains.
        interpolation: ``'nearest'``, ``'bilinear'`` or ``'bicubic'``.
        antialias: Widen the kernel when shrinking.
        keep_dtype: Round and clip back to an integer image's type.
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        factor: float | None = None,
        interpolation: str = 'bicubic',
        antialias: bool = True,
        keep_dtype: bool = False,
    ) -> None:
        if (size is None) == (factor is None):
            raise ConfigError('Resize: give one of size and factor')
        if factor is not None and factor <= 0:
            raise ConfigError(f'Resize: factor must be above 0, got {factor}')
        if size is not None:
            check_size(size, 'Resize')
        self.size = size
        self.factor = factor
        self.interpolation = check_interpolation(interpolation, 'Resize')
        self.antialias = antialias
        self.keep_dtype = keep_dtype

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resamples; see the class."""
        geometry.refuse_boxes(results, 'Resize')
        size = self._target(*results['img'].shape[:2])
        return geometry.resize(results, size, self.interpolation, self.antialias, self.keep_dtype)

    def _target(self, h: int, w: int) -> tuple[int, int]:
        if self.factor is not None:
            return max(1, round(h * self.factor)), max(1, round(w * self.factor))
        if isinstance(self.size, int):
            # The longer edge is cut off, not rounded, as torchvision does.
            if h <= w:
                return self.size, max(1, int(self.size * w / h))
            return max(1, int(self.size * h / w)), self.size
        return check_size(self.size or (), 'Resize')

    def __repr__(self) -> str:
        options = ', '.join(f'{key}={value!r}' for key, value in vars(self).items())
        return f'{type(self).__name__}({options})'
