# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pretraining configs of MP-MAE, made small, on generated tiles: they train, and draw pictures."""

import math

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from PIL import Image

from mmrsfm.engine.run_config import build_runner, load_config, set_dataloader_defaults
from mmrsfm.registry import HOOKS
from tests.formats.mmearth import make_mmearth
from tests.parity import REPO

FOLDER = REPO / 'configs' / 'mp_mae'
SCHEDULE = '8xb512-coslr-200e'
# Those whose parts no other one has.
RUNS = [
    f'mp-mae_convnextv2-atto_{SCHEDULE}_mmearth-56px',
    f'mp-mae-unweighted_convnextv2-tiny_{SCHEDULE}_mmearth-112px',
    f'mp-mae-rgb_convnextv2-atto_{SCHEDULE}_mmearth-112px',
    f'mp-mae-img_convnextv2-atto_{SCHEDULE}_mmearth-56px',
    'mp-mae_convnextv2-mini_1xb8-coslr-2e_mmearth-56px',
]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    made = {}

    def make(size):
        if size not in made:
            folder = tmp_path_factory.mktemp('mmearth') / f'data_{size}'
            made[size] = make_mmearth(folder, count=4, size=size)
        return made[size]

    return make


def tiny_config(name, data, work_dir):
    cfg = load_config(FOLDER / f'{name}.py')
    set_dataloader_defaults(cfg)
    loader = cfg.train_dataloader
    loader.update(num_workers=0, persistent_workers=False, batch_size=2, num_batch_per_epoch=2)
    loader.pop('pin_memory', None)
    loader.dataset.data_root = str(data(64 if name.endswith('56px') else 128))
    cfg.model.backbone.arch = dict(depths=[1, 1, 1, 1], channels=[4, 8, 8, 16])
    cfg.model.neck.embed_dims = 16
    cfg.train_cfg.max_epochs = 1
    cfg.param_scheduler = None
    cfg.default_hooks.logger.interval = cfg.default_hooks.checkpoint.interval = 1
    cfg.work_dir = str(work_dir)
    return cfg


class Witness(Hook):
    """What the training did."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.logged = []
        self.idle = set()

    def before_train(self, runner):
        for name, weight in runner.model.named_parameters():
            if weight.requires_grad:
                self.idle.add(name)
                weight.register_post_accumulate_grad_hook(
                    lambda _, name=name: self.idle.discard(name)
                )

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.logged.append({name: float(value.detach()) for name, value in outputs.items()})


@pytest.mark.parametrize('name', RUNS)
def test_it_trains(name, data, tmp_path):
    cfg = tiny_config(name, data, tmp_path)
    runner = build_runner(cfg)
    witness = Witness()
    runner.register_hook(witness)
    runner.train()
    # DDP stops at a parameter without a gradient, unless it is told to look for them.
    assert not witness.idle, sorted(witness.idle)
    assert len(witness.logged) == 2
    targets = set(cfg.model.head.targets)
    for logged in witness.logged:
        assert all(math.isfinite(value) for value in logged.values())
        assert {f'loss_{name}' for name in targets} <= set(logged)
    state = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    assert any(key.startswith('backbone.initial_conv') for key in state['state_dict'])


def test_pictures_of_several_modalities(data, tmp_path):
    """As a user draws them: the hook, the visualizer, and a loop without a metric of ours."""
    cfg = tiny_config(RUNS[-1], data, tmp_path)
    dataset = Runner.build_dataloader(cfg.train_dataloader)
    batch = next(iter(dataset))
    runner = build_runner(
        Config(
            dict(
                cfg.to_dict(),
                visualizer=dict(
                    type='mmrsfm.ReconstructionVisualizer', modalities=dict(sentinel2=12)
                ),
            )
        )
    )
    samples = runner.model.eval().test_step(batch)
    hook = HOOKS.build(
        dict(type='mmrsfm.VisualizationHook', enable=True, out_dir=str(tmp_path / 'pictures'))
    )
    hook.after_test_iter(runner, 0, batch, samples)
    pictures = sorted((tmp_path / 'pictures').glob('*.png'))
    assert len(pictures) == 2
    # Six maps below each other, each with its mask and its prediction.
    width, height = Image.open(pictures[0]).size
    assert height == 6 * (3 * 56 + 18)
    assert width == 3 * 3 * 56 + 2 * 4
    assert set(samples[0].pred_values) == {'era5', 'lat', 'lon', 'biome', 'eco_region', 'month'}
