# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Packs a pair for the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmseg.datasets.transforms import PackSegInputs

from mmrsfm.compat.opencd.registry import TRANSFORMS
from mmrsfm.errors import ImageSizeError

_META_KEYS = (
    'img_path', 'seg_map_path', 'seg_map_path_from', 'seg_map_path_to', 'ori_shape', 'img_shape',
    'pad_shape', 'scale_factor', 'flip', 'flip_direction',
)  # fmt: skip


@TRANSFORMS.register_module()
class MultiImgPackSegInputs(PackSegInputs):
    """mmseg's PackSegInputs for a pair.

    Returns ``dict(inputs, data_samples)``: ``inputs`` (2C, H, W), the first date first, in the type
    of the images; ``data_samples`` an mmseg SegDataSample with ``gt_sem_seg`` (1, H, W) int64 and
    the meta information.

    Args:
        meta_keys: What of the sample becomes meta information, where it is there.

    Raises:
        ImageSizeError: If the dates differ in size.
    """

    def __init__(self, meta_keys: Sequence[str] = _META_KEYS) -> None:
        super().__init__(meta_keys=meta_keys)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Packs; see the class."""
        if 'img' not in results:
            return super().transform(results)
        images = [image if image.ndim == 3 else image[..., None] for image in results['img']]
        if len({image.shape[:2] for image in images}) > 1:
            raise ImageSizeError(
                f'the two dates differ in size: {[image.shape for image in images]}',
                path=results.get('img_path', [None, None])[1],
            )
        return super().transform({**results, 'img': np.concatenate(images, axis=2)})
