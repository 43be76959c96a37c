# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The multi-label fine-tunings of SAR-W-MixMAE: out of packed files, chosen on validation.

Training from folders, after a pretraining, and full sizes are in test_sar_w_mixmae_runs.py.
"""

import math
from pathlib import Path

import pytest
from mmengine.config import Config

from mmrsfm.engine.run_config import build_runner
from tests.formats.bigearthnet import make_bigearthnet_v2
from tests.parity import REPO

CONFIGS = REPO / 'configs' / 'sar_w_mixmae'
FILES = sorted(path for path in CONFIGS.glob('bigearthnet*/*.py'))
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
TINY = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 4])


def tiny_config(file: Path, root: Path) -> Config:
    """One epoch of two steps, a model of a few channels, images of 64 pixels."""
    cfg = Config.fromfile(file)
    cfg.model.backbone = dict(type='mmrsfm.MixMIM', arch=TINY, img_size=64, in_channels=2)
    cfg.model.head.in_channels = 64
    cfg.visualizer.name = f'{file.stem}_{root.name}'
    for name in LOADERS:
        loader = cfg[name]
        loader.update(batch_size=3, num_workers=0, persistent_workers=False, pin_memory=False)
        loader.dataset.data_root = str(root)
        for transform in loader.dataset.pipeline:
            if transform.type == 'mmrsfm.Resize':
                transform.size = (64, 64)
    cfg.train_cfg.max_epochs = 1
    if 'constructor' in cfg.optim_wrapper:
        cfg.optim_wrapper.paramwise_cfg.depths = TINY['depths']
    return cfg


def pack(cfg: Config, file: Path, root: Path, monkeypatch) -> None:
    from data_converters.pack_tiles import main

    source = file.with_name(file.name.replace('-packed', ''))
    for part in ('train', 'val', 'test'):
        target = root / cfg[f'{part}_dataloader'].dataset.ann_file
        words = ['pack_tiles.py', str(source), str(target), '--loader', f'{part}_dataloader']
        words += ['--cfg-options']
        words += [f'{part}_dataloader.dataset.{key}={value}' for key, value in (
            ('data_root', root), ('ann_file', 'metadata.csv'),
        )]  # fmt: skip
        monkeypatch.setattr('sys.argv', words)
        main()


def test_packs_trains_and_selects_on_validation(tmp_path, monkeypatch):
    (file,) = (one for one in FILES if 'packed' in one.name)
    root = make_bigearthnet_v2(tmp_path / 'data', count=6, optical=False)
    cfg = tiny_config(file, root)
    pack(cfg, file, root, monkeypatch)
    cfg.work_dir = str(tmp_path)
    runner = build_runner(cfg)
    runner.train()
    assert runner.iter == 2
    (best,) = tmp_path.glob('best_multi-label_weighted_*.pth')
    assert best.stat().st_size
    metrics = runner.test()
    assert {'multi-label/ap_macro', 'multi-label/precision_micro'} <= set(metrics)
    assert len([key for key in metrics if key.startswith('multi-label/ap/')]) == 19
    assert all(math.isfinite(value) and 0 <= value <= 100 for value in metrics.values())


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_models_are_not_chosen_on_test(file):
    cfg = Config.fromfile(file)
    parts = [cfg[name].dataset for name in LOADERS]
    assert len({(one.ann_file, one.get('split')) for one in parts}) == 3
    assert (
        cfg.default_hooks.checkpoint.save_best.split('/')[-1] in cfg.val_evaluator.selection_rules
    )
