# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Leaves out instances of which nothing, or too little, is left."""

from __future__ import annotations

from typing import Any

from mmcv.transforms import BaseTransform

from mmrsfm.datasets.multi_task.alignment import INSTANCE_KEYS, masks_of, take
from mmrsfm.errors import ConfigError
from mmrsfm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class MultiTaskFilter(BaseTransform):
    """Leaves out small instances; rotated boxes and the label map are not touched, as in MTP.

    Args:
        min_side: Boxes need both sides longer than this, in pixels.
        min_area: Masks need at least as many pixels.
        on_empty: What becomes of a sample that had instances and has none any more: ``'reject'``
            (the data set draws another one, as in MTP) or ``'keep'``. One that came without
            instances is kept.
    """

    def __init__(
        self, min_side: float = 1e-5, min_area: float = 1, on_empty: str = 'reject'
    ) -> None:
        if on_empty not in ('reject', 'keep'):
            raise ConfigError(f"MultiTaskFilter: on_empty is 'reject' or 'keep', got {on_empty!r}")
        self.min_side = min_side
        self.min_area = min_area
        self.on_empty = on_empty

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Filters; see the class."""
        boxes = results.get('gt_bboxes')
        if boxes is None or not len(boxes):
            return results
        sides = boxes.tensor[:, 2:] - boxes.tensor[:, :2]
        kept = (sides > self.min_side).all(dim=1).numpy()
        masks = masks_of(results)
        if masks is not None:
            kept &= masks.areas >= self.min_area
        if not kept.any() and self.on_empty == 'reject':
            return None
        take(results, INSTANCE_KEYS, kept)
        return results

    def __repr__(self) -> str:
        options = ', '.join(f'{key}={value!r}' for key, value in vars(self).items())
        return f'{type(self).__name__}({options})'
