# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Parts of detectors. Needs mmdet."""

from mmrsfm.models.detection.multi_band_det_data_preprocessor import (
    MultiBandDetDataPreprocessor,
)

__all__ = ['MultiBandDetDataPreprocessor']
