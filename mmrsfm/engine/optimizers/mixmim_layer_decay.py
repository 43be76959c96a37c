# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Layer decay for MixMIM."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mmrsfm.engine.optimizers.layer_decay import LayerDecayOptimWrapperConstructor
from mmrsfm.engine.optimizers.layer_sizes import check_stages
from mmrsfm.layers.layer_depth import mixmim_layer_depth
from mmrsfm.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MixMIMLayerDecayOptimWrapperConstructor(LayerDecayOptimWrapperConstructor):
    """Learning rates by layer for :class:`mmrsfm.MixMIM`.

    Depth 0: position table and patch embedding; then the blocks of all stages from 1 on; patch
    merging is as deep as the first block behind it (see
    :func:`mmrsfm.layers.layer_depth.mixmim_layer_depth`); ``num_layers + 1``: norms behind the
    stages, neck and heads. No weight decay: one dimension and biases; the tables of relative
    positions have it, as published.

    SAR-W-MixMAE (arXiv 2503.01181) was fine-tuned with a rate of 0.7, where head and last norm
    count as parts of the last block: nothing has the full learning rate, the head 0.7 of it.
    ``faithful=True`` does the same.

    Example::

        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
            constructor='mmrsfm.MixMIMLayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.7, depths=[2, 2, 18, 2]))

    Args:
        optim_wrapper_cfg: See :class:`LayerDecayOptimWrapperConstructor`.
        paramwise_cfg: See :class:`LayerDecayOptimWrapperConstructor`.
    """

    no_decay = ()
    faithful_prefix = 'backbone.'
    pattern = re.compile(r'(?:^|(?<=\.))(?:patch_embed|layers\.\d+\.blocks\.(?P<layer>\d+))\.')

    def resolve_size(self, found: Mapping[str, Sequence[str]], model: nn.Module) -> list[int]:
        """See :meth:`LayerDecayOptimWrapperConstructor.resolve_size`."""
        return check_stages(found, model, 'layers', self.paramwise_cfg)

    def depth_of(self, name: str, size: list[int]) -> int:
        """See :meth:`LayerDecayOptimWrapperConstructor.depth_of`."""
        return mixmim_layer_depth(name, size)

    def last_depth(self, size: list[int]) -> int:
        """See :meth:`LayerDecayOptimWrapperConstructor.last_depth`."""
        return sum(size) + 1

    def _new_group(
        self, depth: int, last: int, decays: bool, custom: Mapping[str, float]
    ) -> dict[str, Any]:
        # As published: what lies behind the blocks has the number of the last one.
        return super()._new_group(
            min(depth, last - 1) if self.faithful else depth, last, decays, custom
        )
