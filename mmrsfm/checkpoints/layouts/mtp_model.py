# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The whole multi-task model of MTP: an encoder of either kind, and its decoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmrsfm.checkpoints.keymap import KeyMap
from mmrsfm.checkpoints.layout import RenamingLayout, StateDict, apply_names, register_layout

_ENCODER = ('encoder.blocks.0.attn.qkv.weight', 'encoder.levels.0.blocks.0.dcn.offset.weight')


@register_layout
class MTPModelLayout(RenamingLayout):
    """``encoder.*`` is our ``backbone.*``; the decoders keep their names.

    The files ``last_*_pretrn_model.pth`` beside the encoders. A load into a backbone leaves the
    decoders aside; ``tools/model_converters/mtp_decoder.py`` takes one of them.
    """

    name = 'mtp_model'
    origin = 'MTP (Wang et al., JSTARS 2024, arXiv 2403.13430), ViTAE-Transformer/MTP: models'
    licence = 'MIT (code); none stated for the weights'
    norm_style = None  # an RVSA encoder, or an InternImage
    dropped = ('semseg*', 'insseg*', 'rotdet*')
    keymap = KeyMap([('encoder', 'backbone')])

    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.matches`."""
        return any(name in state for name in _ENCODER)

    def to_mmrsfm(self, state: Mapping[str, Any]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.to_mmrsfm`."""
        return apply_names(state, lambda name: self.keymap.forward(name) or name)

    def from_mmrsfm(self, state: Mapping[str, Any]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.from_mmrsfm`."""
        return apply_names(state, lambda name: self.keymap.backward(name) or name)
