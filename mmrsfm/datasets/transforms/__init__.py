# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Transforms for imagery with any number of bands; light: no task library but mmpretrain."""

from mmrsfm.datasets.transforms.center_crop import CenterCrop
from mmrsfm.datasets.transforms.draw_mask_noise import DrawMaskNoise
from mmrsfm.datasets.transforms.draw_scale_crop import DrawScaleCrop
from mmrsfm.datasets.transforms.drop_modality import DropModality
from mmrsfm.datasets.transforms.load_geobench import LoadGeoBench
from mmrsfm.datasets.transforms.load_height_map import LoadHeightMap
from mmrsfm.datasets.transforms.load_image_pair import LoadImagePair
from mmrsfm.datasets.transforms.load_mmearth import LoadMMEarth
from mmrsfm.datasets.transforms.load_modalities import LoadModalities
from mmrsfm.datasets.transforms.load_multi_band_image import LoadMultiBandImage
from mmrsfm.datasets.transforms.load_seg_label import LoadSegLabel
from mmrsfm.datasets.transforms.normalize_mmearth import NormalizeMMEarth
from mmrsfm.datasets.transforms.pack_image_pair import PackImagePair
from mmrsfm.datasets.transforms.pack_inputs import PackInputs
from mmrsfm.datasets.transforms.pad import Pad
from mmrsfm.datasets.transforms.photometric_distortion import PhotometricDistortion
from mmrsfm.datasets.transforms.random_crop import RandomCrop
from mmrsfm.datasets.transforms.random_flip import RandomFlip
from mmrsfm.datasets.transforms.random_homography import RandomHomography
from mmrsfm.datasets.transforms.random_resized_crop import RandomResizedCrop
from mmrsfm.datasets.transforms.random_rot90 import RandomRot90
from mmrsfm.datasets.transforms.resize import Resize
from mmrsfm.datasets.transforms.scale_sar import ScaleSAR

__all__ = [
    'CenterCrop',
    'DrawMaskNoise',
    'DrawScaleCrop',
    'DropModality',
    'LoadGeoBench',
    'LoadHeightMap',
    'LoadImagePair',
    'LoadMMEarth',
    'LoadModalities',
    'LoadMultiBandImage',
    'LoadSegLabel',
    'NormalizeMMEarth',
    'PackImagePair',
    'PackInputs',
    'Pad',
    'PhotometricDistortion',
    'RandomCrop',
    'RandomFlip',
    'RandomHomography',
    'RandomResizedCrop',
    'RandomRot90',
    'Resize',
    'ScaleSAR',
]
