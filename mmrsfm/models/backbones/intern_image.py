# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""InternImage, the convolutional backbone of MTP.

InternImage: Wang et al., "InternImage: Exploring Large-Scale Vision Foundation Models with
Deformable Convolutions", CVPR 2023, arXiv 2211.05778 (code MIT, OpenGVLab). MTP: Wang et al., "MTP:
Advancing Remote Sensing Foundation Model via Multi-Task Pretraining", JSTARS 2024, arXiv
2403.13430. Written anew from the published maths; parameter names are those of the released
weights of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.layers.intern_image_level import Level, Stem
from mmrsfm.layers.layer_depth import intern_image_layer_depth
from mmrsfm.layers.stages import check_out_indices
from mmrsfm.registry import MODELS


def _arch(channels: int, depths: list[int], groups: list[int], **settings: Any) -> dict[str, Any]:
    return dict(channels=channels, depths=depths, groups=groups, **settings)


_HUGE = dict(dw_kernel_size=5, center_feature_scale=True)


@MODELS.register_module()
class InternImage(BaseModule):
    """Four levels of deformable convolutions, at strides 4, 8, 16 and 32.

    Presets (channels of the first level, layers, groups; all have 16 channels a group up to
    ``'xlarge'``, 32 above), as published with InternImage; ``'xlarge'`` is the one of MTP:

    ========== ======== ============ ================== ============ ============ =========
    arch       channels depths       groups             offset_scale layer_scale  norm
    ========== ======== ============ ================== ============ ============ =========
    tiny       64       4, 4, 18, 4  4, 8, 16, 32       1            none         before
    small      80       4, 4, 21, 4  5, 10, 20, 40      1            1e-5         after
    base       112      4, 4, 21, 4  7, 14, 28, 56      1            1e-5         after
    large      160      5, 5, 22, 5  10, 20, 40, 80     2            1e-5         after
    xlarge     192      5, 5, 24, 5  12, 24, 48, 96     2            1e-5         after
    huge       320      6, 6, 32, 6  10, 20, 40, 80     1            none         both
    giant      512      2, 2, 48, 4  16, 32, 64, 128    1            none         after
    ========== ======== ============ ================== ============ ============ =========

    ``'huge'`` and ``'giant'`` also have a depthwise kernel of 5, a blend with the centre
    (``center_feature_scale``) and a further norm after every sixth layer of the third level.

    A layer computes, with ``f`` the deformable convolution and then the MLP, each with a norm
    and a scale ``gamma`` of its own: ``x + gamma * norm(f(x))`` (``post_norm``),
    ``x + gamma * f(norm(x))`` (otherwise), or ``x + norm'(f(norm(x)))`` (``res_post_norm``).

    Images of any size are taken: a map of stride s has ``ceil(height / s)`` rows.

    Args:
        arch: A preset, or a dict with ``channels``, ``depths`` and ``groups``, and perhaps any of
            the arguments from ``mlp_ratio`` to ``level2_post_norm_block_ids``.
        in_channels: Number of bands.
        drop_path_rate: Stochastic depth of the last layer.
        drop_path_type: ``'linear'``: growing from 0; ``'uniform'``: the same in all layers.
        drop_rate: Dropout after the stem and in the MLPs.
        norm_type: ``'LN'`` or ``'BN'``, of the stem, the downsampling and inside the deformable
            convolutions; the others are LayerNorms (eps 1e-6).
        act_type: ``'GELU'``, ``'ReLU'`` or ``'SiLU'``.
        mlp_ratio: Hidden channels of the MLP by its channels [of the arch, or 4]. From here to
            ``level2_post_norm_block_ids``, None means: as the arch has it.
        layer_scale: Initial ``gamma``; 0: there is none [of the arch, or 0].
        offset_scale: See :class:`mmrsfm.layers.dcn_v3.DCNv3` [of the arch, or 1].
        post_norm: Norm after the operators [of the arch, or False].
        dw_kernel_size: Depthwise kernel of the deformable convolutions [of the arch, or 3].
        res_post_norm: Norms before and after the operators; excludes ``layer_scale`` and
            ``post_norm`` [of the arch, or False].
        center_feature_scale: See :class:`mmrsfm.layers.dcn_v3.DCNv3` [of the arch, or False].
        level2_post_norm_block_ids: Layers of the third level that are followed by one more norm
            [of the arch, or none].
        out_indices: Levels to return, from 0. Levels after the last one are kept, so that
            released weights fit, but not computed.
        frozen_stages: -1: everything is trained; 0: the stem is not; n: the stem and the first n
            levels, each with its downsampling, are not.
        with_cp: Whether to recompute the layers in the backward pass to save memory; only
            while training.
        impl: Operator of the deformable convolutions, ``'auto'``, ``'pytorch'`` or
            ``'compiled'``; see :class:`mmrsfm.layers.dcn_v3.DCNv3`.
        init_cfg: MMEngine's initialisation config.

    Raises:
        ConfigError: If the arguments contradict each other.
    """

    arch_zoo: Mapping[str, dict[str, Any]] = {
        'tiny': _arch(64, [4, 4, 18, 4], [4, 8, 16, 32]),
        'small': _arch(80, [4, 4, 21, 4], [5, 10, 20, 40], layer_scale=1e-5, post_norm=True),
        'base': _arch(112, [4, 4, 21, 4], [7, 14, 28, 56], layer_scale=1e-5, post_norm=True),
        'large': _arch(
            160,
            [5, 5, 22, 5],
            [10, 20, 40, 80],
            layer_scale=1e-5,
            offset_scale=2.0,
            post_norm=True,
        ),
        'xlarge': _arch(
            192,
            [5, 5, 24, 5],
            [12, 24, 48, 96],
            layer_scale=1e-5,
            offset_scale=2.0,
            post_norm=True,
        ),
        'huge': _arch(
            320,
            [6, 6, 32, 6],
            [10, 20, 40, 80],
            res_post_norm=True,
            level2_post_norm_block_ids=list(range(5, 32, 6)),
            **_HUGE,
        ),
        'giant': _arch(
            512,
            [2, 2, 48, 4],
            [16, 32, 64, 128],
            post_norm=True,
            level2_post_norm_block_ids=list(range(5, 48, 6)),
            **_HUGE,
        ),
    }
    stem_weight = 'patch_embed.conv1.weight'
    # Norms, scales and layers that are not in the model: its weights would mean something else.
    decisive_weights = ('patch_embed.*', 'levels.*')

    def __init__(
        self,
        arch: str | dict[str, Any] = 'xlarge',
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        drop_path_type: str = 'linear',
        drop_rate: float = 0.0,
        norm_type: str = 'LN',
        act_type: str = 'GELU',
        mlp_ratio: float | None = None,
        layer_scale: float | None = None,
        offset_scale: float | None = None,
        post_norm: bool | None = None,
        dw_kernel_size: int | None = None,
        res_post_norm: bool | None = None,
        center_feature_scale: bool | None = None,
        level2_post_norm_block_ids: Sequence[int] | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        impl: str = 'auto',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        given = dict(
            mlp_ratio=mlp_ratio,
            layer_scale=layer_scale,
            offset_scale=offset_scale,
            post_norm=post_norm,
            dw_kernel_size=dw_kernel_size,
            res_post_norm=res_post_norm,
            center_feature_scale=center_feature_scale,
            level2_post_norm_block_ids=level2_post_norm_block_ids,
        )
        settings = self._resolve_arch(arch, given)
        depths, groups = list(settings['depths']), list(settings['groups'])
        count = len(depths)
        extra_norms = list(settings['level2_post_norm_block_ids'])
        if extra_norms and (count < 3 or not all(0 <= i < depths[2] for i in extra_norms)):
            raise ConfigError(
                f'level2_post_norm_block_ids {extra_norms} are not all layers of the third level '
                f'of depths {depths}'
            )
        indices = list(out_indices)
        check_out_indices(indices, count)
        if not -1 <= frozen_stages <= count:
            raise ConfigError(f'frozen_stages={frozen_stages} is not between -1 and {count}')
        if drop_path_type not in ('linear', 'uniform'):
            raise ConfigError(f"drop_path_type {drop_path_type!r} is not 'linear' or 'uniform'")
        self.arch_settings = settings
        self.in_channels = in_channels
        self.depths = depths
        self.norm_style = 'post' if settings['post_norm'] else 'pre'
        self.out_indices = indices
        self.frozen_stages = frozen_stages
        widths = [settings['channels'] * 2**level for level in range(count)]
        self.out_channels = [widths[level] for level in indices]
        self.patch_embed = Stem(in_channels, widths[0], norm_type, act_type)
        self.pos_drop = nn.Dropout(drop_rate)
        start = 0.0 if drop_path_type == 'linear' else drop_path_rate
        rates = np.linspace(start, drop_path_rate, sum(depths)).tolist()
        self.levels = nn.ModuleList()
        for level, depth in enumerate(depths):
            before = sum(depths[:level])
            self.levels.append(
                Level(
                    widths[level],
                    groups[level],
                    rates[before : before + depth],
                    downsample=level < count - 1,
                    extra_norms=extra_norms if level == 2 else [],
                    with_cp=with_cp,
                    norm_type=norm_type,
                    act_type=act_type,
                    drop_rate=drop_rate,
                    impl=impl,
                    **{name: settings[name] for name in _LAYER_SETTINGS},
                )
            )
        self._init_linear()
        self._freeze()

    def _resolve_arch(self, arch: str | dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        if isinstance(arch, str):
            if arch.lower() not in self.arch_zoo:
                raise ConfigError(f'arch {arch!r} is not one of {sorted(self.arch_zoo)}')
            arch = self.arch_zoo[arch.lower()]
        lacking = {'channels', 'depths', 'groups'} - set(arch)
        unknown = set(arch) - {'channels', 'depths', 'groups'} - set(given)
        if lacking or unknown:
            raise ConfigError(f'arch lacks {sorted(lacking)} and has unknown {sorted(unknown)}')
        settings = {**_DEFAULTS, **arch}
        settings.update({name: value for name, value in given.items() if value is not None})
        if len(settings['depths']) != len(settings['groups']):
            raise ConfigError(
                f'arch has {len(settings["depths"])} depths and {len(settings["groups"])} groups: '
                'both need one number for each level'
            )
        if settings['channels'] % 2 or settings['channels'] % settings['groups'][0]:
            raise ConfigError(
                f'arch: {settings["channels"]} channels must be even, and a multiple of the '
                f'{settings["groups"][0]} groups'
            )
        return settings

    def _init_linear(self) -> None:
        """Linear layers N(0, 0.02), cut at 2; the convolutions keep PyTorch's initialisation."""
        for name, module in self.named_modules():
            # Deformable convolutions have initialised themselves.
            if isinstance(module, nn.Linear) and '.mlp.' in name:
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Encodes images.

        Args:
            x: Shape (B, C, H, W), any H and W.

        Returns:
            For each of ``out_indices`` a map of shape (B, D, rows, columns), contiguous: RoIAlign
            of mmcv takes every memory for that of NCHW, without a word.

        Raises:
            ConfigError: If the images have another number of bands than the stem.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ConfigError(
                f'the backbone takes images of {self.in_channels} bands, got shape '
                f'{tuple(x.shape)}: set in_channels, and the bands that the pipeline loads, to '
                'the same number'
            )
        x = self.pos_drop(self.patch_embed(x))
        maps = []
        for index, level in enumerate(self.levels):
            x = level(x)
            if index in self.out_indices:
                maps.append(x.permute(0, 3, 1, 2).contiguous())
            if index == self.out_indices[-1]:
                break
            x = level.downsample(x)  # type: ignore[operator]
        return tuple(maps)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, for layer-wise learning rates.

        Args:
            param_name: Name of the parameter.
            prefix: What stands before the names of this backbone.

        Returns:
            The depth, from 0, and the number of depths. The stem is 0, the layers count from 1
            through all levels; downsampling and norm of a level belong to the layer after it,
            or to the first of the last level where there is none; everything else is last.
        """
        total = sum(self.depths) + 2
        if not param_name.startswith(prefix):
            return total - 1, total
        return intern_image_layer_depth(param_name[len(prefix) :], self.depths), total

    def train(self, mode: bool = True) -> InternImage:
        """Switches the mode; frozen stages stay in evaluation mode."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        for module in (self.patch_embed, self.pos_drop, *self.levels[: self.frozen_stages]):
            module.eval()
            module.requires_grad_(False)


_DEFAULTS: dict[str, Any] = dict(
    mlp_ratio=4.0,
    layer_scale=0.0,
    offset_scale=1.0,
    post_norm=False,
    dw_kernel_size=3,
    res_post_norm=False,
    center_feature_scale=False,
    level2_post_norm_block_ids=(),
)
_LAYER_SETTINGS = tuple(name for name in _DEFAULTS if name != 'level2_post_norm_block_ids')
