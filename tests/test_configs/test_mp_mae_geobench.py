# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""GEO-Bench configs of MP-MAE: the published recipe, runs on generated sets, bands of weights."""

import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_jaccard_index

from mmrsfm.apis.training_step import quiet
from mmrsfm.checkpoints import convert_state_dict
from mmrsfm.datasets import GeoBench
from mmrsfm.engine import FreezeHook
from mmrsfm.engine.run_config import build_runner, load_config, set_dataloader_defaults
from mmrsfm.errors import ConfigError
from mmrsfm.registry import METRICS, MODELS
from tests.formats import make_geobench
from tests.formats.geobench import SETS

FOLDER = Path(__file__).resolve().parents[2] / 'configs' / 'mp_mae' / 'geobench'
FILES = sorted(FOLDER.glob('*.py'))
NAMES = [name for names in GeoBench.SETS.values() for name in names]
RUN = ('m-eurosat', 'm-bigearthnet', 'm-cashew-plant')
MODEL = 'convnextv2-atto-p8_mp-mae-pre'


def config_of(name, linear=False):
    """The config of a set."""
    if SETS[name][0] == 'segmentation':
        schedule = f'unet_1xb32-{"frozen-" if linear else ""}200e'
    else:
        schedule = f'1xb64-accum16-{"linear-" if linear else ""}coslr-100e'
    return FOLDER / f'{MODEL}_{schedule}_{name}.py'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_geobench(tmp_path_factory.mktemp('geobench'), names=RUN, count=4, size=24)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A file of the pretraining as it is published, and the encoder that is in it."""
    torch.manual_seed(0)
    encoder = MODELS.build(dict(type='mmrsfm.ConvNeXtV2', in_channels=12, out_indices=(3,)))
    with quiet():
        encoder.init_weights()
    state = {f'backbone.{name}': value for name, value in encoder.state_dict().items()}
    path = tmp_path_factory.mktemp('weights') / 'checkpoint-199.pth'
    torch.save({'model': convert_state_dict(state, 'mmrsfm', 'mp_mae')}, path)
    return path, encoder


def small(file, data, epochs=1):
    """The config for two steps on a CPU."""
    cfg = load_config(file)
    set_dataloader_defaults(cfg)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg[name]
        loader.update(num_workers=0, persistent_workers=False)
        loader.pop('pin_memory', None)
        loader.dataset.data_root = str(Path(data, *Path(loader.dataset.data_root).parts[-2:]))
    cfg.train_dataloader.batch_size = 2
    cfg.optim_wrapper.pop('accumulative_counts', None)
    cfg.train_cfg.max_epochs = epochs
    cfg.default_hooks.checkpoint.interval = epochs
    return cfg


def test_there_are_two_for_each_set():
    expected = {config_of(name, linear) for name in NAMES for linear in (False, True)}
    assert expected == set(FILES) and len(FILES) == 24


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_configs_agree_with_the_sets_and_the_recipe(file):
    cfg = load_config(file)
    name = Path(cfg.train_dataloader.dataset.data_root).name
    kind, _, classes = SETS[name][:3]
    folder = 'segmentation' if kind == 'segmentation' else 'classification'
    for split, loader in zip(('train', 'valid', 'test'), ('train', 'val', 'test'), strict=True):
        dataset = cfg[f'{loader}_dataloader'].dataset
        assert dataset.split == split and dataset.data_root.endswith(f'{folder}_v1.0/{name}')
    assert cfg.train_dataloader.sampler.shuffle
    head = cfg.model.get('decode_head') or cfg.model.head
    assert head.num_classes == classes
    bands = cfg.train_dataloader.dataset.bands
    backbone = cfg.model.backbone
    assert backbone.in_channels == len(bands) and backbone.init_cfg.contract.band_names == bands
    assert cfg.model.data_preprocessor.band_names == bands
    rate = cfg.optim_wrapper.optimizer
    assert rate.weight_decay == 0.3 and backbone.drop_path_rate == 0.1
    frozen = [hook.get('epochs') for hook in cfg.get('custom_hooks', [])]
    if kind == 'segmentation':
        assert rate.lr == pytest.approx(1.25e-3) and cfg.train_cfg.max_epochs == 200
        assert frozen == ([None] if 'frozen' in file.stem else [50])
        assert cfg.metric == 'mIoU'
        return
    assert rate.lr == pytest.approx(8e-4) and cfg.train_cfg.max_epochs == 100
    assert cfg.optim_wrapper.accumulative_counts * cfg.train_dataloader.batch_size == 1024
    assert frozen == ([None] if 'linear' in file.stem else [])
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == 0.9
    assert head.loss.label_smooth_val == 0.2 and head.init_cfg.std == 2e-5
    assert cfg.metric == ('multi-label/f1_micro' if kind == 'multi_label' else 'accuracy/top1')
    assert cfg.few_shot_batch_size == (8 if name == 'm-eurosat' else 32)


@pytest.mark.parametrize(
    ('arch', 'count', 'patch'),
    [
        pytest.param('atto', 4183190, 16, marks=pytest.mark.slow),
        ('tiny', 32437498, 8),
        pytest.param('tiny', 32437498, 16, marks=pytest.mark.slow),
    ],
)
def test_other_encoders_have_the_published_sizes(arch, count, patch, monkeypatch):
    # mmpretrain's ConvNeXt reads numbers of a tensor while it is built.
    monkeypatch.setattr(torch, 'linspace', functools.partial(torch.linspace, device='cpu'))
    cfg = load_config(config_of('m-SA-crop-type'))
    parts = load_config(
        FOLDER.parents[1] / '_base_' / 'backbones' / f'convnextv2-{arch}-p{patch}_mp-mae-pre.py'
    )
    cfg.model.backbone = dict(parts.backbone, **parts.unet_maps)
    cfg.model.decode_head.in_channels = parts.unet_channels
    init_default_scope('mmseg')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    # Published: with the norm of the classifier, which it never uses.
    norm = 2 * parts.channels[-1]
    stem = {('atto', 16): 120, ('tiny', 16): 288}.get((arch, patch), 0)
    assert sum(one.numel() for one in model.parameters()) + norm == count + stem
    expected = f'{arch}_1M_{"64_uncertainty_56-8" if patch == 8 else "128_uncertainty_112-16"}'
    assert expected in parts.backbone.init_cfg.checkpoint


@pytest.mark.parametrize(
    'name', ['m-eurosat', pytest.param('m-bigearthnet', marks=pytest.mark.slow), 'm-cashew-plant']
)
def test_fine_tuned_and_tested(name, data, checkpoint, tmp_path):
    cfg = small(config_of(name), data)
    cfg.work_dir = str(tmp_path)
    path, encoder = checkpoint
    cfg.model.backbone.init_cfg.checkpoint = str(path)
    cfg.custom_hooks = []
    runner = build_runner(cfg)
    runner.train()
    # The bands of the weights are in another order than those of the set: B8A before B08.
    fresh = build_runner(cfg).model
    fresh.init_weights()
    mine, theirs = (one.initial_conv[0].weight.detach() for one in (fresh.backbone, encoder))
    order = [0, 1, 2, 3, 4, 5, 6, 8, 7, 9, 10, 11]
    assert torch.equal(mine, theirs[:, order])
    value = runner.test()[cfg.metric]
    assert math.isfinite(value) and 0 <= value <= 100


def test_a_backbone_is_frozen_for_some_epochs(data, tmp_path):
    cfg = small(config_of('m-cashew-plant'), data, epochs=2)
    cfg.work_dir = str(tmp_path)
    cfg.model.backbone.init_cfg = None
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.custom_hooks[0].epochs = 1
    runner = build_runner(cfg)
    seen = []

    class Look(FreezeHook):
        priority = 'VERY_LOW'

        def __init__(self):
            pass

        def before_train(self, runner):
            pass

        def before_train_epoch(self, runner):
            pass

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            weight = runner.model.backbone.stages[0][0].pointwise_conv1.weight
            head = runner.model.decode_head.conv_seg.weight
            seen.append((runner.epoch, weight.detach().clone(), head.detach().clone()))

    runner.register_hook(Look())
    runner.train()
    assert [epoch for epoch, *_ in seen] == [0, 0, 1, 1]
    weights = [weight for _, weight, _ in seen]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
    assert not torch.equal(seen[0][2], seen[1][2])
    # No weight decay for the backbone, as published; its learning rate is that of the decoder.
    groups = runner.optim_wrapper.optimizer.param_groups
    inside = {id(one) for one in runner.model.backbone.parameters()}
    decays = {group['weight_decay'] for group in groups if id(group['params'][0]) in inside}
    assert decays == {0.0} and len({round(group['lr'], 12) for group in groups}) == 1
    cfg.custom_hooks[0].module = 'spine'
    with pytest.raises(ConfigError, match="no part 'spine'"):
        build_runner(cfg).train()
    with pytest.raises(ConfigError, match='at least 1'):
        FreezeHook(epochs=0)


def test_numbers_are_those_of_torchmetrics():
    """Published numbers are torchmetrics': of accuracy, and of the macro average of Jaccard."""
    rng = np.random.default_rng(0)
    truth, guess = torch.tensor(rng.integers(0, 5, (2, 3, 16, 16)))
    init_default_scope('mmseg')
    metric = METRICS.build(load_config(config_of('m-cashew-plant')).test_evaluator)
    metric.dataset_meta = dict(classes=[str(number) for number in range(7)])  # two are absent
    samples = [
        dict(
            pred_sem_seg=dict(PixelData(data=one[None]).items()),
            gt_sem_seg=dict(PixelData(data=other[None]).items()),
        )
        for one, other in zip(guess, truth, strict=True)
    ]
    metric.process({}, samples)
    expected = multiclass_jaccard_index(guess, truth, num_classes=7, average='macro')
    assert metric.evaluate(3)['mIoU'] == pytest.approx(100 * float(expected), abs=0.005)
    init_default_scope('mmpretrain')
    metric = METRICS.build(load_config(config_of('m-eurosat')).test_evaluator)
    labels, scores = torch.tensor(rng.integers(0, 10, 40)), torch.tensor(rng.random((40, 10)))
    metric.process(
        {},
        [
            dict(pred_score=score, gt_label=label[None])
            for score, label in zip(scores, labels, strict=True)
        ],
    )
    expected = multiclass_accuracy(scores, labels, num_classes=10, average='micro')
    assert metric.evaluate(40)['accuracy/top1'] == pytest.approx(100 * float(expected), abs=1e-3)
