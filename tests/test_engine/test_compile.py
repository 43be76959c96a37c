# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""torch.compile: what it captures of the backbones, and of the training step of a Runner.

By the capture alone, without generated code: that takes a compiler, and minutes.
"""

import pytest
import torch
from mmengine.hooks import Hook

from mmrsfm.registry import MODELS
from tests.test_engine.test_loops import EPOCHS, TraceHook, build
from tests.test_engine.test_sharding import PLAIN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WIDTHS = dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])
VIT = dict(embed_dims=24, num_layers=2, num_heads=3)
BACKBONES = {
    'ConvNeXtV2': dict(
        arch=dict(depths=(1, 1, 1, 1), channels=(8, 8, 16, 16)),
        in_channels=3,
        stem='original',
        patch_size=32,
    ),
    'CrossScaleViT': dict(arch=VIT | dict(feedforward_channels=48), img_size=64, out_type='raw'),
    'MixMIM': dict(arch=WIDTHS, img_size=64, in_channels=3),
    'SwinV2': dict(arch=WIDTHS, window_size=4, in_channels=3),
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr('os.fsync', lambda handle: None)
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize('name', BACKBONES)
def test_a_backbone_is_one_graph_with_the_same_numbers(name):
    torch.manual_seed(0)
    model = MODELS.build(dict(type=f'mmrsfm.{name}', **BACKBONES[name])).eval()
    images = torch.randn(2, 3, 64, 64)
    found = []
    for function in (model, torch.compile(model, backend='aot_eager', fullgraph=True)):
        model.zero_grad()
        loss = sum(one.square().mean() for one in function(images))
        loss.backward()
        gradients = [one.grad.clone() for one in model.parameters() if one.grad is not None]
        found.append([loss.detach(), *gradients])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


class PoisonHook(Hook):
    """NaN in one sample of the second step."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 1:
            data_batch['inputs'][0][:] = float('nan')


def test_a_compiled_step_of_the_runner(tmp_path):
    """The same losses and weights; a step that is not finite is left out and explained."""
    results = []
    for number, compiling in enumerate((False, dict(backend='eager'))):
        options = EPOCHS | PLAIN | {'train_cfg.max_epochs': 1, 'compile': compiling}
        runner = build(tmp_path, tmp_path / str(number), **options)
        trace = TraceHook()
        runner.register_hook(trace)
        runner.register_hook(PoisonHook())
        runner.train()
        assert runner.message_hub.get_info('non_finite_steps')['total'] == 1
        log = next((tmp_path / str(number)).rglob('*.log')).read_text()
        assert 'first in the input itself' in log
        results.append((trace.losses, runner.model.state_dict()))
    assert torch._dynamo.utils.counters['stats']['unique_graphs'] > 0
    (losses, weights), (compiled_losses, compiled_weights) = results
    assert sum(one != one for one in losses) == 1
    torch.testing.assert_close(compiled_losses, losses, rtol=1e-5, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(dict(compiled_weights), dict(weights), rtol=1e-5, atol=1e-6)
