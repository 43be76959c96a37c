# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Datasets of horizontal boxes; they need mmdet."""

from mmrsfm.datasets.detection.dior import DIORDataset
from mmrsfm.datasets.detection.sardet_100k import SARDet100KDataset
from mmrsfm.datasets.detection.ubc_v2 import UBCv2Dataset
from mmrsfm.datasets.detection.xview import XViewDataset

__all__ = ['DIORDataset', 'SARDet100KDataset', 'UBCv2Dataset', 'XViewDataset']
