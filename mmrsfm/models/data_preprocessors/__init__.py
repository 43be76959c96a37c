# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.models.data_preprocessors.multi_band_data_preprocessor import MultiBandDataPreprocessor

__all__ = ['MultiBandDataPreprocessor']
