# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Meta-modality attention: tokens attend within their modality, then across all of them.

Of MaRS (AAAI 40(14):11685-11693, 2026). Written anew from a description of the published code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule, ModuleList
from mmpretrain.models.utils import build_norm_layer
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.registry import MODELS

BLOCKS = ('published', 'pre_norm')


class MultiHeadSelfAttention(nn.Module):
    """Self-attention with the parameters of ``torch.nn.MultiheadAttention``, by the fused kernels.

    Args:
        channels: C, a multiple of ``num_heads``.
        num_heads: Number of heads.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, x: Tensor, lengths: Sequence[int], valid: Sequence[Tensor | None] | None = None
    ) -> Tensor:
        """Attends within each of several groups of tokens that stand behind each other.

        Args:
            x: Shape (B, S, C).
            lengths: Tokens of each group; they add up to S.
            valid: For each group (B, length) bool, the tokens that may be attended to; ``None``:
                all.

        Returns:
            Shape (B, S, C).
        """
        batch, _, channels = x.shape
        packed = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        # (3, B, heads, S, channels of a head)
        packed = packed.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        masks = [None] * len(lengths) if valid is None else valid
        attended = []
        for group, mask in zip(packed.split(list(lengths), dim=3), masks, strict=True):
            query, key, value = group.unbind(0)
            attended.append(
                F.scaled_dot_product_attention(query, key, value, attn_mask=_attention_mask(mask))
            )
        joined = attended[0] if len(attended) == 1 else torch.cat(attended, dim=2)
        return self.out_proj(joined.transpose(1, 2).reshape(batch, -1, channels))


class MetaModalityBlock(nn.Module):
    """One sub-block; ``norm``, ``attn`` and ``mlp`` are 0, 1 and 3 of the published names.

    Args:
        channels: C.
        num_heads: Attention heads.
        mlp_ratio: Hidden channels of the MLP, by C.
        block: See :class:`MetaModalityAttention`.
        norm_cfg: Normalisation.
        drop_path: Probability with which a sample leaves the block out.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        mlp_ratio: float,
        block: str,
        norm_cfg: dict[str, Any],
        drop_path: float,
    ) -> None:
        super().__init__()
        self.norm = build_norm_layer(norm_cfg, channels)
        self.attn = MultiHeadSelfAttention(channels, num_heads)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.mlp = Mlp(channels, int(mlp_ratio * channels))
        self.mlp_norm = build_norm_layer(norm_cfg, channels) if block == 'pre_norm' else None

    def forward(
        self, x: Tensor, lengths: Sequence[int], valid: Sequence[Tensor | None] | None
    ) -> Tensor:
        """See :meth:`MultiHeadSelfAttention.forward`."""
        attended = self.attn(self.norm(x), lengths, valid)
        if self.mlp_norm is None:
            return x + self.drop_path(self.mlp(attended))
        x = x + self.drop_path(attended)
        return x + self.drop_path(self.mlp(self.mlp_norm(x)))


@MODELS.register_module()
class MetaModalityAttention(BaseModule):
    """Lets the tokens of several modalities attend to each other (MMA).

    ``depth`` times a modality sub-block (the same weights for each modality, each on its own) and
    a global one (all tokens together). No embedding of position or modality is added, and nothing
    is normalised at the end. Any number of modalities, from one on: with one, both sub-blocks see
    the same tokens.

    A token that is not valid (its modality is missing there) is attended to by no other; it attends
    to the valid ones itself, and so gets what the other modalities know of its sample. Where a
    group has no valid token at all, they attend to each other: finite, and without meaning.

    Raw pretraining checkpoints name the parts ``{modality,global}_blocks.<layer>.{0,1,3}``; here
    0 is ``norm``, 1 ``attn`` (the names of ``torch.nn.MultiheadAttention``) and 3 ``mlp``.

    Args:
        channels: Channels C of the tokens.
        num_heads: Attention heads; published: 8.
        depth: Number of pairs of sub-blocks.
        mlp_ratio: Hidden channels of the MLP, by C.
        block: ``'published'``: ``T + MLP(attention(norm(T)))``, with one normalisation and one
            residual connection; ``'pre_norm'``: the usual pre-norm transformer block, with an
            ``mlp_norm`` more.
        norm_cfg: Normalisation.
        drop_path_rate: Probability with which a sample leaves a sub-block out.
        init_cfg: MMEngine's initialisation config.

    Raises:
        ConfigError: For an unknown block, or channels that are not a multiple of the heads.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int = 8,
        depth: int = 2,
        mlp_ratio: float = 4.0,
        block: str = 'published',
        norm_cfg: dict[str, Any] | None = None,
        drop_path_rate: float = 0.0,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if block not in BLOCKS:
            raise ConfigError(f'block of MetaModalityAttention is one of {BLOCKS}, got {block!r}')
        if num_heads < 1 or channels % num_heads:
            raise ConfigError(
                f'MetaModalityAttention: {channels} channels are not a multiple of {num_heads} '
                'heads'
            )
        if depth < 1:
            raise ConfigError(f'MetaModalityAttention: depth must be at least 1, got {depth}')
        self.channels = channels
        norm = norm_cfg or dict(type='LN', eps=1e-5)

        def blocks() -> ModuleList:
            return ModuleList(
                MetaModalityBlock(channels, num_heads, mlp_ratio, block, norm, drop_path_rate)
                for _ in range(depth)
            )

        self.modality_blocks = blocks()
        self.global_blocks = blocks()

    def forward(
        self, tokens: Sequence[Tensor], valid: Sequence[Tensor | None] | None = None
    ) -> tuple[Tensor, ...]:
        """Mixes the modalities.

        Args:
            tokens: One tensor for each modality: tokens (B, S, C), or a map (B, C, H, W); S, or H
                and W, may differ between modalities.
            valid: For each modality (B, S) bool (or of the form of a map, (B, [1,] H, W)), False
                for tokens to which none may attend; ``None``: all are valid.

        Returns:
            The modalities, each in the form in which it came.

        Raises:
            ConfigError: If the forms do not fit together.
        """
        sequences = [x.flatten(2).transpose(1, 2) if x.ndim == 4 else x for x in tokens]
        self._check(tokens, sequences)
        lengths = [x.shape[1] for x in sequences]
        masks = _masks(valid, sequences)
        *_, (_, mixed) = self.layers(torch.cat(sequences, dim=1), lengths, masks)
        return tuple(
            part.transpose(1, 2).reshape(x.shape) if x.ndim == 4 else part
            for x, part in zip(tokens, mixed.split(lengths, dim=1), strict=True)
        )

    def layers(
        self, tokens: Tensor, lengths: Sequence[int], valid: Sequence[Tensor | None] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Runs layer by layer.

        Args:
            tokens: All modalities behind each other, shape (B, S, C).
            lengths: Number of tokens of each.
            valid: As in :meth:`forward`.

        Yields:
            All tokens after the modality sub-block, and after the global one, of each layer.
        """
        together = None if valid is None else [_joined(valid, lengths, tokens)]
        for own, shared in zip(self.modality_blocks, self.global_blocks, strict=True):
            within = own(tokens, lengths, valid)
            tokens = shared(within, [tokens.shape[1]], together)
            yield within, tokens

    def _check(self, given: Sequence[Tensor], sequences: Sequence[Tensor]) -> None:
        fits = bool(sequences) and all(
            x.ndim == 3 and x.shape[2] == self.channels and len(x) == len(sequences[0])
            for x in sequences
        )
        if not fits:
            raise ConfigError(
                f'MetaModalityAttention takes tokens (B, S, {self.channels}) or maps (B, '
                f'{self.channels}, H, W) of each modality, got {[tuple(x.shape) for x in given]}'
            )


def _masks(
    valid: Sequence[Tensor | None] | None, sequences: Sequence[Tensor]
) -> list[Tensor | None] | None:
    """The masks as (B, S); ``None`` where everything is valid."""
    if valid is None or all(mask is None for mask in valid):
        return None
    masks = [None if mask is None else mask.flatten(1) for mask in valid]
    for x, mask in zip(sequences, masks, strict=False):
        if len(masks) != len(sequences) or (mask is not None and mask.shape != x.shape[:2]):
            raise ConfigError(
                f'valid of shapes {[None if m is None else tuple(m.shape) for m in masks]} does '
                f'not fit tokens of shapes {[tuple(x.shape) for x in sequences]}: one (B, S) mask, '
                'or None, for each modality is needed'
            )
    return masks


def _joined(valid: Sequence[Tensor | None], lengths: Sequence[int], tokens: Tensor) -> Tensor:
    return torch.cat(
        [
            mask
            if mask is not None
            else torch.ones(len(tokens), length, dtype=torch.bool, device=tokens.device)
            for mask, length in zip(valid, lengths, strict=True)
        ],
        dim=1,
    )


def _attention_mask(valid: Tensor | None) -> Tensor | None:
    """(B, 1, 1, S): which tokens may be attended to; all of them where none is valid."""
    if valid is None:
        return None
    return (valid | ~valid.any(dim=1, keepdim=True))[:, None, None]
