# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Every config of SAR-W-MixMAE, made small: pretraining, then fine-tuning from it, and a test."""

import functools
import math

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from mmrsfm.engine.run_config import build_runner, register_scope
from tests.formats import MAKERS
from tests.test_configs.tiny_mars import data_folders
from tests.test_configs.tiny_sar_w_mixmae import CONFIGS, DATA, tiny_config

FILES = sorted(CONFIGS.rglob('*.py'))
NAMES = [str(file.relative_to(CONFIGS).with_suffix('')) for file in FILES]
# Larger models share everything with base but their width; packed files, the demonstration and
# detectors have tests of their own (tests/test_datasets/test_packed_tiles.py,
# tests/test_tools/test_sarw_job.py, tests/test_models/test_mixmim_in_tasks.py).
ELSEWHERE = ('large', 'huge', 'packed', 'demo', 'rcnn')
RUNS = [name for name in NAMES if not any(part in name for part in ELSEWHERE)]
PRETRAININGS = {
    part: f'sar-w-mixmae_mixmim-base_8xb256-amp-coslr-1024e_bigearthnet{part}-s1-128px'
    for part in ('v1', 'v2')
}


class Witness(Hook):
    """What the training did."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.losses = []
        self.idle = set()

    def before_train(self, runner):
        for name, weight in runner.model.named_parameters():
            if weight.requires_grad:
                self.idle.add(name)
                weight.register_post_accumulate_grad_hook(
                    lambda _, name=name: self.idle.discard(name)
                )

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(float(outputs['loss'].detach()))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Makes each data set once."""
    made = {}

    def make(file):
        (folder,) = data_folders(Config.fromfile(file).train_dataloader.to_dict())
        if folder not in made:
            name, options = DATA[folder]
            made[folder] = MAKERS[name](tmp_path_factory.mktemp(folder), **options)
        return made[folder]

    return make


def run(file, data, work_dir, start=None):
    """Trains two steps."""
    cfg = tiny_config(file, data(file), start)
    cfg.work_dir = str(work_dir)
    runner = build_runner(cfg)
    witness = Witness()
    runner.register_hook(witness)
    runner.train()
    assert len(witness.losses) == 2
    assert all(math.isfinite(loss) for loss in witness.losses)
    # DDP stops at a parameter without a gradient, unless it is told to look for them.
    assert not witness.idle, sorted(witness.idle)
    return cfg, runner


@pytest.fixture(scope='module')
def pretrained(data, tmp_path_factory):
    """The checkpoint of the pretraining on a version of BigEarthNet, made once."""
    made = {}

    def make(part):
        if part not in made:
            folder = tmp_path_factory.mktemp(f'pretrained_{part}')
            run(CONFIGS / f'{PRETRAININGS[part]}.py', data, folder)
            made[part] = folder / 'epoch_1.pth'
        return made[part]

    return make


@pytest.mark.parametrize('name', [name for name in RUNS if not name.startswith('sar-w')])
def test_fine_tuned_from_a_pretraining_and_tested(name, data, pretrained, tmp_path):
    file = CONFIGS / f'{name}.py'
    # What starts from version 1 has its mean and standard deviation: the guard compares them.
    part = 'v1' if 'bigearthnetv1' in name or 'sen12' in name else 'v2'
    start = None if 'scratch' in name else pretrained(part)
    cfg, runner = run(file, data, tmp_path, start)
    if start is not None:
        assert cfg.model.backbone.init_cfg.checkpoint == str(start)
        fresh = build_runner(cfg).model
        fresh.init_weights()
        weights = torch.load(start, weights_only=False)['state_dict']
        state = fresh.backbone.state_dict()
        tables = [key for key in state if key.endswith('qkv.weight')]
        assert tables
        assert all(torch.equal(state[key], weights[f'backbone.{key}']) for key in tables)
    metrics = runner.test()
    assert metrics
    for key, value in metrics.items():
        assert np.isfinite(np.asarray(value, float)).all() or 'class' in key, (key, value)


def test_tiny_pretraining_on_tiles(data, tmp_path):
    (name,) = (name for name in RUNS if name.startswith('sar-w') and 'tiny' in name)
    run(CONFIGS / f'{name}.py', data, tmp_path)
    assert (tmp_path / 'epoch_1.pth').is_file()


@pytest.mark.parametrize('name', [name for name in NAMES if 'base' in name and '/' in name])
def test_fine_tuned_models_and_optimizers_build(name, monkeypatch):
    """At their full size, without its memory: 86.9 M parameters of the encoder, and a head."""
    # mmpretrain's MixMIM reads numbers of a tensor while it is built.
    monkeypatch.setattr(torch, 'linspace', functools.partial(torch.linspace, device='cpu'))
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    register_scope(cfg.default_scope)
    init_default_scope(cfg.default_scope)
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    grouped = {id(weight) for group in groups for weight in group['params']}
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert all(id(weight) in grouped for weight in trained)
    count = sum(weight.numel() for weight in model.parameters()) / 1e6
    if not any(head in name for head in ('upernet', 'rcnn')):  # published
        classes = cfg.model.head.num_classes
        wanted = {19: 86.90, 2: 86.88, 43: 86.926}[classes]
        wanted += (cfg.model.backbone.in_channels - 2) * 4 * 4 * 128 / 1e6
        assert count == pytest.approx(wanted, abs=0.006)
    rate = max(group['lr'] for group in groups)
    assert rate == pytest.approx(cfg.optim_wrapper.optimizer.lr)
    scales = {round(group['lr'] / rate, 4) for group in groups}
    assert round(0.7**25, 4) in scales
