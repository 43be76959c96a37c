# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Layer decay for ConvNeXt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import nn

from mmrsfm.engine.optimizers.layer_decay import LayerDecayOptimWrapperConstructor
from mmrsfm.engine.optimizers.layer_sizes import check_stages
from mmrsfm.layers.layer_depth import conv_next_layer_depth
from mmrsfm.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ConvNeXtLayerDecayOptimWrapperConstructor(LayerDecayOptimWrapperConstructor):
    """Learning rates by layer for :class:`mmrsfm.ConvNeXtV2`, and for mmpretrain's ``ConvNeXt``.

    Depth 0: the stem; then the blocks of all stages from 1 on; what is between two stages is as
    deep as the first block behind it (see
    :func:`mmrsfm.layers.layer_depth.conv_next_layer_depth`); ``num_layers + 1``: norms behind the
    stages, and heads. No weight decay: one dimension (GRN too) and biases.

    MMEarth (arXiv 2405.02771) was fine-tuned with a rate of 0.9, where the stem has the full
    learning rate, and what is between two stages is as deep as the first block of the stage before
    it. ``faithful=True`` does the same.

    Example::

        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=8e-4, weight_decay=0.3),
            constructor='mmrsfm.ConvNeXtLayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.9))

    Args:
        optim_wrapper_cfg: See :class:`LayerDecayOptimWrapperConstructor`.
        paramwise_cfg: See :class:`LayerDecayOptimWrapperConstructor`.
    """

    no_decay = ()
    faithful_prefix = 'backbone.'
    pattern = re.compile(
        r'(?:^|(?<=\.))(?:initial_conv|downsample_layers\.\d+|stages\.\d+\.(?P<layer>\d+))\.'
    )

    def resolve_size(self, found: Mapping[str, Sequence[str]], model: nn.Module) -> list[int]:
        """See :meth:`LayerDecayOptimWrapperConstructor.resolve_size`."""
        return check_stages(found, model, 'stages', self.paramwise_cfg, blocks='')

    def depth_of(self, name: str, size: list[int]) -> int:
        """See :meth:`LayerDecayOptimWrapperConstructor.depth_of`."""
        return conv_next_layer_depth(name, size, self.faithful)

    def last_depth(self, size: list[int]) -> int:
        """See :meth:`LayerDecayOptimWrapperConstructor.last_depth`."""
        return sum(size) + 1
