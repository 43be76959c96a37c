# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Masked autoencoder of facebook research, with its decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrsfm.checkpoints.keymap import KeyMap, block_pairs
from mmrsfm.checkpoints.layout import RenamingLayout, register_layout
from mmrsfm.checkpoints.layouts.timm_vit import TIMM_BLOCK, TIMM_ENCODER, is_plain_timm_vit


@register_layout
class FacebookMAELayout(RenamingLayout):
    """Encoder in timm's names, and the decoder beside it (the encoder alone is ``timm_vit``)."""

    name = 'facebook_mae'
    origin = 'MAE (He et al., CVPR 2022, arXiv 2111.06377), facebookresearch/mae'
    licence = 'CC-BY-NC-4.0'
    norm_style = 'pre'
    keymap = KeyMap(
        [
            *TIMM_ENCODER,
            ('mask_token', 'neck.mask_token'),
            ('decoder_embed', 'neck.decoder_embed'),
            ('decoder_pos_embed', 'neck.decoder_pos_embed'),
            *block_pairs('decoder_blocks.{n}', 'neck.decoder_blocks.{n}', TIMM_BLOCK),
            ('decoder_norm', 'neck.ln1'),
            ('decoder_pred', 'neck.decoder_pred'),
        ]
    )

    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.matches`."""
        return is_plain_timm_vit(state) and 'decoder_embed.weight' in state
