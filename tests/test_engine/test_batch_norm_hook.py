# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Batches that have no statistics do not end a training."""

import pytest
import torch
from mmengine.hooks import Hook
from torch import nn

from mmrsfm.engine import BatchNormHook
from mmrsfm.layers.batch_norm import guard_batch_norm


def layers(kind=nn.BatchNorm2d) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 4, 1, bias=False), kind(4))


@pytest.mark.parametrize('kind', [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_one_value_a_channel(kind):
    model = layers(kind).train()
    image = torch.randn(1, 3, 8, 8)
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        model(image)
    assert guard_batch_norm(model) == 1
    before = {name: value.clone() for name, value in model.state_dict().items()}
    out = model(image)
    out.sum().backward()
    assert model[2].training
    assert model[1].weight.grad.abs().sum() > 0
    assert model[2].weight.grad.abs().sum() > 0
    # As when testing; the running statistics are left alone.
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(out, model.eval()(image))


def test_other_batches_are_as_ever():
    plain, guarded = layers().train(), layers().train()
    guard_batch_norm(guarded)
    guard_batch_norm(guarded)  # a second time changes nothing
    for batch in (torch.randn(1, 3, 8, 8), torch.randn(2, 3, 8, 8)):
        guarded(batch[:1])
        torch.testing.assert_close(
            guarded(batch.repeat(2, 1, 1, 1)), plain(batch.repeat(2, 1, 1, 1))
        )
    for name, value in plain.state_dict().items():
        assert torch.equal(value, guarded.state_dict()[name])


def test_a_failing_layer_still_trains_afterwards():
    model = layers().train()
    guard_batch_norm(model)
    with pytest.raises(RuntimeError):
        model[2](torch.randn(1, 5, 1, 1))
    assert model[2].training


def test_the_hook_sees_through_wrappers():
    class Runner:
        model = layers()

    hook = BatchNormHook()
    assert isinstance(hook, Hook)
    hook.before_train(Runner)
    Runner.model.train()(torch.randn(1, 3, 4, 4))
