# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Batch normalisation of batches that have no statistics; see also test_batch_norm_hook.py."""

import copy
import pickle

import pytest
import torch
from torch import nn

from mmrsfm.layers.batch_norm import guard_batch_norm, has_one_value, running_statistics


def trained():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.normal_()
    return norm.train()


def test_guarded_once_and_the_state_dict_stays():
    model = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm1d(3), nn.GroupNorm(1, 3)
    )
    keys = list(model.state_dict())
    assert guard_batch_norm(model) == guard_batch_norm(model) == 2
    assert len(model[1]._forward_pre_hooks) == 1
    assert list(model.state_dict()) == keys
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin[1](torch.randn(1, 3, 1, 1)).shape == (1, 3, 1, 1)
        assert twin[1].training


def test_running_statistics_comes_back():
    norm = trained()
    frozen = trained().eval()
    with pytest.raises(KeyError), running_statistics(nn.Sequential(norm, frozen)):
        assert not norm.training
        raise KeyError
    assert norm.training and not frozen.training


def test_layers_without_running_statistics_are_left_alone():
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    assert guard_batch_norm(norm) == 0
    assert has_one_value(norm, torch.zeros(1, 3, 1, 1))
    assert not has_one_value(norm, torch.zeros(1, 3, 1, 2))
