# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Plain ViT in timm's names: timm itself, facebook's MAE encoders, DeiT, SatMAE's RGB encoders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmrsfm.checkpoints.keymap import KeyMap, block_pairs
from mmrsfm.checkpoints.layout import RenamingLayout, StateDict, register_layout

# One transformer block, timm's names against mmpretrain's.
TIMM_BLOCK = (
    ('norm1', 'ln1'),
    ('attn.qkv', 'attn.qkv'),
    ('attn.proj', 'attn.proj'),
    ('norm2', 'ln2'),
    ('mlp.fc1', 'ffn.layers.0.0'),
    ('mlp.fc2', 'ffn.layers.1'),
)
TIMM_ENCODER = (
    ('cls_token', 'backbone.cls_token'),
    ('pos_embed', 'backbone.pos_embed'),
    ('patch_embed.proj', 'backbone.patch_embed.projection'),
    *block_pairs('blocks.{n}', 'backbone.layers.{n}', TIMM_BLOCK),
    ('norm', 'backbone.ln1'),
    ('fc_norm', 'backbone.ln2'),
)
_BLOCK = re.compile(r'blocks\.\d+\.(.+)\.(weight|bias)$')


def is_plain_timm_vit(state: Mapping[str, Any]) -> bool:
    """Whether the encoder is a ViT with fused qkv, and has nothing in its blocks but that.

    Relatives with more in a block (relative positions, sampling offsets, layer scale) are other
    layouts: their names start in the same way.
    """
    parts = {left for left, _ in TIMM_BLOCK}
    blocks = [name for name in state if name.startswith('blocks.')]
    return (
        {'pos_embed', 'patch_embed.proj.weight', 'blocks.0.attn.qkv.weight'} <= set(state)
        and all((match := _BLOCK.match(name)) and match[1] in parts for name in blocks)
    )  # fmt: skip


@register_layout
class TimmViTLayout(RenamingLayout):
    """Encoder with or without a classification head.

    ``norm`` acts on all tokens (mmpretrain's ``ln1``), ``fc_norm`` on their mean (``ln2``). The
    head of MAE's linear probing is batch normalisation (``head.0``) and a linear layer
    (``head.1``): mmpretrain's ``ClsBatchNormNeck`` and ``LinearClsHead``.
    """

    name = 'timm_vit'
    origin = "timm (Wightman) and MAE's models_vit (He et al., CVPR 2022, arXiv 2111.06377)"
    licence = 'Apache-2.0 (timm); CC-BY-NC-4.0 (weights of MAE)'
    norm_style = 'pre'
    keymap = KeyMap(
        [*TIMM_ENCODER, ('head.0', 'neck.bn'), ('head.1', 'head.fc'), ('head', 'head.fc')]
    )

    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.matches`."""
        return is_plain_timm_vit(state) and 'decoder_embed.weight' not in state

    def from_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.from_mmrsfm`.

        The linear head gets the name ``head``, or ``head.1`` behind a batch normalisation.
        """
        converted, left = super().from_mmrsfm(state)
        if not any(name.startswith('head.0.') for name in converted):
            converted = {
                re.sub(r'^head\.1\.', 'head.', name): value for name, value in converted.items()
            }
        return converted, left
