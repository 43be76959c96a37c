# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Datasets and packing that need mmseg."""

from mmrsfm.datasets.segmentation.geotiff_seg_dataset import GeoTIFFSegDataset
from mmrsfm.datasets.segmentation.pack_seg_inputs import PackSegInputs
from mmrsfm.datasets.segmentation.spacenet_v1 import SpaceNetV1Dataset

__all__ = ['GeoTIFFSegDataset', 'PackSegInputs', 'SpaceNetV1Dataset']
