# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The whole multi-task model of MTP: an encoder of either kind, and its decoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mmrsfm.checkpoints.keymap import KeyMap
from mmrsfm.checkpoints.layout import RenamingLayout, StateDict, apply_names, register_layout
from mmrsfm.class_tables import SAMRS

_ENCODER = ('encoder.blocks.0.attn.qkv.weight', 'encoder.levels.0.blocks.0.dcn.offset.weight')
_IDLE = 'decoders.semantic.decode_head.conv_seg'
_SEMANTIC_WIDTH = 'decoders.semantic.decode_head.fpn_bottleneck.conv.weight'
DECODERS = {
    'semantic': 'semsegdecoder',
    'instance': 'inssegdecoder',
    'rotated': 'rotdetdecoder',
}
# Layers that exist once for each data set, by task: theirs, with its number, and ours.
LAST_LAYERS = {
    'semantic': (('semseghead_{}.1', 'conv_seg'),),
    'instance': (
        ('inssegroiboxhead_fc_cls{}', 'bbox_head.fc_cls'),
        ('inssegroiboxhead_fc_reg{}', 'bbox_head.fc_reg'),
        ('inssegroimaskhead_conv{}', 'mask_head.conv_logits'),
    ),
    'rotated': (
        ('rotdetroiboxhead_fc_cls{}', 'bbox_head.fc_cls'),
        ('rotdetroiboxhead_fc_reg{}', 'bbox_head.fc_reg'),
    ),
}


def last_layers_of(task: str, dataset: str) -> str:
    """Where :class:`mmrsfm.MTP` has the last layers of a data set."""
    return f'decoders.{task}.last_layers.{dataset}'


@register_layout
class MTPModelLayout(RenamingLayout):
    """``encoder.*``, three decoders, and last layers that count the data sets from 1.

    The files ``last_*_pretrn_model.pth`` beside the encoders; :class:`mmrsfm.MTP` has a place for
    every entry. A load into a backbone leaves the decoders aside;
    ``tools/model_converters/mtp_decoder.py`` takes one of them. Only SOTA, SIOR and FAST have
    numbers there: written files hold no last layers of other data sets.
    """

    name = 'mtp_model'
    origin = 'MTP (Wang et al., JSTARS 2024, arXiv 2403.13430), ViTAE-Transformer/MTP: models'
    licence = 'MIT (code); none stated for the weights'
    norm_style = None  # an RVSA encoder, or an InternImage
    dropped = ('decoders.*',)
    idle = {f'{_IDLE}.*': 'the classifier of the decode head, which the pretraining does not use'}
    keymap = KeyMap(
        [
            ('encoder', 'backbone'),
            *(
                (theirs.format(number), f'{last_layers_of(task, dataset)}.{ours}')
                for task, layers in LAST_LAYERS.items()
                for theirs, ours in layers
                for number, dataset in enumerate(SAMRS, 1)
            ),
            *((theirs, f'decoders.{task}') for task, theirs in DECODERS.items()),
        ]
    )

    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.matches`."""
        return any(name in state for name in _ENCODER)

    def to_mmrsfm(self, state: Mapping[str, Any]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.to_mmrsfm`."""
        return apply_names(state, lambda name: self.keymap.forward(name) or name)

    def from_mmrsfm(self, state: Mapping[str, Any]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.from_mmrsfm`.

        The classifier that the published decode head has without using it is added as zeros, so
        that the published code finds every entry.
        """
        result, homeless = apply_names(state, self._backward)
        width = state.get(_SEMANTIC_WIDTH)
        if width is not None and f'{_IDLE}.weight' not in state:
            name = f'{DECODERS["semantic"]}.decode_head.conv_seg'
            result[f'{name}.weight'] = torch.zeros(1, len(width), 1, 1, dtype=width.dtype)
            result[f'{name}.bias'] = torch.zeros(1, dtype=width.dtype)
        return result, homeless

    def _backward(self, name: str) -> str | None:
        theirs = self.keymap.backward(name)
        if theirs is None:  # a part that this layout says nothing about
            return None if name.startswith('weighting.') else name
        return None if '.last_layers.' in theirs else theirs
