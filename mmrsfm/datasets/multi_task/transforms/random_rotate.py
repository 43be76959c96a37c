# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Turns the image and all its labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmrsfm.datasets.multi_task import alignment
from mmrsfm.errors import ConfigError
from mmrsfm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class MultiTaskRandomRotate(BaseTransform):
    """Turns a sample with several kinds of label about its middle, by a random angle.

    The size stays; see :func:`mmrsfm.datasets.multi_task.alignment.rotate`. (MTP does not rotate.)

    Args:
        prob: How likely it is, in [0, 1].
        max_angle: The angle is uniform in [-max_angle, max_angle), in degrees.
        angles: Or one of these, in degrees clockwise: ``[90, 180, 270]`` loses nothing of a square.
        fill: Value of the image where there is none.
        ignore_index: The label of pixels without one.
    """

    def __init__(
        self,
        prob: float = 0.5,
        max_angle: float = 180.0,
        angles: Sequence[float] | None = None,
        fill: float = 0.0,
        ignore_index: int = 255,
    ) -> None:
        if not 0 <= prob <= 1:
            raise ConfigError(f'MultiTaskRandomRotate: prob is in [0, 1], got {prob}')
        if angles is not None and not len(angles):
            raise ConfigError('MultiTaskRandomRotate: angles is empty; None draws any angle')
        self.prob = prob
        self.max_angle = max_angle
        self.angles = None if angles is None else tuple(angles)
        self.fill = fill
        self.ignore_index = ignore_index

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Turns; see the class."""
        # Both are drawn always, so that what later steps draw does not depend on the outcome.
        drawn, angle = np.random.rand(), np.random.rand()
        if drawn >= self.prob:
            return results
        if self.angles is None:
            angle = (2 * angle - 1) * self.max_angle
        else:
            angle = self.angles[int(angle * len(self.angles))]
        return alignment.rotate(results, angle, self.fill, self.ignore_index)

    def __repr__(self) -> str:
        options = ', '.join(f'{key}={value!r}' for key, value in vars(self).items())
        return f'{type(self).__name__}({options})'
