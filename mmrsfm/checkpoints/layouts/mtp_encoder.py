# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""RVSA backbones by themselves, as MTP releases its encoders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmrsfm.checkpoints.layout import Layout, StateDict, apply_names, register_layout

_BACKBONE = 'backbone.'
_RVSA = re.compile(r'blocks\.\d+\.attn\.sampling_offsets\.2\.weight$')


def is_rvsa(state: Mapping[str, Any], prefix: str = '') -> bool:
    """Whether there is a ViT with rotated varied-size windows under a prefix."""
    return prefix + 'patch_embed.proj.weight' in state and any(
        name.startswith(prefix) and _RVSA.match(name, len(prefix)) for name in state
    )


@register_layout
class MTPEncoderLayout(Layout):
    """The names are those of :class:`mmrsfm.RVSAViT`, without a prefix.

    The files ``last_vit_*_rvsa_*_encoder.pth``; also RVSA backbones saved alone.
    """

    name = 'mtp_encoder'
    origin = 'MTP (Wang et al., JSTARS 2024, arXiv 2403.13430), ViTAE-Transformer/MTP: encoders'
    licence = 'MIT (code); none stated for the weights'
    norm_style = 'pre'

    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.matches`."""
        return is_rvsa(state)

    def to_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.to_mmrsfm`."""
        return apply_names(state, lambda name: _BACKBONE + name)

    def from_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.from_mmrsfm`."""
        return apply_names(
            state,
            lambda name: name.removeprefix(_BACKBONE) if name.startswith(_BACKBONE) else None,
        )
