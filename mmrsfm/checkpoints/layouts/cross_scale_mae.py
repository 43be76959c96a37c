# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Cross-Scale MAE as its code names it without xFormers: pre-norm blocks, one qkv matrix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmrsfm.checkpoints.keymap import KeyMap, block_pairs
from mmrsfm.checkpoints.layout import RenamingLayout, register_layout
from mmrsfm.checkpoints.layouts.timm_vit import TIMM_BLOCK

# Everything outside the blocks: the same in both layouts of Cross-Scale MAE.
CROSS_SCALE_OUTSIDE_BLOCKS = (
    ('cls_token', 'backbone.cls_token'),
    ('encoder_pos_embed', 'backbone.pos_embed'),
    ('patch_embed.proj', 'backbone.patch_embed.projection'),
    # In every variant; the reference computes it, throws the result away and never trains it.
    ('encoder_norm', 'backbone.ln1'),
    ('mask_token', 'neck.mask_token'),
    ('decoder_embed', 'neck.decoder_embed'),
    ('decoder_pos_embed', 'neck.decoder_pos_embed'),
    ('decoder_norm', 'neck.ln1'),
    ('decoder_pred', 'neck.decoder_pred'),
    # Linear, batch normalisation over the patch index, ReLU, linear.
    ('predictor.{n}', 'predictor.{n}'),
)
_FUSED = re.compile(r'encoder\.\d+\.attn\.qkv\.weight$')


@register_layout
class CrossScaleMAELayout(RenamingLayout):
    """Blocks of timm under ``encoder.N`` and ``decoder.N``.

    The released base checkpoint has this layout, as far as third parties' loaders tell.
    """

    name = 'cross_scale_mae'
    origin = 'Cross-Scale MAE (Tang et al., NeurIPS 2023, arXiv 2401.15855), aicip/Cross-Scale-MAE'
    licence = 'CC-BY-NC-4.0'
    norm_style = 'pre'
    keymap = KeyMap(
        [
            *CROSS_SCALE_OUTSIDE_BLOCKS,
            *block_pairs('encoder.{n}', 'backbone.layers.{n}', TIMM_BLOCK),
            *block_pairs('decoder.{n}', 'neck.decoder_blocks.{n}', TIMM_BLOCK),
        ]
    )

    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.matches`."""
        return 'encoder_pos_embed' in state and any(_FUSED.match(name) for name in state)
