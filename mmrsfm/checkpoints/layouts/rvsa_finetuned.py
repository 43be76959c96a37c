# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Task models of the OpenMMLab libraries with an RVSA backbone, as MTP's fine-tunings save them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmrsfm.checkpoints.layout import Layout, StateDict, register_layout
from mmrsfm.checkpoints.layouts.mmrsfm_own import is_ours
from mmrsfm.checkpoints.layouts.mtp_encoder import is_rvsa


@register_layout
class RVSAFinetunedLayout(Layout):
    """Nothing is renamed: the backbone of such a model already has our names.

    The published loader finds nothing in these files, and goes on with random weights.
    """

    name = 'rvsa_finetuned'
    origin = 'MTP (Wang et al., JSTARS 2024, arXiv 2403.13430): models of its fine-tunings'
    licence = 'MIT (code); none stated for the weights'
    norm_style = 'pre'
    dropped = ('*',)  # every part of a task model but the backbone

    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.matches`."""
        return is_rvsa(state, 'backbone.') and not is_ours(state, meta)

    def to_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.to_mmrsfm`."""
        return dict(state), []

    def from_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.from_mmrsfm`."""
        return dict(state), []
