# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Parts of models that need mmseg."""

from mmrsfm.models.segmentation.multi_band_seg_data_preprocessor import (
    MultiBandSegDataPreprocessor,
)

__all__ = ['MultiBandSegDataPreprocessor']
