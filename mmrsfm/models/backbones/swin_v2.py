# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Swin Transformer V2 as MaRS has it, on mmpretrain's modules.

Liu et al., "Swin Transformer V2: Scaling Up Capacity and Resolution", CVPR 2022, arXiv 2111.09883.
MaRS: "MaRS: multi-modality remote sensing pretraining", AAAI 2026 (WanderRainy/MaRS), whose
encoders are timm's SwinV2. Written anew from the published maths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmengine.model.weight_init import trunc_normal_
from mmpretrain.models.backbones import SwinTransformerV2
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmrsfm.errors import ConfigError
from mmrsfm.layers.layer_depth import swin_layer_depth
from mmrsfm.layers.stages import (
    check_frozen_stages,
    check_heads,
    check_out_indices,
    numbers_by_stage,
    stage_settings,
)
from mmrsfm.layers.window_attention import ShiftedWindowAttention
from mmrsfm.registry import MODELS

MASK_MODES = ('simmim', 'reference_int')
# Side of the windows, and of those that the position networks were trained with (0: the same).
_WINDOWS: dict[str, tuple[int, tuple[int, ...]]] = {
    **dict.fromkeys(('t', 'tiny', 's', 'small', 'b', 'base'), (8, (0, 0, 0, 0))),
    **dict.fromkeys(('l', 'large'), (16, (12, 12, 12, 6))),
}


@MODELS.register_module()
class SwinV2(SwinTransformerV2):
    """mmpretrain's ``SwinTransformerV2`` with the numbers of timm's, for images of any size.

    The parameters and their names are mmpretrain's; the columns of ``downsample.reduction`` are in
    its order. What differs, and is as in timm and the published code:

    * The map is rolled before it is padded; windows shrink to maps that are smaller than they are,
      along each axis. The result is that of timm's model built for the size of the image.
    * Stochastic depth acts behind the norm of a branch, so that a dropped branch adds nothing
      (mmpretrain's norm turns it into its own bias, and undoes the rescaling).
    * No tables among the weights: position biases follow from the network that makes them.

    Args:
        arch: ``'tiny'``, ``'small'``, ``'base'``, ``'large'`` (in MaRS: base, large), or a dict
            with ``embed_dims``, ``depths``, ``num_heads``.
        img_size: Side of the image in pixels, or height and width, that is trained with. It changes
            nothing: images of any size are taken.
        in_channels: Number of bands.
        window_size: Side of the windows in tokens, one number or one for each stage. Default: as
            MaRS and ImageNet's weights for 256 pixels have it, 16 for large and 8 for all others.
        pretrained_window_sizes: Side of the windows that the position networks were trained with,
            one number or one for each stage; 0: that of the windows at hand. Default: 12, 12, 12, 6
            for large (whose ImageNet weights come from 192 pixels), 0 for all others.
        out_indices: Stages to return, rising, from 0. Stages after the last one are kept, so that
            weights fit, but neither computed nor trained.
        final_norm: Whether the last stage is followed by the LayerNorm ``norm3``, as in the
            pretraining of MaRS and in classifiers. The other maps, and all maps of the released
            encoders, are not normalised.
        drop_path_rate: Stochastic depth of the last block, growing linearly from 0.
        mask_token: Whether there is a token for masked patches.
        with_cp: Whether to recompute each block in the backward pass to save memory; or the numbers
            of the stages that do, from 0. The first two hold 39 % of what base keeps of an image,
            in 4 of its 24 blocks.
        frozen_stages: -1: everything is trained; n >= 0: the patch embedding and the stages up to
            and with number n, counted from 0, are not.
        init_cfg: MMEngine's initialisation config.

    Attributes:
        out_channels: Number of channels of each map.
        out_strides: Stride of each map, in pixels.

    Raises:
        ConfigError: If the arguments contradict each other.
    """

    patch_size: ClassVar[int] = 4
    # For mmrsfm.checkpoints: where the image comes in, and what files hold without any use here.
    stem_weight = 'patch_embed.projection.weight'
    unused_weights = (
        'norm?.*',
        'mask_token',
        '*.relative_position_index',
        '*.relative_coords_table',
        '*.attn_mask',
    )
    # Blocks that are not in the model: its weights would mean something else.
    decisive_weights = ('stages.*.weight', 'stages.*.bias', 'stages.*.logit_scale')
    optional_weights: ClassVar[dict[str, str]] = {
        'mask_token': 'only pretraining by masked images has one'
    }

    def __init__(
        self,
        arch: str | dict[str, Any] = 'tiny',
        img_size: int | Sequence[int] = 256,
        in_channels: int = 3,
        window_size: int | Sequence[int] | None = None,
        pretrained_window_sizes: int | Sequence[int] | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        final_norm: bool = False,
        drop_path_rate: float = 0.1,
        mask_token: bool = False,
        with_cp: bool | Sequence[int] = False,
        frozen_stages: int = -1,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        settings = self._resolve_arch(arch)
        count = len(settings['depths'])
        window, pretrained = _WINDOWS.get(str(arch).lower(), (8, (0,) * count))
        if window_size is None:
            window_size = window
        if pretrained_window_sizes is None:
            pretrained_window_sizes = pretrained
        windows = numbers_by_stage('window_size', window_size, count)
        pretrained_windows = numbers_by_stage(
            'pretrained_window_sizes', pretrained_window_sizes, count
        )
        if min(windows) < 1 or min(pretrained_windows) < 0:
            raise ConfigError(f'windows of {windows} tokens, pretrained {pretrained_windows}?')
        indices = tuple(out_indices)
        check_out_indices(indices, count)
        check_frozen_stages(frozen_stages, count)
        if final_norm and indices[-1] != count - 1:
            raise ConfigError(
                f'final_norm=True is about stage {count - 1}, which is not among out_indices '
                f'{indices}'
            )
        everywhere = range(count) if with_cp is True else ()
        recomputed = everywhere if isinstance(with_cp, bool) else tuple(with_cp)
        if not set(recomputed) <= set(range(count)):
            raise ConfigError(f'with_cp={with_cp!r} is neither a bool nor stages 0 to {count - 1}')
        super().__init__(
            arch=settings,
            img_size=img_size,
            in_channels=in_channels,
            window_size=windows,
            drop_path_rate=drop_path_rate,
            out_indices=indices,
            frozen_stages=frozen_stages,
            norm_cfg=None,
            pretrained_window_sizes=pretrained_windows,
            init_cfg=init_cfg,
        )
        self.in_channels = in_channels
        self.final_norm = final_norm
        self.recomputed_stages = frozenset(recomputed)
        for stage, side in zip(self.stages, pretrained_windows, strict=True):
            for block in stage.blocks:
                block.attn = ShiftedWindowAttention(block.attn, side)
        widths = [stage.out_channels for stage in self.stages]
        self.out_channels = [widths[index] for index in indices]
        self.out_strides = [self.patch_size * 2**index for index in indices]
        if final_norm:
            self.add_module(f'norm{count - 1}', nn.LayerNorm(widths[-1]))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims)) if mask_token else None
        # What never runs gets no gradient: DistributedDataParallel need not look for it.
        for stage in self.stages[indices[-1] + 1 :]:
            stage.requires_grad_(False)
        self._freeze_stages()

    def _resolve_arch(self, arch: str | dict[str, Any]) -> dict[str, Any]:
        settings = {
            'extra_norm_every_n_blocks': 0,
            **stage_settings(
                arch, self.arch_zoo, ('depths', 'num_heads'), ('embed_dims',),
                ('extra_norm_every_n_blocks',),
            ),
        }  # fmt: skip
        check_heads(settings['embed_dims'], settings['num_heads'])
        return settings

    def init_weights(self) -> None:
        """Initialises as the published code does, then applies ``init_cfg``, whatever its type.

        Linear layers N(0, 0.02) cut at 2 with zero bias; the norms of the branches 0, so that a
        block starts as the identity; other norms 1 and 0; the factors of the cosines 10; the
        mask token N(0, 0.02); the patch embedding as PyTorch does.
        """
        if not self.is_init:
            self._initialise()
        super().init_weights()

    @torch.no_grad()
    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        self.patch_embed.projection.reset_parameters()
        for stage in self.stages:
            for block in stage.blocks:
                nn.init.zeros_(block.norm1.weight)
                nn.init.zeros_(block.norm2.weight)
                block.attn.w_msa.logit_scale.fill_(10.0).log_()
                for bias in (block.attn.w_msa.q_bias, block.attn.w_msa.v_bias):
                    nn.init.zeros_(bias)
        if self.mask_token is not None:
            trunc_normal_(self.mask_token, std=0.02)

    def _delete_reinit_params(self, state_dict: dict, prefix: str, *_: Any) -> None:
        """Hook of mmpretrain: its own files hold tables that follow from the architecture."""
        tables = ('.relative_position_index', '.relative_coords_table')
        for name in [n for n in state_dict if n.startswith(prefix) and n.endswith(tables)]:
            del state_dict[name]

    def train(self, mode: bool = True) -> SwinV2:
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
            :func:`mmrsfm.layers.layer_depth.swin_layer_depth`.
        """
        total = sum(self.depths) + 2
        if not param_name.startswith(prefix):
            return total - 1, total
        return swin_layer_depth(param_name[len(prefix) :], self.depths), total

    def forward(
        self, x: Tensor, mask: Tensor | None = None, mask_mode: str = 'simmim'
    ) -> tuple[Tensor, ...]:
        """Encodes images.

        Args:
            x: Shape (B, C, H, W), any H and W.
            mask: Patches that are hidden, (B, ceil(H / 4), ceil(W / 4)), 1 or True: hidden.
            mask_mode: ``'simmim'``: a hidden patch becomes the mask token (Xie et al., SimMIM,
                arXiv 2111.09886). ``'reference_int'``: what the published code computes, as its
                mask holds integers and it takes the bitwise complement for the logical one:
                ``-e`` for a visible embedding e, ``-2 e + token`` for a hidden one, which hides
                nothing.

        Returns:
            For each of ``out_indices`` a map (B, D, ceil(H / s), ceil(W / s)) of stride s.

        Raises:
            ConfigError: If the number of bands or the shape of the mask is wrong, or there is no
                mask token.
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
            x = self._mask(x, mask, mask_mode)
        maps = []
        for index, stage in enumerate(self.stages):
            x = self._run_stage(x, stage, index in self.recomputed_stages)
            if index in self.out_indices:
                maps.append(getattr(self, f'norm{index}')(x).permute(0, 3, 1, 2).contiguous())
            if index == self.out_indices[-1]:
                break
        return tuple(maps)

    def _mask(self, x: Tensor, mask: Tensor, mask_mode: str) -> Tensor:
        if mask_mode not in MASK_MODES:
            raise ConfigError(f'mask_mode={mask_mode!r} is not one of {MASK_MODES}')
        if self.mask_token is None:
            raise ConfigError('the backbone has no mask token: build it with mask_token=True')
        if mask.shape != x.shape[:3]:
            raise ConfigError(
                f'the mask has the shape {tuple(mask.shape)}, the patches {tuple(x.shape[:3])}: '
                f'it needs one value for each {self.patch_size} x {self.patch_size} pixels'
            )
        hidden, token = mask.unsqueeze(-1).to(x.dtype), self.mask_token.to(x.dtype)
        if mask_mode == 'reference_int':
            return x * (-1 - hidden) + token * hidden
        return torch.lerp(x, token.expand_as(x), hidden)

    def _run_stage(self, x: Tensor, stage: Any, recompute: bool = False) -> Tensor:
        if stage.downsample is not None:
            x = _merge(stage.downsample, x)
        grid = (x.shape[1], x.shape[2])
        saving = recompute and self.training and torch.is_grad_enabled()
        for block in stage.blocks:
            table = block.attn.table(grid)  # here, so that it is not recomputed
            if saving and any(parameter.requires_grad for parameter in block.parameters()):
                x = checkpoint(_run_block, block, x, table, use_reentrant=False)
            else:
                x = _run_block(block, x, table)
        return x


def _run_block(block: Any, x: Tensor, table: Tensor | None) -> Tensor:
    attn, ffn = block.attn, block.ffn
    x = x + attn.drop(block.norm1(attn(x, table)))
    hidden = ffn.layers[0][0](x)
    if hidden.requires_grad and torch.is_grad_enabled():
        # A quarter of all that a block would keep for the backward pass, for one activation more.
        out = checkpoint(_finish, ffn, hidden, use_reentrant=False, preserve_rng_state=False)
    else:
        out = _finish(ffn, hidden)
    x = x + ffn.dropout_layer(block.norm2(out))
    return block.norm3(x) if block.extra_norm else x


def _finish(ffn: Any, hidden: Tensor) -> Tensor:
    return ffn.layers[1](ffn.layers[0][1](hidden))


def _merge(merging: Any, x: Tensor) -> Tensor:
    """Patches of 2 x 2 tokens to one of twice the channels; odd maps get zeros at their ends."""
    bottom, right = x.shape[1] % 2, x.shape[2] % 2
    if bottom or right:
        x = F.pad(x, (0, 0, 0, right, 0, bottom))
    batch, height, width, channels = x.shape
    # Columns of the weight are (channel, row, column), as of nn.Unfold; tokens are stored with the
    # channels last. Turning the weight costs less than turning the map.
    weight = merging.reduction.weight.view(-1, channels, 2, 2).permute(0, 2, 3, 1).flatten(1)
    x = x.view(batch, height // 2, 2, width // 2, 2, channels).transpose(2, 3)
    return merging.norm(F.linear(x.reshape(batch, height // 2, width // 2, -1), weight))
