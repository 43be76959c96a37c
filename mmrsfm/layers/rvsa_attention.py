# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Rotated varied-size window attention (RVSA).

Wang et al., "Advancing Plain Vision Transformer Toward Remote Sensing Foundation Model", TGRS
2022, arXiv 2208.03987; used by MTP (arXiv 2403.13430). Each head of each window looks at keys and
values in a window of its own, shifted, scaled and rotated as the tokens of the window say.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrsfm.layers.bilinear import sample_tokens
from mmrsfm.layers.relative_position import distance_index


class WindowGeometry(NamedTuple):
    """What does not depend on the tokens; made once for a size of the grid.

    Attributes:
        padding: Columns to the left, to the right, rows at the top, at the bottom: as many tokens
            of zeros as make whole windows, half of them (rounded down) on the first side.
        windows: Windows in a column and in a row.
        pool_rows: (rows of windows, H): multiplied with the tokens, the mean over 7 rows of
            padded tokens.
        pool_columns: (columns of windows, W).
        centers: Shape (rows, columns of windows, 1, 2), x and y from -1 to 1 over the padded grid.
        deltas: Shape (ws * ws, 2), x and y of the tokens of a window from its center.
        divisor: What the predicted x and y offsets are divided by.
        to_tokens: Factor and shift, (2, 2), that lead from -1..1 to tokens of the unpadded grid.
    """

    padding: tuple[int, int, int, int]
    windows: tuple[int, int]
    pool_rows: Tensor
    pool_columns: Tensor
    centers: Tensor
    deltas: Tensor
    divisor: Tensor
    to_tokens: Tensor


@lru_cache(maxsize=64)
def window_geometry(
    height: int, width: int, size: int, device: torch.device, dtype: torch.dtype
) -> WindowGeometry:
    """Makes the geometry of windows of ``size`` x ``size`` tokens on a grid."""
    # Kept, so it must not be made of inference tensors, which training can't use, nor where the
    # caller builds a model without memory (torch.device('meta')).
    with torch.inference_mode(False), torch.device('cpu'):
        tokens = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
        pools, centers, deltas, to_tokens, firsts = [], [], [], [], []
        for length in (height, width):
            total = -(-length // size) * size
            first = (total - length) // 2
            count = total // size
            window = (torch.arange(length) + first) // size
            pools.append((window == torch.arange(count)[:, None]).double() / size)
            middle = torch.arange(count, dtype=torch.float64) * size + (size - 1) / 2
            unit = 2 / (total - 1) if total > 1 else 0.0
            centers.append(middle * unit - 1)
            deltas.append(tokens * unit)
            to_tokens.append([(total - 1) / 2, (total - 1) / 2 - first])
            firsts.append((first, total - length - first))
        rows, columns = len(centers[0]), len(centers[1])
        values = (
            pools[0],
            pools[1],
            torch.stack(torch.meshgrid(centers[1], centers[0], indexing='xy'), -1)[:, :, None],
            torch.stack(torch.meshgrid(deltas[1], deltas[0], indexing='xy'), -1).flatten(0, 1),
            # Crossed: the published weights divide x by the windows that fit into the HEIGHT, and
            # y by those that fit into the width. Less than one window fits: no division by zero.
            torch.tensor([max(height // size, 1), max(width // size, 1)]),
            torch.tensor(to_tokens[::-1], dtype=torch.float64).t(),
        )
        return WindowGeometry(
            (*firsts[1], *firsts[0]),
            (rows, columns),
            *(value.to(device, dtype) for value in values),
        )


def window_positions(
    offsets: Tensor, scales: Tensor, angles: Tensor, geometry: WindowGeometry
) -> Tensor:
    """Where each window of each head looks: scaled, then rotated, then shifted.

    The rotation is in units of the padded grid (-1 to 1), a shear where that is not square.

    Args:
        offsets: Shape (B, rows, columns of windows, heads, 2), x and y.
        scales: The same shape; 0 leaves the size as it is.
        angles: Shape (B, rows, columns, heads), in radians.
        geometry: Of the grid.

    Returns:
        Shape (B, heads, rows * columns * ws * ws, 2), x and y in tokens of the unpadded grid.
    """
    # (B, heads, rows, columns, 1, 2)
    offsets, scales = (part.permute(0, 3, 1, 2, 4)[..., None, :] for part in (offsets, scales))
    angles = angles.permute(0, 3, 1, 2)[..., None]
    x, y = (geometry.deltas * (1 + scales)).unbind(-1)
    sine, cosine = angles.sin(), angles.cos()
    rotated = torch.stack([x * cosine - y * sine, x * sine + y * cosine], -1)
    positions = rotated + (geometry.centers + offsets / geometry.divisor)
    factor, shift = geometry.to_tokens
    return (positions * factor + shift).flatten(2, 4)


class RVSAttention(nn.Module):
    """Rotated varied-size window attention; parameter names are those of the released weights.

    Args:
        embed_dims: Number of channels.
        num_heads: Number of heads, a divisor of ``embed_dims``.
        window_size: Side of a window in tokens.
        qkv_bias: Whether query, key and value have a bias.
        proj_drop: Dropout of the output. (The attention weights have none.)
    """

    relative_position_index: Tensor

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window_size: int = 7,
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dims = embed_dims // num_heads
        self.window_size = window_size
        distances = 2 * window_size - 1
        self.rel_pos_h = nn.Parameter(torch.zeros(distances, self.head_dims))
        self.rel_pos_w = nn.Parameter(torch.zeros(distances, self.head_dims))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(distances**2, num_heads))
        # In the released weights too, where it has these same numbers.
        self.register_buffer('relative_position_index', _table_index(window_size))
        # The pooling and the activation are the same for all three: forward computes them once.
        self.sampling_offsets = self._predictor(embed_dims, 2 * num_heads)
        self.sampling_scales = self._predictor(embed_dims, 2 * num_heads)
        self.sampling_angles = self._predictor(embed_dims, num_heads)
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=qkv_bias)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(proj_drop)

    def _predictor(self, embed_dims: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.AvgPool2d(self.window_size, self.window_size),
            nn.LeakyReLU(),
            nn.Conv2d(embed_dims, outputs, 1),
        )

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Attends within windows.

        Args:
            x: Normalised tokens (B, H * W, C), row by row.
            grid: H and W, any.

        Returns:
            Shape (B, H * W, C).
        """
        batch, _, channels = x.shape
        height, width = grid
        heads, size = self.num_heads, self.window_size
        # Positions need more than the 8 to 11 bits of half precision.
        precise = torch.promote_types(x.dtype, torch.float32)
        geometry = window_geometry(height, width, size, x.device, precise)
        left, right, top, bottom = geometry.padding
        rows, columns = geometry.windows
        positions = window_positions(*self.predict(x, grid, geometry), geometry)

        qkv = self.qkv(x).view(batch, height, width, 3, heads, self.head_dims)
        key, value = sample_tokens(qkv, positions, parts=(1, 2))
        query = F.pad(qkv[:, :, :, 0], (0, 0, 0, 0, left, right, top, bottom))
        query = query.view(batch, rows, size, columns, size, heads, -1).permute(0, 5, 1, 3, 2, 4, 6)
        windows = (batch, heads, rows * columns, size * size, self.head_dims)
        out = self.attend(query.reshape(windows), key.view(windows), value.view(windows))
        out = out.view(batch, heads, rows, columns, size, size, -1).permute(0, 2, 4, 3, 5, 1, 6)
        out = out.reshape(batch, rows * size, columns * size, channels)
        out = out[:, top : top + height, left : left + width].reshape(x.shape)
        return self.proj_drop(self.proj(out))

    def predict(
        self, x: Tensor, grid: tuple[int, int], geometry: WindowGeometry
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predicts how the windows are deformed.

        Args:
            x: Normalised tokens (B, H * W, C).
            grid: H and W.
            geometry: Of that grid.

        Returns:
            Offsets and scales (B, rows, columns of windows, heads, 2), x and y, and angles
            (B, rows, columns, heads), in the dtype of the geometry.
        """
        rows = geometry.windows[0]
        tokens = x.reshape(x.shape[0], grid[0], -1)
        pooled = torch.matmul(geometry.pool_rows.to(x.dtype), tokens)
        pooled = pooled.view(-1, rows, grid[1], x.shape[2])
        pooled = torch.matmul(geometry.pool_columns.to(x.dtype), pooled)
        predictors = (self.sampling_offsets, self.sampling_scales, self.sampling_angles)
        convolutions: list[Any] = [predictor[2] for predictor in predictors]
        predicted = F.linear(
            F.leaky_relu(pooled),
            torch.cat([conv.weight for conv in convolutions]).flatten(1),
            torch.cat([conv.bias for conv in convolutions]),
        ).to(geometry.deltas.dtype)
        offsets, scales, angles = predicted.split([conv.out_channels for conv in convolutions], -1)
        pairs = (self.num_heads, 2)
        return offsets.unflatten(-1, pairs), scales.unflatten(-1, pairs), angles

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of each window with both kinds of relative positions.

        The decomposed ones take the query as it is, only the product with the key is scaled.

        Args:
            query: Shape (B, heads, windows, ws * ws, D).
            key: The same.
            value: The same.

        Returns:
            The same shape.
        """
        size = self.window_size
        distances = distance_index(size, query.device)
        # For each query of a window, the vectors of the rows and of the columns of the keys.
        rows_h = F.embedding(distances, self.rel_pos_h)[:, None].expand(-1, size, -1, -1)
        rows_w = F.embedding(distances, self.rel_pos_w)[None].expand(size, -1, -1, -1)
        vectors = torch.cat([rows_h, rows_w], 2).flatten(0, 1).to(query.dtype)
        table = F.embedding(self.relative_position_index, self.relative_position_bias_table)
        table = table.permute(2, 0, 1)[:, None].unflatten(3, (size, size)).to(query.dtype)

        shape = query.shape
        query, key, value = (part.flatten(0, 2) for part in (query, key, value))
        # One product for each place of a query, over all windows: (places, windows, rows + columns)
        scores = torch.bmm(query.transpose(0, 1), vectors.transpose(1, 2)).transpose(0, 1)
        score_h, score_w = scores.unflatten(0, shape[:3]).split(size, -1)
        bias = (score_h[..., None] + table) + score_w[..., None, :]
        bias = bias.view(-1, *table.shape[2:3], size * size)
        weights = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=self.head_dims**-0.5)
        return torch.bmm(weights.softmax(-1), value).view(shape)


def _table_index(size: int) -> Tensor:
    """Row of the bias table for each query and key of a window, (size**2, size**2)."""
    places = torch.arange(size * size)
    rows, columns = places // size, places % size
    rows = rows[:, None] - rows[None, :] + size - 1
    columns = columns[:, None] - columns[None, :] + size - 1
    return rows * (2 * size - 1) + columns
