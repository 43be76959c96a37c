# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The pretraining configs of MTP: published values, parts that fit together, and small runs."""

import importlib
import math
import multiprocessing.dummy

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, init_default_scope

from mmrsfm.checkpoints import read_checkpoint, report_of
from mmrsfm.engine.run_config import build_runner, load_config, register_scope
from tests.formats import MAKERS
from tests.test_configs.tiny_mtp import CONFIGS, tiny_config

FOLDER = CONFIGS / 'pretrain'
FILES = sorted(FOLDER.glob('mtp*_samrs-*.py'))
LARGE = [file for file in FILES if 'tiny' not in file.name]
PUBLISHED = [file for file in LARGE if '32xb3-coslr' in file.name]
TINY = FOLDER / 'mtp_rvsa-tiny_1xb3-100i_samrs-64px.py'
# Trained and idle parameters of the published encoders (mtp_pretrain.md 1.1, 2).
ENCODERS = {
    'rvsa-base': 93_291_328,
    'rvsa-large': 318_245_248,
    'internimage-xl': 328_971_228,
}
COUNTS = {'sota': 18, 'sior': 20, 'fast': 37}


def test_there_are_two_of_each_backbone():
    assert len(PUBLISHED) == 3
    assert len(LARGE) == 7  # and one with learnt weights of the tasks


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_model_and_data_agree(file):
    cfg = load_config(file)
    size = int(file.stem.rpartition('-')[2].removesuffix('px'))
    assert cfg.model.data_preprocessor.size == size
    if 'RVSA' in cfg.model.backbone.type:
        assert cfg.model.backbone.img_size == size
    names = [one.name for one in cfg.model.datasets]
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        parts = cfg[loader].dataset.datasets
        assert [one.name for one in parts] == names
        assert all(DATASETS.get(one.type) is not None for one in parts)
        pipeline = {step['type'].rpartition('.')[2]: step for step in cfg[loader].dataset.pipeline}
        if loader == 'train_dataloader':
            assert pipeline['MultiTaskRandomCrop'].size == size
            assert tuple(pipeline['MultiTaskRandomResize'].scale) == (size, size)
            assert all('_train_' in one.ann_file for one in parts)
        else:
            assert tuple(pipeline['MultiTaskResize'].scale) == (size, size)
            order = list(pipeline)
            assert order.index('MultiTaskResize') < order.index('LoadMultiTaskAnnotations')
            assert all('_valid_' in one.ann_file and one.test_mode for one in parts)
        for step in cfg[loader].dataset.pipeline:
            assert TRANSFORMS.get(step['type']) is not None
    assert cfg.train_dataloader.sampler.type == 'mmrsfm.MultiDatasetSampler'
    assert any(hook.type == 'mmrsfm.EncoderCheckpointHook' for hook in cfg.custom_hooks)
    if cfg.default_hooks.checkpoint.get('save_best'):
        assert cfg.default_hooks.checkpoint.save_best == 'multi_task/mean'


@pytest.mark.parametrize('file', PUBLISHED, ids=lambda file: file.stem)
def test_published_schedule(file):
    cfg = load_config(file)
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (3, 96)
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer.lr == (2e-5 if 'internimage' in file.name else 6e-5)
    assert tuple(optimizer.betas) == (0.9, 0.999)
    assert optimizer.weight_decay == 0.05
    assert cfg.optim_wrapper.type == 'OptimWrapper'  # full precision
    assert cfg.optim_wrapper.clip_grad.max_norm == 5
    (schedule,) = cfg.param_scheduler  # no warm-up
    assert (schedule.type, schedule.T_max, schedule.eta_min) == ('CosineAnnealingLR', 80000, 0.0)
    assert not schedule.by_epoch
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (80000, 80000)
    assert cfg.default_hooks.checkpoint.interval == 5000
    assert cfg.model.data_preprocessor.pad_seg == 'as_published'
    assert cfg.model.decoder_init == 'as_published'
    steps = {step['type']: step for step in cfg.train_dataloader.dataset.pipeline}
    assert steps['LoadImageFromFile'].to_float32
    assert 'mmseg.PhotoMetricDistortion' in steps
    assert cfg.model.backbone.get('with_cp', False) == ('rvsa-base' not in file.name)
    assert cfg.model.backbone.drop_path_rate == (0.2 if 'internimage' in file.name else 0.1)


@pytest.mark.parametrize(
    'file',
    [
        # Of the others only parts differ that are here too.
        pytest.param(one, marks=[] if one in PUBLISHED[::2] else [pytest.mark.slow])
        for one in LARGE
    ],
    ids=lambda file: file.stem,
)
def test_models_and_optimizers_build_at_full_size(file):
    cfg = load_config(file)
    register_scope(cfg.default_scope)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.pop('init_cfg')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    name = file.name.split('_')[1]
    count = sum(weight.numel() for weight in model.backbone.parameters())
    if file in PUBLISHED:
        assert count == ENCODERS[name]
    else:
        assert count == pytest.approx(ENCODERS[name], rel=1e-4)
    assert {key: len(one.classes) for key, one in model.label_sets.items()} == COUNTS
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.optim_wrapper.pop('loss_scale', None)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert sum(len(group['params']) for group in groups) == len(trained)
    scales = {round(group['lr'] / cfg.optim_wrapper.optimizer.lr, 6) for group in groups}
    if 'internimage' in name:
        assert min(scales) == round(0.94**40, 6)
    elif file in PUBLISHED:
        assert scales == {1.0}, 'published: no decay'
    else:
        assert min(scales) == round(0.9 ** (len(model.backbone.blocks) + 1), 6)


class Witness(Hook):
    """What a run trained on, and what it lost."""

    priority = 'VERY_LOW'

    def __init__(self, stop_at=None):
        self.stop_at = stop_at
        self.batches = []
        self.losses = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        samples = data_batch['data_samples']
        self.batches.append(
            [(one.dataset_name, one.img_path, one.sampling_seed) for one in samples]
        )

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append({key: float(value) for key, value in outputs.items() if 'loss' in key})
        if self.stop_at is not None and runner.iter + 1 == self.stop_at:
            raise KeyboardInterrupt


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('samrs')
    for number, name in enumerate(COUNTS):
        MAKERS[f'samrs_{name}'](root / name, count=2 + number // 2, size=48)
    return root


@pytest.fixture(autouse=True)
def nothing_slow(monkeypatch):
    """Threads in the place of mmrotate's four processes; the text of the config as it comes, ...

    (MMEngine formats it anew for each checkpoint, which takes two thirds of such a run.)
    """
    mean_ap = importlib.import_module('mmrotate.evaluation.functional.mean_ap')
    monkeypatch.setattr(mean_ap, 'get_context', lambda _: multiprocessing.dummy)
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True))
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr('os.fsync', lambda handle: None)


def tiny(data, work_dir, **changes):
    """The config for a CPU, for four steps."""
    cfg = load_config(TINY)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for one in cfg[loader].dataset.datasets:
            one.data_root = str(data / one.name)
    for task, one in cfg.model.decoders.items():
        if task != 'semantic':
            # An untrained model is sure of nothing; of every class at once NMS takes seconds.
            one.test_cfg.rcnn.update(score_thr=0.035, max_per_img=10)
    cfg.work_dir = str(work_dir)
    cfg.merge_from_dict(
        {
            'train_cfg.max_iters': 4,
            'train_cfg.val_interval': 4,
            'default_hooks.checkpoint.interval': 2,
            'default_hooks.logger.interval': 1,
            'param_scheduler': None,
            **changes,
        }
    )
    return cfg


def train(cfg, stop_at=None, **changes):
    cfg.merge_from_dict(changes)
    runner = build_runner(cfg)
    witness = Witness(stop_at)
    runner.register_hook(witness)
    try:
        runner.train()
    except KeyboardInterrupt:
        assert stop_at is not None
    return runner, witness


def test_trains_stops_resumes_tests_and_leaves_its_encoder(data, tmp_path):
    runner, whole = train(tiny(data, tmp_path / 'whole'))
    assert [[name for name, _, _ in batch] for batch in whole.batches] == [list(COUNTS)] * 4
    keys = set(whole.losses[0])
    assert {'sota/semantic/loss_ce', 'sior/instance/loss_mask', 'fast/rotated/loss_bbox'} <= keys
    assert all(math.isfinite(value) for step in whole.losses for value in step.values())
    # The largest set has three images, and none of them waits for another epoch.
    seen = {path for batch in whole.batches[:3] for name, path, _ in batch if name == 'fast'}
    assert len(seen) == 3
    metrics = runner.test()
    for name in COUNTS:
        for key in ('semantic/mIoU', 'instance/segm_mAP', 'instance/bbox_mAP', 'rotated/mAP'):
            assert 0 <= metrics[f'{name}/{key}'] <= 100
    assert math.isfinite(metrics['multi_task/mean'])

    # Killed in the third step, and resumed from the second: the same samples, draws and weights.
    killed = tiny(data, tmp_path / 'killed')
    _, before = train(killed, stop_at=3)
    resumed = tiny(data, tmp_path / 'killed')
    runner, after = train(resumed, resume=True)
    assert before.batches[:2] + after.batches == whole.batches
    assert before.losses[:2] + after.losses == whole.losses
    files = [read_checkpoint(tmp_path / name / 'iter_4.pth') for name in ('whole', 'killed')]
    for name, value in files[0]['state_dict'].items():
        assert torch.equal(value, files[1]['state_dict'][name]), name

    # What it is for: the backbone of a fine-tuning.
    encoder = tmp_path / 'killed' / 'encoder_iter_4.pth'
    assert set(read_checkpoint(encoder)) == {'state_dict', 'meta'}
    towns = MAKERS['spacenet_v1'](tmp_path / 'towns', count=2)
    tuning = tiny_config('spacenetv1', towns, checkpoint=encoder)
    tuning.merge_from_dict({'model.backbone.patch_size': 8, 'work_dir': str(tmp_path / 'tuned')})
    runner = build_runner(tuning)
    runner.train()
    assert not report_of(runner.model.backbone).missing
    best = [file.name for file in (tmp_path / 'killed').glob('*best*')]
    assert sorted(best) == [
        'best_multi_task_mean_iter_4.pth',
        'best_multi_task_mean_iter_4.pth.sha256',
        'encoder_best_multi_task_mean_iter_4.pth',
        'encoder_best_multi_task_mean_iter_4.pth.sha256',
    ]


def test_a_set_and_a_task_can_be_left_out(data, tmp_path):
    cfg = tiny(data, tmp_path)
    cfg.model.datasets = [dict(name='sota'), dict(name='fast', tasks=['semantic'])]
    cfg.model.decoders.pop('rotated')
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        parts = {one.name: one for one in cfg[loader].dataset.datasets}
        parts['sota'].tasks = ['semantic', 'instance']
        parts['fast'].tasks = ['semantic']
        cfg[loader].dataset.datasets = [parts['sota'], parts['fast']]
    cfg.train_dataloader.sampler.ratios = 'ratio'
    cfg.model.task_weights = 'uncertainty'
    runner, witness = train(cfg, **{'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2})
    assert not any('rotated' in key or 'fast/instance' in key for key in witness.losses[0])
    assert 'loss_uncertainty' in witness.losses[0]
    assert sorted(name for name, _, _ in witness.batches[0]) in (
        ['fast', 'fast', 'sota'], ['fast', 'sota', 'sota'],
    )  # fmt: skip
    assert runner.train_dataloader.sampler.shares in ([1, 2], [2, 1])
