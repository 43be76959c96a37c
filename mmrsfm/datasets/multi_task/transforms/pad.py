# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pads the image and all its labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.transforms import BaseTransform

from mmrsfm.datasets.multi_task import alignment
from mmrsfm.datasets.transforms.random_resized_crop import check_size
from mmrsfm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class MultiTaskPad(BaseTransform):
    """Pads a sample with several kinds of label on the right and at the bottom.

    In a pipeline only where a later step needs the size: batches are padded, image and labels
    alike, by ``mmrsfm.MTPDataPreprocessor``.

    Added keys: ``pad_shape``; ``img_shape`` stays that of the content.

    Args:
        size: Least size, one number or (H, W).
        fill: Value of the padding in the image.
        ignore_index: Its label.
    """

    def __init__(
        self, size: int | Sequence[int], fill: float = 0.0, ignore_index: int = 255
    ) -> None:
        self.size = check_size(size, 'MultiTaskPad')
        self.fill = fill
        self.ignore_index = ignore_index

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pads; see the class."""
        return alignment.pad(results, *self.size, self.fill, self.ignore_index)

    def __repr__(self) -> str:
        options = ', '.join(f'{key}={value!r}' for key, value in vars(self).items())
        return f'{type(self).__name__}({options})'
