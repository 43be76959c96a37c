# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.models.necks.cross_scale_mae_decoder import CrossScaleMAEDecoder
from mmrsfm.models.necks.meta_modality_attention import MetaModalityAttention
from mmrsfm.models.necks.mixmim_decoder import MixMIMDecoder
from mmrsfm.models.necks.modality_fusion import ModalityFusion
from mmrsfm.models.necks.mp_mae_decoder import MPMAEDecoder
from mmrsfm.models.necks.patch_predictor import PatchPredictor
from mmrsfm.models.necks.top_down_neck import TopDownNeck

__all__ = [
    'CrossScaleMAEDecoder',
    'MPMAEDecoder',
    'MetaModalityAttention',
    'MixMIMDecoder',
    'ModalityFusion',
    'PatchPredictor',
    'TopDownNeck',
]
