# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""ConvNeXtV2 for images with hidden patches and for whole ones, on mmpretrain's modules.

Woo et al., "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders", CVPR 2023,
arXiv 2301.00808. Nedungadi et al., "MMEarth: Exploring Multi-Modal Pretext Tasks For Geospatial
Representation Learning", ECCV 2024, arXiv 2405.02771 (vishalned/MMEarth-train): the stem, and the
sparse encoder that the masked form equals. Written anew from the published maths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmengine.model.weight_init import trunc_normal_
from mmpretrain.models.backbones import ConvNeXt
from mmpretrain.models.utils.norm import LayerNorm2d
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmrsfm.errors import ConfigError
from mmrsfm.layers.active_sites import STATISTICS, ActiveSites
from mmrsfm.layers.conv_next_rows import depthwise_rows, row_norm, run_block, strided_rows
from mmrsfm.layers.layer_depth import conv_next_layer_depth
from mmrsfm.layers.stages import check_frozen_stages, check_out_indices, stage_settings
from mmrsfm.registry import MODELS

STEMS = ('mmearth', 'original')
PADDINGS = ('same', 'published')
PATHS = ('auto', 'packed', 'dense')
# More active positions than this share, and rows of all positions are no slower.
_PACK_BELOW = 0.9


@MODELS.register_module()
class ConvNeXtV2(ConvNeXt):
    """mmpretrain's ``ConvNeXt`` with GRN, with MMEarth's stem, and a masked form.

    Four stages of blocks; the map is halved between them. Parameters and their names are those of
    mmpretrain's ``ConvNeXt`` (``use_grn=True``, no layer scale); the stem of MMEarth has one more
    convolution, ``initial_conv``. What differs:

    * **Masked form** (``forward(x, mask)``): hidden positions contribute to nothing, as in the
      sparse convolutions that the published pretraining uses. Also inactive: visible pixels of
      which all bands are exactly 0. Where few positions are active, the layers on single positions
      run on these alone (``masked_path``); the numbers are the same.
    * Images of any size: maps are padded with zeros where a stride does not divide them.

    Args:
        arch: ``'atto'``, ``'femto'``, ``'pico'``, ``'nano'``, ``'tiny'``, ``'base'``, ``'large'``,
            ``'huge'``, or a dict with ``depths`` and ``channels``, one number for each stage.
        in_channels: Number of bands.
        patch_size: Stride of the last stage in pixels, and side of the cells of a mask: 8, 16, 32.
            The first stage runs at 1, 2, 4.
        stem: ``'mmearth'``: a 3x3 convolution and a depthwise one with that stride. ``'original'``:
            one convolution with that stride, as in all weights of ImageNet.
        padding: ``'same'``: maps of ceil(size / stride), as the published pretraining and UNet
            have them. ``'published'``: as the published classifiers have it, whose 3x3 convolution
            is not padded, whose depthwise one of the stem is by half its kernel, and which cut off
            what a stride leaves over; 56 pixels at stride 8 become 6 x 6, not 7 x 7.
        grn_eps: What GRN adds to the mean of the norms: 1e-6 in ConvNeXtV2 and in the published
            masked encoder, 1e-4 in the published fine-tunings and decoders of MMEarth.
        grn_statistics: Over what GRN takes norms in the masked form. ``'sample'``: over the active
            positions of each sample, as in the paper and without a mask. ``'batch'``: over those of
            all samples on the device, as the published pretraining does, so that the result for
            one sample depends on the others.
        masked_path: How the masked form is computed. ``'packed'``: on active positions only;
            ``'dense'``: on all, and multiplied by zero; ``'auto'``: by the share that is active.
        out_indices: Stages whose maps are returned, rising, from 0. Default: the mean of the last
            map and a LayerNorm, for classification. Stages after the last one are kept, so that
            weights fit, but neither computed nor trained.
        stem_maps: Whether the maps of ``initial_conv`` and of the stem are returned before those
            of the stages, as UNet takes them.
        stage_norms: Whether maps are followed by LayerNorms (``norm0``, ...), which no pretraining
            has; not with a mask.
        drop_path_rate: Stochastic depth of the last block, growing linearly from 0.
        frozen_stages: -1: everything is trained; n >= 0: the stem and the stages up to and with
            number n, counted from 0, are not; with the last one its norm is not either.
        with_cp: Whether to recompute each block in the backward pass to save memory.
        channels_last: Whether the depthwise convolutions get the channels last in memory.
        weight_init: ``'small'``: all weights N(0, 0.02) cut at 2, as of ConvNeXtV2 and the
            published fine-tunings. ``'published_masked'``: the depthwise and linear layers of the
            blocks and of the stem N(0, 1), as in the published pretraining.
        init_cfg: MMEngine's initialisation config.

    Attributes:
        out_channels: Number of channels of each map (of the vector, without ``out_indices``).
        out_strides: Stride of each map, in pixels.
        patch_size: Stride of the last stage, and side of the cells of a mask, in pixels.

    Raises:
        ConfigError: If the arguments contradict each other.
    """

    # For mmrsfm.checkpoints: what files hold without any use here, and what they may lack.
    unused_weights = ('norm?.*',)
    # Layers that are not in the model: its weights would mean something else.
    decisive_weights = ('initial_conv.*', 'downsample_layers.*', 'stages.*')
    optional_weights: ClassVar[dict[str, str]] = {
        'norm[0-9].*': 'pretraining by masked images has no norms behind the stages'
    }

    def __init__(
        self,
        arch: str | dict[str, Any] = 'atto',
        in_channels: int = 12,
        patch_size: int = 8,
        stem: str = 'mmearth',
        padding: str = 'same',
        grn_eps: float = 1e-6,
        grn_statistics: str = 'sample',
        masked_path: str = 'auto',
        out_indices: Sequence[int] | None = None,
        stem_maps: bool = False,
        stage_norms: bool = False,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        channels_last: bool = True,
        weight_init: str = 'small',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        settings = stage_settings(arch, self.arch_settings, ('depths', 'channels'))
        count = len(settings['depths'])
        indices = (count - 1,) if out_indices is None else tuple(out_indices)
        for name, value, known in (
            ('stem', stem, STEMS),
            ('padding', padding, PADDINGS),
            ('grn_statistics', grn_statistics, STATISTICS),
            ('masked_path', masked_path, PATHS),
            ('weight_init', weight_init, ('small', 'published_masked')),
        ):
            if value not in known:
                raise ConfigError(f'{name}={value!r} is not one of {known}')
        check_out_indices(indices, count)
        check_frozen_stages(frozen_stages, count)
        first = patch_size // 2 ** (count - 1)
        if first < 1 or first * 2 ** (count - 1) != patch_size:
            raise ConfigError(
                f'patch_size={patch_size} is no multiple of {2 ** (count - 1)}, by which '
                f'{count} stages reduce a map'
            )
        if out_indices is None and (stem_maps or stage_norms):
            raise ConfigError('stem_maps and stage_norms are about maps: give out_indices')
        super().__init__(
            arch=settings,
            in_channels=in_channels,
            stem_patch_size=first,
            use_grn=True,
            layer_scale_init_value=0.0,
            drop_path_rate=drop_path_rate,
            out_indices=list(indices) if out_indices is None or stage_norms else [],
            frozen_stages=-1,  # done below, where all parts are there
            init_cfg=init_cfg,
        )
        self.in_channels = in_channels
        self.patch_size = patch_size
        self.padding = padding
        self.grn_statistics = grn_statistics
        self.masked_path = masked_path
        self.pooled = out_indices is None
        self.out_indices = indices
        self.stem_maps = stem_maps
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp
        self.channels_last = channels_last
        self.weight_init = weight_init
        width = self.channels[0]
        same = padding == 'same'
        self.initial_conv: nn.Sequential | None = None
        self.stem_weight = 'downsample_layers.0.0.weight'
        if stem == 'mmearth':
            self.stem_weight = 'initial_conv.0.weight'
            self.initial_conv = nn.Sequential(
                nn.Conv2d(in_channels, width, 3, padding=1 if same else 0),
                LayerNorm2d(width, eps=1e-6),
                nn.GELU(),
            )
            self.downsample_layers[0][0] = nn.Conv2d(
                width, width, first, first, padding=0 if same else first // 2, groups=width
            )
        for stage in self.stages:
            for block in stage:
                block.grn.eps = grn_eps
        before = [width] * (1 if self.initial_conv is None else 2) if stem_maps else []
        self.out_channels = before + [self.channels[index] for index in indices]
        self.out_strides = [1, first][2 - len(before) :] + [first * 2**i for i in indices]
        # What never runs gets no gradient: DistributedDataParallel need not look for it.
        for index in range(indices[-1] + 1, count):
            self.stages[index].requires_grad_(False)
            self.downsample_layers[index].requires_grad_(False)
        self._freeze_stages()

    def init_weights(self) -> None:
        """Initialises as ``weight_init`` says, then applies ``init_cfg``, whatever its type.

        Biases are 0, norms 1 and 0, both parameters of GRN 0.
        """
        if not self.is_init:
            self._initialise()
        super().init_weights()

    @torch.no_grad()
    def _initialise(self) -> None:
        wide = self.weight_init == 'published_masked'
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                one_by_one = isinstance(module, nn.Linear) or module.groups > 1
                trunc_normal_(module.weight, std=1.0 if wide and one_by_one else 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        for stage in self.stages:
            for block in stage:
                nn.init.zeros_(block.grn.gamma)
                nn.init.zeros_(block.grn.beta)

    def _freeze_stages(self) -> None:
        if self.frozen_stages < 0:
            return
        parts = [
            *self.downsample_layers[: self.frozen_stages + 1],
            *self.stages[: self.frozen_stages + 1],
        ]
        if self.initial_conv is not None:
            parts.append(self.initial_conv)
        if self.pooled and self.frozen_stages == len(self.stages) - 1:
            parts.append(getattr(self, f'norm{self.frozen_stages}'))
        for module in parts:
            module.eval()
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> ConvNeXtV2:
        """Switches the mode; frozen stages stay in evaluation mode."""
        super().train(mode)
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, for layer-wise learning rates.

        Args:
            param_name: Name of the parameter.
            prefix: What stands before the names of this backbone.

        Returns:
            The depth, from 0, and the number of depths; see
            :func:`mmrsfm.layers.layer_depth.conv_next_layer_depth`.
        """
        total = sum(self.depths) + 2
        if not param_name.startswith(prefix):
            return total - 1, total
        return conv_next_layer_depth(param_name[len(prefix) :], self.depths), total

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Encodes images.

        Args:
            x: Shape (B, C, H, W), any H and W.
            mask: Patches that are hidden, 1 or True, in cells of ``patch_size`` pixels: shape
                (B, h, w) with h = ceil(H / patch_size), or (B, h * w). The values of hidden pixels
                don't matter, not even NaN.

        Returns:
            Without ``out_indices`` the vectors (B, D). Else, with a mask too, the maps: with
            ``stem_maps`` those of ``initial_conv`` and of the stem, and for each of ``out_indices``
            (B, D, ceil(H / s), ceil(W / s)) of stride s; 0 where a position is not active.

        Raises:
            ConfigError: If the number of bands, the size or the shape of the mask is wrong, or a
                model that is not for masks gets one.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ConfigError(
                f'the backbone takes images of {self.in_channels} bands, got shape '
                f'{tuple(x.shape)}: set in_channels, and the bands that the pipeline loads, to '
                'the same number'
            )
        shape = (x.shape[0], x.shape[2], x.shape[3])
        sites = ActiveSites(shape)
        if mask is not None:
            visible = self._visible(mask, x)
            x = torch.where(visible.unsqueeze(1), x, x.new_zeros(()))
            active = visible & x.ne(0).any(1)
            sites = ActiveSites(shape, active, self._packs(active))
        rows, sites, maps = self._stem(x, sites)
        for index, stage in enumerate(self.stages):
            if index:
                rows, sites = self._downsample(index, rows, sites)
            rows = self._run_stage(stage, rows, sites)
            if index in self.out_indices:
                maps.append(self._map(index, rows, sites, mask is not None))
            if index == self.out_indices[-1]:
                break
        # RoIAlign of mmcv takes every memory for that of NCHW, without a word.
        return tuple(x.contiguous() for x in maps)

    def _visible(self, mask: Tensor, x: Tensor) -> Tensor:
        """(B, H, W), True where a pixel is not hidden."""
        side = self.patch_size
        grid = (-(-x.shape[2] // side), -(-x.shape[3] // side))
        if self.pooled or self.padding != 'same' or hasattr(self, f'norm{self.out_indices[-1]}'):
            raise ConfigError(
                "a mask needs the maps as they are: give out_indices, padding='same' and no "
                'stage_norms'
            )
        if mask.numel() != x.shape[0] * grid[0] * grid[1] or mask.shape[0] != x.shape[0]:
            raise ConfigError(
                f'the mask has the shape {tuple(mask.shape)}: {len(x)} images of this size need '
                f'one value for each {side} x {side} pixels, {(len(x), *grid)}'
            )
        cells = mask.reshape(-1, *grid) == 0
        pixels = cells.repeat_interleave(side, 1).repeat_interleave(side, 2)
        return pixels[:, : x.shape[2], : x.shape[3]]

    def _packs(self, active: Tensor) -> bool:
        if self.masked_path == 'auto':
            return float(active.float().mean()) < _PACK_BELOW
        return self.masked_path == 'packed'

    def _stem(self, x: Tensor, sites: ActiveSites) -> tuple[Tensor, ActiveSites, list[Tensor]]:
        maps: list[Tensor] = []
        conv, norm = self.downsample_layers[0]
        side = conv.kernel_size[0]
        initial: Any = self.initial_conv
        if initial is None:
            sites = self._reduced(sites, side)
            rows = strided_rows(conv, x, sites)
        else:
            x = x.contiguous(memory_format=torch.channels_last) if self.channels_last else x
            x = initial[0](x)
            sites = self._at(sites, x)
            rows = initial[2](row_norm(initial[1], sites.rows(x)))
            if self.stem_maps:
                maps.append(sites.maps(rows))
            if side == 1:
                rows = depthwise_rows(conv, rows)
            else:
                x = sites.maps(rows)
                missing = (-x.shape[2] % side, -x.shape[3] % side)
                if self.padding == 'same' and any(missing):
                    x = F.pad(x, (0, missing[1], 0, missing[0]))
                x = conv(x)
                sites = sites.reduced(side, (x.shape[0], x.shape[2], x.shape[3]))
                rows = sites.rows(x)
        rows = row_norm(norm, rows)
        if self.stem_maps:
            maps.append(sites.maps(rows))
        return rows, sites, maps

    def _at(self, sites: ActiveSites, x: Tensor) -> ActiveSites:
        """The sites of a map, which an unpadded convolution has made smaller."""
        shape = (x.shape[0], x.shape[2], x.shape[3])
        return sites if shape == sites.shape else ActiveSites(shape)

    def _reduced(self, sites: ActiveSites, factor: int) -> ActiveSites:
        if self.padding == 'same':
            return sites.reduced(factor)
        batch, height, width = sites.shape
        if min(height, width) < factor:
            raise ConfigError(
                f"the image is too small: padding='published' leaves a map of {height} x {width}, "
                f'which is to be reduced {factor} times'
            )
        return sites.reduced(factor, (batch, height // factor, width // factor))

    def _downsample(
        self, index: int, rows: Tensor, sites: ActiveSites
    ) -> tuple[Tensor, ActiveSites]:
        norm, conv = self.downsample_layers[index]
        x = sites.maps(row_norm(norm, rows))
        sites = self._reduced(sites, conv.kernel_size[0])
        return strided_rows(conv, x, sites), sites

    def _run_stage(self, stage: Any, rows: Tensor, sites: ActiveSites) -> Tensor:
        statistics = 'sample' if sites.active is None else self.grn_statistics
        saving = self.with_cp and self.training and torch.is_grad_enabled()
        for block in stage:
            arguments = (block, rows, sites, statistics, self.channels_last)
            if saving and any(parameter.requires_grad for parameter in block.parameters()):
                rows = checkpoint(run_block, *arguments, use_reentrant=False)
            else:
                rows = run_block(*arguments)
        return rows

    def _map(self, index: int, rows: Tensor, sites: ActiveSites, masked: bool) -> Tensor:
        norm: Any = getattr(self, f'norm{index}', None)
        if self.pooled:
            return row_norm(norm, rows.mean(1))
        if norm is not None and not masked:
            rows = row_norm(norm, rows)
        return sites.maps(rows).contiguous()
