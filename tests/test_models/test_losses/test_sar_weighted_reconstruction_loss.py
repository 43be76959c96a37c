# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Weights by backscatter, and the loss: definitions, what is missing, failure paths."""

import math

import pytest
import torch

from mmrsfm.errors import ConfigError
from mmrsfm.layers.patches import patchify
from mmrsfm.models.losses import MaskedReconstructionLoss, SARWeightedReconstructionLoss
from mmrsfm.models.losses.backscatter_weights import WEIGHT_MODES, backscatter_weights

MEAN = torch.tensor([-19.0, -12.0])[:, None, None]
STD = torch.tensor([5.0, 4.0])[:, None, None]


def decibels(batch=2, size=64):
    torch.manual_seed(0)
    return torch.randn(batch, 2, size, size) * STD + MEAN


def test_definition():
    db = torch.tensor([[[[-10.0, 0.0]], [[-20.0, -20.0]]]])
    vh = [math.e, math.exp(1e-6 / 0.900001)]
    first = backscatter_weights(db)
    assert first[0, 0, 0].tolist() == pytest.approx(vh)
    assert first[0, 1, 0].tolist() == pytest.approx([math.e, math.e])  # of one value
    shared = backscatter_weights(db, 'shared_avg')
    assert torch.equal(shared[:, 0], shared[:, 1])
    assert shared[0, 0, 0].tolist() == pytest.approx([math.e, math.exp(1e-6 / 0.450001)])
    mean = backscatter_weights(db, 'mean_of_weights')
    assert torch.equal(mean[:, 0], mean[:, 1])
    assert mean[0, 0, 0].tolist() == pytest.approx([math.e, (math.e + vh[1]) / 2])
    assert torch.equal(backscatter_weights(db, 'none'), torch.ones_like(db))
    assert torch.equal(backscatter_weights(db, scale=0.0), torch.ones_like(db))
    assert backscatter_weights(db, scale=2.0)[0, 1, 0, 0] == pytest.approx(math.exp(2.0))


@pytest.mark.parametrize('mode', WEIGHT_MODES)
def test_missing_pixels_weigh_nothing_and_change_nothing(mode):
    db = decibels()
    holes = db.clone()
    holes[0, :, :8] = math.nan
    holes[0, :, 8] = math.inf
    weights = backscatter_weights(holes, mode)
    assert torch.isfinite(weights).all()
    assert (weights[0, :, :9] == 0).all()
    assert torch.allclose(weights[0, :, 9:], backscatter_weights(db[:, :, 9:], mode)[0])
    assert torch.equal(weights[1], backscatter_weights(db, mode)[1])
    # The same by a mask, whatever is below it.
    valid = torch.isfinite(holes)
    assert torch.equal(backscatter_weights(db, mode, valid=valid), weights)


@pytest.mark.parametrize('mode', WEIGHT_MODES)
def test_a_missing_polarisation_leaves_the_other(mode):
    db = decibels()
    db[1, 0] = math.nan
    weights = backscatter_weights(db, mode)
    assert (weights[1, 0] == 0).all()
    alone = backscatter_weights(db[1:, 1:], mode)
    assert torch.allclose(weights[1:, 1:], alone)
    assert (backscatter_weights(torch.full_like(db, math.nan), mode) == 0).all()


def test_no_power_at_all_is_the_heaviest():
    db = decibels()
    db[0, 0, 0, 0] = -math.inf
    weights = backscatter_weights(db)
    assert weights[0, 0, 0, 0] == pytest.approx(math.e)
    assert weights.isfinite().all()


def test_half_precision_does_not_overflow():
    db = decibels() + 80.0
    expected = backscatter_weights(db.bfloat16().float())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(backscatter_weights(db.bfloat16()), expected)


@pytest.mark.parametrize('norm_pix', [False, True])
def test_without_weights_it_is_the_mean_squared_error(norm_pix):
    images = (decibels() - MEAN) / STD
    pred = torch.randn(2, 4, 2048)
    ours = SARWeightedReconstructionLoss('none', norm_pix=norm_pix)(pred, images)
    plain = MaskedReconstructionLoss('mse', norm_pix=norm_pix, patch_size=32)(pred, images)
    assert ours == pytest.approx(plain.item(), rel=1e-5)


@pytest.mark.parametrize('norm_pix', [False, True])
@pytest.mark.parametrize('mode', WEIGHT_MODES)
def test_what_is_missing_is_neither_target_nor_gradient(mode, norm_pix):
    db = decibels()
    db[0, :, 5:20, 5:20] = math.nan
    db[1, 1] = math.nan
    images = (db - MEAN) / STD
    pred = torch.randn(2, 4, 2048, requires_grad=True)
    loss = SARWeightedReconstructionLoss(mode, norm_pix=norm_pix)
    value = loss(pred, images, db)
    value.backward()
    known = patchify(torch.isfinite(db), (32, 32))
    assert torch.isfinite(value)
    assert torch.isfinite(pred.grad).all()
    assert (pred.grad[~known] == 0).all()
    assert (pred.grad[known] != 0).all()
    # What the model gets: 0 there, and a mask.
    filled = loss(pred, images.nan_to_num(0.0), db.nan_to_num(-12.0), torch.isfinite(db))
    assert filled.item() == pytest.approx(value.item(), rel=1e-6)


def test_nothing_known_is_zero_with_gradients():
    pred = torch.randn(1, 4, 2048, requires_grad=True)
    nothing = torch.full((1, 2, 64, 64), math.nan)
    loss = SARWeightedReconstructionLoss()(pred, nothing, nothing)
    loss.backward()
    assert loss == 0
    assert (pred.grad == 0).all()


def test_domains_differ():
    db = decibels()
    images = (db - MEAN) / STD
    of_db = SARWeightedReconstructionLoss('per_channel', 'db')
    of_images = SARWeightedReconstructionLoss('per_channel', 'normalized')
    assert torch.equal(of_db.weights(images, db), backscatter_weights(db))
    assert torch.equal(of_images.weights(images), backscatter_weights(images))
    assert of_db.weights(images, db).median() > of_images.weights(images).median() + 0.3


def test_contradictions():
    with pytest.raises(ConfigError, match='per_channel'):
        SARWeightedReconstructionLoss('shared')
    with pytest.raises(ConfigError, match='weight_domain'):
        SARWeightedReconstructionLoss(weight_domain='linear')
    with pytest.raises(ConfigError, match='scale'):
        SARWeightedReconstructionLoss(weight_scale=-1.0)
    with pytest.raises(ConfigError, match='mean and std'):
        SARWeightedReconstructionLoss()(torch.zeros(1, 4, 2048), torch.zeros(1, 2, 64, 64))
