# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The pretraining configs of Cross-Scale MAE: the published schedule, and a run on a CPU."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS
from PIL import Image

from mmrsfm.registry import MODELS, TRANSFORMS
from tests.parity import REPO
from tests.processes import run_forked

FOLDER = REPO / 'configs' / 'cross_scale_mae'
CONFIGS = sorted(FOLDER.glob('cross-scale-mae_*.py'))


def published(size):
    return FOLDER / f'cross-scale-mae_vit-{size}-p16_8xb512-amp-coslr-400e_fmow-rgb-128px.py'


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_model_and_pipeline_agree(path):
    cfg = Config.fromfile(path)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    pipeline = {step['type'].removeprefix('mmrsfm.'): step for step in cfg.train_pipeline}
    for step in cfg.train_pipeline:
        assert TRANSFORMS.get(step['type']) is not None
    size = pipeline['RandomResizedCrop']['size']
    patch = pipeline['DrawMaskNoise']['patch_size']
    assert model.backbone.img_size == (size, size)
    assert model.patch_size == (patch, patch)
    assert model.neck.grid == model.backbone.patch_resolution
    assert model.neck.norm_style == model.backbone.norm_style
    assert model.backbone.in_channels == len(cfg.data_preprocessor.mean)
    assert cfg.default_scope == 'mmpretrain'


def test_published_batch_and_learning_rate():
    for size in ('base', 'large'):
        cfg = Config.fromfile(published(size))
        assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 4096
        assert cfg.optim_wrapper.optimizer.lr == pytest.approx(8e-4)
        assert cfg.train_cfg.max_epochs == 400
        assert cfg.default_hooks.checkpoint.interval == 25
        assert cfg.train_dataloader.drop_last


def test_published_schedule_for_each_iteration():
    cfg = Config.fromfile(published('base'))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=8e-4)
    per_epoch = 5
    schedulers = []
    for settings in cfg.param_scheduler:
        settings = dict(settings)
        assert settings.pop('convert_to_iter_based')
        scheduler = PARAM_SCHEDULERS.get(settings.pop('type'))
        schedulers.append(
            scheduler.build_iter_from_epoch(optimizer=optimizer, epoch_length=per_epoch, **settings)
        )
    for iteration in range(400 * per_epoch):
        epoch = iteration / per_epoch
        if epoch < 40:
            expected = epoch / 40
        else:
            expected = 0.5 * (1 + math.cos(math.pi * (epoch - 40) / 360))
        # MMEngine's warm-up ends one iteration early.
        lr = optimizer.param_groups[0]['lr']
        assert lr == pytest.approx(8e-4 * expected, abs=8e-4 / (40 * per_epoch - 1))
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def test_weight_decay_is_for_matrices_and_tokens():
    from mmengine.optim import build_optim_wrapper

    cfg = Config.fromfile(FOLDER / 'cross-scale-mae_vit-tiny-p16_1xb8-coslr-2e_fmow-rgb-64px.py')
    model = MODELS.build(cfg.model)
    settings = Config.fromfile(published('base')).optim_wrapper
    settings.update(type='OptimWrapper')
    settings.pop('loss_scale')
    groups = build_optim_wrapper(model, settings).optimizer.param_groups
    decay = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            expected = 0.0 if parameter.ndim == 1 else 0.05
            assert decay[id(parameter)] == expected, name
        else:
            assert id(parameter) not in decay
    assert decay[id(model.backbone.cls_token)] == decay[id(model.neck.mask_token)] == 0.05


def test_tiny_config_trains_on_a_cpu(tmp_path):
    rng = np.random.default_rng(0)
    rows = ['category,location']
    for number in range(16):
        image = rng.integers(0, 255, (70 + number, 90, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f'{number}.jpg')
        rows.append(f'{number % 62},{number}.jpg')
    (tmp_path / 'train.csv').write_text('\n'.join(rows) + '\n')
    config = FOLDER / 'cross-scale-mae_vit-tiny-p16_1xb8-coslr-2e_fmow-rgb-64px.py'
    command = [REPO / 'tools' / 'train.py', config, '--work-dir', 'out', '--cfg-options']
    command += [f'train_dataloader.dataset.data_root={tmp_path}']
    printed = run_forked(command, tmp_path)
    for term in ('recon_orig', 'recon_crop', 'cross_pred', 'contrastive'):
        assert f'loss_{term}: ' in printed
    assert (tmp_path / 'out' / 'epoch_2.pth').is_file()


def test_metafile_names_what_exists():
    index = yaml.safe_load((FOLDER / 'metafile.yml').read_text())
    names = {path.stem for path in FOLDER.rglob('*.py')}
    listed = {model['Name'] for model in index['Models']}
    assert {path.stem for path in CONFIGS} <= listed
    for model in index['Models']:
        assert (REPO / model['Config']).is_file()
        assert Path(model['Config']).stem == model['Name']
        for downstream in model.get('Downstream', []):
            assert downstream in names, f'{downstream} is no config'
    assert (REPO / index['Collections'][0]['README']).is_file()
