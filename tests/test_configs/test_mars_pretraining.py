# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The pretraining configs of MaRS: published batch and schedule, and parts that fit together."""

import math

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

from mmrsfm.registry import TRANSFORMS
from tests.parity import REPO

FOLDER = REPO / 'configs' / 'mars'
PUBLISHED = {'base': (16, 5e-5), 'large': (12, 3.75e-5)}
CONFIGS = sorted([*FOLDER.glob('mars_swinv2-*_mars16m-*.py'), *FOLDER.glob('mars-optical_*.py')])


def published(size):
    batch = PUBLISHED[size][0]
    return FOLDER / f'mars_swinv2-{size}_8xb{batch}-amp-coslr-12e_mars16m-512px.py'


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_model_and_data_agree(path):
    cfg = Config.fromfile(path)
    pipeline = {step['type'].removeprefix('mmrsfm.'): step for step in cfg.train_pipeline}
    for step in cfg.train_pipeline:
        assert TRANSFORMS.get(step['type']) is not None
    assert pipeline['RandomResizedCrop']['size'] == cfg.model.backbone.img_size
    assert pipeline['DrawMaskNoise']['patch_size'] == cfg.model.mask_unit
    assert cfg.train_dataloader.dataset.pipeline == cfg.train_pipeline
    modalities = cfg.model.modalities
    assert sum(modalities.values()) == len(cfg.data_preprocessor.band_names)
    if 'LoadModalities' in pipeline:
        loaded = pipeline['LoadModalities']['modalities']
        assert list(loaded) == list(modalities)
        assert {name: one['channels'] for name, one in loaded.items()} == dict(modalities)
    assert (cfg.model.contrast is None) == (len(modalities) == 1)
    assert cfg.default_scope == 'mmpretrain'


@pytest.mark.parametrize('size', PUBLISHED)
def test_published_batch_and_learning_rate(size):
    cfg = Config.fromfile(published(size))
    batch, lr = PUBLISHED[size]
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == 8 * batch
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(lr)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-4 * 8 * batch / 256)
    assert tuple(cfg.optim_wrapper.optimizer.betas) == (0.9, 0.95)
    assert cfg.optim_wrapper.optimizer.weight_decay == 0.05
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert 'clip_grad' not in cfg.optim_wrapper
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.model.mask_ratio == 0.6
    assert 'find_unused_parameters' not in cfg


def test_published_schedule_for_each_iteration():
    cfg = Config.fromfile(published('base'))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=5e-5)
    per_epoch = 20
    schedulers = []
    for settings in cfg.param_scheduler:
        settings = dict(settings)
        assert settings.pop('convert_to_iter_based')
        scheduler = PARAM_SCHEDULERS.get(settings.pop('type'))
        schedulers.append(
            scheduler.build_iter_from_epoch(optimizer=optimizer, epoch_length=per_epoch, **settings)
        )
    for iteration in range(12 * per_epoch):
        epoch = iteration / per_epoch
        expected = epoch if epoch < 1 else 0.5 * (1 + math.cos(math.pi * (epoch - 1) / 11))
        # MMEngine's warm-up ends one iteration early.
        lr = optimizer.param_groups[0]['lr']
        assert lr == pytest.approx(5e-5 * expected, abs=5e-5 / (per_epoch - 1))
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
