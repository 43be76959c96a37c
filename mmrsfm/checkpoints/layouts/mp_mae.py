# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The pretraining model of MP-MAE, whose encoder is made of sparse convolutions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmrsfm.checkpoints.keymap import KeyMap, block_pairs
from mmrsfm.checkpoints.layout import Layout, StateDict, apply_names, register_layout
from mmrsfm.checkpoints.layouts.conv_next_v2 import BLOCK
from mmrsfm.errors import CheckpointError

_STEM = 'backbone.downsample_layers.0.0.weight'
_INITIAL = 'backbone.initial_conv.0.weight'
_BLOCKS = 'neck.blocks.'
_HEAD = 'head.predictors.'
_DECODER = re.compile(r'decoder_dict\.([^.]+)\.(\d+\..+)$')
# Targets that are maps; their predictors are convolutions there, linear layers here.
_MAPS = {
    'sentinel2', 'sentinel1', 'aster', 'dynamic_world', 'canopy_height_eth', 'esa_worldcover',
}  # fmt: skip
_VECTORS = {'era5', 'lat', 'lon', 'biome', 'eco_region', 'month'}
# In which their one vector of task weights numbers the targets, whatever else is in the file.
_ORDER = (
    'sentinel2', 'sentinel1', 'aster', 'era5', 'dynamic_world', 'canopy_height_eth', 'lat', 'lon',
    'biome', 'eco_region', 'month', 'esa_worldcover',
)  # fmt: skip
_WEIGHTS = 'head.weighting.log_vars'


def _conv(theirs: str, ours: str) -> tuple[tuple[str, str], ...]:
    return (f'{theirs}.kernel', f'{ours}.weight'), (f'{theirs}.bias', f'{ours}.bias')


def _stem(name: str) -> tuple[tuple[str, str], ...]:
    ours = 'backbone.downsample_layers.0'
    return *_conv(f'encoder.{name}.0', f'{ours}.0'), (f'encoder.{name}.1.ln', f'{ours}.1')


def _between(index: int) -> tuple[tuple[str, str], ...]:
    theirs, ours = f'encoder.downsample_layers.{index}', f'backbone.downsample_layers.{index + 1}'
    return (f'{theirs}.0.ln', f'{ours}.0'), *_conv(f'{theirs}.1', f'{ours}.1')


_THERE, _HERE = 'encoder.stages.{n}.{n}', 'backbone.stages.{n}.{n}'
_ENCODER = (
    *_conv('encoder.initial_conv.0', 'backbone.initial_conv.0'),
    ('encoder.initial_conv.1.ln', 'backbone.initial_conv.1'),
    *_stem('stem'),
    *_stem('stem_orig'),
    *(pair for index in range(3) for pair in _between(index)),
    *_conv(f'{_THERE}.dwconv', f'{_HERE}.depthwise_conv'),
    (f'{_THERE}.norm.ln', f'{_HERE}.norm'),
    (f'{_THERE}.pwconv1.linear', f'{_HERE}.pointwise_conv1'),
    (f'{_THERE}.grn', f'{_HERE}.grn'),
    (f'{_THERE}.pwconv2.linear', f'{_HERE}.pointwise_conv2'),
)
_REST = (
    ('mask_token', 'neck.mask_token'),
    ('proj', 'neck.proj'),
    ('layer_norm_tmp', 'head.pooled_norm'),
    ('loss_fn.log_vars', 'head.weighting.log_vars'),
    ('pred_dict', 'head.predictors'),
)
_DECODER_BLOCK = KeyMap(block_pairs('{n}', f'{_BLOCKS}{{n}}', BLOCK))


@register_layout
class MPMAELayout(Layout):
    """``checkpoint-N.pth`` of the pretraining: encoder, decoder, predictors, task weights.

    * Kernels of the sparse encoder are (positions, in, out), or (positions, channels), where the
      rows of a window count fastest.
    * The decoder is there once for each modality, always the same: one set of blocks was saved
      under many names. It is read once, and written as often as there are predictors.
    * Predictors of maps are 1x1 convolutions there.
    * Task weights are one vector, in the order of the published list of targets there, in the order
      of the predictors here.
    * A norm before the predictors of classes and vectors is there even without any of these.
    * Bands of the released weights: :attr:`bands`, with B8A *before* B08. The published
      fine-tunings fed them in the other order. The released weights of ImageNet have this layout,
      too, with the original stem: their three channels are no bands of Sentinel-2, red comes first.
    """

    name = 'mp_mae'
    origin = 'MP-MAE / MMEarth (ECCV 2024, arXiv 2405.02771), vishalned/MMEarth-train: pretraining'
    licence = 'CC-BY-NC-4.0 (after ConvNeXt V2)'
    dropped = ('neck.*', 'head.*')
    keymap: ClassVar[KeyMap] = KeyMap([*_ENCODER, *_REST])
    bands: ClassVar[Mapping[int, tuple[str, ...]]] = {
        12: (
            'B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B8A', 'B08', 'B09', 'B11', 'B12',
        ),
        3: ('B02', 'B03', 'B04'),
    }  # fmt: skip

    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.matches`."""
        return 'encoder.stages.0.0.dwconv.kernel' in state

    def bands_of(self, stem: Tensor) -> tuple[str, ...] | None:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.bands_of`."""
        mmearth = stem.shape[-1] == 3  # of the original stem it is 1, 2 or 4
        return super().bands_of(stem) if mmearth or stem.shape[1] != 3 else None

    def to_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.to_mmrsfm`.

        Raises:
            CheckpointError: If the decoders of two modalities differ.
        """
        copies: dict[str, tuple[str, Tensor]] = {}
        others: StateDict = {}
        for name, value in state.items():
            match = _DECODER.match(name)
            ours = _DECODER_BLOCK.forward(match[2]) if match else None
            if ours is None:
                others[name] = value
            elif ours not in copies:
                copies[ours] = name, value
            elif not _same(copies[ours][1], value):
                raise CheckpointError(
                    f'{name} differs from {copies[ours][0]}: the decoder of MP-MAE is one for all '
                    'modalities'
                )
        result, unknown = apply_names(others, self.keymap.forward)
        if _WEIGHTS in result:
            places = _places(result)
            if len(places) == len(result[_WEIGHTS]):
                result[_WEIGHTS] = result[_WEIGHTS][places]
            else:  # nothing says whose they are
                del result[_WEIGHTS]
                unknown.append('loss_fn.log_vars')
        result.update({ours: value for ours, (_, value) in copies.items()})
        depthwise = _INITIAL in result
        return {name: _to_ours(name, value, depthwise) for name, value in result.items()}, unknown

    def from_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`mmrsfm.checkpoints.layout.Layout.from_mmrsfm`."""
        modalities = _modalities(state)
        places = _places(state)
        own = _INITIAL in state
        side = math.isqrt(state[_STEM].shape[-2:].numel()) * 8 if _STEM in state else 0
        result: StateDict = {}
        homeless: list[str] = []
        for name, value in state.items():
            if name.startswith(_BLOCKS):
                block = _DECODER_BLOCK.backward(name)
                if block is None or not modalities:
                    homeless.append(name)
                    continue
                value = value.view(1, 1, 1, -1) if '.grn.' in name else value
                result.update({f'decoder_dict.{key}.{block}': value for key in modalities})
                continue
            theirs = self.keymap.backward(name)
            if name == _WEIGHTS and len(places) == len(value):
                value = value[[places.index(number) for number in range(len(places))]]
            elif name == _WEIGHTS:
                theirs = None
            if theirs is None:
                homeless.append(name)
                continue
            if not own:
                theirs = theirs.replace('encoder.stem.', 'encoder.stem_orig.')
            result[theirs] = _to_theirs(name, value, own, side)
        if 'mask_token' in result and not any(n.startswith('layer_norm_tmp.') for n in result):
            width = result['mask_token'].flatten()
            result['layer_norm_tmp.weight'] = torch.ones_like(width)
            result['layer_norm_tmp.bias'] = torch.zeros_like(width)
        return result, homeless


def _modalities(state: Mapping[str, Any]) -> list[str]:
    """Names of the predictors, in their order."""
    names = (name for name in state if name.startswith(_HEAD))
    return list(dict.fromkeys(name[len(_HEAD) :].rsplit('.', 1)[0] for name in names))


def _places(state: Mapping[str, Any]) -> list[int]:
    """For each predictor the number of its weight in the published vector."""
    names = _modalities(state)
    if not set(names) <= set(_ORDER):  # of somebody's own: numbered as they come
        return list(range(len(names)))
    published = sorted(names, key=_ORDER.index)
    return [published.index(name) for name in names]


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return one is other or one.is_meta or torch.equal(one, other)


def _to_ours(name: str, value: Tensor, own_stem: bool) -> Tensor:
    if '.grn.' in name:
        return value.flatten()
    if name.startswith(_HEAD) and name.endswith('.weight') and value.ndim > 1:
        return value.flatten(1)
    if not name.startswith('backbone.'):
        return value
    if not _is_kernel(name):
        return value.flatten() if name.endswith('.bias') else value
    depthwise = name.endswith('.depthwise_conv.weight') or (own_stem and name == _STEM)
    kernel = value
    if name == _STEM and not own_stem and value.ndim == 2:
        kernel = value.unsqueeze(0)  # a 1x1 kernel of stride 1 is stored as a matrix
    side = math.isqrt(len(kernel)) if kernel.ndim else 0
    if kernel.ndim != (2 if depthwise else 3) or side**2 != len(kernel):
        form = '(side * side, channels)' if depthwise else '(side * side, in, out)'
        raise CheckpointError(
            f'the sparse kernel that would become {name} has shape {tuple(value.shape)}, not '
            f'{form}: the file is damaged, or of another model'
        )
    kernel = kernel.unflatten(0, (side, side))
    if depthwise:
        return kernel.permute(2, 1, 0).unsqueeze(1).contiguous()
    return kernel.permute(3, 2, 1, 0).contiguous()


def _to_theirs(name: str, value: Tensor, own_stem: bool, side: int) -> Tensor:
    if name.startswith(_HEAD) and name.endswith('.weight'):
        key = name[len(_HEAD) :].rsplit('.', 1)[0]
        unknown_map = side > 0 and value.shape[0] % side**2 == 0
        if key in _MAPS or (key not in _VECTORS and unknown_map):
            return value[:, :, None, None]
        return value
    if not name.startswith('backbone.'):
        return value
    if '.grn.' in name:
        return value.unsqueeze(0)
    if not _is_kernel(name):
        conv = name.endswith('.bias') and _is_kernel(name[: -len('bias')] + 'weight')
        return value.unsqueeze(0) if conv else value
    if name.endswith('.depthwise_conv.weight') or (own_stem and name == _STEM):
        return value.squeeze(1).permute(2, 1, 0).flatten(0, 1).contiguous()
    kernel = value.permute(3, 2, 1, 0).flatten(0, 1).contiguous()
    return kernel.squeeze(0) if name == _STEM and len(kernel) == 1 else kernel


def _is_kernel(name: str) -> bool:
    """Whether a weight of the backbone is that of a convolution."""
    convolution = r'backbone\.(initial_conv\.0|downsample_layers\.(0\.0|[1-9]\.1)|.*depthwise_conv)'
    return re.match(convolution + r'\.weight$', name) is not None
