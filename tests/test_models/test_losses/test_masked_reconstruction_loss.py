# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Reconstruction losses: no-data pixels take no part, and nothing else changes."""

import pytest
import torch

from mmrsfm.errors import ConfigError
from mmrsfm.layers.patches import patchify
from mmrsfm.models.losses import MaskedReconstructionLoss
from mmrsfm.models.losses.masked_reconstruction_loss import (
    POINTWISE,
    STRUCTURAL,
    patch_statistics,
)
from mmrsfm.models.losses.ssim import structural_similarity

KINDS = [*POINTWISE, *STRUCTURAL]


@pytest.fixture
def batch():
    images = torch.randn(2, 5, 16, 32)
    pred = torch.randn(2, 8, 8 * 8 * 5, requires_grad=True)
    mask = torch.ones(2, 8)
    mask[:, 5:] = 0
    return pred, images, mask


@pytest.mark.parametrize('norm_pix', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_all_valid_is_the_plain_formula(batch, kind, norm_pix):
    pred, images, mask = batch
    loss = MaskedReconstructionLoss(kind, norm_pix, patch_size=8)
    plain = loss(pred, images, mask)
    weighted = loss(pred, images, mask, torch.ones_like(images, dtype=torch.bool))
    torch.testing.assert_close(plain, weighted)
    for a, b in zip(
        torch.autograd.grad(plain, pred), torch.autograd.grad(weighted, pred), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('norm_pix', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_invalid_pixels_take_no_part(batch, kind, norm_pix):
    pred, images, mask = batch
    valid = torch.rand_like(images) < 0.7
    loss = MaskedReconstructionLoss(kind, norm_pix, patch_size=8)
    value = loss(pred, images, mask, valid)
    for fill in (1e6, float('nan'), float('-inf')):
        other = loss(pred, images.masked_fill(~valid, fill), mask, valid)
        torch.testing.assert_close(value, other)
    (gradient,) = torch.autograd.grad(value, pred)
    assert gradient.isfinite().all()
    if kind in POINTWISE:
        assert gradient[~patchify(valid, (8, 8))].abs().max() == 0
        assert gradient[mask == 0].abs().max() == 0


@pytest.mark.parametrize('norm_pix', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_nothing_valid_is_zero_and_finite(batch, kind, norm_pix):
    pred, images, mask = batch
    valid = torch.zeros_like(images, dtype=torch.bool)
    nans = torch.full_like(images, float('nan'))
    value = MaskedReconstructionLoss(kind, norm_pix, patch_size=8)(pred, nans, mask, valid)
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    (gradient,) = torch.autograd.grad(value, pred)
    assert gradient.abs().max() == pytest.approx(0.0, abs=1e-6)


def test_half_valid_weighs_pixels():
    images = torch.zeros(1, 1, 8, 16)
    pred = torch.cat([torch.ones(1, 1, 64), 3 * torch.ones(1, 1, 64)], dim=1)
    valid = torch.ones_like(images, dtype=torch.bool)
    valid[..., 4:, 8:] = False
    loss = MaskedReconstructionLoss('mse', patch_size=8)(pred, images, torch.ones(1, 2), valid)
    assert loss.item() == pytest.approx((64 * 1 + 32 * 9) / 96)


def test_normalised_target_of_a_partly_valid_patch():
    images = torch.randn(1, 1, 8, 8)
    valid = torch.zeros_like(images, dtype=torch.bool)
    valid[..., :4, :] = True
    part = images[0, 0, :4].flatten()
    expected = (part - part.mean()) / (part.var() + 1e-6).sqrt()
    pred = torch.zeros(1, 1, 64)
    loss = MaskedReconstructionLoss('mse', True, 8)(pred, images, torch.ones(1, 1), valid)
    torch.testing.assert_close(loss, expected.square().mean())


def test_sums_are_multiples_of_means(batch):
    pred, images, mask = batch
    value = {k: MaskedReconstructionLoss(k, patch_size=8)(pred, images, mask) for k in POINTWISE}
    torch.testing.assert_close(value['l2'], value['mse'] * 320)
    torch.testing.assert_close(value['l1'], value['mae'] * 320)


def test_ssim_of_equal_images_is_one():
    images = torch.rand(2, 2, 16, 16)
    loss = MaskedReconstructionLoss('ssim', patch_size=8)
    assert loss(patchify(images, (8, 8)), images).item() == pytest.approx(0.0, abs=1e-6)


def test_errors_name_the_cause():
    with pytest.raises(ConfigError, match='huber'):
        MaskedReconstructionLoss('huber')
    with pytest.raises(ConfigError, match='at least 11 pixels'):
        MaskedReconstructionLoss('ssim', patch_size=8)(torch.rand(1, 1, 64), torch.rand(1, 1, 8, 8))


def test_ssim_has_all_its_digits_in_mixed_precision():
    generator = torch.Generator().manual_seed(0)
    # Flat, with a little noise: the variances are far below what bfloat16 keeps of the squares.
    x, y = 0.8 + 0.01 * torch.rand(2, 2, 3, 24, 24, generator=generator)
    plain = structural_similarity(x, y)
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(structural_similarity(x, y), plain, rtol=0, atol=0)
    assert structural_similarity(x.double(), y.double()).dtype == torch.float64
    mixed = structural_similarity(x, y.bfloat16())
    assert mixed.dtype == torch.float32


@pytest.mark.parametrize('kind', ['mse', 'bce', 'ssim'])
@pytest.mark.parametrize('norm_pix', [False, True])
def test_predictions_as_images(kind, norm_pix):
    """A prediction without an error becomes the image, whatever the loss leaves open."""
    images = torch.rand(2, 3, 8, 16) * 100 + 20
    loss = MaskedReconstructionLoss(kind, norm_pix=norm_pix, patch_size=4)
    patches = patchify(images, (4, 4))
    if kind == 'bce':
        scaled = (images - images.min()) / (images.max() - images.min())
        pred = patchify(torch.logit(scaled.clamp(1e-6, 1 - 1e-6)), (4, 4))
    elif kind == 'ssim':
        pred = patches * 0.01 - 7
    elif norm_pix:
        mean, deviation = patch_statistics(patches)
        pred = (patches - mean) / deviation
    else:
        pred = patches
    found = loss.to_images(pred, images, (2, 4))
    assert torch.allclose(found, images, atol=0.05)
