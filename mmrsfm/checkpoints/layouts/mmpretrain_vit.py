# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""ViT in mmpretrain's names, alone or inside a classifier or an MAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmrsfm.checkpoints.layout import Layout, StateDict, apply_names, register_layout
from mmrsfm.checkpoints.layouts.mmrsfm_own import is_ours

_SIGNATURE = ('pos_embed', 'patch_embed.projection.weight', 'layers.0.attn.qkv.weight')
_PARTS = ('backbone.', 'neck.', 'head.')


@register_layout
class MMPretrainViTLayout(Layout):
    """The names are ours already; a bare backbone gets the prefix ``backbone.``."""

    name = 'mmpretrain_vit'
    origin = 'mmpretrain (OpenMMLab): VisionTransformer, MAEViT'
    licence = 'Apache-2.0 (mmpretrain)'
    norm_style = 'pre'
    dropped = ('*',)  # every part of a task model but the backbone

    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.matches`."""
        return not is_ours(state, meta) and any(
            all(prefix + name in state for name in _SIGNATURE) for prefix in ('', 'backbone.')
        )

    def to_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.to_mmrsfm`."""
        if any(name.startswith('backbone.') for name in state):
            return dict(state), []
        return apply_names(state, lambda name: f'backbone.{name}')

    def from_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.from_mmrsfm`."""
        return apply_names(state, lambda name: name if name.startswith(_PARTS) else None)
