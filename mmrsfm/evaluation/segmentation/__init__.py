# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Metrics that need mmseg."""

from mmrsfm.evaluation.segmentation.cd_metric import CDMetric

__all__ = ['CDMetric']
