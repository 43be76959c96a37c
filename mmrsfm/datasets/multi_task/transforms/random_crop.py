# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Cuts a random window out of the image and all its labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmrsfm.datasets.multi_task import alignment
from mmrsfm.datasets.transforms.random_resized_crop import check_size
from mmrsfm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class MultiTaskRandomCrop(BaseTransform):
    """Cuts a random window of one size; sides of smaller images stay as they are.

    What becomes of the objects is said in :func:`mmrsfm.datasets.multi_task.alignment.crop`.

    Args:
        size: Size of the window, one number or (H, W).
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = check_size(size, 'MultiTaskRandomCrop')

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Cuts; see the class."""
        h, w = results['img'].shape[:2]
        height, width = min(self.size[0], h), min(self.size[1], w)
        top = int(np.random.randint(0, h - height + 1))
        left = int(np.random.randint(0, w - width + 1))
        return alignment.crop(results, top, left, height, width)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(size={self.size})'
