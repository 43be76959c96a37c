# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Swin Transformer V2 as its authors released it."""

from __future__ import annotations

from mmrsfm.checkpoints.layout import register_layout
from mmrsfm.checkpoints.layouts.timm_swin_v2 import SwinV2Layout


@register_layout
class OfficialSwinV2Layout(SwinV2Layout):
    """The files of Microsoft, and of timm before 0.9: patch merging at the end of a stage."""

    name = 'swin_v2'
    origin = (
        'Swin Transformer V2 (Liu et al., CVPR 2022, arXiv 2111.09883), microsoft/Swin-Transformer'
    )
    licence = 'MIT'
    late_merging = True
    head = 'head.'
