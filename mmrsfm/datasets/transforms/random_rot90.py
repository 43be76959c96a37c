# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Rotates the image and everything that is aligned with it by multiples of 90 degrees."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmrsfm.datasets.transforms import geometry
from mmrsfm.errors import ConfigError
from mmrsfm.registry import TRANSFORMS

# From new (column, row) to old (column, row), for k quarter turns counter-clockwise of (h, w).
_MATRICES = {
    1: lambda h, w: (0, -1, w, 1, 0, 0),
    2: lambda h, w: (-1, 0, w, 0, -1, h),
    3: lambda h, w: (0, 1, 0, -1, 0, h),
}


@TRANSFORMS.register_module()
class RandomRot90(BaseTransform):
    """Rotates by 0, 90, 180 or 270 degrees, counter-clockwise; for any number of bands.

    Overhead imagery has no up. An image that is not square changes its shape with 90 and 270.

    Required keys: ``img`` (H, W, C). Modified: ``img``, ``valid_mask``, label maps, ``geo``,
    ``img_shape``. Added: ``rot90`` (number of quarter turns).

    Args:
        prob: Probability of turning at all; each of the three turns is then equally likely. The
            default makes all four orientations equally likely.
    """

    def __init__(self, prob: float = 0.75) -> None:
        if not 0 <= prob <= 1:
            raise ConfigError(f'RandomRot90: prob must be in [0, 1], got {prob}')
        self.prob = prob

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Rotates; see the class."""
        geometry.refuse_boxes(results, 'RandomRot90')
        turns = int(np.random.randint(1, 4)) if np.random.rand() < self.prob else 0
        results['rot90'] = turns
        if turns:
            geometry.follow_geo(results, _MATRICES[turns](*results['img'].shape[:2]))
            geometry.apply_to_fields(results, lambda array: np.rot90(array, turns))
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(prob={self.prob})'
