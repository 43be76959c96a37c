# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The encoders of MaRS, one modality a file."""

from __future__ import annotations

from mmrsfm.checkpoints.layout import register_layout
from mmrsfm.checkpoints.layouts.timm_swin_v2 import SwinV2Layout


@register_layout
class MaRSEncoderLayout(SwinV2Layout):
    """What MaRS releases: an encoder as timm's feature extractor has it, ``layers_N``, no norm.

    The files ``mars_{rgb,sar}_encoder_only.pth``; also any SwinV2 of timm with
    ``features_only=True``.
    """

    name = 'mars_encoder'
    origin = 'MaRS (AAAI 40(14):11685-11693, 2026), WanderRainy/MaRS: released encoders'
    licence = 'none stated ("strictly for academic research purposes")'
    separator = '_'
    head = None
    with_norm = False
