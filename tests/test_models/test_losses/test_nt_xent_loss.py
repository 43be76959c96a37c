# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The contrastive loss, against the formula written out."""

import math

import pytest
import torch

from mmrsfm.errors import ConfigError
from mmrsfm.models.losses import NTXentLoss
from tests.ranks import run_ranks


def written_out(first, second, temperature=0.5, eps=1e-8):
    features = torch.cat([first, second]).double()
    features = features / features.norm(dim=1, keepdim=True)
    half, total = len(first), 0.0
    for a in range(2 * half):
        positive = (a + half) % (2 * half)
        others = [b for b in range(2 * half) if b not in (a, positive)]
        s = [torch.exp(features[a] @ features[b] / temperature) for b in range(2 * half)]
        total = total - torch.log(s[positive] / (sum(s[b] for b in others) + eps))
    return total / (2 * half)


@pytest.mark.parametrize('temperature', [0.5, 0.1, 2.0])
def test_is_the_formula(temperature):
    first = torch.randn(5, 7, requires_grad=True)
    second = torch.randn(5, 7)
    ours, expected = (
        NTXentLoss(temperature)(first, second),
        written_out(first, second, temperature),
    )
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(ours, first)
    (expected_gradient,) = torch.autograd.grad(expected, first)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


def test_one_image_has_no_negatives():
    first = torch.randn(1, 7, requires_grad=True)
    second = torch.randn(1, 7)
    loss = NTXentLoss()(first, second)
    cosine = torch.cosine_similarity(first, second)[0]
    assert loss.item() == pytest.approx(math.log(1e-8) - 2 * cosine.item(), abs=1e-4)
    loss.backward()
    assert first.grad.isfinite().all()
    assert first.grad.abs().sum() > 0


def test_small_temperature_does_not_overflow():
    first = torch.randn(4, 8, requires_grad=True)
    loss = NTXentLoss(temperature=0.001)(first, first.detach() + 0.01)
    loss.backward()
    assert loss.isfinite()
    assert first.grad.isfinite().all()


def test_features_of_zero_are_finite():
    first = torch.zeros(3, 4, requires_grad=True)
    loss = NTXentLoss()(first, torch.zeros(3, 4))
    loss.backward()
    assert loss.isfinite()
    assert first.grad.isfinite().all()


def test_float32_under_mixed_precision():
    first, second = torch.randn(4, 8), torch.randn(4, 8)
    with torch.autocast('cpu', torch.bfloat16):
        loss = NTXentLoss()(first, second)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, NTXentLoss()(first, second))


@pytest.mark.parametrize('arguments', [dict(temperature=0.0), dict(eps=0.0)])
def test_refuses_what_divides_by_zero(arguments):
    with pytest.raises(ConfigError, match='must be > 0'):
        NTXentLoss(**arguments)


def _rank(rank, views):
    own = views[:, rank * 3 : rank * 3 + 3].clone().requires_grad_()
    loss = NTXentLoss(gather=True)(*own)
    loss.backward()
    return loss.detach(), own.grad


def test_gathered_over_two_ranks_is_the_whole_batch(tmp_path):
    """Losses and gradients, averaged over ranks as DistributedDataParallel does."""
    views = torch.randn(2, 6, 5)
    (loss_a, grad_a), (loss_b, grad_b) = run_ranks(_rank, tmp_path, views)
    whole = views.clone().requires_grad_()
    expected = NTXentLoss()(*whole)
    expected.backward()
    torch.testing.assert_close((loss_a + loss_b) / 2, expected.detach())
    torch.testing.assert_close(torch.cat([grad_a, grad_b], dim=1) / 2, whole.grad)
