# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Every pretext algorithm and a config of every task: killed with SIGKILL, and resumed exactly.

The circumstances in all their combinations are in ``tests/test_engine/test_exact_resume.py``.
"""

import importlib
import multiprocessing.dummy

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmrsfm.engine.run_config import build_runner, load_config, set_dataloader_defaults
from tests.formats import MAKERS
from tests.formats.mmearth import make_mmearth
from tests.parity import REPO
from tests.resume import check_resume, note, run
from tests.test_configs import (
    test_mp_mae_pretraining_runs,
    test_mtp_pretraining,
    tiny_mars,
    tiny_mtp,
    tiny_sar_w_mixmae,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # on a machine that does other things
    pytest.mark.filterwarnings('ignore:Dataset has no geotransform'),
]
STEPS = 3  # of an epoch, of which there are two
SETTINGS = {
    'one rank': dict(ranks=1, accumulate=3, ema=True),
    'two ranks': dict(ranks=2, accumulate=1, ema=False),
}
CASES = [
    ('one rank', dict(place='within an epoch', workers=0)),
    ('one rank', dict(place="at an epoch's end", workers=2)),
    ('two ranks', dict(place='within an epoch', workers=2)),
]


def cross_scale_mae(root):
    rng = np.random.default_rng(0)
    root.mkdir()
    rows = ['category,location']
    for number in range(8):
        image = rng.integers(0, 255, (70 + number, 90, 3), dtype=np.uint8)
        Image.fromarray(image).save(root / f'{number}.jpg')
        rows.append(f'{number % 62},{number}.jpg')
    (root / 'train.csv').write_text('\n'.join(rows) + '\n')
    folder = REPO / 'configs' / 'cross_scale_mae'
    cfg = load_config(folder / 'cross-scale-mae_vit-tiny-p16_1xb8-coslr-2e_fmow-rgb-64px.py')
    set_dataloader_defaults(cfg)
    cfg.train_dataloader.dataset.data_root = str(root)
    return cfg


def mp_mae(root):
    data = make_mmearth(root / 'data_64', count=4, size=64)
    name = test_mp_mae_pretraining_runs.RUNS[-1]
    return test_mp_mae_pretraining_runs.tiny_config(name, lambda size: data, root)


def mtp_pretraining(root):
    for number, name in enumerate(test_mtp_pretraining.COUNTS):
        MAKERS[f'samrs_{name}'](root / name, count=2 + number // 2, size=48)
    return test_mtp_pretraining.tiny(root, root)


def mtp(folder):
    def make(root):
        name, options = tiny_mtp.DATA[folder]
        return tiny_mtp.tiny_config(folder, MAKERS[name](root, **options))

    return make


def mars(pattern):
    def make(root):
        (file,) = tiny_mars.CONFIGS.glob(pattern)
        (folder,) = tiny_mars.data_folders(Config.fromfile(file).train_dataloader.to_dict())
        name, options = tiny_mars.DATA[folder]
        return tiny_mars.tiny_config(file, MAKERS[name](root, **options))

    return make


def sar_w(pattern):
    def make(root):
        (file,) = tiny_sar_w_mixmae.CONFIGS.glob(pattern)
        (folder,) = tiny_mars.data_folders(Config.fromfile(file).train_dataloader.to_dict())
        name, options = tiny_sar_w_mixmae.DATA[folder]
        data = MAKERS[name](root, **options)
        if name == 'flood_masks' and 'mixmae' in file.stem:  # pretrained on images alone
            for mask in data.rglob('masks/*'):
                mask.unlink()
        return tiny_sar_w_mixmae.tiny_config(file, data)

    return make


RUNS = {
    'pretraining: Cross-Scale MAE': cross_scale_mae,
    'pretraining: MaRS, pairs': mars('mars_swinv2-tiny*'),
    'pretraining: MaRS, optical': mars('mars-optical*'),
    'pretraining: MP-MAE': mp_mae,
    'pretraining: SAR-W-MixMAE': sar_w('sar-w*tiny*'),
    'pretraining: MTP (multi-task)': mtp_pretraining,
    'classification': mtp('eurosat'),
    'classification, several labels': sar_w('bigearthnetv1/*50e_bigearthnetv1-s1-128px.py'),
    'segmentation': mtp('loveda'),
    'segmentation, two modalities': mars('earthmiss/*.py'),
    'detection': mtp('dior'),
    'detection, batches by aspect': mtp('xview'),
    'rotated detection': mtp('dior_r'),
    'instance segmentation': mars('ubcv2/*.py'),
    'height and segmentation': mars('dfc23/*.py'),
    'change detection': mtp('levir_cd'),
    'change detection, several classes': mars('dfc25/*.py'),
    'registration': mars('guso/*matcher*.py'),
    'translation': mars('guso/*sar2rgb*.py'),
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    mean_ap = importlib.import_module('mmrotate.evaluation.functional.mean_ap')
    monkeypatch.setattr(mean_ap, 'get_context', lambda _: multiprocessing.dummy)
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr('os.fsync', lambda handle: None)


def config_maker(cfg, ranks, accumulate, ema, place, workers):
    """A function that makes the config of a case from the tiny one."""

    def make():
        made = Config(cfg.to_dict(), filename=cfg.filename)
        loader = made.train_dataloader
        loader.update(num_workers=workers, persistent_workers=workers > 0)
        every = 4 if place == 'within an epoch' else STEPS
        if 'max_epochs' in made.train_cfg:
            # As often as it takes to fill the batches of all ranks.
            loader.dataset = dict(type='RepeatDataset', dataset=loader.dataset, times=20)
            loader.update(num_batch_per_epoch=STEPS, batch_size=2)
            made.train_cfg.max_epochs = 2
        else:
            loader.pop('num_batch_per_epoch', None)
            made.train_cfg.update(max_iters=2 * STEPS, val_interval=STEPS)
        by_epoch = 'max_epochs' in made.train_cfg and every == STEPS
        made.default_hooks.checkpoint.update(
            by_epoch=by_epoch, interval=1 if by_epoch else every, max_keep_ckpts=-1, save_best=None
        )
        made.optim_wrapper.accumulative_counts = accumulate
        made.param_scheduler = dict(type='LinearLR', by_epoch=False, start_factor=0.1, end=6)
        if ema:
            averages = dict(type='EMAHook', momentum=0.1)
            made.custom_hooks = [*(made.get('custom_hooks') or []), averages]
        return made

    return make


@pytest.mark.parametrize('name', RUNS)
def test_killed_and_resumed(name, tmp_path):
    tiny = RUNS[name](tmp_path / 'data')
    tiny.work_dir = str(tmp_path / 'first')
    first = dict(SETTINGS['one rank'], place='within an epoch', workers=0)
    build_runner(config_maker(tiny, **first)())  # imports what the processes need
    whole = {}
    for number, (settings, circumstances) in enumerate(CASES):
        case = SETTINGS[settings] | circumstances
        make, ranks = config_maker(tiny, **case), case['ranks']
        if settings not in whole:
            straight = config_maker(tiny, **case | {'workers': 0})
            whole[settings] = run(straight, tmp_path / settings, ranks)
            assert len(whole[settings].steps[0]) == 2 * STEPS
        folder = tmp_path / str(number)
        after = 5 if case['place'] == 'within an epoch' else 4
        killed = run(make, folder, ranks, kill_after=after)
        resumed = run(make, folder, ranks, resume=True)
        done = check_resume(whole[settings], killed, resumed)
        assert done == after - 1
        cells = [name, *map(str, case.values())]
        note(f'| {" | ".join(cells)} | {done} of {2 * STEPS} | bit-equal |')
