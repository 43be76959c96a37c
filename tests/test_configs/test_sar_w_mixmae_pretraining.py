# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The pretraining configs of SAR-W-MixMAE: published schedule, and parts that fit together."""

import math

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

from mmrsfm.registry import DATASETS, MODELS, TRANSFORMS
from tests.parity import REPO

FOLDER = REPO / 'configs' / 'sar_w_mixmae'
# The demonstration, on other imagery and of another size, has a test of its own.
CONFIGS = sorted(p for p in FOLDER.glob('sar-w-mixmae_*.py') if 'demo' not in p.name)
PUBLISHED = [path for path in CONFIGS if '_8xb256-' in path.name]
# Parameters in millions, and how many of them are trained.
SIZES = {'base': (113.69, 113.55), 'large': (222.27, None), 'huge': (682.96, None)}
STATISTICS = {
    'bigearthnetv1': ([-19.2309, -12.5951], [3.1672, 2.9644]),
    'bigearthnetv2': ([-19.1966, -12.5144], [5.4501, 5.0019]),
}


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_model_and_data_agree(path):
    cfg = Config.fromfile(path)
    pipeline = {step['type'].removeprefix('mmrsfm.'): step for step in cfg.train_pipeline}
    for step in cfg.train_pipeline:
        assert TRANSFORMS.get(step['type']) is not None
    assert DATASETS.get(cfg.train_dataloader.dataset.type) is not None
    size = cfg.model.backbone.img_size
    assert tuple(pipeline['Resize']['size']) == (size, size)
    assert pipeline['DrawMaskNoise']['patch_size'] == 32
    assert cfg.train_dataloader.dataset.pipeline == cfg.train_pipeline
    assert cfg.data_preprocessor.band_names == ['VH', 'VV']
    assert cfg.model.backbone.in_channels == 2
    assert cfg.model.loss.weight_domain == 'db'
    assert cfg.model.loss.norm_pix
    assert cfg.default_scope == 'mmpretrain'


@pytest.mark.parametrize('size', SIZES)
def test_sizes(size, monkeypatch):
    """At full size, without the memory for it."""
    (path, *_) = [path for path in PUBLISHED if f'-{size}_' in path.name]
    cfg = Config.fromfile(path)
    linspace = torch.linspace
    monkeypatch.setattr(torch, 'linspace', lambda *args: linspace(*args, device='cpu'))
    with torch.device('meta'):
        model = MODELS.build(dict(cfg.model, data_preprocessor=None, loss=dict(weight_mode='none')))
    total, trained = SIZES[size]
    parameters = list(model.parameters())
    assert sum(p.numel() for p in parameters) / 1e6 == pytest.approx(total, abs=0.006)
    if trained is not None:
        count = sum(p.numel() for p in parameters if p.requires_grad)
        assert count / 1e6 == pytest.approx(trained, abs=0.006)


@pytest.mark.parametrize('path', PUBLISHED, ids=lambda path: path.stem)
def test_published_batch_and_learning_rate(path):
    cfg = Config.fromfile(path)
    (statistics,) = [value for name, value in STATISTICS.items() if name in path.name]
    assert (cfg.data_preprocessor.mean, cfg.data_preprocessor.std) == statistics
    assert cfg.train_dataloader.batch_size == 256
    assert cfg.train_dataloader.drop_last
    assert cfg.auto_scale_lr.base_batch_size == 8 * 256
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1.2e-3)
    assert tuple(cfg.optim_wrapper.optimizer.betas) == (0.9, 0.95)
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.05
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert 'clip_grad' not in cfg.optim_wrapper
    assert cfg.model.mask_ratio == 0.5
    assert cfg.model.mask_scope == 'batch'
    assert cfg.model.backbone.get('drop_path_rate', 0.0) == 0.0
    assert cfg.train_cfg.max_epochs == 1024
    assert 'find_unused_parameters' not in cfg


def test_published_schedule_for_each_iteration():
    cfg = Config.fromfile(PUBLISHED[0])
    peak = cfg.optim_wrapper.optimizer.lr
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    per_epoch, schedulers = 4, []
    for settings in cfg.param_scheduler:
        settings = dict(settings)
        assert settings.pop('convert_to_iter_based')
        scheduler = PARAM_SCHEDULERS.get(settings.pop('type'))
        schedulers.append(
            scheduler.build_iter_from_epoch(optimizer=optimizer, epoch_length=per_epoch, **settings)
        )
    for iteration in range(1024 * per_epoch):
        epoch = iteration / per_epoch
        ramp = epoch / 40
        expected = ramp if ramp < 1 else 0.5 * (1 + math.cos(math.pi * (epoch - 40) / 984))
        # MMEngine's warm-up ends one iteration early.
        lr = optimizer.param_groups[0]['lr']
        assert lr == pytest.approx(peak * expected, abs=peak / (40 * per_epoch - 1))
        if epoch == 64:  # where the released weights are from
            assert lr / peak == pytest.approx(0.9985, abs=1e-4)
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
