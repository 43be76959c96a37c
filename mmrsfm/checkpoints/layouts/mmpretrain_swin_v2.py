# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Swin Transformer V2 in mmpretrain's names, alone or inside a task model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmrsfm.checkpoints.layout import Layout, StateDict, apply_names, register_layout
from mmrsfm.checkpoints.layouts.mmrsfm_own import is_ours

_MARK = 'stages.0.blocks.0.attn.w_msa.logit_scale'
_BACKBONE = ('patch_embed.', 'stages.', 'norm')


@register_layout
class MMPretrainSwinV2Layout(Layout):
    """The names are ours already; a bare backbone gets the prefix ``backbone.``.

    The files ``swinv2-*_3rdparty_*.pth`` of mmpretrain's model zoo, with ImageNet weights; and task
    models with :class:`mmrsfm.SwinV2` that no runner of mmrsfm has saved.
    """

    name = 'mmpretrain_swin_v2'
    origin = 'mmpretrain (OpenMMLab): SwinTransformerV2'
    licence = 'Apache-2.0 (mmpretrain); MIT (weights of Microsoft)'
    dropped = ('*',)  # every part of a task model but the backbone

    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.matches`."""
        return not is_ours(state, meta) and (_MARK in state or f'backbone.{_MARK}' in state)

    def to_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.to_mmrsfm`."""
        if f'backbone.{_MARK}' in state:
            return dict(state), []
        return apply_names(state, lambda name: f'backbone.{name}')

    def from_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.from_mmrsfm`."""

        def kept(name: str) -> str | None:
            ours = name.removeprefix('backbone.')
            return name if ours == name or ours.startswith(_BACKBONE) else None

        return apply_names(state, kept)
