# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Multi-modal tensors: taken apart, with what is missing."""

import math

import pytest
import torch

from mmrsfm.errors import ConfigError
from mmrsfm.layers.modalities import check_modalities, split_modalities

PAIR = dict(rgb=3, sar=1)


def test_nothing_missing_is_views_without_masks():
    inputs = torch.randn(2, 4, 8, 8)
    for valid in (None, torch.ones(2, 4, 8, 8, dtype=torch.bool)):
        parts = split_modalities(inputs, PAIR, valid)
        assert list(parts) == ['rgb', 'sar']
        assert torch.equal(parts['rgb'].image, inputs[:, :3])
        assert torch.equal(parts['sar'].image, inputs[:, 3:])
        for part in parts.values():
            assert part.valid is None
            assert part.present.all()
            assert part.cells((2, 2)) is None
    assert split_modalities(inputs, PAIR)['sar'].image.data_ptr() == inputs[:, 3:].data_ptr()


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_missing(value):
    inputs = torch.randn(3, 4, 8, 8)
    inputs[0, 3, :, :4] = value
    inputs[1, 3] = value
    inputs[2, 1, 0, 0] = value
    parts = split_modalities(inputs, PAIR)
    rgb, sar = parts['rgb'], parts['sar']
    assert rgb.image.isfinite().all()
    assert sar.image.isfinite().all()
    # A pixel needs all channels of its modality; the other channels keep their numbers.
    assert (~rgb.valid).nonzero().tolist() == [[2, 0, 0, 0]]
    assert rgb.image[2, 1, 0, 0] == 0
    assert rgb.image[2, 0, 0, 0] == inputs[2, 0, 0, 0]
    assert sar.present.tolist() == [True, False, True]
    assert rgb.present.all()
    assert sar.cells((2, 2)).tolist() == [[False, True, False, True], [False] * 4, [True] * 4]
    assert sar.cells((1, 1)).tolist() == [[True], [False], [True]]
    assert sar.cells((1, 1), 0.6).tolist() == [[False], [False], [True]]


def test_a_mask_says_the_same_as_nan():
    inputs = torch.randn(2, 4, 8, 8)
    valid = torch.rand(2, 4, 8, 8) < 0.7
    masked = split_modalities(inputs, PAIR, valid)
    holed = split_modalities(inputs.masked_fill(~valid, math.nan), PAIR)
    both = split_modalities(inputs.masked_fill(~valid, math.nan), PAIR, valid)
    for name in PAIR:
        for other in (holed, both):
            assert torch.equal(masked[name].image, other[name].image)
            assert torch.equal(masked[name].valid, other[name].valid)


def test_numbers_whose_sum_overflows_are_data():
    inputs = torch.full((1, 4, 4, 4), 3e38)
    assert split_modalities(inputs, PAIR)['rgb'].valid is None
    assert torch.equal(split_modalities(inputs, PAIR)['rgb'].image, inputs[:, :3])


def test_without_a_whole_modality():
    inputs = torch.randn(3, 4, 8, 8)
    inputs[1, 3, :4] = math.nan
    sar = split_modalities(inputs, PAIR)['sar'].without(torch.tensor([True, False, False]))
    assert sar.present.tolist() == [False, True, True]
    assert not sar.image[0].any()
    assert not sar.valid[0].any()
    assert sar.valid[1].sum() == 32
    assert sar.valid[2].all()
    rgb = split_modalities(torch.randn(2, 4, 8, 8), PAIR)['rgb'].without(
        torch.tensor([True, False])
    )
    assert rgb.valid.shape == (2, 1, 8, 8)
    assert rgb.valid.flatten(1).all(1).tolist() == [False, True]


def test_gradients_of_the_inputs_are_finite():
    inputs = torch.randn(1, 4, 4, 4)
    inputs[0, 3, 0] = math.nan
    inputs.requires_grad_()
    sum(part.image.sum() for part in split_modalities(inputs, PAIR).values()).backward()
    assert inputs.grad.isfinite().all()
    assert not inputs.grad[0, 3, 0].any()


def test_wrong_channels_name_the_modalities():
    with pytest.raises(ConfigError, match='rgb=3, sar=1'):
        split_modalities(torch.randn(1, 5, 4, 4), PAIR)
    with pytest.raises(ConfigError, match='valid has shape'):
        split_modalities(torch.randn(1, 4, 4, 4), PAIR, torch.ones(1, 1, 4, 4).bool())


@pytest.mark.parametrize('wrong', [{}, ['rgb'], dict(rgb=0), dict(rgb=True), dict(rgb=1.0), None])
def test_modalities_are_checked(wrong):
    with pytest.raises(ConfigError, match='modalit'):
        check_modalities(wrong)
    assert check_modalities(PAIR) == PAIR
