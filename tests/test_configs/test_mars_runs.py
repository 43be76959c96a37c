# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Every config of MaRS, made small: two steps and a test, on data in the true form."""

import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from rasterio.errors import NotGeoreferencedWarning

from mmrsfm.engine.run_config import build_runner, register_scope
from tests.formats import MAKERS
from tests.test_configs.tiny_mars import CONFIGS, DATA, data_folders, released_file, tiny_config

pytestmark = pytest.mark.filterwarnings('ignore', category=NotGeoreferencedWarning)
FILES = sorted(CONFIGS.rglob('*.py'))
NAMES = [str(file.relative_to(CONFIGS).with_suffix('')) for file in FILES]
# Large models are built; what they share with base is run with base. Demonstrations have tests of
# their own (tests/test_tools).
RUNS = [name for name in NAMES if 'large' not in name and 'demo' not in name]

# Another config runs what they hold: the head on another data set, the data under another head.
ALIKE = (
    'deepglobe/swinv2-base_mars-rgb-pre_upernet_1xb6-80e_deepglobe-roads-512px',
    'guso/swinv2-base_mars-pre_translator-rgb2sar_8xb4-10e_guso-512px',
    'sardet100k/swinv2-base_mars-rgb-pre_cascade-rcnn_4xb4-12e_sardet100k-512px',
    'whu_cd/swinv2-base_mars-rgb-pre_unet_8xb4-200e_whu-cd-256px',
    'whu_cd/swinv2-base_mars-rgb-pre_upernet_8xb4-200e_whu-cd-256px',
)


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
        self.losses.append({name: float(value) for name, value in outputs.items()})


def make_data(cfg: Config, root: Path) -> Path:
    (folder,) = data_folders(cfg.train_dataloader.to_dict())
    name, options = DATA[folder]
    return MAKERS[name](root, **options)


@pytest.fixture(scope='module')
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp('released')
    return {count: released_file(folder / f'{count}.pth', count) for count in (1, 3)}


@pytest.mark.parametrize(
    'name',
    [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in RUNS],
)
def test_trains_two_steps_and_tests(name, released, tmp_path):
    file = CONFIGS / f'{name}.py'
    data = make_data(Config.fromfile(file), tmp_path / 'data')
    cfg = tiny_config(file, data, released)
    cfg.work_dir = str(tmp_path / 'work')
    runner = build_runner(cfg)
    witness = Witness()
    runner.register_hook(witness)
    runner.train()
    assert len(witness.losses) == 2
    assert all(math.isfinite(value) for step in witness.losses for value in step.values())
    # DDP stops at a parameter without a gradient, unless it is told to look for them.
    assert bool(witness.idle) == bool(cfg.get('find_unused_parameters')), sorted(witness.idle)
    if cfg.get('test_dataloader'):
        metrics = runner.test()
        assert metrics
        assert all(np.isscalar(value) for value in metrics.values()), metrics
        # Fifteen hundred steps into the training is late to hear that there is no such number.
        best = cfg.default_hooks.checkpoint.get('save_best')
        assert best in (None, 'auto', *metrics), f'{best} is none of {sorted(metrics)}'


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
    """The checkpoint of a tiny pretraining on pairs, of which some lack an image."""
    folder = tmp_path_factory.mktemp('pretrained')
    file = CONFIGS / 'mars_swinv2-base_8xb16-amp-coslr-12e_mars16m-512px.py'
    cfg = tiny_config(file, make_data(Config.fromfile(file), folder / 'data'))
    cfg.work_dir = str(folder / 'work')
    runner = build_runner(cfg)
    witness = Witness()
    runner.register_hook(witness)
    runner.train()
    dataset = runner.train_dataloader.dataset
    assert dataset.num_incomplete == 4
    terms = {'cgcl_patch', 'cgcl_image', 'cgcl_patch_image', 'mim_rgb', 'mim_sar', 'teacher'}
    assert all(any(name.endswith(term) for name in witness.losses[0]) for term in terms)
    assert not witness.idle, 'trained without find_unused_parameters'
    (checkpoint,) = (folder / 'work').glob('epoch_*.pth')
    return checkpoint, runner.model


def test_a_pretraining_is_fine_tuned(pretrained, tmp_path):
    """As configs/mars/README.md says: both branches from one checkpoint of ones own."""
    checkpoint, model = pretrained
    file = CONFIGS / 'dfc23' / 'dual-swinv2-base_mars-pre_deconv_1xb6-80e_dfc23-512px.py'
    cfg = tiny_config(file, make_data(Config.fromfile(file), tmp_path / 'data'))
    for name, branch in cfg.model.backbone.modalities.items():
        # Of other statistics: DFC23's are its own.
        branch.backbone.init_cfg = dict(
            type='mmrsfm.Pretrained', checkpoint=str(checkpoint),
            part=f'backbone.branches.{name}',
            adapt=dict(ignore=['mean', 'std', 'sensors']),
        )  # fmt: skip
    cfg.work_dir = str(tmp_path / 'work')
    runner = build_runner(cfg)
    runner.model.init_weights()
    for name, branch in runner.model.backbone.branches.items():
        source = model.backbone.branches[name].state_dict()
        for key, value in branch.state_dict().items():
            assert torch.equal(value, source[key]), f'{name}: {key}'


def test_optical_pretraining_goes_on_from_pairs(pretrained, tmp_path):
    checkpoint, model = pretrained
    (file,) = CONFIGS.glob('mars-optical_*.py')
    data = make_data(Config.fromfile(file), tmp_path / 'data')
    cfg = tiny_config(file, data, start=checkpoint)
    cfg.work_dir = str(tmp_path / 'work')
    runner = build_runner(cfg)
    runner.model.init_weights()
    for part in ('backbone.branches.rgb', 'neck', 'heads.rgb'):
        source = model.get_submodule(part).state_dict()
        for key, value in runner.model.get_submodule(part).state_dict().items():
            assert torch.equal(value, source[key]), f'{part}: {key}'


@pytest.mark.parametrize('folder', sorted({file.parent.name for file in FILES}))
def test_models_and_optimizers_build(folder, monkeypatch):
    """At their full size, each distinct model once, without its memory."""
    # mmpretrain's SwinV2 reads numbers of a tensor while it is built.
    linspace = functools.partial(torch.linspace, device='cpu')
    monkeypatch.setattr(torch, 'linspace', linspace)
    seen = set()
    for file in (one for one in FILES if one.parent.name == folder):
        cfg = Config.fromfile(file)
        register_scope(cfg.default_scope)
        init_default_scope(cfg.default_scope)
        key = (str(cfg.model), str(cfg.optim_wrapper))
        if key in seen:
            continue
        seen.add(key)
        if cfg.get('data_preprocessor'):
            cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
        with torch.device('meta'):
            model = MODELS.build(cfg.model)
        wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')
        wrapper.pop('loss_scale', None)
        wrapper.pop('dtype', None)
        groups = build_optim_wrapper(model, wrapper).optimizer.param_groups
        grouped = {id(weight) for group in groups for weight in group['params']}
        assert all(id(one) in grouped for one in model.parameters() if one.requires_grad)
        count = sum(weight.numel() for weight in model.backbone.parameters()) / 1e6
        if 'base' in file.name:  # one encoder or two
            assert 86 < count < 180, f'{file.name}: {count} M'
