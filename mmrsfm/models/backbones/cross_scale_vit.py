# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The vision transformer of Cross-Scale MAE, for pretraining and for every task after it.

Cross-Scale MAE: Tang, Cozma, Georgiou, Qi, "Cross-Scale MAE: A Tale of Multi-Scale Exploitation
in Remote Sensing", NeurIPS 2023, arXiv 2401.15855. Written anew from the published maths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule, ModuleList
from mmpretrain.models.backbones.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmrsfm.errors import ConfigError
from mmrsfm.layers.patches import gather_patches, patch_grid
from mmrsfm.layers.position import PositionTableResizer, sincos_position_table
from mmrsfm.layers.pyramid import ScalePyramid
from mmrsfm.layers.transformer import ViTLayer, check_norm_style, init_linear_as_mae
from mmrsfm.registry import MODELS


def _arch(embed_dims: int, num_layers: int, num_heads: int) -> dict[str, int]:
    return dict(
        embed_dims=embed_dims,
        num_layers=num_layers,
        num_heads=num_heads,
        feedforward_channels=4 * embed_dims,
    )


@MODELS.register_module()
class CrossScaleViT(VisionTransformer):
    """A plain ViT that takes images of any size, aspect and number of bands.

    Parameter names are those of mmpretrain's ``VisionTransformer``. What differs:

    * sine-cosine position table as in MAE (columns first), fixed or trainable, resized on the fly
      to the image at hand (bicubic) and remembered while it does not change;
    * ``norm_style='post'`` for weights that were trained through xFormers;
    * images that are not whole patches are padded with zeros at the right and at the bottom;
    * ``out_type='pyramid'`` for dense tasks;
    * :meth:`encode_visible` for masked pretraining, which embeds the visible patches only;
    * initialised as MAE is (Xavier-uniform, class token N(0, 0.02)); an ``init_cfg`` of any type,
      ``mmrsfm.Pretrained`` too, is applied after that.

    Args:
        arch: ``'tiny'`` (128 channels, 4 layers, 8 heads), ``'small'`` (512/8/8), ``'base'``
            (768/12/12), ``'large'`` (1024/24/16), ``'huge'`` (1280/32/16), their initials, or a
            dict with ``embed_dims``, ``num_layers``, ``num_heads``, ``feedforward_channels``.
        img_size: Size of the image (pixels, or height and width) that the position table is made
            for; other sizes work too.
        patch_size: Size of a patch in pixels.
        in_channels: Number of bands.
        norm_style: ``'pre'`` or ``'post'``: where the layers normalise. It must be that of the
            weights; see :class:`mmrsfm.layers.transformer.ViTLayer`.
        out_type: What :meth:`forward` returns for each of ``out_indices``:
            ``'cls_token'`` (B, D); ``'avg_featmap'``, the mean of the patch tokens, then a
            LayerNorm ``ln2`` (the ``fc_norm`` of MAE), (B, D); ``'raw'``, all tokens
            (B, 1 + L, D); ``'featmap'`` (B, D, rows, columns); or ``'pyramid'``, four maps at 1/4,
            1/2, 1 and 2 times the patch size, from one layer or from four.
        out_indices: Numbers of the layers to return, from 0; negative from the end.
        final_norm: Whether the last layer is followed by the LayerNorm ``ln1``. Default: yes,
            except for ``'avg_featmap'``, which has ``ln2``. Note that Cross-Scale MAE does not
            train ``ln1``: with its weights it starts as a plain normalisation.
        pos_embed_trainable: Whether the position table is trained; not in pretraining.
        with_cls_token: Whether there is a class token.
        drop_rate: Dropout after the position table and in the layers.
        drop_path_rate: Stochastic depth of the last layer, growing linearly from 0.
        qkv_bias: Whether query, key and value have a bias.
        norm_cfg: Normalisation in the layers; default: LayerNorm with the eps of ``norm_style``.
        frozen_stages: Number of leading layers, with everything before them, that are not trained;
            -1 or 0: none. All layers: the last normalisation too.
        with_cp: Whether to recompute the layers in the backward pass to save memory.
        interpolate_mode: Interpolation of the position table.
        layer_scale_init_value: Initial layer scale; 0: none.
        patch_cfg: More arguments of the patch embedding.
        layer_cfgs: More arguments of the layers, one dict or one for each.
        pyramid_norm_cfg: Normalisation inside the pyramid.
        init_cfg: MMEngine's initialisation config.

    Raises:
        ConfigError: If the arguments contradict each other.
    """

    arch_zoo = {
        **dict.fromkeys(['t', 'tiny'], _arch(128, 4, 8)),
        **dict.fromkeys(['s', 'small'], _arch(512, 8, 8)),
        **dict.fromkeys(['b', 'base'], _arch(768, 12, 12)),
        **dict.fromkeys(['l', 'large'], _arch(1024, 24, 16)),
        **dict.fromkeys(['h', 'huge'], _arch(1280, 32, 16)),
    }
    OUT_TYPES = VisionTransformer.OUT_TYPES | {'pyramid'}

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int | tuple[int, int] = 128,
        patch_size: int | tuple[int, int] = 16,
        in_channels: int = 3,
        norm_style: str = 'pre',
        out_type: str = 'cls_token',
        out_indices: int | Sequence[int] = -1,
        final_norm: bool | None = None,
        pos_embed_trainable: bool = True,
        with_cls_token: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        qkv_bias: bool = True,
        norm_cfg: dict | None = None,
        frozen_stages: int = -1,
        with_cp: bool = False,
        interpolate_mode: str = 'bicubic',
        layer_scale_init_value: float = 0.0,
        patch_cfg: dict | None = None,
        layer_cfgs: dict | Sequence[dict] | None = None,
        pyramid_norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        check_norm_style(norm_style)
        settings = self._resolve_arch(arch)
        num_layers = settings['num_layers']
        indices = self._resolve_indices(out_indices, num_layers, out_type)
        if final_norm is None:
            final_norm = out_type != 'avg_featmap'
        if out_type not in self.OUT_TYPES:
            raise ConfigError(f'out_type {out_type!r} is not one of {sorted(self.OUT_TYPES)}')
        if out_type == 'cls_token' and not with_cls_token:
            raise ConfigError("out_type='cls_token' needs with_cls_token=True")
        super().__init__(
            # No layers yet: mmpretrain's would be built only to be replaced.
            arch={**settings, 'num_layers': 0},
            out_indices=0,
            img_size=img_size,
            patch_size=patch_size,
            in_channels=in_channels,
            drop_rate=drop_rate,
            norm_cfg=dict(type='LN', eps=1e-6),
            final_norm=final_norm,
            out_type=out_type,
            with_cls_token=with_cls_token,
            interpolate_mode=interpolate_mode,
            patch_cfg=dict(patch_cfg or {}),
            init_cfg=init_cfg,
        )
        self.arch_settings = settings
        self.num_layers = num_layers
        self.out_indices = indices
        self.norm_style = norm_style
        self.in_channels = in_channels
        self.patch_size = tuple(self.patch_embed.projection.kernel_size)
        self.with_cp = with_cp
        if layer_cfgs is None or isinstance(layer_cfgs, dict):
            layer_cfgs = [layer_cfgs or {}] * num_layers
        common = dict(
            embed_dims=self.embed_dims,
            num_heads=settings['num_heads'],
            feedforward_channels=settings['feedforward_channels'],
            norm_style=norm_style,
            norm_cfg=norm_cfg,
            layer_scale_init_value=layer_scale_init_value,
            drop_rate=drop_rate,
            qkv_bias=qkv_bias,
        )
        rates = np.linspace(0, drop_path_rate, num_layers)
        self.layers = ModuleList(
            [
                ViTLayer(**{**common, 'drop_path_rate': float(rate), **extra})
                for rate, extra in zip(rates, layer_cfgs, strict=True)
            ]
        )
        if out_type == 'pyramid':
            self.pyramid = ScalePyramid(self.embed_dims, pyramid_norm_cfg)
        self.pos_embed.data.copy_(
            sincos_position_table(self.patch_resolution, self.embed_dims, self.num_extra_tokens)
        )
        self.pos_embed.requires_grad_(pos_embed_trainable)
        self._resizer = PositionTableResizer(interpolate_mode)
        self.register_load_state_dict_post_hook(_forget_positions)
        if frozen_stages > num_layers:
            raise ConfigError(f'frozen_stages={frozen_stages}, but there are {num_layers} layers')
        self.frozen_stages = frozen_stages
        if frozen_stages > 0:
            self._freeze_stages()

    def _resolve_arch(self, arch: str | dict) -> dict[str, int]:
        if isinstance(arch, str):
            if arch.lower() not in self.arch_zoo:
                raise ConfigError(f'arch {arch!r} is not one of {sorted(self.arch_zoo)}')
            return dict(self.arch_zoo[arch.lower()])
        needed = {'embed_dims', 'num_layers', 'num_heads', 'feedforward_channels'}
        if not needed <= set(arch):
            raise ConfigError(f'arch lacks {sorted(needed - set(arch))}')
        return dict(arch)

    @staticmethod
    def _resolve_indices(
        out_indices: int | Sequence[int], num_layers: int, out_type: str
    ) -> list[int]:
        given = [out_indices] if isinstance(out_indices, int) else list(out_indices)
        indices = [index + num_layers if index < 0 else index for index in given]
        if any(not 0 <= index < num_layers for index in indices):
            raise ConfigError(
                f'out_indices {given} do not all exist: there are {num_layers} layers'
            )
        if sorted(set(indices)) != indices:
            raise ConfigError(f'out_indices {given} must be in rising order, each once')
        if out_type == 'pyramid' and len(indices) not in (1, 4):
            raise ConfigError(f"out_type='pyramid' takes one or four out_indices, got {given}")
        return indices

    def init_weights(self) -> None:
        """Initialises as MAE does, then applies ``init_cfg``, whatever its type."""
        if not self.is_init:
            init_linear_as_mae(self)
            weight = self.patch_embed.projection.weight.data
            nn.init.xavier_uniform_(weight.view(weight.shape[0], -1))
            if self.cls_token is not None:
                nn.init.normal_(self.cls_token, std=0.02)
            # mmpretrain's own initialisation of the layers would come after an init_cfg of
            # another type than 'Pretrained', and overwrite what it loaded.
            for module in self.modules():
                if module is not self and isinstance(module, BaseModule):
                    module.is_init = True
        # Not VisionTransformer's: that overwrites the position table.
        BaseModule.init_weights(self)
        self._resizer.clear()

    def train(self, mode: bool = True) -> CrossScaleViT:
        """Switches the mode; frozen layers stay in evaluation mode."""
        nn.Module.train(self, mode)
        self._resizer.clear()
        if mode and self.frozen_stages > 0:
            self._freeze_stages()
        return self

    def _apply(self, fn: Callable, recurse: bool = True) -> CrossScaleViT:
        self._resizer.clear()
        return super()._apply(fn, recurse)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """The position table for a grid of patches.

        Args:
            grid: Rows and columns of patches.

        Returns:
            Shape (1, extra tokens + rows * columns, D).
        """
        return self._resizer(self.pos_embed, self.patch_resolution, grid, self.num_extra_tokens)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Encodes whole images.

        Args:
            x: Shape (B, C, H, W), any H and W.

        Returns:
            One tensor for each of ``out_indices``, as ``out_type`` says; four for a pyramid.
        """
        self._check_channels(x)
        size = (x.shape[2], x.shape[3])
        x, grid = self.patch_embed(x)
        table = self.positions(grid)
        x = x + table[:, self.num_extra_tokens :]
        outputs = [
            self._format_output(tokens, grid)
            for tokens in self._run_layers(self._prepend_cls(x, table), self.out_indices)
        ]
        if self.out_type == 'pyramid':
            outputs = self.pyramid(outputs, size, self.patch_size)
        # RoIAlign of mmcv takes every memory for that of NCHW, without a word.
        return tuple(x.contiguous() for x in outputs)

    def encode_visible(self, images: Tensor, ids_keep: Tensor, apply_norm: bool = False) -> Tensor:
        """Encodes the visible patches of masked images; the others are not even embedded.

        Args:
            images: Shape (B, C, H, W), H and W multiples of the patch.
            ids_keep: Shape (B, K), row-major numbers of the visible patches.
            apply_norm: Whether to apply the last normalisation ``ln1``.

        Returns:
            Class token (if any) and visible patches in the order of ``ids_keep``,
            shape (B, 1 + K, D).
        """
        self._check_channels(images)
        projection = self.patch_embed.projection
        grid = patch_grid((images.shape[2], images.shape[3]), self.patch_size)
        patches = gather_patches(images, ids_keep, self.patch_size)
        x = F.linear(patches, projection.weight.flatten(1), projection.bias)
        table = self.positions(grid)
        x = x + table[0, self.num_extra_tokens :][ids_keep]
        last = self.num_layers - 1
        tokens = self._prepend_cls(x, table)
        return next(iter(self._run_layers(tokens, [last], apply_norm)))

    def _check_channels(self, x: Tensor) -> None:
        if x.shape[1] != self.in_channels:
            raise ConfigError(
                f'the backbone takes {self.in_channels} bands, the images have {x.shape[1]}: set '
                'in_channels, and the bands that the pipeline loads, to the same number'
            )

    def _prepend_cls(self, x: Tensor, table: Tensor) -> Tensor:
        if self.cls_token is not None:
            token = self.cls_token + table[:, : self.num_extra_tokens]
            x = torch.cat([token.expand(x.shape[0], -1, -1), x], dim=1)
        return self.drop_after_pos(x)

    def _run_layers(
        self, x: Tensor, wanted: Sequence[int], apply_norm: bool | None = None
    ) -> list[Tensor]:
        outputs = []
        apply_norm = self.final_norm if apply_norm is None else apply_norm
        for index, layer in enumerate(self.layers):
            if self.with_cp and torch.is_grad_enabled():
                x = checkpoint(layer, x, use_reentrant=False)
            else:
                x = layer(x)
            if index in wanted:
                is_last = index == self.num_layers - 1
                outputs.append(self.ln1(x) if is_last and apply_norm else x)
            if index == wanted[-1]:
                break
        return outputs

    def _format_output(self, x: Tensor, hw: tuple[int, int]) -> Tensor:
        if self.out_type != 'pyramid':
            return super()._format_output(x, hw)
        patches = x[:, self.num_extra_tokens :]
        return patches.transpose(1, 2).reshape(x.shape[0], -1, *hw)


def _forget_positions(module: Any, _: Any) -> None:
    module._resizer.clear()
