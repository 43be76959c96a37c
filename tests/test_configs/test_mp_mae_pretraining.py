# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The pretraining configs of MP-MAE: published sizes and schedule, and parts that fit together."""

import math

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS

from mmrsfm.apis.training_step import quiet
from mmrsfm.registry import DATASETS, MODELS, TRANSFORMS
from tests.parity import REPO

FOLDER = REPO / 'configs' / 'mp_mae'
CONFIGS = sorted(FOLDER.glob('mp-mae*.py'))
PUBLISHED = [path for path in CONFIGS if '_8xb512-' in path.name]
# Parameters of the encoder, and of all for all modalities.
SIZES = {
    ('atto', 56): (3_389_320, 7_580_674),
    ('atto', 112): (3_389_440, 11_914_618),
    ('tiny', 56): (27_871_104, 32_291_834),
    ('tiny', 112): (27_871_392, 36_625_946),
}
MAPS = ['sentinel1', 'aster', 'dynamic_world', 'canopy_height_eth', 'esa_worldcover']
VALUES = ['era5', 'lat', 'lon', 'biome', 'eco_region', 'month']
TARGETS = {'s2': [], 'rgb': [], 'img': VALUES, 'pix': MAPS}
# The order of the weights in published checkpoints.
ORDER = [
    'sentinel2', 'sentinel1', 'aster', 'era5', 'dynamic_world', 'canopy_height_eth', 'lat', 'lon',
    'biome', 'eco_region', 'month', 'esa_worldcover',
]  # fmt: skip


@pytest.fixture
def build(monkeypatch):
    """At full size, without the memory for it."""
    linspace = torch.linspace
    monkeypatch.setattr(torch, 'linspace', lambda *args: linspace(*args, device='cpu'))

    def make(cfg):
        with torch.device('meta'):
            return MODELS.build(dict(cfg.model, data_preprocessor=None))

    return make


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_model_data_and_published_values(path):
    cfg = Config.fromfile(path)
    for step in cfg.train_pipeline:
        assert TRANSFORMS.get(step['type']) is not None
    assert DATASETS.get(cfg.train_dataloader.dataset.type) is not None
    assert cfg.train_dataloader.dataset.pipeline == cfg.train_pipeline
    pipeline = {step['type'].removeprefix('mmrsfm.'): step for step in cfg.train_pipeline}
    load, patch = pipeline['LoadMMEarth'], cfg.model.backbone.patch_size
    assert pipeline['DrawMaskNoise']['patch_size'] == patch
    size = int(path.stem.rsplit('-', 1)[1].removesuffix('px'))
    assert pipeline['RandomCrop']['size'] == size == 7 * patch
    bands = list(load['inputs']['sentinel2'])
    assert cfg.data_preprocessor.band_names == bands
    assert cfg.model.backbone.in_channels == len(bands)
    targets = cfg.model.head.targets
    assert set(load['targets']) == set(targets) - {'sentinel2'}
    assert list(targets) == [name for name in ORDER if name in targets]
    kind = path.stem.split('_')[0].removeprefix('mp-mae').lstrip('-')
    assert set(targets) == {'sentinel2', *TARGETS.get(kind, MAPS + VALUES)}
    assert (cfg.model.head.weighting == 'unweighted') == (kind == 'unweighted')
    assert len(bands) == (3 if kind == 'rgb' else 12)
    assert targets.sentinel2.norm_pix
    assert cfg.default_scope == 'mmpretrain'
    if path not in PUBLISHED:
        return
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 4096
    assert cfg.train_dataloader.drop_last
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(2.4e-3)
    assert tuple(cfg.optim_wrapper.optimizer.betas) == (0.9, 0.95)
    assert 'clip_grad' not in cfg.optim_wrapper
    assert cfg.model.mask_ratio == 0.6
    assert cfg.model.backbone.grn_statistics == 'batch'
    assert cfg.model.backbone.get('drop_path_rate', 0.0) == 0.0
    assert (cfg.model.neck.embed_dims, cfg.model.neck.depth) == (512, 1)
    assert cfg.train_cfg.max_epochs == 200
    assert 'find_unused_parameters' not in cfg


@pytest.mark.parametrize(('arch', 'size'), SIZES)
def test_sizes(arch, size, build):
    cfg = Config.fromfile(
        FOLDER / f'mp-mae_convnextv2-{arch}_8xb512-coslr-200e_mmearth-{size}px.py'
    )
    model = build(cfg)
    encoder, total = SIZES[arch, size]
    assert sum(p.numel() for p in model.backbone.parameters()) == encoder
    assert sum(p.numel() for p in model.parameters()) == total
    assert all(p.requires_grad for p in model.parameters())


def test_what_decays(build):
    """As timm groups the parameters of the published model, where those of GRN have two axes."""
    cfg = Config.fromfile(FOLDER / 'mp-mae_convnextv2-atto_8xb512-coslr-200e_mmearth-56px.py')
    model = build(cfg)
    with quiet():
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    decays = {
        id(p): group['weight_decay'] for group in optimizer.param_groups for p in group['params']
    }
    for name, parameter in model.named_parameters():
        expected = '.grn.' in name or (parameter.ndim > 1 and not name.endswith('.bias'))
        assert decays[id(parameter)] == (0.05 if expected else 0.0), name


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
    for iteration in range(200 * per_epoch):
        epoch = iteration / per_epoch
        ramp = epoch / 40
        expected = ramp if ramp < 1 else 0.5 * (1 + math.cos(math.pi * (epoch - 40) / 160))
        # MMEngine's warm-up ends one iteration early.
        lr = optimizer.param_groups[0]['lr']
        assert lr == pytest.approx(peak * expected, abs=peak / (40 * per_epoch - 1))
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
