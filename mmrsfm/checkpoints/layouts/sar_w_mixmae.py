# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The pretraining model of SAR-W-MixMAE, and what all layouts of a published MixMIM share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from mmrsfm.checkpoints.keymap import KeyMap, block_pairs
from mmrsfm.checkpoints.layout import Layout, StateDict, apply_names, register_layout
from mmrsfm.errors import CheckpointError

_BLOCK = (
    ('norm1', 'ln1'),
    ('norm2', 'ln2'),
    ('attn', 'attn'),
    ('mlp.fc1', 'ffn.layers.0.0'),
    ('mlp.fc2', 'ffn.layers.1'),
)
ENCODER = (
    ('absolute_pos_embed', 'backbone.absolute_pos_embed'),
    ('patch_embed.proj', 'backbone.patch_embed.projection'),
    ('patch_embed.norm', 'backbone.patch_embed.norm'),
    *block_pairs('layers.{n}.blocks.{n}', 'backbone.layers.{n}.blocks.{n}', _BLOCK),
    ('layers.{n}.downsample', 'backbone.layers.{n}.downsample'),
    ('norm', 'backbone.norm'),
)
_DECODER = (
    ('mask_token', 'neck.mask_token'),
    ('decoder_embed', 'neck.decoder_embed'),
    ('decoder_pos_embed', 'neck.decoder_pos_embed'),
    *block_pairs('decoder_blocks.{n}', 'neck.decoder_blocks.{n}', _BLOCK),
    ('decoder_norm', 'neck.ln1'),
    ('decoder_pred', 'neck.decoder_pred'),
)
_MARKS = (
    'absolute_pos_embed',
    'layers.0.blocks.0.norm1.weight',
    'layers.0.blocks.0.attn.relative_position_bias_table',
)
_DECODES = 'decoder_embed.weight'


class MixMIMLayout(Layout):
    """Names by a table; the columns of patch merging in another order.

    Theirs are (column, row, channel) of the four tokens that are merged, ours, as in mmcv,
    (channel, row, column).

    Attributes:
        keymap: Pairs of their and our prefixes.
        decodes: Whether there is a decoder.
    """

    keymap: ClassVar[KeyMap]
    decodes: ClassVar[bool]

    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.matches`."""
        return all(mark in state for mark in _MARKS) and (_DECODES in state) == self.decodes

    def to_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.to_mmrsfm`."""
        result, unknown = apply_names(state, self.keymap.forward)
        return {name: _turn(name, value, True) for name, value in result.items()}, unknown

    def from_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.from_mmrsfm`."""
        result, homeless = apply_names(state, self.keymap.backward)
        return {name: _turn(name, value, False) for name, value in result.items()}, homeless


def _turn(name: str, value: Tensor, to_ours: bool) -> Tensor:
    if '.downsample.' not in name:
        return value
    if value.shape[-1] % 4:
        raise CheckpointError(
            f'{name} has the shape {tuple(value.shape)}: this is no patch merging'
        )
    width = value.shape[-1] // 4
    parts = value.unflatten(-1, (2, 2, width) if to_ours else (width, 2, 2))
    return parts.transpose(-1, -3).reshape(value.shape)


@register_layout
class SARWMixMAELayout(MixMIMLayout):
    """``checkpoint-N.pth`` of the pretraining: encoder, mask token, decoder.

    The names are those of MixMIM (Sense-X/MixMIM), whose own files, of three bands, have them too.
    """

    name = 'sar_w_mixmae'
    origin = 'SAR-W-MixMAE (IGARSS 2025, arXiv 2503.01181), acaglayan/SAR-W-MixMAE: pretraining'
    licence = 'NOASSERTION (models after MixMIM of SenseTime; the rest of the repository is MIT)'
    keymap = KeyMap([*ENCODER, *_DECODER])
    decodes = True
