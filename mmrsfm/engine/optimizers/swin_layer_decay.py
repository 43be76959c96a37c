# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Layer decay for Swin Transformer V2."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import nn

from mmrsfm.engine.optimizers.layer_decay import LayerDecayOptimWrapperConstructor
from mmrsfm.engine.optimizers.layer_sizes import check_stages
from mmrsfm.layers.layer_depth import swin_layer_depth
from mmrsfm.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class SwinLayerDecayOptimWrapperConstructor(LayerDecayOptimWrapperConstructor):
    """Learning rates by layer for :class:`mmrsfm.SwinV2`, alone or as branches of a model.

    Depth 0: patch embedding and mask token; then the blocks of all stages from 1 on; patch merging
    is as deep as the first block behind it (see
    :func:`mmrsfm.layers.layer_depth.swin_layer_depth`); ``num_layers + 1``: neck and heads. No
    weight decay: one dimension, biases, and as in the published code of Swin Transformer V2
    (Liu et al., arXiv 2111.09883) the factors of the cosines and the position networks. (MaRS
    decayed the last two in its pretraining.)

    Example::

        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=6e-5, weight_decay=0.05),
            constructor='mmrsfm.SwinLayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.9, depths=[2, 2, 18, 2]))

    Args:
        optim_wrapper_cfg: See :class:`LayerDecayOptimWrapperConstructor`.
        paramwise_cfg: See :class:`LayerDecayOptimWrapperConstructor`.
    """

    no_decay = ('cpb_mlp', 'logit_scale')
    faithful_prefix = 'backbone.'
    pattern = re.compile(r'(?:^|(?<=\.))(?:patch_embed|stages\.\d+\.blocks\.(?P<layer>\d+))\.')

    def resolve_size(self, found: Mapping[str, Sequence[str]], model: nn.Module) -> list[int]:
        """See :meth:`LayerDecayOptimWrapperConstructor.resolve_size`."""
        return check_stages(found, model, 'stages', self.paramwise_cfg)

    def depth_of(self, name: str, size: list[int]) -> int:
        """See :meth:`LayerDecayOptimWrapperConstructor.depth_of`."""
        return swin_layer_depth(name, size)

    def last_depth(self, size: list[int]) -> int:
        """See :meth:`LayerDecayOptimWrapperConstructor.last_depth`."""
        return sum(size) + 1
