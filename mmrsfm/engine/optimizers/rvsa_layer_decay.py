# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Layer decay for vision transformers with RVSA."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import nn

from mmrsfm.engine.optimizers.layer_decay import LayerDecayOptimWrapperConstructor
from mmrsfm.engine.optimizers.layer_sizes import check_blocks
from mmrsfm.errors import ConfigError
from mmrsfm.layers.layer_depth import rvsa_layer_depth
from mmrsfm.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class RVSALayerDecayOptimWrapperConstructor(LayerDecayOptimWrapperConstructor):
    """Learning rates by layer for :class:`mmrsfm.RVSAViT` and other ViTs in timm's names.

    Depth 0: position table, tokens, patch embedding; ``i + 1``: layer i; ``num_layers + 1``: all
    the rest (``fpn*``, ``norm``, neck, heads). No weight decay: one dimension, biases, position
    table; class token, mask token and tables of relative positions have it.

    MTP (arXiv 2403.13430) fine-tuned so, with a rate of 0.9. Its pretraining did not: the published
    constructor knows the backbone as ``backbone.``, and it is ``encoder.`` there. With
    ``faithful=True`` only ``backbone.`` is known here too.

    Example::

        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=6e-5, weight_decay=0.05),
            constructor='mmrsfm.RVSALayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(num_layers=12, layer_decay_rate=0.9))

    Args:
        optim_wrapper_cfg: See :class:`LayerDecayOptimWrapperConstructor`.
        paramwise_cfg: See :class:`LayerDecayOptimWrapperConstructor`.
    """

    no_decay = ('pos_embed',)
    faithful_prefix = 'backbone.'
    pattern = re.compile(r'(?:^|(?<=\.))(?:patch_embed|blocks\.(?P<layer>\d+))\.')

    def resolve_size(self, found: Mapping[str, Sequence[str]], model: nn.Module) -> int:
        """See :meth:`LayerDecayOptimWrapperConstructor.resolve_size`."""
        given = self.paramwise_cfg.get('num_layers')
        sizes = [
            check_blocks(names, model, prefix, 'blocks', given, 'num_layers')
            for prefix, names in found.items()
        ]
        if len(set(sizes)) > 1:
            raise ConfigError(
                f'the backbones of the model have different numbers of layers: {sizes}'
            )
        return sizes[0] if sizes else given or 0

    def depth_of(self, name: str, size: int) -> int:
        """See :meth:`LayerDecayOptimWrapperConstructor.depth_of`."""
        return rvsa_layer_depth(name, size)

    def last_depth(self, size: int) -> int:
        """See :meth:`LayerDecayOptimWrapperConstructor.last_depth`."""
        return size + 1
