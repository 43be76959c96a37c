# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Reverses the order of the dates."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness

from mmrsfm.compat.opencd.registry import TRANSFORMS
from mmrsfm.errors import ConfigError


@TRANSFORMS.register_module()
class MultiImgExchangeTime(BaseTransform):
    """Exchanges first and second date: what has changed is the same.

    Args:
        prob: How often, in [0, 1].
    """

    def __init__(self, prob: float = 0.5) -> None:
        if not 0 <= prob <= 1:
            raise ConfigError(f'MultiImgExchangeTime: prob must lie in [0, 1], got {prob}')
        self.prob = prob

    @cache_randomness
    def _draw(self) -> bool:
        return np.random.rand() < self.prob

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Reverses the images and, where there are maps of each date, those."""
        if self._draw():
            results['img'] = results['img'][::-1]
            maps = ('gt_seg_map_from', 'gt_seg_map_to')
            if all(key in results for key in maps):
                results[maps[0]], results[maps[1]] = results[maps[1]], results[maps[0]]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(prob={self.prob})'
