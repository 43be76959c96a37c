# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Boxes and masks of objects, for several data sets."""

from __future__ import annotations

from mmrsfm.models.multi_task.region_decoder import RegionDecoder
from mmrsfm.registry import MODELS


@MODELS.register_module()
class InstanceDecoder(RegionDecoder):
    """Mask R-CNN of mmdet, from the neck on: upright boxes, and masks if there is a mask head.

    Reads ``gt_instances`` and ``ignored_instances``, writes ``pred_instances``. Types without a
    scope are mmdet's. See :class:`RegionDecoder`.
    """

    scope = 'mmdet'
    task = 'instance'
    labels = 'gt_instances'
    ignored = 'ignored_instances'
    prediction = 'pred_instances'
