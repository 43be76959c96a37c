# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Flips the image and everything that is aligned with it."""

from __future__ import annotations

from typing import Any

import mmcv.transforms as mmcv_transforms
import numpy as np

from mmrsfm.datasets.transforms import geometry
from mmrsfm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomFlip(mmcv_transforms.RandomFlip):
    """mmcv's RandomFlip, for any number of bands, with ``valid_mask`` and ``geo``.

    Arguments as there: ``prob`` (a number, or one per direction) and ``direction``
    (``'horizontal'``, ``'vertical'``, ``'diagonal'`` or a list of them). Two of them in a row, one
    horizontal and one vertical, make the two independent flips of the MAE pipelines.

    Required keys: ``img`` (H, W, C). Modified: ``img``, ``valid_mask``, label maps, ``geo``. Added:
    ``flip``, ``flip_direction``.
    """

    def _flip(self, results: dict[str, Any]) -> None:
        geometry.refuse_boxes(results, 'RandomFlip')
        direction = results['flip_direction']
        axes = {'horizontal': (1,), 'vertical': (0,), 'diagonal': (0, 1)}[direction]
        h, w = results['img'].shape[:2]
        x = (-1, w) if 1 in axes else (1, 0)
        y = (-1, h) if 0 in axes else (1, 0)
        geometry.follow_geo(results, (x[0], 0, x[1], 0, y[0], y[1]))
        geometry.apply_to_fields(results, lambda array: np.flip(array, axes))
