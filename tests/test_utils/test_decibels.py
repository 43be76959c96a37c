# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Decibels and power: the same for arrays and tensors, and what has no decibels."""

import numpy as np
import pytest
import torch

from mmrsfm.utils.decibels import db_to_linear, linear_to_db

DECIBELS = [-60.0, -20.0, -10.0, 0.0, 3.0102999566, 20.0]
POWERS = [1e-6, 1e-2, 1e-1, 1.0, 2.0, 100.0]


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@pytest.mark.parametrize('kind', [np.asarray, torch.from_numpy])
def test_both_ways(kind, dtype):
    decibels, powers = kind(np.array(DECIBELS, dtype)), kind(np.array(POWERS, dtype))
    for ours, expected in (
        (db_to_linear(decibels), powers),
        (linear_to_db(powers), decibels),
    ):
        assert type(ours) is type(expected)
        assert ours.dtype == expected.dtype
        np.testing.assert_allclose(np.asarray(ours), np.asarray(expected), rtol=2e-6)


@pytest.mark.parametrize('kind', [np.asarray, torch.from_numpy])
def test_what_has_no_decibels(kind):
    powers = kind(np.array([0.0, -0.1, np.nan, np.inf], np.float32))
    found = np.asarray(linear_to_db(powers))
    assert found[0] == pytest.approx(-60.0)
    assert np.isnan(found[1:3]).all()
    assert found[3] == np.inf
    assert np.asarray(linear_to_db(powers, zero=0.0))[0] == -np.inf
    back = np.asarray(db_to_linear(kind(np.array([-np.inf, np.nan], np.float32))))
    assert back[0] == 0.0
    assert np.isnan(back[1])
