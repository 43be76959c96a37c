# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""kNN, linear probe and fine-tune from a pretraining checkpoint, by tools/train.py and test.py."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmrsfm.datasets import EuroSAT
from mmrsfm.engine.hooks import PretrainedGuardHook
from mmrsfm.registry import MODELS
from tests.processes import run_forked

REPO = Path(__file__).resolve().parents[2]
BENCHMARKS = REPO / 'configs' / 'cross_scale_mae' / 'benchmarks'
TINY = 'vit-tiny-p16_cross-scale-mae-pre_'
LINEAR = f'{TINY}1xb8-linear-coslr-50e_eurosat-rgb-64px.py'
FINETUNE = f'{TINY}1xb8-coslr-100e_eurosat-rgb-64px.py'
KNN = f'{TINY}knn_eurosat-rgb-64px.py'
CHECKPOINT = 'checkpoints/cross_scale_mae_tiny_pretrain.pth'


def write_eurosat(root, per_class=6):
    rng = np.random.default_rng(0)
    lists = {'train': [], 'val': [], 'test': []}
    for name in EuroSAT.METAINFO['classes']:
        folder = root / 'EuroSAT_RGB' / name
        folder.mkdir(parents=True)
        colour = rng.integers(20, 235, 3)
        for index in range(per_class + 2):
            image = np.clip(colour + rng.normal(0, 6, (64, 64, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / f'{name}_{index}.jpg', quality=95)
            split = 'train' if index < per_class else 'val' if index == per_class else 'test'
            lists[split].append(f'{name}/{name}_{index}.jpg')
    for split, lines in lists.items():
        (root / f'eurosat-{split}.txt').write_text('\n'.join(lines) + '\n')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A work folder in which pretraining, probing, fine-tuning and kNN have been run."""
    folder = tmp_path_factory.mktemp('protocols')
    write_eurosat(folder / 'data' / 'eurosat')
    cfg = Config.fromfile(REPO / 'configs/_base_/models/cross_scale_mae_vit-tiny-p16.py')
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    (folder / 'checkpoints').mkdir()
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / CHECKPOINT)
    # Two batches of eight.
    two_batches = ['train_dataloader.dataset.indices=16', 'train_cfg.max_epochs=1']
    commands = []
    for name in (LINEAR, FINETUNE):
        work_dir = f'work/{Path(name).stem}'
        train = ['train.py', name, '--work-dir', work_dir, '--cfg-options', *two_batches]
        test = ['test.py', name, f'{work_dir}/epoch_1.pth', '--work-dir', f'{work_dir}/test']
        commands += [train, test]
    commands.append(['test.py', KNN, CHECKPOINT, '--work-dir', 'work/knn'])
    # Of a classifier, too: its head is left aside.
    tuned = f'work/{Path(FINETUNE).stem}/epoch_1.pth'
    commands.append(['test.py', KNN, tuned, '--work-dir', 'work/knn_tuned'])
    for tool, name, *rest in commands:
        run_forked([REPO / 'tools' / tool, BENCHMARKS / name, *rest], folder)
    return folder


def read_metrics(folder):
    (path,) = folder.glob('*/*.json')
    return json.loads(path.read_text().splitlines()[-1])


def pretrained_and_trained(folder, name):
    before = torch.load(folder / CHECKPOINT, weights_only=True)['state_dict']
    path = folder / 'work' / Path(name).stem / 'epoch_1.pth'
    return before, torch.load(path, weights_only=False)['state_dict']


def test_linear_probing_trains_the_head_only(folder):
    before, after = pretrained_and_trained(folder, LINEAR)
    names = [name for name in after if name.startswith('backbone.')]
    assert {name for name in before if name.startswith('backbone.')} == set(names)
    assert all(torch.equal(before[name], after[name]) for name in names)
    assert after['head.fc.weight'].shape == (10, 128)
    assert after['neck.bn.num_batches_tracked'] == 2
    metrics = read_metrics(folder / 'work' / Path(LINEAR).stem / 'test')
    assert {'accuracy/top1', 'accuracy/top5', 'single-label/f1-score'} <= set(metrics)


def test_fine_tuning_trains_everything(folder):
    before, after = pretrained_and_trained(folder, FINETUNE)
    for name in ('patch_embed.projection.weight', 'layers.3.attn.qkv.weight', 'cls_token'):
        key = f'backbone.{name}'
        if name != 'cls_token':
            assert not torch.equal(before[key], after[key])
        # Two steps of warm-up from the checkpoint, not from an initialisation of its own.
        torch.testing.assert_close(before[key], after[key], atol=1e-2, rtol=0)
    assert 'accuracy/top1' in read_metrics(folder / 'work' / Path(FINETUNE).stem / 'test')


def test_knn_sweeps_the_scales(folder):
    metrics = read_metrics(folder / 'work' / 'knn')
    assert set(metrics) == set(read_metrics(folder / 'work' / 'knn_tuned'))
    for scale in ('12.5', '25', '50', '100'):
        for k in (5, 20):
            assert f'scale_{scale}/k_{k}/accuracy/top1' in metrics
            assert f'scale_{scale}/k_{k}/single-label/f1-score' in metrics
    # Ten classes, each of one colour.
    assert metrics['scale_100/k_5/accuracy/top1'] >= 80


@pytest.mark.parametrize('path', sorted(BENCHMARKS.glob('*.py')), ids=lambda path: path.stem)
def test_every_benchmark_names_what_exists(path):
    """The model is built from the config, small; dataset, pipeline and loops are registered."""
    cfg = Config.fromfile(path)
    init_default_scope('mmpretrain')
    from mmrsfm.registry import DATASETS, LOOPS, TRANSFORMS

    assert DATASETS.get(cfg.test_dataloader.dataset.type) is not None
    for transform in cfg.test_dataloader.dataset.pipeline:
        assert TRANSFORMS.get(transform.type) is not None
    stated = DATASETS.get(cfg.test_dataloader.dataset.type).METAINFO.get('classes')
    # Of NAIP tiles the labels say it.
    classes = cfg.model.head.num_classes if stated is None else len(stated)
    assert cfg.data_preprocessor.get('num_classes', classes) == classes
    if '_knn_' in path.name:
        assert LOOPS.get(cfg.test_cfg.type) is not None
        assert cfg.test_cfg.bank_dataset.type == cfg.test_dataloader.dataset.type
        assert cfg.test_cfg.bank_dataset.pipeline == cfg.test_dataloader.dataset.pipeline
        bank, test = (dict(d) for d in (cfg.test_cfg.bank_dataset, cfg.test_dataloader.dataset))
        assert bank != test
        return
    assert cfg.model.head.num_classes == classes
    gpus, batch = path.stem.split('_')[2].split('-')[0].split('xb')
    assert cfg.train_dataloader.batch_size == int(batch)
    if 'tiny' not in path.name:
        base = cfg.auto_scale_lr.base_batch_size
        assert base == int(gpus) * int(batch)
        rate = 0.1 if '-linear-' in path.name else 1e-3
        assert cfg.optim_wrapper.optimizer.lr == pytest.approx(rate * base / 256)
    backbone = MODELS.get(cfg.model.backbone.type).arch_zoo[cfg.model.backbone.arch]
    assert cfg.model.head.in_channels == backbone['embed_dims']
    if '-linear-' in path.name:
        assert cfg.model.backbone.frozen_stages == backbone['num_layers']
        assert cfg.model.neck.input_features == backbone['embed_dims']
    # The published schedule: warm-up and cosine fill the epochs.
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_epochs
    assert cfg.param_scheduler[0].end + cfg.param_scheduler[1].T_max == cfg.train_cfg.max_epochs


def test_thirteen_bands_start_from_rgb_weights_of_other_imagery(tmp_path):
    rgb = Config.fromfile(BENCHMARKS / FINETUNE)
    cfg = Config.fromfile(BENCHMARKS / FINETUNE.replace('tiny', 'base').replace(
        '1xb8-coslr-100e_eurosat-rgb', '8xb64-coslr-100e_eurosat-13b'
    ))  # fmt: skip
    init_default_scope('mmpretrain')
    source = MODELS.build({**rgb.model.backbone, 'init_cfg': None})
    source.init_weights()
    contract = MODELS.build(rgb.data_preprocessor).contract
    state = {f'backbone.{name}': value for name, value in source.state_dict().items()}
    path = tmp_path / 'rgb.pth'
    torch.save(dict(state_dict=state, meta=dict(mmrsfm_contract=contract.to_dict())), path)
    cfg.model.backbone.update(arch='tiny')
    cfg.model.backbone.init_cfg.checkpoint = str(path)
    cfg.model.head.in_channels = 128
    model = MODELS.build({**cfg.model, 'data_preprocessor': cfg.data_preprocessor})
    model.init_weights()
    runner = SimpleNamespace(model=model, _has_loaded=False, logger=logging.getLogger())
    PretrainedGuardHook().before_train(runner)
    stem = model.backbone.patch_embed.projection.weight
    mean = source.patch_embed.projection.weight.mean(1)
    assert stem.shape[1] == 13
    for band in range(13):
        direction = torch.nn.functional.cosine_similarity(
            stem[:, band].flatten(), mean.flatten(), dim=0
        )
        assert direction.item() == pytest.approx(1, abs=1e-5)


def build_optimizer(name):
    cfg = Config.fromfile(BENCHMARKS / name)
    init_default_scope('mmpretrain')
    from mmengine.optim import build_optim_wrapper

    cfg.model.data_preprocessor = cfg.data_preprocessor
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model)
    return model, build_optim_wrapper(model, cfg.optim_wrapper).optimizer


def test_layer_decay_is_that_of_the_publication():
    _, optimizer = build_optimizer(FINETUNE)
    found = {group['param_name']: group for group in optimizer.param_groups}
    depth = 4
    for name, layer in {
        'backbone.cls_token': 0,
        'backbone.pos_embed': 0,
        'backbone.patch_embed.projection.weight': 0,
        'backbone.layers.0.attn.qkv.weight': 1,
        'backbone.layers.3.attn.qkv.weight': 4,
        'backbone.ln2.weight': depth + 1,
        'head.fc.weight': depth + 1,
    }.items():
        assert found[name]['lr'] == pytest.approx(2e-3 * 0.75 ** (depth + 1 - layer)), name
    for name, group in found.items():
        plain = name.endswith(('.bias', 'cls_token', 'pos_embed')) or '.ln' in name
        assert group['weight_decay'] == (0.0 if plain else 0.05), name


def test_the_probe_gives_lars_the_head_only():
    model, optimizer = build_optimizer(LINEAR)
    trained = [p for group in optimizer.param_groups for p in group['params'] if p.requires_grad]
    assert {id(p) for p in trained} == {id(model.head.fc.weight), id(model.head.fc.bias)}
    by_id = {id(group['params'][0]): group for group in optimizer.param_groups}
    assert by_id[id(model.head.fc.bias)]['lars_exclude'] is True
    weight = by_id[id(model.head.fc.weight)]
    assert not weight.get('lars_exclude', False)
    assert (weight['lr'], weight['eta'], weight['weight_decay']) == (0.4, 0.001, 0.0)
