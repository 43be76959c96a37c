# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Models that were fine-tuned from MP-MAE: classifiers, and the UNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmrsfm.checkpoints.keymap import KeyMap
from mmrsfm.checkpoints.layout import StateDict, apply_names, register_layout
from mmrsfm.checkpoints.layouts.conv_next_v2 import STAGES, DenseConvNeXtV2Layout

_STEM = 'backbone.downsample_layers.0'
_INITIAL = 'backbone.initial_conv'
_UNET = ('upsample_layers', 'initial_conv_upsample')
_DECODER = 'decode_head.'


@register_layout
class MPMAEFinetunedLayout(DenseConvNeXtV2Layout):
    """Encoder and head. The head is ``head.fc``, in a UNet ``decode_head.conv_seg``.

    A published UNet also holds the norm of the classifier, which it never uses; it is kept as
    ``backbone.norm3``, which a backbone that returns maps leaves aside. Bands of the published
    fine-tunings on twelve: :attr:`bands`, B08 before B8A, unlike in the pretraining.
    """

    name = 'mp_mae_finetuned'
    origin = 'MP-MAE / MMEarth (ECCV 2024, arXiv 2405.02771), vishalned/MMEarth-train: fine-tuning'
    licence = 'CC-BY-NC-4.0 (after ConvNeXt V2)'
    bands: ClassVar[Mapping[int, tuple[str, ...]]] = {
        12: (
            'B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B11', 'B12',
        ),
    }  # fmt: skip
    keymap = KeyMap(
        [
            ('initial_conv', _INITIAL),
            ('stem', _STEM),
            ('stem_orig', _STEM),
            *((f'downsample_layers.{i}', f'backbone.downsample_layers.{i + 1}') for i in range(3)),
            *STAGES,
            ('norm', 'backbone.norm3'),
            *((part, _DECODER + part) for part in _UNET),
            ('head', f'{_DECODER}conv_seg'),
            ('head', 'head.fc'),
        ]
    )

    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.matches`."""
        stem = 'stem.0.weight' in state or 'stem_orig.0.weight' in state
        return self.is_conv_next_v2(state) and stem

    def to_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.to_mmrsfm`."""
        result, unknown = super().to_mmrsfm(state)
        if not any(name.startswith(_UNET) for name in state):
            result, _ = apply_names(
                result, lambda name: name.replace(f'{_DECODER}conv_seg.', 'head.fc.')
            )
        return result, unknown

    def from_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.from_mmrsfm`."""
        result, homeless = super().from_mmrsfm(state)
        if f'{_INITIAL}.0.weight' not in state:
            result = {_original(name): value for name, value in result.items()}
        width = result.get('downsample_layers.2.1.bias')
        unet = any(name.startswith(_UNET) for name in result)
        if unet and width is not None and 'norm.weight' not in result:
            # The published class has it in the UNet, too.
            result['norm.weight'] = torch.ones_like(width)
            result['norm.bias'] = torch.zeros_like(width)
        return result, homeless


def _original(name: str) -> str:
    return name.replace('stem.', 'stem_orig.', 1) if name.startswith('stem.') else name
