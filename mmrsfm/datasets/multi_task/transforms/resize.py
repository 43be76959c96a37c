# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Resamples the image and all its labels."""

from __future__ import annotations

from typing import Any

import mmcv
import mmcv.transforms as mmcv_transforms
from mmcv.transforms import BaseTransform

from mmrsfm.datasets.multi_task import alignment
from mmrsfm.datasets.transforms.random_resized_crop import check_interpolation
from mmrsfm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class MultiTaskResize(BaseTransform):
    """Resamples a sample with several kinds of label.

    Added keys: ``scale``, ``scale_factor`` (x, y), ``keep_ratio``.

    Args:
        scale: (W, H), as in mmcv: with ``keep_ratio`` the largest size within it.
        keep_ratio: Whether the aspect is kept. Without it rotated boxes become the rectangles
            around what they are stretched to.
        interpolation: Of the image: ``'nearest'``, ``'bilinear'`` or ``'bicubic'``.
        antialias: Widen the kernel when shrinking.
        keep_dtype: Round an image of integers back to its type; otherwise it becomes float32.
    """

    def __init__(
        self,
        scale: Any,
        keep_ratio: bool = True,
        interpolation: str = 'bilinear',
        antialias: bool = False,
        keep_dtype: bool = True,
    ) -> None:
        self.scale = scale
        self.keep_ratio = keep_ratio
        self.interpolation = check_interpolation(interpolation, 'MultiTaskResize')
        self.antialias = antialias
        self.keep_dtype = keep_dtype

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resamples; see the class."""
        h, w = results['img'].shape[:2]
        width, height = self.scale
        if self.keep_ratio:
            width, height = mmcv.rescale_size((w, h), (width, height))
        size = (max(int(height), 1), max(int(width), 1))
        results['scale'] = size[::-1]
        results['keep_ratio'] = self.keep_ratio
        return alignment.resize(results, size, self.interpolation, self.antialias, self.keep_dtype)

    def __repr__(self) -> str:
        options = ', '.join(f'{key}={value!r}' for key, value in vars(self).items())
        return f'{type(self).__name__}({options})'


@TRANSFORMS.register_module()
class MultiTaskRandomResize(mmcv_transforms.RandomResize):
    """mmcv's RandomResize for samples with several kinds of label.

    MTP: ``scale=(S, S), ratio_range=(0.5, 2.0)``.

    Args:
        scale: (W, H), or two of them between which it is drawn.
        ratio_range: Least and largest factor of ``scale``.
        **resize: Arguments of :class:`MultiTaskResize`, besides ``scale``.
    """

    def __init__(
        self, scale: Any, ratio_range: tuple[float, float] | None = None, **resize: Any
    ) -> None:
        super().__init__(scale, ratio_range, resize_type='mmrsfm.MultiTaskResize', **resize)
