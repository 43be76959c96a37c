# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pads the image and everything that is aligned with it."""

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
class Pad(BaseTransform):
    """Pads on the right and at the bottom; what is padded is invalid, and has no label.

    Padding becomes no-data: the data preprocessor sets it to the mean of the training set (0 after
    normalisation), and no loss sees it.

    Required keys: ``img`` (H, W, C). Modified: ``img``, ``valid_mask`` (added where something is
    padded), label maps, ``img_shape``. Added: ``pad_shape``.

    Args:
        size: Least size, one number or (H, W).
        divisor: Instead of ``size``: pad to a multiple of this.
        ignore_index: The label of padded pixels.
    """

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        divisor: int | None = None,
        ignore_index: int = 255,
    ) -> None:
        if (size is None) == (divisor is None):
            raise ConfigError('Pad: give one of size and divisor')
        self.size = None if size is None else check_size(size, 'Pad')
        self.divisor = divisor
        self.ignore_index = ignore_index

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pads; see the class."""
        geometry.refuse_boxes(results, 'Pad')
        shape = results['img'].shape
        h, w = shape[:2]
        if self.size is not None:
            bottom, right = max(self.size[0] - h, 0), max(self.size[1] - w, 0)
        else:
            divisor = self.divisor or 1
            bottom, right = -h % divisor, -w % divisor
        if bottom or right:
            edges = ((0, bottom), (0, right))
            valid = results.get('valid_mask')
            valid = np.ones(shape, bool) if valid is None else valid
            results['valid_mask'] = np.pad(valid, (*edges, (0, 0)))
            results['img'] = np.pad(results['img'], (*edges, (0, 0)))
            for key in geometry.seg_keys(results):
                field = results[key]
                # Maps of numbers (heights) say NaN where there is none.
                is_float = np.issubdtype(field.dtype, np.floating)
                fill = np.nan if is_float else min(self.ignore_index, np.iinfo(field.dtype).max)
                bands = ((0, 0),) * (field.ndim - 2)  # layers of MMEarth have some
                results[key] = np.pad(field, (*edges, *bands), constant_values=fill)
        results['img_shape'] = results['pad_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        options = ', '.join(f'{key}={value!r}' for key, value in vars(self).items())
        return f'{type(self).__name__}({options})'
