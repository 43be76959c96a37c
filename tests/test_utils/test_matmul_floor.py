# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Recording the matrix products of a step, and running them again."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrsfm.utils.matmul_floor import MatmulFloor, MatmulRecorder


def count(recorder):
    found = {}
    for (func, _, _), number in recorder.calls.items():
        name = str(func.overloadpacket).removeprefix('aten.')
        found[name] = found.get(name, 0) + number
    return found


def test_linear_layers_forward_and_backward():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    x = torch.randn(5, 8)
    with MatmulRecorder() as recorder:
        model(x).sum().backward()
    # Two forward; the gradients of two weights and of one input.
    assert count(recorder) == {'addmm': 2, 'mm': 3}
    forward = 2 * 5 * 8 * 16 + 2 * 5 * 16 * 4
    assert recorder.flops == forward + (2 * 5 * 8 * 16) + 2 * (2 * 5 * 16 * 4)


def test_nothing_else_is_recorded():
    with MatmulRecorder() as recorder:
        F.layer_norm(torch.randn(2, 8).exp() * 2, (8,)).sum()
    assert recorder.calls == {}
    assert MatmulFloor(recorder).run() == 0


def test_convolution_and_attention_are_run_again():
    conv = nn.Conv2d(3, 16, 4, 4)
    images = torch.randn(2, 3, 16, 16)
    with MatmulRecorder() as recorder:
        tokens = conv(images).flatten(2).transpose(1, 2)
        heads = tokens.reshape(2, 16, 2, 8).transpose(1, 2).contiguous()
        F.scaled_dot_product_attention(heads, heads, heads).sum().backward()
    found = count(recorder)
    assert found['convolution'] == found['convolution_backward'] == 1
    assert any('scaled_dot_product' in name or name == 'bmm' for name in found)
    before = conv.weight.detach().clone()
    floor = MatmulFloor(recorder)
    assert floor.run() > 0
    assert set(floor.by_operator()) == {f'aten.{name}' for name in found}
    assert torch.equal(conv.weight, before)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_operands_keep_shape_stride_and_type(dtype):
    left, right = torch.randn(6, 4, dtype=dtype).t(), torch.randn(1, 5, dtype=dtype).expand(6, 5)
    with MatmulRecorder() as recorder:
        torch.mm(left, right)
    seen = []
    floor = MatmulFloor(recorder)
    original = torch.ops.aten.mm.default

    class Spy(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is original:
                seen.extend(args)
            return func(*args, **(kwargs or {}))

    with Spy():
        floor.run()
    assert [(tensor.shape, tensor.stride(), tensor.dtype) for tensor in seen] == [
        (left.shape, left.stride(), dtype),
        (right.shape, right.stride(), dtype),
    ]
    assert seen[0].data_ptr() != left.data_ptr()


def test_a_product_counts_as_often_as_it_occurred():
    x = torch.randn(4, 4)
    with MatmulRecorder() as recorder:
        for _ in range(7):
            x @ x
    assert list(recorder.calls.values()) == [7]
    assert recorder.flops == 7 * 2 * 4**3


def test_inference_mode_and_in_place_products_count_too():
    """In inference mode a linear layer arrives as one operator."""
    layer, x = nn.Linear(8, 16), torch.randn(5, 8)
    with torch.inference_mode(), MatmulRecorder() as recorder:
        layer(x)
        torch.zeros(2, 3, 4).baddbmm_(torch.ones(2, 3, 5), torch.ones(2, 5, 4))
    assert count(recorder) == {'addmm': 1, 'baddbmm_': 1}
    assert recorder.flops == 2 * 5 * 8 * 16 + 2 * 2 * 3 * 5 * 4
    assert MatmulFloor(recorder).run() > 0
