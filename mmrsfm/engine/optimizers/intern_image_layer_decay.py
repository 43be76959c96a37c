# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Layer decay for InternImage."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import nn

from mmrsfm.engine.optimizers.layer_decay import LayerDecayOptimWrapperConstructor
from mmrsfm.engine.optimizers.layer_sizes import check_stages
from mmrsfm.layers.layer_depth import intern_image_layer_depth
from mmrsfm.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class InternImageLayerDecayOptimWrapperConstructor(LayerDecayOptimWrapperConstructor):
    """Learning rates by layer for :class:`mmrsfm.InternImage`.

    Depth 0: the stem; then the layers of all levels from 1 on; what a level has beside its layers
    is as deep as the next layer (see :func:`mmrsfm.layers.layer_depth.intern_image_layer_depth`);
    ``num_layers + 1``: neck and heads. No weight decay: one dimension, biases, names with
    ``norm``, ``relative_position`` or ``sampling_offsets``.

    MTP (arXiv 2403.13430) meant this, with a rate of 0.94, and its pretraining did it. Its
    fine-tunings did not: the published constructor knows the backbone as ``encoder.``, and it is
    ``backbone.`` there, so that all published InternImage results come from one learning rate for
    all layers. With ``faithful=True`` only ``encoder.`` is known here too.

    Example::

        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=2e-5, weight_decay=0.05),
            constructor='mmrsfm.InternImageLayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(num_layers=39, layer_decay_rate=0.94, depths=[5, 5, 24, 5]))

    Args:
        optim_wrapper_cfg: See :class:`LayerDecayOptimWrapperConstructor`.
        paramwise_cfg: See :class:`LayerDecayOptimWrapperConstructor`.
    """

    no_decay = ('norm', 'relative_position', 'sampling_offsets')
    faithful_prefix = 'encoder.'
    pattern = re.compile(r'(?:^|(?<=\.))(?:patch_embed|levels\.\d+\.blocks\.(?P<layer>\d+))\.')

    def resolve_size(self, found: Mapping[str, Sequence[str]], model: nn.Module) -> list[int]:
        """See :meth:`LayerDecayOptimWrapperConstructor.resolve_size`."""
        return check_stages(found, model, 'levels', self.paramwise_cfg)

    def depth_of(self, name: str, size: list[int]) -> int:
        """See :meth:`LayerDecayOptimWrapperConstructor.depth_of`."""
        return intern_image_layer_depth(name, size)

    def last_depth(self, size: list[int]) -> int:
        """See :meth:`LayerDecayOptimWrapperConstructor.last_depth`."""
        return sum(size) + 1
