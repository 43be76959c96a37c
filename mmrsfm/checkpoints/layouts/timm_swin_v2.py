# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Swin Transformer V2 in timm's names, and what all layouts of a single SwinV2 share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from mmrsfm.checkpoints.layout import Layout, StateDict, register_layout
from mmrsfm.errors import CheckpointError

_BLOCK = 'blocks.0.attn.logit_scale'
_REDUCTION = re.compile(r'stages\.\d+\.downsample\.reduction\.weight$')
# In order: timm's names against ours, of what is within the encoder.
_PAIRS = (
    ('patch_embed.proj.', 'patch_embed.projection.'),
    ('.mlp.fc1.', '.ffn.layers.0.0.'),
    ('.mlp.fc2.', '.ffn.layers.1.'),
    ('.attn.', '.attn.w_msa.'),
)
_NORM, _OUR_NORM = 'norm.', 'norm3.'
_TABLES = ('.relative_position_index', '.relative_coords_table', '.attn_mask')


def encoder_name_to_ours(name: str, separator: str = '.') -> str:
    """Our name within :class:`mmrsfm.SwinV2` of one of timm's, e.g. ``'layers.1.blocks.0...'``.

    Args:
        name: timm's name within the encoder.
        separator: What stands between ``layers`` and the number: ``'_'`` in feature extractors.
    """
    for theirs, ours in _PAIRS:
        name = name.replace(theirs, ours)
    if name.startswith(_NORM):
        return _OUR_NORM + name[len(_NORM) :]
    return re.sub(rf'^layers{re.escape(separator)}(\d+)\.', r'stages.\1.', name)


def encoder_name_from_ours(name: str, separator: str = '.') -> str:
    """The inverse of :func:`encoder_name_to_ours`."""
    for theirs, ours in _PAIRS:
        name = name.replace(ours, theirs)
    if name.startswith(_OUR_NORM):
        return _NORM + name[len(_OUR_NORM) :]
    return re.sub(r'^stages\.(\d+)\.', rf'layers{separator}\1.', name)


def weight_to_ours(our_name: str, value: Tensor) -> Tensor:
    """Orders the columns of a patch merging as ours: (channel, row, column).

    timm's are (column, row, channel). All other weights are returned as they are.

    Args:
        our_name: Our name of the weight.
        value: Of a patch merging: shape (2C, 4C).
    """
    if not _REDUCTION.search(our_name):
        return value
    return _columns(our_name, value).permute(0, 3, 2, 1).reshape(value.shape)


def weight_from_ours(our_name: str, value: Tensor) -> Tensor:
    """The inverse of :func:`weight_to_ours`."""
    if not _REDUCTION.search(our_name):
        return value
    width = value.shape[1] // 4
    return value.view(-1, width, 2, 2).permute(0, 3, 2, 1).reshape(value.shape)


def _columns(name: str, value: Tensor) -> Tensor:
    if value.ndim != 2 or value.shape[1] % 4:
        raise CheckpointError(
            f'{name} has the shape {tuple(value.shape)}, and not (2C, 4C): this is no patch merging'
        )
    return value.view(-1, 2, 2, value.shape[1] // 4)


class SwinV2Layout(Layout):
    """One encoder, with or without a classifier.

    Attributes:
        separator: What stands between ``layers`` and the number of a stage.
        late_merging: Whether a patch merging ends a stage, instead of starting the next one.
        head: Prefix of the classifier; ``None``: this layout has none.
        with_norm: Whether the last norm has a place.
    """

    separator: ClassVar[str] = '.'
    late_merging: ClassVar[bool] = False
    head: ClassVar[str | None] = 'head.fc.'
    with_norm: ClassVar[bool] = True

    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.matches`."""
        first = f'layers{self.separator}0.'
        late = first + 'downsample.reduction.weight' in state
        return first + _BLOCK in state and late == self.late_merging

    def to_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.to_mmrsfm`."""
        result: StateDict = {}
        unknown: list[str] = []
        for name, value in state.items():
            if self.head is not None and name.startswith(self.head):
                result['head.fc.' + name[len(self.head) :]] = value
                continue
            ours = encoder_name_to_ours(self._merging(name, 1), self.separator)
            if not ours.startswith(('patch_embed.', 'stages.', _OUR_NORM)):
                unknown.append(name)
                continue
            result[f'backbone.{ours}'] = weight_to_ours(ours, value)
        return result, unknown

    def from_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.from_mmrsfm`."""
        result: StateDict = {}
        homeless: list[str] = []
        places = ('patch_embed.', 'stages.') + ((_OUR_NORM,) if self.with_norm else ())
        for name, value in state.items():
            ours = name.removeprefix('backbone.')
            if self.head is not None and name.startswith('head.fc.'):
                result[self.head + name.removeprefix('head.fc.')] = value
            elif ours == name or not ours.startswith(places) or ours.endswith(_TABLES):
                homeless.append(name)
            else:
                theirs = encoder_name_from_ours(ours, self.separator)
                result[self._merging(theirs, -1)] = weight_from_ours(ours, value)
        return result, homeless

    def _merging(self, name: str, step: int) -> str:
        """Moves a patch merging to the next (1) or the previous (-1) stage, where that is due."""
        match = re.match(r'layers\.(\d+)\.(downsample\..+)', name)
        if not self.late_merging or match is None:
            return name
        return f'layers.{int(match[1]) + step}.{match[2]}'


@register_layout
class TimmSwinV2Layout(SwinV2Layout):
    """timm's ``SwinTransformerV2``: ``layers.N``, patch merging at the start of a stage."""

    name = 'timm_swin_v2'
    origin = 'timm (Wightman): Swin Transformer V2 (Liu et al., CVPR 2022, arXiv 2111.09883)'
    licence = 'MIT (weights of Microsoft)'
