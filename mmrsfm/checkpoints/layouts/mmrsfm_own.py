# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Our own checkpoints: any task model or pretraining model of this library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmrsfm.checkpoints.layout import Layout, StateDict, register_layout

_MARK = 'mmrsfm_'


def is_ours(state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
    """Whether a checkpoint was written by mmrsfm: its meta says so, or it has our predictor."""
    has_backbone = any(name.startswith('backbone.') for name in state)
    return has_backbone and (
        any(str(key).startswith(_MARK) for key in meta)
        or any(name.startswith('predictor.') for name in state)
    )


@register_layout
class MMRSFMLayout(Layout):
    """Nothing is renamed; the parts of the model are the first component of each name."""

    name = 'mmrsfm'
    origin = 'mmrsfm, and every OpenMMLab task model that holds one of its backbones'
    licence = "that of the weights: see the checkpoint's contract"
    dropped = ('*',)  # every part of a task model but the backbone

    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.matches`."""
        return is_ours(state, meta)

    def to_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.to_mmrsfm`."""
        return dict(state), []

    def from_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.from_mmrsfm`."""
        return dict(state), []
