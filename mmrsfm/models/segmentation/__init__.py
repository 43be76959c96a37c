# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Parts of models that need mmseg."""

from mmrsfm.models.segmentation.conv_next_unet_head import ConvNeXtUNetHead
from mmrsfm.models.segmentation.deconv_head import DeconvHead
from mmrsfm.models.segmentation.height_estimator import HeightEstimator
from mmrsfm.models.segmentation.height_head import HeightHead
from mmrsfm.models.segmentation.multi_band_seg_data_preprocessor import (
    MultiBandSegDataPreprocessor,
)

__all__ = [
    'ConvNeXtUNetHead',
    'DeconvHead',
    'HeightEstimator',
    'HeightHead',
    'MultiBandSegDataPreprocessor',
]
