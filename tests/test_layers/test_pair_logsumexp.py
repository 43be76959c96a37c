# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The sums of a matrix that is never whole, against the whole matrix."""

import math

import pytest
import torch

from mmrsfm.errors import ConfigError
from mmrsfm.layers.pair_logsumexp import pair_logsumexp


def dense(a, b, a_valid=None, b_valid=None):
    logits = a @ b.T
    if a_valid is not None:
        logits = logits.masked_fill(~a_valid[:, None], -math.inf)
    if b_valid is not None:
        logits = logits.masked_fill(~b_valid, -math.inf)
    return logits.logsumexp(1), logits.logsumexp(0)


@pytest.mark.parametrize('max_elements', [1, 3, 11, 13, 40, 77, 1000])
@pytest.mark.parametrize('columns', [True, False])
def test_value_and_gradient_of_the_whole(max_elements, columns):
    a = (4 * torch.randn(7, 5, dtype=torch.float64)).requires_grad_()
    b = torch.randn(11, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(7, dtype=torch.float64), torch.randn(11, dtype=torch.float64)

    def total(sums):
        used = sums if columns else sums[:1]
        return sum((w * s).sum() for w, s in zip(weights, used, strict=False))

    ours = pair_logsumexp(a, b, max_elements=max_elements, columns=columns)
    expected = dense(a, b)
    assert (ours[1] is None) != columns
    torch.testing.assert_close(ours[0], expected[0], rtol=0, atol=1e-12)
    for x, y in zip(
        torch.autograd.grad(total(ours), (a, b)),
        torch.autograd.grad(total(expected), (a, b)),
        strict=True,
    ):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-12)


@pytest.mark.parametrize('max_elements', [1, 5, 1000])
def test_invalid_rows_and_columns_take_no_part(max_elements):
    a = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    b = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    a_valid = torch.tensor([1, 0, 1, 1, 0, 1]).bool()
    b_valid = torch.tensor([0, 1, 1, 0, 1]).bool()
    rows, columns = pair_logsumexp(a, b, a_valid, b_valid, max_elements)
    whole = dense(a[a_valid], b[b_valid])
    torch.testing.assert_close(rows[a_valid], whole[0])
    torch.testing.assert_close(columns[b_valid], whole[1])
    assert not rows[~a_valid].any()
    assert not columns[~b_valid].any()
    grads = torch.autograd.grad(rows.sum() + columns.square().sum(), (a, b))
    expected = torch.autograd.grad(whole[0].sum() + whole[1].square().sum(), (a, b))
    for ours, reference in zip(grads, expected, strict=True):
        torch.testing.assert_close(ours, reference)


def test_nothing_valid_is_zero_with_gradients_of_zero():
    a, b = torch.randn(3, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    none = torch.zeros(3, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)
    rows, columns = pair_logsumexp(a, b, *none)
    (rows.sum() + columns.sum()).backward()
    assert not rows.any()
    assert not columns.any()
    assert not a.grad.any()
    assert not b.grad.any()


def test_large_logits_do_not_overflow():
    a = torch.tensor([[2e4], [-2e4]], requires_grad=True)
    rows, columns = pair_logsumexp(a, torch.tensor([[1.0], [-1.0]]), max_elements=1)
    (rows.sum() + columns.sum()).backward()
    assert rows.tolist() == [2e4, 2e4]
    assert a.grad.isfinite().all()


def test_no_matrix_is_larger_than_asked_for():
    """Every tensor that the forward and the backward pass make is looked at."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                Largest.seen = max(Largest.seen, out.numel())
            return out

    a, b = torch.randn(300, 2, requires_grad=True), torch.randn(300, 2, requires_grad=True)
    with Largest():
        rows, columns = pair_logsumexp(a, b, max_elements=1000)
        (rows.sum() + columns.sum()).backward()
    assert 600 <= Largest.seen <= 1000


def test_max_elements_is_checked():
    with pytest.raises(ConfigError, match='max_elements'):
        pair_logsumexp(torch.ones(1, 1), torch.ones(1, 1), max_elements=0)
