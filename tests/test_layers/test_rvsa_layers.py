# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The pieces of RVSA against plain formulas, with their gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrsfm.layers import bilinear
from mmrsfm.layers.decomposed_attention import (
    BlockedAttention,
    GridAttention,
    augmented_attention,
)
from mmrsfm.layers.doubling import Doubling, _Doubling
from mmrsfm.layers.relative_position import relative_rows, resize_relative_table
from mmrsfm.layers.rvsa_attention import RVSAttention, window_geometry


def plain_attention(qkv, rows_h, rows_w, scale):
    """The published formula: the whole matrix of scores."""
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    grid = query.unflatten(2, (rows_h.shape[0], rows_w.shape[0]))
    scores = query @ key.transpose(-1, -2)
    bias_h = torch.einsum('bnijc,ikc->bnijk', grid, rows_h)
    bias_w = torch.einsum('bnijc,jkc->bnijk', grid, rows_w)
    bias = (bias_h[..., :, None] + bias_w[..., None, :]).flatten(4).flatten(2, 3)
    out = ((scores + bias) * scale).softmax(-1) @ value
    return out.transpose(1, 2).flatten(2)


def attention_inputs(grid=(3, 5), batch=2, heads=3, dims=4):
    torch.manual_seed(0)
    qkv = torch.randn(batch, grid[0] * grid[1], 3, heads, dims, dtype=torch.float64)
    tables = [torch.randn(2 * n - 1, dims, dtype=torch.float64) for n in grid]
    rows = [relative_rows(table, n) for table, n in zip(tables, grid, strict=True)]
    return [tensor.requires_grad_() for tensor in (qkv, *rows)]


@pytest.mark.parametrize('block', [1, 40, 15 * 15, 2 * 15 * 15, 1 << 20])
def test_blocked_attention_is_the_formula(block):
    inputs = attention_inputs()
    ours = BlockedAttention.apply(*inputs, 0.5, block)
    reference = plain_attention(*inputs, 0.5)
    torch.testing.assert_close(ours, reference)
    gradient = torch.randn_like(reference)
    for a, b in zip(
        torch.autograd.grad(ours, inputs, gradient),
        torch.autograd.grad(reference, inputs, gradient),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_augmented_attention_is_the_formula():
    inputs = attention_inputs()
    ours, reference = augmented_attention(*inputs, 0.5), plain_attention(*inputs, 0.5)
    torch.testing.assert_close(ours, reference)
    gradient = torch.randn_like(reference)
    for a, b in zip(
        torch.autograd.grad(ours, inputs, gradient),
        torch.autograd.grad(reference, inputs, gradient),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_dropout_of_the_weights_is_that_of_training_alone():
    torch.manual_seed(0)
    layer, x = GridAttention(12, 3, (3, 5), attn_drop=0.9).double(), torch.randn(1, 6, 12).double()
    reference = GridAttention(12, 3, (3, 5)).double()
    reference.load_state_dict(layer.state_dict())
    assert torch.allclose(layer.eval()(x, (2, 3)), reference(x, (2, 3)))
    assert not torch.allclose(layer.train()(x, (2, 3)), reference(x, (2, 3)))


def test_attention_without_tables_is_pytorchs():
    torch.manual_seed(0)
    layer, other = GridAttention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    other.load_state_dict(
        dict(
            in_proj_weight=layer.qkv.weight, in_proj_bias=layer.qkv.bias,
            **{f'out_proj.{name}': value for name, value in layer.proj.state_dict().items()},
        )
    )  # fmt: skip
    x = torch.randn(2, 6, 12)
    torch.testing.assert_close(layer(x, (2, 3)), other(x, x, x)[0])


def test_relative_rows_and_their_resize():
    table = torch.randn(7, 2)
    rows = relative_rows(table, 4)
    for query in range(4):
        for key in range(4):
            assert torch.equal(rows[query, key], table[query - key + 3])
    assert resize_relative_table(table, 7) is table
    wider = resize_relative_table(torch.linspace(-3, 3, 7)[:, None], 13)[:, 0]
    # Distance 0 stays in the middle, and the two sides stay mirror images.
    torch.testing.assert_close(wider, -wider.flip(0))
    assert resize_relative_table(table.half(), 5).dtype == torch.float16


@pytest.mark.parametrize('far', [False, True])
def test_sampling_of_tokens_is_grid_sample(far):
    torch.manual_seed(0)
    values = torch.randn(2, 3, 5, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    positions = torch.rand(2, 2, 6, 2, dtype=torch.float64) * 8 - 2
    if far:
        positions = positions * 1e9
    positions.requires_grad_()
    ours = bilinear._gather(values, positions, (1, 2))
    other = bilinear._grid_sample(values, positions, (1, 2))
    image = values[1, :, :, 2, 1].permute(2, 0, 1)[None]
    grid = 2 * positions[1, 1] / torch.tensor([4, 2]) - 1
    plain = F.grid_sample(image, grid[None, None], align_corners=True)[0, :, 0].t()
    torch.testing.assert_close(ours[1, 1, 1], plain)
    torch.testing.assert_close(ours, other)
    for a, b in zip(
        torch.autograd.grad(ours.square().sum(), (values, positions)),
        torch.autograd.grad(other.square().sum(), (values, positions)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_that_of_the_values_not_of_the_positions(dtype):
    torch.manual_seed(0)
    values = torch.randn(1, 64, 64, 1, 1, 4).to(dtype)
    positions = torch.rand(1, 1, 50, 2) * 63
    exact = bilinear._gather(values.double(), positions.double(), (0,))
    for sample in (bilinear._gather, bilinear._grid_sample):
        sampled = sample(values, positions, (0,))
        assert sampled.dtype == dtype
        torch.testing.assert_close(sampled.double(), exact, rtol=0.02, atol=0.02)


def test_positions_that_are_not_numbers_do_not_leave_the_grid():
    values = torch.randn(1, 3, 3, 1, 1, 2)
    positions = torch.tensor([[[[math.nan, 0.0], [math.inf, 1.0], [1.0, -math.inf]]]])
    assert bilinear._gather(values, positions, (0,)).shape == (1, 1, 1, 3, 2)


def rvsa_formula(layer, x, grid):
    """Section by section as the published code computes it, token by token."""
    (height, width), heads, dims = grid, layer.num_heads, layer.head_dims
    batch, size = len(x), 7
    pad_h, pad_w = -height % size, -width % size
    pads = (pad_w // 2, pad_w - pad_w // 2, pad_h // 2, pad_h - pad_h // 2)
    full_h, full_w = height + pad_h, width + pad_w
    count_h, count_w = full_h // size, full_w // size
    image = F.pad(x.transpose(1, 2).reshape(batch, -1, height, width), pads)
    offsets = layer.sampling_offsets(image).reshape(batch * heads, 2, count_h, count_w)
    scales = layer.sampling_scales(image).reshape(batch * heads, 2, count_h, count_w)
    angles = layer.sampling_angles(image).reshape(batch * heads, count_h, count_w)
    qkv = layer.qkv(x).view(batch, height, width, 3, heads, dims).permute(3, 0, 4, 5, 1, 2)
    query, key, value = F.pad(qkv, pads).flatten(1, 2)
    grids = x.new_zeros(batch * heads, full_h, full_w, 2)
    for row in range(full_h):
        for column in range(full_w):
            i, j = row // size, column // size
            dx = 2 * (column % size - 3) / (full_w - 1) * (1 + scales[:, 0, i, j])
            dy = 2 * (row % size - 3) / (full_h - 1) * (1 + scales[:, 1, i, j])
            sine, cosine = angles[:, i, j].sin(), angles[:, i, j].cos()
            cx, cy = -1 + 2 * (size * j + 3) / (full_w - 1), -1 + 2 * (size * i + 3) / (full_h - 1)
            ox = offsets[:, 0, i, j] / max(height // size, 1)
            oy = offsets[:, 1, i, j] / max(width // size, 1)
            grids[:, row, column, 0] = dx * cosine - dy * sine + cx + ox
            grids[:, row, column, 1] = dx * sine + dy * cosine + cy + oy
    key = F.grid_sample(key, grids, align_corners=True)
    value = F.grid_sample(value, grids, align_corners=True)
    out = torch.zeros_like(query)
    cells = [(a, b) for a in range(size) for b in range(size)]
    table = layer.relative_position_bias_table
    for i in range(count_h):
        for j in range(count_w):
            window = (..., slice(size * i, size * (i + 1)), slice(size * j, size * (j + 1)))
            q, k, v = (part[window].flatten(2).transpose(1, 2) for part in (query, key, value))
            bias = x.new_zeros(batch * heads, 49, 49)
            for m, (a, b) in enumerate(cells):
                for n, (c, d) in enumerate(cells):
                    bias[:, m, n] = q[:, m] @ (
                        layer.rel_pos_h[a - c + 6] + layer.rel_pos_w[b - d + 6]
                    )
                    bias[:, m, n] += table[(a - c + 6) * 13 + b - d + 6].repeat(batch)
            weights = (q @ k.transpose(1, 2) * dims**-0.5 + bias).softmax(-1)
            out[window] = (weights @ v).transpose(1, 2).unflatten(2, (size, size))
    out = out[..., pads[2] : pads[2] + height, pads[0] : pads[0] + width]
    return layer.proj(out.reshape(batch, -1, height * width).transpose(1, 2))


@pytest.mark.parametrize('grid', [(3, 9), (7, 7), (1, 1)])
def test_rvsa_is_the_formula_with_its_gradients(grid):
    torch.manual_seed(0)
    layer = RVSAttention(8, 2).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.4)
    x = torch.randn(2, grid[0] * grid[1], 8, dtype=torch.float64, requires_grad=True)
    ours, reference = layer(x, grid), rvsa_formula(layer, x, grid)
    torch.testing.assert_close(ours, reference)
    leaves = [x, *layer.parameters()]
    gradient = torch.randn_like(reference)
    for a, b in zip(
        torch.autograd.grad(ours, leaves, gradient),
        torch.autograd.grad(reference, leaves, gradient),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_geometry_is_made_once_and_does_not_grow_without_end():
    window_geometry.cache_clear()
    layer, x = RVSAttention(8, 2), torch.randn(1, 6 * 9, 8)
    for _ in range(3):
        layer(x, (6, 9))
    assert window_geometry.cache_info().misses == 1
    assert window_geometry.cache_info().hits == 2
    assert window_geometry.cache_info().maxsize is not None


def test_doubling_is_the_transposed_convolution():
    torch.manual_seed(0)
    layer = Doubling(4).double()
    plain = nn.ConvTranspose2d(4, 4, 2, 2).double()
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    gradient = torch.randn(2, 4, 6, 10, dtype=torch.float64)
    ours, reference = layer(x), plain(x)
    assert ours.grad_fn.name().startswith('_Doubling')
    torch.testing.assert_close(ours, reference)
    for a, b in zip(
        torch.autograd.grad(ours, [x, *layer.parameters()], gradient),
        torch.autograd.grad(reference, [x, *plain.parameters()], gradient),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    frozen = layer.requires_grad_(False)
    torch.testing.assert_close(
        torch.autograd.grad(frozen(x), x, gradient)[0],
        torch.autograd.grad(plain(x), x, gradient)[0],
    )
    with torch.autocast('cpu', torch.bfloat16):
        assert Doubling(4)(x.float()).dtype == torch.bfloat16
    assert torch.autograd.gradcheck(_Doubling.apply, (x, layer.weight, layer.bias))
