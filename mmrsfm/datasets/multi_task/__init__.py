# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Data sets with several kinds of label. Needs mmseg, mmdet and mmrotate."""

from mmrsfm.datasets.multi_task import transforms  # noqa: F401  (registers them)
from mmrsfm.datasets.multi_task.samrs import SAMRSDataset
from mmrsfm.datasets.multi_task.windowed_masks import WindowedMasks

__all__ = ['SAMRSDataset', 'WindowedMasks']
