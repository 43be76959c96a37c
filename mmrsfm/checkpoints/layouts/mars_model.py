# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The whole pretraining model of MaRS, as its runs save it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmrsfm.checkpoints.keymap import KeyMap
from mmrsfm.checkpoints.layout import Layout, StateDict, register_layout
from mmrsfm.checkpoints.layouts.timm_swin_v2 import (
    encoder_name_from_ours,
    encoder_name_to_ours,
    weight_from_ours,
    weight_to_ours,
)

_ENCODER = re.compile(r'(?:encoder_(\w+)|(teacher)_encoder)\.(mask_token|encoder\.(.+))$')
_OURS = re.compile(r'(?:backbone\.branches\.(\w+)|(teacher))\.(.+)$')
_DECODER = re.compile(r'decoder_(\w+)\.0\.(weight|bias)$')
_HEAD = re.compile(r'heads\.(\w+)\.projection\.(weight|bias)$')
_UNUSED = 'unused.'
_SUB_BLOCK = (('0', 'norm'), ('1', 'attn'), ('3', 'mlp'))
_NECK = KeyMap(
    [
        (f'alternating_attn.{kind}.{{n}}.{theirs}', f'neck.{kind}.{{n}}.{ours}')
        for kind in ('modality_blocks', 'global_blocks')
        for theirs, ours in _SUB_BLOCK
    ]
)


@register_layout
class MaRSModelLayout(Layout):
    """``checkpoint-N.pth``: an encoder a modality, the teacher, attention, and pixel heads.

    Of :class:`mmrsfm.MaRS` all is filled. A single :class:`mmrsfm.SwinV2` gets the encoder whose
    number of bands it has, or that named by ``part='backbone.branches.rgb'`` (``sar``; the
    ImageNet weights of the run are under ``part='teacher'``).
    """

    name = 'mars_model'
    origin = 'MaRS (AAAI 40(14):11685-11693, 2026), WanderRainy/MaRS: checkpoints of pretraining'
    licence = 'none stated ("strictly for academic research purposes")'
    dropped = ('neck.*', 'heads.*', 'teacher.*', 'contrast.*', 'unused.*')
    idle = {
        'unused.*.head.fc.*': 'classifiers of ImageNet, which MaRS never runs',
        'contrast.log_scale': "the factor of 'clip', which the published contrast does not use",
    }

    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.matches`."""
        return any(
            name.startswith('encoder_') and name.endswith('.encoder.patch_embed.proj.weight')
            for name in state
        )

    def to_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.to_mmrsfm`."""
        result: StateDict = {}
        unknown: list[str] = []
        for name, value in state.items():
            ours = self._forward(name)
            if ours is None:
                unknown.append(name)
            else:
                result[ours] = weight_to_ours(ours, value)
        return result, unknown

    def _forward(self, name: str) -> str | None:
        if name == 'contrast_temp':
            return 'contrast.log_scale'
        if match := _DECODER.match(name):
            return f'heads.{match[1]}.projection.{match[2]}'
        if match := _ENCODER.match(name):
            prefix = 'teacher.' if match[2] else f'backbone.branches.{match[1]}.'
            if match[3] == 'mask_token':
                return f'{prefix}mask_token'
            if match[4].startswith('head.'):
                return f'{_UNUSED}{match[2] or match[1]}.{match[4]}'
            return prefix + encoder_name_to_ours(match[4])
        return _NECK.forward(name)

    def from_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.from_mmrsfm`."""
        result: StateDict = {}
        homeless: list[str] = []
        for name, value in state.items():
            theirs = self._backward(name)
            if theirs is None:
                homeless.append(name)
            else:
                result[theirs] = weight_from_ours(name, value)
        return result, homeless

    def _backward(self, name: str) -> str | None:
        if name == 'contrast.log_scale':
            return 'contrast_temp'
        if match := _HEAD.match(name):
            return f'decoder_{match[1]}.0.{match[2]}'
        if match := re.match(rf'{_UNUSED}(\w+)\.(head\..+)$', name):
            return f'{_prefix(match[1] == "teacher", match[1])}.encoder.{match[2]}'
        if match := _OURS.match(name):
            prefix = _prefix(bool(match[2]), match[1])
            if match[3] == 'mask_token':
                return f'{prefix}.mask_token'
            return f'{prefix}.encoder.{encoder_name_from_ours(match[3])}'
        return _NECK.backward(name)


def _prefix(teacher: bool, modality: str) -> str:
    return 'teacher_encoder' if teacher else f'encoder_{modality}'
