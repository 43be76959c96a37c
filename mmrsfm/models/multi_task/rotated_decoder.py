# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Rotated boxes of objects, for several data sets."""

from __future__ import annotations

from mmrsfm.models.multi_task.region_decoder import RegionDecoder
from mmrsfm.registry import MODELS


@MODELS.register_module()
class RotatedDecoder(RegionDecoder):
    """Oriented R-CNN of mmrotate, from the neck on.

    Reads ``r_gt_instances`` (rotated boxes) and ``ignored_r_instances``, writes
    ``pred_r_instances``. Types without a scope are mmrotate's. See :class:`RegionDecoder`.
    """

    scope = 'mmrotate'
    task = 'rotated'
    labels = 'r_gt_instances'
    ignored = 'ignored_r_instances'
    prediction = 'pred_r_instances'
