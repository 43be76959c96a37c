# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What a vision transformer with RVSA is made of, beside its attention.

Parameter names are those of the released weights of MTP (arXiv 2403.13430).
"""

from __future__ import annotations

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

NORM_EPS = 1e-6


class PatchEmbedding(nn.Module):
    """One convolution whose stride is its kernel.

    Args:
        in_channels: Number of bands.
        embed_dims: Number of channels.
        patch_size: Side of a patch in pixels.
    """

    def __init__(self, in_channels: int, embed_dims: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dims, patch_size, patch_size)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Maps images (B, C, H, W) to tokens (B, N, D) and their grid (rows, columns)."""
        x = self.proj(x)
        # Contiguous: the order in memory of the first tokens is that of all residuals after them.
        return x.flatten(2).transpose(1, 2).contiguous(), (x.shape[2], x.shape[3])


class MLP(nn.Module):
    """Linear, GELU, linear; dropout at the end only.

    Args:
        embed_dims: Number of channels outside.
        hidden_dims: Number of channels inside.
        drop: Dropout.
    """

    def __init__(self, embed_dims: int, hidden_dims: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, hidden_dims)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dims, embed_dims)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., D) to the same shape."""
        return self.drop(self.fc2(self.act(self.fc1(x))))


class RVSABlock(nn.Module):
    """One pre-norm layer: ``x += g1 attn(norm1(x)); x += g2 mlp(norm2(x))``.

    Args:
        embed_dims: Number of channels.
        attn: An ``RVSAttention`` or a ``GridAttention``.
        mlp_ratio: Hidden channels of the MLP per channel.
        drop_rate: Dropout of the MLP.
        drop_path_rate: Stochastic depth.
        init_values: Initial layer scale (``gamma_1``, ``gamma_2``); ``None``: none.
    """

    def __init__(
        self,
        embed_dims: int,
        attn: nn.Module,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        init_values: float | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dims, eps=NORM_EPS)
        self.attn = attn
        self.norm2 = nn.LayerNorm(embed_dims, eps=NORM_EPS)
        self.mlp = MLP(embed_dims, int(embed_dims * mlp_ratio), drop_rate)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()
        self.gamma_1: nn.Parameter | None = None
        self.gamma_2: nn.Parameter | None = None
        if init_values is not None:
            self.gamma_1 = nn.Parameter(torch.full((embed_dims,), float(init_values)))
            self.gamma_2 = nn.Parameter(torch.full((embed_dims,), float(init_values)))

    def forward(self, x: Tensor, *grids: tuple[int, int]) -> Tensor:
        """Maps tokens (B, N, D) to the same shape; ``grids`` are handed on to the attention."""
        branch = self.attn(self.norm1(x), *grids)
        x = x + self.drop_path(branch if self.gamma_1 is None else self.gamma_1 * branch)
        branch = self.mlp(self.norm2(x))
        return x + self.drop_path(branch if self.gamma_2 is None else self.gamma_2 * branch)
