# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Task models of the OpenMMLab libraries with InternImage: MTP's and InternImage's fine-tunings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmrsfm.checkpoints.layout import Layout, StateDict, register_layout
from mmrsfm.checkpoints.layouts.intern_image import is_intern_image
from mmrsfm.checkpoints.layouts.mmrsfm_own import is_ours


@register_layout
class InternImageFinetunedLayout(Layout):
    """Nothing is renamed: the backbone of such a model already has our names."""

    name = 'intern_image_finetuned'
    origin = 'MTP (arXiv 2403.13430) and InternImage (arXiv 2211.05778): models of fine-tunings'
    licence = 'MIT (InternImage); none stated for the weights of MTP'
    dropped = ('*',)  # every part of a task model but the backbone

    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.matches`."""
        return is_intern_image(state, 'backbone.') and not is_ours(state, meta)

    def to_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.to_mmrsfm`."""
        return dict(state), []

    def from_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.from_mmrsfm`."""
        return dict(state), []
