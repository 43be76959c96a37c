# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The vision transformer with rotated varied-size window attention (RVSA) of MTP.

RVSA: Wang et al., "Advancing Plain Vision Transformer Toward Remote Sensing Foundation Model",
TGRS 2022, arXiv 2208.03987. MTP: Wang et al., "MTP: Advancing Remote Sensing Foundation Model via
Multi-Task Pretraining", JSTARS 2024, arXiv 2403.13430 (ViTAE-Transformer/MTP, MIT). Written anew
from the published maths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmrsfm.checkpoints.kinship import Kinship
from mmrsfm.errors import ConfigError
from mmrsfm.layers.decomposed_attention import GridAttention
from mmrsfm.layers.layer_depth import rvsa_layer_depth
from mmrsfm.layers.position import PositionTableResizer
from mmrsfm.layers.rvsa_attention import RVSAttention
from mmrsfm.layers.rvsa_block import NORM_EPS, PatchEmbedding, RVSABlock
from mmrsfm.layers.simple_pyramid import add_pyramid, apply_pyramid
from mmrsfm.registry import MODELS


def _arch(
    embed_dims: int, num_layers: int, num_heads: int, interval: int, out_indices: tuple[int, ...]
) -> dict[str, Any]:
    return dict(
        embed_dims=embed_dims,
        num_layers=num_layers,
        num_heads=num_heads,
        interval=interval,
        out_indices=out_indices,
    )


@MODELS.register_module()
class RVSAViT(BaseModule):
    """ViT with RVSA in most blocks and full attention in every ``interval``-th.

    One class for the six copies in the code of MTP, whose parameter names it keeps:

    =====================================  ===========================================
    copy                                   arguments that differ from the defaults
    =====================================  ===========================================
    Multi-Task_Pretrain                    ``final_norm=True`` (which is not used there)
    mmseg                                  none
    mmpretrain, opencd                     ``with_fpn=False, final_norm=True`` (not used)
    mmdet, mmrotate: RVSA_MTP              ``full_rel_pos=False, last_layer_only=True,
                                           final_norm=True``
    mmdet, mmrotate: RVSA_MTP_branches     ``full_rel_pos=False``
    =====================================  ===========================================

    Images of any size and aspect: the position tables are stretched to the grid at hand (bicubic,
    as the published loaders stretch those of a checkpoint). At the trained size the numbers are
    those of the published code. Its crash for images wider than high, and its NaN for fewer than 7
    tokens along a side, are gone.

    Args:
        arch: ``'tiny'`` (96 channels, 4 layers, 3 heads, full attention in every 2nd layer),
            ``'base'`` (768/12/12, every 3rd), ``'large'`` (1024/24/16, every 6th), or a dict with
            ``embed_dims``, ``num_layers``, ``num_heads``, ``interval`` and perhaps ``mlp_ratio``
            (4) and ``out_indices`` (four blocks at equal distances, up to the last one, for the
            pyramid; else the last one).
        img_size: Side of the image in pixels, or height and width, that the tables are made for.
        patch_size: Side of a patch in pixels. The pyramid is made for 16 and for 8.
        in_channels: Number of bands.
        out_indices: Numbers of the blocks whose outputs are returned, rising, from 0, negative from
            the end; one may be named several times. Default: the four of the arch. The pyramid
            needs four.
        drop_rate: Dropout after the position table, the attention and the MLP.
        attn_drop_rate: Dropout of the weights of full attention.
        drop_path_rate: Stochastic depth of the last block, growing linearly from 0.
        full_rel_pos: Whether the full-attention blocks have relative positions.
        final_norm: Whether there is a LayerNorm ``norm``. It is used with ``last_layer_only``
            alone; elsewhere the published weights hold it without using it. Whatever the chosen
            outputs do not use has ``requires_grad=False``.
        last_layer_only: Whether all levels are made from the (normalised) last block, instead of
            one block each.
        with_fpn: Whether the maps go through the pyramid (strides 4, 8, 16, 32); else they are the
            raw outputs of the blocks, all of stride ``patch_size``.
        frozen_stages: -1: nothing is frozen; n >= 0: the patch embedding, the position table and
            the first n blocks are not trained.
        with_cp: Whether to recompute each block in the backward pass to save memory.
        init_values: Initial layer scale; ``None``: no layer scale.
        qkv_bias: Whether query, key and value have a bias.
        use_abs_pos_emb: Whether there is an absolute position table.
        rel_pos_tables: ``'per_axis'``: tables of full attention for the height and the width of
            ``img_size``. ``'reference'``: both have the rows that the height needs, and the width
            uses the first of them, as in the published code. The same for square images.
        partial_patches: ``'pad'``: images that are not whole patches get zeros at the right and the
            bottom, and a map of stride s has ``ceil(size / s)`` cells. ``'drop'``: pixels behind
            the last whole patch are ignored, and so is an odd last row or column of tokens where
            the pyramid pools, as in the published code. The same where strides divide the size.
        interpolate_mode: Interpolation of the absolute position table.
        init_cfg: MMEngine's initialisation config.

    Raises:
        ConfigError: If the arguments contradict each other.
    """

    arch_zoo: ClassVar[dict[str, dict[str, Any]]] = {
        'tiny': _arch(96, 4, 3, interval=2, out_indices=(0, 1, 2, 3)),
        'base': _arch(768, 12, 12, interval=3, out_indices=(3, 5, 7, 11)),
        'large': _arch(1024, 24, 16, interval=6, out_indices=(7, 11, 15, 23)),
    }
    window_size = 7
    # For mmrsfm.checkpoints: the kind of blocks, where the image comes in, what the files of MTP
    # hold without using it, and how a plain ViT (such as the MAE of Million-AID) is taken in.
    norm_style = 'pre'
    stem_weight = 'patch_embed.proj.weight'
    unused_weights = ('norm.*',)
    # Layer scales (init_values) that are not in the model: its weights would mean something else.
    decisive_weights = ('blocks.*.gamma_?',)
    kinship = Kinship(
        family='a plain ViT',
        mark='layers.0.attn.qkv.weight',
        names='timm_vit',
        lacking=(
            'blocks.*.attn.rel_pos_?',
            'blocks.*.attn.full_attn_rel_pos_?',
            'blocks.*.attn.relative_position_bias_table',
            'blocks.*.attn.sampling_*',
            'fpn?.*',
        ),
        unused=('cls_token', 'fc_norm.*'),
    )

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        out_indices: int | Sequence[int] | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        full_rel_pos: bool = True,
        final_norm: bool = False,
        last_layer_only: bool = False,
        with_fpn: bool = True,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_values: float | None = None,
        qkv_bias: bool = True,
        use_abs_pos_emb: bool = True,
        rel_pos_tables: str = 'per_axis',
        partial_patches: str = 'pad',
        interpolate_mode: str = 'bicubic',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        settings = self._resolve_arch(arch)
        self.arch_settings = settings
        self.embed_dims: int = settings['embed_dims']
        self.num_layers: int = settings['num_layers']
        self.in_channels = in_channels
        self.patch_size = patch_size
        self.last_layer_only = last_layer_only
        self.with_fpn = with_fpn
        self.with_cp = with_cp
        self.frozen_stages = frozen_stages
        _check_choice('rel_pos_tables', rel_pos_tables, ('per_axis', 'reference'))
        _check_choice('partial_patches', partial_patches, ('pad', 'drop'))
        self.partial_patches = partial_patches
        if not -1 <= frozen_stages <= self.num_layers:
            raise ConfigError(
                f'frozen_stages={frozen_stages} is not from -1 to {self.num_layers}, the number '
                'of layers'
            )
        self.out_indices = self._resolve_indices(out_indices)
        self.patch_resolution = self._resolve_grid(img_size)
        table_rows = self._table_rows(rel_pos_tables) if full_rel_pos else None

        self.patch_embed = PatchEmbedding(in_channels, self.embed_dims, patch_size)
        self.pos_embed: nn.Parameter | None = None
        if use_abs_pos_emb:
            tokens = self.patch_resolution[0] * self.patch_resolution[1]
            self.pos_embed = nn.Parameter(torch.zeros(1, tokens, self.embed_dims))
        self.pos_drop = nn.Dropout(drop_rate)
        rates = np.linspace(0, drop_path_rate, self.num_layers)
        common = dict(
            embed_dims=self.embed_dims,
            num_heads=settings['num_heads'],
            qkv_bias=qkv_bias,
            proj_drop=drop_rate,
        )
        self.blocks = nn.ModuleList()
        for index, rate in enumerate(rates):
            attn: nn.Module
            if (index + 1) % settings['interval'] == 0:
                attn = GridAttention(**common, table_rows=table_rows, attn_drop=attn_drop_rate)
            else:
                attn = RVSAttention(**common, window_size=self.window_size)
            self.blocks.append(
                RVSABlock(
                    self.embed_dims,
                    attn,
                    settings['mlp_ratio'],
                    drop_rate,
                    float(rate),
                    init_values,
                )
            )
        self.final_norm = final_norm
        if final_norm:
            self.norm = nn.LayerNorm(self.embed_dims, eps=NORM_EPS)
        # The published weights hold the pyramid in any case.
        if patch_size in (8, 16):
            add_pyramid(self, self.embed_dims, patch_size, ceil_mode=partial_patches == 'pad')
        elif with_fpn:
            raise ConfigError(
                f'the pyramid is made for patches of 8 or 16 pixels, not {patch_size}: '
                'set with_fpn=False'
            )
        self.out_channels = [self.embed_dims] * (4 if last_layer_only else len(self.out_indices))
        self._resizer = PositionTableResizer(interpolate_mode)
        self.register_load_state_dict_post_hook(_forget_positions)
        # What never runs gets no gradient: DistributedDataParallel need not look for it.
        for module in self._idle_modules():
            module.requires_grad_(False)
        if frozen_stages >= 0:
            self._freeze_stages()

    def _resolve_arch(self, arch: str | dict) -> dict[str, Any]:
        if isinstance(arch, str):
            if arch not in self.arch_zoo:
                raise ConfigError(f'arch {arch!r} is not one of {sorted(self.arch_zoo)}')
            settings = dict(self.arch_zoo[arch])
        else:
            settings = dict(arch)
        needed = {'embed_dims', 'num_layers', 'num_heads', 'interval'}
        if not needed <= set(settings):
            raise ConfigError(f'arch lacks {sorted(needed - set(settings))}')
        unknown = set(settings) - needed - {'mlp_ratio', 'out_indices'}
        if unknown:
            raise ConfigError(f'arch holds {sorted(unknown)}, which mean nothing here')
        if settings['embed_dims'] % settings['num_heads']:
            raise ConfigError(
                f'{settings["embed_dims"]} channels do not divide into '
                f'{settings["num_heads"]} heads'
            )
        settings.setdefault('mlp_ratio', 4.0)
        return settings

    def _resolve_indices(self, out_indices: int | Sequence[int] | None) -> tuple[int, ...]:
        if out_indices is None:
            out_indices = self.arch_settings.get('out_indices') or self._default_indices()
        given = [out_indices] if isinstance(out_indices, int) else list(out_indices)
        indices = tuple(index + self.num_layers if index < 0 else index for index in given)
        if not indices or any(not 0 <= index < self.num_layers for index in indices):
            raise ConfigError(
                f'out_indices {given} do not all exist: there are {self.num_layers} layers'
            )
        if list(indices) != sorted(indices):
            raise ConfigError(f'out_indices {given} must be in rising order')
        if self.last_layer_only and not self.with_fpn:
            raise ConfigError('last_layer_only=True is about the pyramid: it needs with_fpn=True')
        if self.with_fpn and not self.last_layer_only and len(indices) != 4:
            raise ConfigError(
                f'the pyramid takes four out_indices, got {given}; for raw maps of stride '
                f'{self.patch_size} set with_fpn=False'
            )
        return indices

    def _default_indices(self) -> tuple[int, ...]:
        last = self.num_layers - 1
        if self.last_layer_only or not self.with_fpn or self.num_layers < 4:
            return (last,)
        return tuple(self.num_layers * part // 4 - 1 for part in (1, 2, 3, 4))

    def _resolve_grid(self, img_size: int | Sequence[int]) -> tuple[int, int]:
        size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        if len(size) != 2 or min(size) < self.patch_size:
            raise ConfigError(
                f'img_size={img_size!r} must be a side, or height and width, of at least one patch '
                f'({self.patch_size} pixels)'
            )
        return self.grid_of((size[0], size[1]))

    def grid_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tokens of an image.

        Args:
            size: Height and width in pixels.
        """
        if self.partial_patches == 'drop':
            return size[0] // self.patch_size, size[1] // self.patch_size
        return math.ceil(size[0] / self.patch_size), math.ceil(size[1] / self.patch_size)

    def _table_rows(self, rel_pos_tables: str) -> tuple[int, int]:
        height, width = self.patch_resolution
        if rel_pos_tables == 'per_axis':
            return 2 * height - 1, 2 * width - 1
        if width > height:
            raise ConfigError(
                f"rel_pos_tables='reference' has tables for the height alone, {height} tokens, "
                f"which do not reach over {width} columns: use 'per_axis'"
            )
        return 2 * height - 1, 2 * height - 1

    def init_weights(self) -> None:
        """Initialises as MTP does, then applies ``init_cfg``, whatever its type.

        Linear layers N(0, 0.02) cut at two sigma with zero bias, the outputs of the branches of
        block l (from 1) divided by ``sqrt(2 l)``; LayerNorm 1 and 0; position tables N(0, 0.02);
        relative positions 0; convolutions as PyTorch does. (MTP rescales in the constructor, and
        undoes it where no checkpoint is given.)
        """
        if not self.is_init:
            self._initialise()
        super().init_weights()
        self._resizer.clear()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.reset_parameters()
        if self.pos_embed is not None:
            trunc_normal_(self.pos_embed, std=0.02)
        blocks: Any = self.blocks
        for number, block in enumerate(blocks, start=1):
            if isinstance(block.attn, RVSAttention):
                trunc_normal_(block.attn.relative_position_bias_table, std=0.02)
            with torch.no_grad():
                block.attn.proj.weight.div_(math.sqrt(2 * number))
                block.mlp.fc2.weight.div_(math.sqrt(2 * number))

    def _idle_modules(self) -> list[nn.Module]:
        """Parts that the released weights have, and the chosen outputs do not need."""
        idle: list[nn.Module] = []
        if self.final_norm and not self.last_layer_only:
            idle.append(self.norm)
        if not self.with_fpn:
            idle += [self.get_submodule(name) for name, _ in self.named_children() if 'fpn' in name]
        if not self.last_layer_only:
            idle += self.blocks[self.out_indices[-1] + 1 :]
        return idle

    def _frozen_modules(self) -> list[nn.Module]:
        return [self.patch_embed, self.pos_drop, *self.blocks[: self.frozen_stages]]

    def _freeze_stages(self) -> None:
        if self.pos_embed is not None:
            self.pos_embed.requires_grad_(False)
        for module in self._frozen_modules():
            module.requires_grad_(False)
            module.eval()

    def train(self, mode: bool = True) -> RVSAViT:
        """Switches the mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        self._resizer.clear()
        if mode and self.frozen_stages >= 0:
            self._freeze_stages()
        return self

    def _apply(self, fn: Callable, recurse: bool = True) -> RVSAViT:
        self._resizer.clear()
        return super()._apply(fn, recurse)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer of a parameter, for optimizers that let the learning rate decay.

        Args:
            param_name: Full name of the parameter.
            prefix: What stands before the names of the backbone, e.g. ``'backbone.'``.

        Returns:
            0 for the embedding, l + 1 for block l, number of layers + 1 for everything else; and
            their number, number of layers + 2.
        """
        last = self.num_layers + 1
        if not param_name.startswith(prefix):
            return last, last + 1
        return rvsa_layer_depth(param_name[len(prefix) :], self.num_layers), last + 1

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Encodes images.

        Args:
            x: Shape (B, C, H, W), any H and W.

        Returns:
            With the pyramid four maps (B, D, H / s, W / s) of strides s = 4, 8, 16, 32; without it
            one of stride ``patch_size`` for each of ``out_indices``.

        Raises:
            ConfigError: If the number of bands is not ``in_channels``, or the image has no
                whole patch where partial ones are dropped.
        """
        size = (x.shape[2], x.shape[3])
        x, grid = self.patch_embed(self._whole_patches(x))
        if self.pos_embed is not None:
            x = x + self._resizer(self.pos_embed, self.patch_resolution, grid, 0)
        maps = self._run_blocks(self.pos_drop(x), grid)
        if not self.with_fpn:
            return tuple(x.transpose(1, 2).contiguous().unflatten(2, grid) for x in maps)
        padded = self.partial_patches == 'pad'
        return apply_pyramid(self, maps, grid, size if padded else None)

    def _whole_patches(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.in_channels:
            raise ConfigError(
                f'the backbone takes {self.in_channels} bands, the images have {x.shape[1]}: set '
                'in_channels, and the bands that the pipeline loads, to the same number'
            )
        rows, columns = self.grid_of((x.shape[2], x.shape[3]))
        if min(rows, columns) < 1:
            raise ConfigError(
                f'an image of {x.shape[2]}x{x.shape[3]} pixels has no whole patch of '
                f"{self.patch_size}: make it larger, or set partial_patches='pad'"
            )
        bottom, right = rows * self.patch_size - x.shape[2], columns * self.patch_size - x.shape[3]
        return F.pad(x, (0, right, 0, bottom)) if bottom > 0 or right > 0 else x

    def _run_blocks(self, x: Tensor, grid: tuple[int, int]) -> list[Tensor]:
        saving = self.with_cp and self.training and torch.is_grad_enabled()
        wanted = (self.num_layers - 1,) * 4 if self.last_layer_only else self.out_indices
        maps: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            grids = [grid]
            if isinstance(block.attn, GridAttention):
                grids.append(self.patch_resolution)
            if saving and (x.requires_grad or index >= self.frozen_stages):
                x = checkpoint(block, x, *grids, use_reentrant=False)
            else:
                x = block(x, *grids)
            if index in wanted:
                out = self.norm(x) if self.last_layer_only and self.final_norm else x
                maps += [out] * wanted.count(index)
            if index == wanted[-1]:
                break
        return maps


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f'{name}={value!r} is not one of {choices}')


def _forget_positions(module: Any, _: Any) -> None:
    module._resizer.clear()
