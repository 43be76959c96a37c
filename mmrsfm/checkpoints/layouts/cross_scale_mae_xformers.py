# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Cross-Scale MAE as trained with xFormers: post-norm blocks, separate q, k and v."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmrsfm.checkpoints.keymap import KeyMap, block_pairs
from mmrsfm.checkpoints.layout import Layout, StateDict, apply_names, register_layout
from mmrsfm.checkpoints.layouts.cross_scale_mae import CROSS_SCALE_OUTSIDE_BLOCKS
from mmrsfm.errors import CheckpointError

_ATTENTION = 'wrap_att.sublayer.layer'
_XFORMERS_BLOCK = (
    ('wrap_att.norm', 'ln1'),
    (f'{_ATTENTION}.in_proj_container.qkv', 'attn.qkv'),
    (f'{_ATTENTION}.proj', 'attn.proj'),
    ('wrap_ff.norm', 'ln2'),
    ('wrap_ff.sublayer.layer.mlp.0', 'ffn.layers.0.0'),
    ('wrap_ff.sublayer.layer.mlp.3', 'ffn.layers.1'),
)
_PROJECTION = re.compile(r'(.+\.in_proj_container)\.([qkv])_proj\.(weight|bias)$')
_FUSED = re.compile(r'(.+\.in_proj_container)\.qkv\.(weight|bias)$')


@register_layout
class CrossScaleMAEXFormersLayout(Layout):
    """Blocks ``x = LN(x + f(x))`` with epsilon 1e-5: a pre-norm ViT with these weights is wrong.

    q, k and v become one matrix by stacking their rows: the heads are contiguous in both.
    """

    name = 'cross_scale_mae_xformers'
    origin = 'Cross-Scale MAE (Tang et al., NeurIPS 2023, arXiv 2401.15855) with xFormers 0.0.19'
    licence = 'CC-BY-NC-4.0'
    norm_style = 'post'
    keymap = KeyMap(
        [
            *CROSS_SCALE_OUTSIDE_BLOCKS,
            *block_pairs('encoder.encoders.{n}', 'backbone.layers.{n}', _XFORMERS_BLOCK),
            *block_pairs('decoder.encoders.{n}', 'neck.decoder_blocks.{n}', _XFORMERS_BLOCK),
        ]
    )

    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.matches`."""
        return 'encoder_pos_embed' in state and any(
            name.startswith('encoder.encoders.') for name in state
        )

    def to_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.to_mmrsfm`."""
        fused: StateDict = {}
        for name, value in state.items():
            match = _PROJECTION.match(name)
            if match is None:
                fused[name] = value
                continue
            container, _, kind = match.groups()
            parts = [f'{container}.{letter}_proj.{kind}' for letter in 'qkv']
            absent = [part for part in parts if part not in state]
            if absent:
                raise CheckpointError(f'{name} is there, but not {", ".join(absent)}')
            fused.setdefault(f'{container}.qkv.{kind}', torch.cat([state[part] for part in parts]))
        return apply_names(fused, self.keymap.forward)

    def from_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.from_mmrsfm`."""
        renamed, left = apply_names(state, self.keymap.backward)
        split: StateDict = {}
        for name, value in renamed.items():
            match = _FUSED.match(name)
            if match is None:
                split[name] = value
                continue
            container, kind = match.groups()
            for letter, part in zip('qkv', value.chunk(3), strict=True):
                split[f'{container}.{letter}_proj.{kind}'] = part.clone()
        return split, left
