# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Attention over a whole grid with decomposed relative positions, in linear memory.

The scores of N tokens are an N x N matrix for every head, 67 MB at 1024 pixels and patches of 16:
it is never held whole. Two ways, equal in their numbers:

* :class:`BlockedAttention` computes it block by block, in the forward and again in the backward
  pass (the idea of FlashAttention, arXiv 2205.14135, on the level of tensors). On a CPU it is as
  fast as the fused kernel without any bias.
* :func:`augmented_attention` appends the relative positions to the queries and one-hot rows and
  columns to the keys, so that a fused kernel needs no bias: for accelerators.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmrsfm.layers.relative_position import (
    decomposed_scores,
    relative_rows,
    resize_relative_table,
)

# Scores in one block: 8 MiB of float32 stay in the cache of a CPU; accelerators want large blocks.
BLOCK_CPU = 1 << 21
BLOCK_ACCELERATOR = 1 << 27
# Fused kernels of accelerators take no wider heads.
MAX_FUSED_WIDTH = 256


class BlockedAttention(torch.autograd.Function):
    """``softmax(scale * (q k^T + q . R_h + q . R_w)) v`` without the whole matrix of scores.

    Inputs: ``qkv`` (B, N, 3, heads, D) with N = H * W; ``rows_h`` (H, H, D) and ``rows_w``
    (W, W, D) of :func:`mmrsfm.layers.relative_position.relative_rows`; ``scale``; ``block``, the
    number of scores that are held at once. Output: (B, N, heads * D).
    """

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, rows_h: Tensor, rows_w: Tensor, scale: float, block: int
    ) -> Tensor:
        """See the class."""
        with torch.autocast(qkv.device.type, enabled=False):
            out = _forward(qkv, rows_h, rows_w, scale, block)
        ctx.save_for_backward(qkv, rows_h, rows_w, out)
        ctx.scale, ctx.block = scale, block
        return out.flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """See the class."""
        qkv, rows_h, rows_w, out = ctx.saved_tensors
        with torch.autocast(qkv.device.type, enabled=False):
            gradients = _backward(
                gradient.reshape(out.shape), qkv, rows_h, rows_w, out, ctx.scale, ctx.block
            )
        return (*gradients, None, None)


def _split(qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value as contiguous (B, heads, N, D)."""
    query, key, value = qkv.permute(2, 0, 3, 1, 4).contiguous().unbind(0)
    return query, key, value


def _blocks(batch: int, heads: int, length: int, block: int) -> Iterator[tuple[int, slice, slice]]:
    """Image, heads and queries of one block after the other."""
    group = max(1, min(heads, block // (length * length)))
    rows = length if block >= length * length else max(1, block // length)
    for image in range(batch):
        for head in range(0, heads, group):
            for row in range(0, length, rows):
                yield image, slice(head, head + group), slice(row, row + rows)


def _probabilities(
    query: Tensor, key: Tensor, score_h: Tensor, score_w: Tensor, scale: float
) -> Tensor:
    """Softmax of one block, (heads, queries, N); in place, so that it stays in the cache."""
    scores = (score_h[..., :, None] + score_w[..., None, :]).flatten(2)
    scores.baddbmm_(query, key.transpose(1, 2), beta=scale, alpha=scale)
    return torch.softmax(scores, -1, out=scores)


def _scores(query: Tensor, rows_h: Tensor, rows_w: Tensor) -> tuple[Tensor, Tensor]:
    grid = query.unflatten(2, (rows_h.shape[0], rows_w.shape[0]))
    score_h, score_w = decomposed_scores(grid, rows_h, rows_w)
    return score_h.flatten(2, 3), score_w.flatten(2, 3)


def _forward(qkv: Tensor, rows_h: Tensor, rows_w: Tensor, scale: float, block: int) -> Tensor:
    batch, length, _, heads, width = qkv.shape
    query, key, value = _split(qkv)
    score_h, score_w = _scores(query, rows_h, rows_w)
    out = qkv.new_empty(batch, length, heads, width)
    for b, h, n in _blocks(batch, heads, length, block):
        weights = _probabilities(
            query[b, h, n], key[b, h], score_h[b, h, n], score_w[b, h, n], scale
        )
        out[b, n, h] = torch.bmm(weights, value[b, h]).transpose(0, 1)
    return out


def _backward(
    gradient: Tensor,
    qkv: Tensor,
    rows_h: Tensor,
    rows_w: Tensor,
    out: Tensor,
    scale: float,
    block: int,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, _, heads, _ = qkv.shape
    query, key, value = _split(qkv)
    score_h, score_w = _scores(query, rows_h, rows_w)
    # sum_k P_qk dP_qk, which is what the softmax subtracts, is also out . gradient.
    delta = (gradient * out).sum(-1).transpose(1, 2)[..., None]
    gradient = gradient.transpose(1, 2).contiguous()
    grad_qkv = query.new_zeros(3, *query.shape)
    grad_q, grad_k, grad_v = grad_qkv.unbind(0)
    grad_h, grad_w = torch.empty_like(score_h), torch.empty_like(score_w)
    grid = (rows_h.shape[0], rows_w.shape[0])
    for b, h, n in _blocks(batch, heads, length, block):
        weights = _probabilities(
            query[b, h, n], key[b, h], score_h[b, h, n], score_w[b, h, n], scale
        )
        grad_v[b, h].baddbmm_(weights.transpose(1, 2), gradient[b, h, n])
        grad_s = torch.baddbmm(
            delta[b, h, n], gradient[b, h, n], value[b, h].transpose(1, 2), beta=-1
        )
        grad_s *= weights
        torch.bmm(grad_s, key[b, h], out=grad_q[b, h, n])
        grad_k[b, h].baddbmm_(grad_s.transpose(1, 2), query[b, h, n])
        cells = grad_s.unflatten(2, grid)
        torch.sum(cells, -1, out=grad_h[b, h, n])
        torch.sum(cells, -2, out=grad_w[b, h, n])
    shape = (batch, heads, *grid)
    cells_q = query.view(*shape, -1)
    cells_h, cells_w = grad_h.view(*shape, -1), grad_w.view(*shape, -1)
    grad_q += torch.einsum('bnijk,ikc->bnijc', cells_h, rows_h).flatten(2, 3)
    grad_q += torch.einsum('bnijk,jkc->bnijc', cells_w, rows_w).flatten(2, 3)
    grad_rows_h = torch.einsum('bnijk,bnijc->ikc', cells_h, cells_q)
    grad_rows_w = torch.einsum('bnijk,bnijc->jkc', cells_w, cells_q)
    grad_q *= scale
    grad_k *= scale
    return grad_qkv.permute(1, 3, 0, 2, 4), grad_rows_h * scale, grad_rows_w * scale


def augmented_attention(
    qkv: Tensor, rows_h: Tensor, rows_w: Tensor, scale: float, dropout: float = 0.0
) -> Tensor:
    """The same as :class:`BlockedAttention` by a fused kernel, with wider heads instead of a bias.

    With ``q' = [q, q . R_h, q . R_w]`` and ``k' = [k, one-hot row, one-hot column]``, the product
    ``q' . k'`` is the score with its relative positions.

    Args:
        qkv: Shape (B, N, 3, heads, D), N = H * W.
        rows_h: Shape (H, H, D).
        rows_w: Shape (W, W, D).
        scale: Factor of all scores.
        dropout: Rate of dropout of the attention weights.

    Returns:
        Shape (B, N, heads * D).
    """
    batch, _, _, heads, width = qkv.shape
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    rows, columns = rows_h.shape[0], rows_w.shape[0]
    score_h, score_w = _scores(query, rows_h, rows_w)
    hot_h = torch.eye(rows, dtype=key.dtype, device=key.device).repeat_interleave(columns, 0)
    hot_w = torch.eye(columns, dtype=key.dtype, device=key.device).repeat(rows, 1)
    # Kernels that do not hold the matrix of scores take multiples of 8 channels.
    spare = -(width + rows + columns) % 8
    out = F.scaled_dot_product_attention(
        F.pad(torch.cat([query, score_h.to(query.dtype), score_w.to(query.dtype)], -1), (0, spare)),
        torch.cat(
            [key, F.pad(torch.cat([hot_h, hot_w], -1), (0, spare)).expand(batch, heads, -1, -1)], -1
        ),
        F.pad(value, (0, rows + columns + spare)),
        dropout_p=dropout,
        scale=scale,
    )
    return out[..., :width].transpose(1, 2).flatten(2)


def _plain_attention(qkv: Tensor, rows_h: Tensor, rows_w: Tensor, scale: float) -> Tensor:
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    score_h, score_w = _scores(query, rows_h, rows_w)
    bias = (score_h[..., :, None] + score_w[..., None, :]).flatten(3)
    weights = ((torch.matmul(query, key.transpose(2, 3)) + bias) * scale).softmax(-1)
    return torch.matmul(weights, value).transpose(1, 2).flatten(2)


def attention_on_grid(
    qkv: Tensor, rows_h: Tensor, rows_w: Tensor, scale: float, dropout: float = 0.0
) -> Tensor:
    """Attention with decomposed relative positions, the best way for the device at hand.

    Args:
        qkv: Shape (B, N, 3, heads, D), N = H * W.
        rows_h: Shape (H, H, D).
        rows_w: Shape (W, W, D).
        scale: Factor of all scores.
        dropout: Rate of dropout of the attention weights.

    Returns:
        Shape (B, N, heads * D).
    """
    if torch.compiler.is_exporting():  # a graph has no loop over images
        return _plain_attention(qkv, rows_h, rows_w, scale)
    on_cpu = qkv.device.type == 'cpu'
    width = qkv.shape[-1] + rows_h.shape[0] + rows_w.shape[0]
    if dropout or (not on_cpu and width <= MAX_FUSED_WIDTH):
        return augmented_attention(qkv, rows_h, rows_w, scale, dropout)
    rows_h, rows_w = rows_h.to(qkv.dtype), rows_w.to(qkv.dtype)
    block = BLOCK_CPU if on_cpu else BLOCK_ACCELERATOR
    return BlockedAttention.apply(qkv, rows_h, rows_w, scale, block)


class GridAttention(nn.Module):
    """Multi-head attention over all tokens of a grid, with decomposed relative positions or none.

    The full-attention blocks of RVSA. Parameter names are those of the released weights.

    Args:
        embed_dims: Number of channels.
        num_heads: Number of heads, a divisor of ``embed_dims``.
        table_rows: Rows of the tables ``full_attn_rel_pos_h`` and ``full_attn_rel_pos_w``; ``None``
            for attention without relative positions.
        qkv_bias: Whether query, key and value have a bias.
        attn_drop: Dropout of the attention weights.
        proj_drop: Dropout of the output.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        table_rows: tuple[int, int] | None = None,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dims = embed_dims // num_heads
        self.attn_drop = attn_drop
        self.with_rel_pos = table_rows is not None
        if table_rows is not None:
            self.full_attn_rel_pos_h = nn.Parameter(torch.zeros(table_rows[0], self.head_dims))
            self.full_attn_rel_pos_w = nn.Parameter(torch.zeros(table_rows[1], self.head_dims))
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=qkv_bias)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(
        self, x: Tensor, grid: tuple[int, int], trained_grid: tuple[int, int] | None = None
    ) -> Tensor:
        """Attends over the grid.

        Args:
            x: Tokens (B, H * W, C), row by row.
            grid: H and W.
            trained_grid: The grid that the tables are made for; default: ``grid``. At another one
                they are stretched (see
                :func:`mmrsfm.layers.relative_position.resize_relative_table`).

        Returns:
            Shape (B, H * W, C).
        """
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, self.head_dims))
        scale = self.head_dims**-0.5
        dropout = self.attn_drop if self.training else 0.0
        if not self.with_rel_pos:
            query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))
            out = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
            out = out.transpose(1, 2).flatten(2)
        else:
            trained_grid = trained_grid or grid
            tables = (self.full_attn_rel_pos_h, self.full_attn_rel_pos_w)
            rows_h, rows_w = (
                # The rows that the trained grid uses are the first ones, should there be more.
                relative_rows(resize_relative_table(t[: 2 * old - 1], 2 * new - 1), new)
                for t, old, new in zip(tables, trained_grid, grid, strict=True)
            )
            out = attention_on_grid(qkv, rows_h, rows_w, scale, dropout)
        return self.proj_drop(self.proj(out))
