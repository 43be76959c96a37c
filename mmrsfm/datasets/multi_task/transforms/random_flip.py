# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Mirrors the image and all its labels."""

from __future__ import annotations

from typing import Any

import mmcv.transforms as mmcv_transforms

from mmrsfm.datasets.multi_task import alignment
from mmrsfm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class MultiTaskRandomFlip(mmcv_transforms.RandomFlip):
    """mmcv's RandomFlip for samples with several kinds of label.

    Arguments as there: ``prob`` (a number, shared by the directions, or one for each) and
    ``direction``. MTP: ``prob=0.75, direction=['horizontal', 'vertical', 'diagonal']``.

    Added keys: ``flip``, ``flip_direction``.
    """

    def _flip(self, results: dict[str, Any]) -> None:
        alignment.flip(results, str(results['flip_direction']))
