# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Models of change detection under Open-CD's names. Needs mmseg."""

from mmrsfm.compat.opencd.models.di_encoder_decoder import DIEncoderDecoder
from mmrsfm.compat.opencd.models.dual_input_seg_data_preprocessor import (
    DualInputSegDataPreProcessor,
)
from mmrsfm.compat.opencd.models.feature_fusion_neck import FeatureFusionNeck
from mmrsfm.compat.opencd.models.siam_encoder_decoder import SiamEncoderDecoder
from mmrsfm.compat.opencd.registry import MODELS
from mmrsfm.models.change_detection import UNetHead

# Open-CD has no such head; the change-detection configs of MTP look for it there.
MODELS.register_module(module=UNetHead)

__all__ = [
    'DIEncoderDecoder',
    'DualInputSegDataPreProcessor',
    'FeatureFusionNeck',
    'SiamEncoderDecoder',
    'UNetHead',
]
