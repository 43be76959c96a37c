# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Datasets and packing that need mmseg."""

from mmrsfm.datasets.segmentation.deepglobe_road import DeepGlobeRoadDataset
from mmrsfm.datasets.segmentation.dfc25 import DFC25Dataset
from mmrsfm.datasets.segmentation.earth_miss import EarthMissDataset
from mmrsfm.datasets.segmentation.geotiff_seg_dataset import GeoTIFFSegDataset
from mmrsfm.datasets.segmentation.multi_modal_seg_dataset import MultiModalSegDataset
from mmrsfm.datasets.segmentation.pack_seg_inputs import PackSegInputs
from mmrsfm.datasets.segmentation.spacenet_v1 import SpaceNetV1Dataset

__all__ = [
    'DFC25Dataset',
    'DeepGlobeRoadDataset',
    'EarthMissDataset',
    'GeoTIFFSegDataset',
    'MultiModalSegDataset',
    'PackSegInputs',
    'SpaceNetV1Dataset',
]
