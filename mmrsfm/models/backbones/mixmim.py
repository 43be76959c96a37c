# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""MixMIM, the encoder of SAR-W-MixMAE, on mmpretrain's modules.

Liu et al., "MixMAE: Mixed and Masked Autoencoder for Efficient Pretraining of Hierarchical Vision
Transformers", CVPR 2023, arXiv 2205.13137 (Sense-X/MixMIM). Caglayan et al., "SAR-W-MixMAE", IGARSS
2025, arXiv 2503.01181 (acaglayan/SAR-W-MixMAE). Written anew from the published maths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmengine.model.weight_init import trunc_normal_
from mmpretrain.models.backbones import MixMIMTransformer
from mmpretrain.models.utils import to_2tuple
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmrsfm.errors import ConfigError
from mmrsfm.layers.layer_depth import mixmim_layer_depth
from mmrsfm.layers.position import PositionTableResizer, sincos_position_table
from mmrsfm.layers.stages import (
    check_frozen_stages,
    check_heads,
    check_out_indices,
    numbers_by_stage,
    stage_settings,
)
from mmrsfm.layers.table_attention import TableWindowAttention
from mmrsfm.layers.token_windows import (
    Pair,
    divide,
    enlarge,
    from_windows,
    pairs_apart,
    to_windows,
)
from mmrsfm.layers.transformer import init_linear_as_mae
from mmrsfm.registry import MODELS

# Sides of windows that are chosen by the size of the image: of the two last stages, which cover
# the map where they can, and of those before. All published models (64 to 384 px) are so.
_WHOLE, _PART = 24, (8, 16)


@MODELS.register_module()
class MixMIM(MixMIMTransformer):
    """mmpretrain's ``MixMIMTransformer`` for images of any size, with maps for dense tasks.

    A hierarchy of stages at strides 4, 8, 16, 32, whose blocks attend within windows that do not
    overlap and are never shifted. The parameters and their names are mmpretrain's; what differs:

    * Images of any size: position table and tables of the biases are stretched (bicubic, as the
      published loader does to a checkpoint), and the results remembered. Where windows don't divide
      a map it is padded; tokens and padding don't see each other.
    * The position table has rows and columns as published (mmpretrain exchanges them).
    * A stage is cut into windows once, not in every block; what a mask keeps apart is found once
      for each stage, and not where windows are no larger than its cells.

    Args:
        arch: ``'base'``, ``'large'``, ``'huge'``, ``'tiny'`` (for CPUs and tests), or a dict with
            ``embed_dims``, ``depths``, ``num_heads``.
        img_size: Side of the image in pixels, or height and width, that the tables are made for.
        in_channels: Number of bands; 2 are VH and VV in this order.
        window_size: Side of the windows in tokens, one number or one for each stage; smaller maps
            have smaller windows. Default: by the size of the image at hand, 8, 8, 8, 4 at 128
            pixels as published (14, 14, 14, 7 at 224; 16, 16, 24, 12 at 384): the whole map in the
            two last stages up to 24, and at most 16 in the others.
        out_indices: Stages whose maps are returned, rising, from 0. Default: the mean of the tokens
            of the last stage, for classification. Stages after the last one are kept, so that
            weights fit, but neither computed nor trained.
        final_norm: Whether the last stage is followed by the LayerNorm ``norm``, as published.
        stage_norms: Whether the other maps are followed by LayerNorms (``norm0`` ...), which no
            pretraining has.
        drop_path_rate: Stochastic depth of the last block, growing linearly from 0.
        with_cp: Whether to recompute each block in the backward pass to save memory.
        frozen_stages: -1: everything is trained; n >= 0: the patch embedding and the stages up to
            and with number n, counted from 0, are not.
        init_cfg: MMEngine's initialisation config.

    Attributes:
        out_channels: Number of channels of each map (of the vector, without ``out_indices``).
        out_strides: Stride of each map, in pixels.
        encoder_stride: Stride of the last stage, and side of the cells of a mask, in pixels.

    Raises:
        ConfigError: If the arguments contradict each other.
    """

    arch_zoo: ClassVar[dict[str, dict[str, Any]]] = {
        **MixMIMTransformer.arch_zoo,
        'tiny': dict(embed_dims=32, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]),
    }
    patch_size: ClassVar[int] = 4
    # For mmrsfm.checkpoints: where the image comes in, and what files hold without any use here.
    stem_weight = 'patch_embed.projection.weight'
    unused_weights = ('norm.*', 'norm[0-9].*')
    # Blocks that are not in the model: its weights would mean something else.
    decisive_weights = ('layers.*.weight', 'layers.*.bias', 'layers.*.relative_position_bias_table')
    optional_weights: ClassVar[dict[str, str]] = {
        'norm[0-9].*': 'only models for dense tasks have them'
    }

    def __init__(
        self,
        arch: str | dict[str, Any] = 'base',
        img_size: int | Sequence[int] = 128,
        in_channels: int = 2,
        window_size: int | Sequence[int] | None = None,
        out_indices: Sequence[int] | None = None,
        final_norm: bool = True,
        stage_norms: bool = True,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        frozen_stages: int = -1,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        settings = self._resolve_arch(arch)
        count = len(settings['depths'])
        limits = _by_stage(window_size, count)
        indices = (count - 1,) if out_indices is None else tuple(out_indices)
        check_out_indices(indices, count)
        check_frozen_stages(frozen_stages, count)
        super().__init__(
            arch=settings,
            img_size=img_size,
            patch_size=self.patch_size,
            in_channels=in_channels,
            window_size=[1] * count,  # the attention is replaced below
            drop_path_rate=drop_path_rate,
            init_cfg=init_cfg,
        )
        self.img_size: Pair = to_2tuple(img_size)
        self.in_channels = in_channels
        self.window_size = limits
        self.pooled = out_indices is None
        self.out_indices = indices
        self.with_cp = with_cp
        self.frozen_stages = frozen_stages
        self.encoder_stride = self.patch_size * 2 ** (count - 1)
        windows = self.windows(self.patch_resolution)
        for stage, window in zip(self.layers, windows, strict=True):
            for block in stage.blocks:
                block.attn = TableWindowAttention(block.attn, window)
        widths = [self.embed_dims * 2**index for index in range(count)]
        self.out_channels = [widths[index] for index in indices]
        self.out_strides = [self.patch_size * 2**index for index in indices]
        if not final_norm:
            self.norm = nn.Identity()
        for index in indices:
            if stage_norms and index < count - 1:
                self.add_module(f'norm{index}', nn.LayerNorm(widths[index]))
        self.absolute_pos_embed.data.copy_(
            sincos_position_table(self.patch_resolution, self.embed_dims, 0)
        )
        self._resizer = PositionTableResizer()
        # What never runs gets no gradient: DistributedDataParallel need not look for it.
        for stage in self.layers[indices[-1] + 1 :]:
            stage.requires_grad_(False)
        if indices[-1] < count - 1:
            self.layers[indices[-1]].downsample.requires_grad_(False)
            self.norm.requires_grad_(False)
        self._freeze_stages()

    def _resolve_arch(self, arch: str | dict[str, Any]) -> dict[str, Any]:
        settings = stage_settings(arch, self.arch_zoo, ('depths', 'num_heads'), ('embed_dims',))
        if settings['embed_dims'] % 4:
            raise ConfigError(
                f'arch: embed_dims={settings["embed_dims"]} is no multiple of 4, as sine-cosine '
                'positions need it'
            )
        check_heads(settings['embed_dims'], settings['num_heads'])
        return settings

    def windows(self, grid: Pair) -> list[Pair]:
        """Height and width of the windows of each stage.

        Args:
            grid: Rows and columns of patches of the image.
        """
        sides = []
        for size in grid:
            sizes = [-(-size // 2**stage) for stage in range(self.num_layers)]
            if self.window_size is not None:
                sides.append([min(*pair) for pair in zip(sizes, self.window_size, strict=True)])
                continue
            part = max(_PART[0], min(_PART[1], sizes[-2] if len(sizes) > 1 else sizes[-1]))
            limits = [part] * (self.num_layers - 2) + [_WHOLE] * 2
            sides.append(
                [divide(n, limit) for n, limit in zip(sizes, limits[-len(sizes) :], strict=True)]
            )
        return list(zip(*sides, strict=True))

    def init_weights(self) -> None:
        """Initialises as the published code does, then applies ``init_cfg``, whatever its type.

        Linear layers Xavier-uniform with zero bias, norms 1 and 0, tables of the biases N(0, 0.02)
        cut at 2, the patch embedding as PyTorch does.
        """
        if not self.is_init:
            init_linear_as_mae(self)
            self.patch_embed.projection.reset_parameters()
            for module in self.modules():
                if isinstance(module, TableWindowAttention):
                    trunc_normal_(module.relative_position_bias_table, std=0.02)
        super().init_weights()

    def _freeze_stages(self) -> None:
        if self.frozen_stages < 0:
            return
        for module in (self.patch_embed, *self.layers[: self.frozen_stages + 1]):
            module.eval()
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> MixMIM:
        """Switches the mode; frozen stages stay in evaluation mode; tables are forgotten."""
        super().train(mode)
        self._freeze_stages()
        self._forget()
        return self

    def _apply(self, fn: Callable, recurse: bool = True) -> MixMIM:
        self._forget()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._forget()
        super()._load_from_state_dict(*args)

    def _forget(self) -> None:
        self._resizer.clear()
        for module in self.modules():
            if isinstance(module, TableWindowAttention):
                module.resizer.clear()

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, for layer-wise learning rates.

        Args:
            param_name: Name of the parameter.
            prefix: What stands before the names of this backbone.

        Returns:
            The depth, from 0, and the number of depths; see
            :func:`mmrsfm.layers.layer_depth.mixmim_layer_depth`.
        """
        total = sum(self.depths) + 2
        if not param_name.startswith(prefix):
            return total - 1, total
        return mixmim_layer_depth(param_name[len(prefix) :], self.depths), total

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Encodes images, or mixtures of them.

        Args:
            x: Shape (B, C, H, W), any H and W.
            mask: Cells of 32 x 32 pixels (``encoder_stride``) of image i that are taken from image
                B - 1 - i instead (0: own, else: other), shape (ceil(H / 32), ceil(W / 32)), with
                or without a first axis of length 1 or B. Tokens of the two don't see each other.

        Returns:
            For each of ``out_indices`` a map (B, D, ceil(H / s), ceil(W / s)) of stride s. Without
            ``out_indices`` the mean of the tokens of the last stage, (B, D); of a mixture, whose
            mean would mean nothing, the map of the last stage.

        Raises:
            ConfigError: If the number of bands or the shape of the mask is wrong.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ConfigError(
                f'the backbone takes images of {self.in_channels} bands, got shape '
                f'{tuple(x.shape)}: set in_channels, and the bands that the pipeline loads, to '
                'the same number'
            )
        x, grid = self.patch_embed(x)
        x = x.view(-1, *grid, self.embed_dims)
        if mask is not None:
            mask = self._check_mask(mask, x)
            cells = enlarge(mask, 2 ** (self.num_layers - 1), grid).unsqueeze(-1)
            x = torch.where(cells, x.flip(0), x)
        table = self._resizer(self.absolute_pos_embed, self.patch_resolution, grid, 0)
        x = x + table.view(1, *grid, self.embed_dims)
        maps = []
        for index, (stage, window) in enumerate(zip(self.layers, self.windows(grid), strict=True)):
            x = self._run_stage(x, stage, window, mask, 2 ** (self.num_layers - 1 - index))
            if index in self.out_indices:
                maps.append(self._normalised(x, index))
            if index == self.out_indices[-1]:
                break
            x = _merge(stage.downsample, x)
        if self.pooled and mask is None:
            return (maps[-1].mean((1, 2)),)
        return tuple(one.permute(0, 3, 1, 2).contiguous() for one in maps)

    def _check_mask(self, mask: Tensor, x: Tensor) -> Tensor:
        cell = 2 ** (self.num_layers - 1)
        shape = (-(-x.shape[1] // cell), -(-x.shape[2] // cell))
        if mask.ndim == 2:
            mask = mask[None]
        if mask.ndim != 3 or mask.shape[1:] != shape or mask.shape[0] not in (1, x.shape[0]):
            side = self.encoder_stride
            raise ConfigError(
                f'the mask has the shape {tuple(mask.shape)}: {len(x)} images of this size need '
                f'one value for each {side} x {side} pixels, {shape}, for all of them or for each'
            )
        return mask != 0

    def _normalised(self, x: Tensor, index: int) -> Tensor:
        norm = self.norm if index == self.num_layers - 1 else getattr(self, f'norm{index}', None)
        return x if norm is None else norm(x)

    def _run_stage(
        self, x: Tensor, stage: Any, window: Pair, mask: Tensor | None, cell: int
    ) -> Tensor:
        grid = (x.shape[1], x.shape[2])
        apart = pairs_apart(mask, cell, grid, window, x.device)
        if apart is not None:
            apart = apart.unsqueeze(1)
        x = to_windows(x, window).flatten(1, 2)
        saving = self.with_cp and self.training and torch.is_grad_enabled()
        for block in stage.blocks:
            bias = block.attn.bias(window)  # here, so that it is not recomputed
            if apart is not None:
                bias = bias.masked_fill(apart, float('-inf'))
            if saving and any(parameter.requires_grad for parameter in block.parameters()):
                x = checkpoint(_run_block, block, x, bias, use_reentrant=False)
            else:
                x = _run_block(block, x, bias)
        return from_windows(x, window, grid)


def _run_block(block: Any, x: Tensor, bias: Tensor) -> Tensor:
    x = x + block.drop_path(block.attn(block.ln1(x), bias))
    return block.ffn(block.ln2(x), identity=x)  # type: ignore[no-any-return]


def _merge(merging: Any, x: Tensor) -> Tensor:
    """The maths of mmcv's ``PatchMerging``, (B, H, W, C) to (B, H / 2, W / 2, 2C)."""
    x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
    batch, height, width, channels = x.shape

    def turned(weight: Tensor) -> Tensor:
        # Its columns are (channel, row, column), those of nn.Unfold; tokens are stored with the
        # channels last. Turning the weights costs less than turning the map.
        return weight.unflatten(-1, (channels, 4)).transpose(-1, -2).flatten(-2)

    x = x.view(batch, height // 2, 2, width // 2, 2, channels).transpose(2, 3)
    x = x.reshape(batch, height // 2, width // 2, -1)
    norm = merging.norm
    x = F.layer_norm(x, x.shape[-1:], turned(norm.weight), turned(norm.bias), norm.eps)
    return F.linear(x, turned(merging.reduction.weight))


def _by_stage(given: int | Sequence[int] | None, count: int) -> list[int] | None:
    if given is None:
        return None
    values = numbers_by_stage('window_size', given, count)
    if min(values) < 1:
        raise ConfigError(
            f'window_size={given!r}: {count} stages need one number, or {count}, from 1 on'
        )
    return values
