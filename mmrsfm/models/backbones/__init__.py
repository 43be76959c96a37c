# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.models.backbones.conv_next_v2 import ConvNeXtV2
from mmrsfm.models.backbones.cross_scale_vit import CrossScaleViT
from mmrsfm.models.backbones.dual_modality import DualModalityBackbone
from mmrsfm.models.backbones.intern_image import InternImage
from mmrsfm.models.backbones.mixmim import MixMIM
from mmrsfm.models.backbones.rvsa_vit import RVSAViT
from mmrsfm.models.backbones.swin_v2 import SwinV2

__all__ = [
    'ConvNeXtV2',
    'CrossScaleViT',
    'DualModalityBackbone',
    'InternImage',
    'MixMIM',
    'RVSAViT',
    'SwinV2',
]
