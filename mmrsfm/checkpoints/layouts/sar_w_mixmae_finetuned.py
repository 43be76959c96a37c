# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Classifiers that SAR-W-MixMAE was fine-tuned to: multi-label, and pairs of SEN12-FLOOD."""

from __future__ import annotations

from mmrsfm.checkpoints.keymap import KeyMap
from mmrsfm.checkpoints.layout import register_layout
from mmrsfm.checkpoints.layouts.sar_w_mixmae import ENCODER, MixMIMLayout


@register_layout
class SARWMixMAEFinetunedLayout(MixMIMLayout):
    """Encoder and linear head, which is ``head.fc`` here.

    The classifier of BigEarthNet (19 classes) and that of pairs of SEN12-FLOOD (2 classes) differ
    in what they do with the features, not in their names.
    """

    name = 'sar_w_mixmae_finetuned'
    origin = 'SAR-W-MixMAE (IGARSS 2025, arXiv 2503.01181), acaglayan/SAR-W-MixMAE: fine-tuning'
    licence = 'NOASSERTION (models after MixMIM of SenseTime; the rest of the repository is MIT)'
    keymap = KeyMap([*ENCODER, ('head', 'head.fc')])
    decodes = False
