# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""ConvNeXtV2 as its authors save it, and what all layouts of its dense form share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from mmrsfm.checkpoints.keymap import KeyMap, block_pairs
from mmrsfm.checkpoints.layout import Layout, StateDict, apply_names, register_layout

BLOCK = (
    ('dwconv', 'depthwise_conv'),
    ('norm', 'norm'),
    ('pwconv1', 'pointwise_conv1'),
    ('grn', 'grn'),
    ('pwconv2', 'pointwise_conv2'),
)
STAGES = block_pairs('stages.{n}.{n}', 'backbone.stages.{n}.{n}', BLOCK)
_BLOCK_MARKS = ('stages.0.0.dwconv.weight', 'stages.0.0.grn.gamma')


class DenseConvNeXtV2Layout(Layout):
    """Names by a table; GRN's parameters are (1, 1, 1, C) there, (C,) here.

    Attributes:
        keymap: Pairs of their and our prefixes.
    """

    keymap: ClassVar[KeyMap]

    def is_conv_next_v2(self, state: Mapping[str, Any]) -> bool:
        """Whether the blocks are there, without a prefix."""
        return all(mark in state for mark in _BLOCK_MARKS)

    def to_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.to_mmrsfm`."""
        result, unknown = apply_names(state, self.keymap.forward)
        return {
            name: value.flatten() if '.grn.' in name else value for name, value in result.items()
        }, unknown

    def from_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.from_mmrsfm`."""
        result, homeless = apply_names(state, self.keymap.backward)
        return {
            name: value.view(1, 1, 1, -1) if '.grn.' in name else value
            for name, value in result.items()
        }, homeless


@register_layout
class ConvNeXtV2Layout(DenseConvNeXtV2Layout):
    """The files ``convnextv2_*.pt`` of ImageNet: pretrained by FCMAE, or fine-tuned with a head.

    The stem is the first of four downsampling layers; ``mmrsfm.ConvNeXtV2`` with
    ``stem='original', patch_size=32`` has the same.
    """

    name = 'conv_next_v2'
    origin = 'ConvNeXt V2 (CVPR 2023, arXiv 2301.00808), facebookresearch/ConvNeXt-V2: ImageNet'
    licence = 'CC-BY-NC-4.0'
    keymap = KeyMap(
        [
            ('downsample_layers', 'backbone.downsample_layers'),
            *STAGES,
            ('norm', 'backbone.norm3'),
            ('head', 'head.fc'),
        ]
    )

    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.matches`."""
        return self.is_conv_next_v2(state) and 'downsample_layers.3.1.weight' in state
