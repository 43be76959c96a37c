# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Metrics of several tasks and data sets. Needs mmseg, mmdet and mmrotate."""

from mmrsfm.evaluation.multi_task.multi_task_metric import MultiTaskMetric

__all__ = ['MultiTaskMetric']
