# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The configs of MaRS, made so small that a CPU trains two steps of them in a second or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmrsfm.engine.run_config import (
    adapt_amp_to_device,
    load_config,
    set_dataloader_defaults,
)
from mmrsfm.registry import MODELS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'mars'
# Folder below data/ in the configs -> (key of tests.formats.MAKERS, its arguments).
DATA: dict[str, tuple[str, dict[str, int]]] = {
    'mars16m': ('mars_16m', dict(count=4)),
    'vhr_rgb': ('vhr_rgb', dict(count=4)),
    'guso': ('guso', dict(count=4)),
    'earthmiss': ('earthmiss', dict(count=2)),
    'sardet-100k': ('sardet', dict(count=5)),
    'ubcv2': ('ubcv2', dict(count=5)),
    'dfc23': ('dfc23', dict(count=4)),
    'deepglobe-roads': ('deepglobe', dict(count=4)),
    'dfc25': ('dfc25', dict(count=4)),
    'bright': ('bright', dict(count=4)),
    'whu-cd': ('whu_cd', dict(count=4)),
    'scene_labels': ('scene_labels', dict(count=2)),
    'scene_multilabels': ('scene_multilabels', dict(count=4)),
}
ARCH = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
# All widths shrink as those of the backbone do, from 128 (base) or 192 (large) to 8, so that heads
# and necks still fit to it.
_WIDTHS = {64: 8, 128: 8, 256: 16, 512: 32, 1024: 64, 2048: 128} | {
    192: 8, 384: 16, 768: 32, 1536: 64, 3072: 128,
}  # fmt: skip
_SIDES = {128: 64, 160: 64, 224: 64, 256: 64, 512: 64, 640: 64, 800: 96, 1024: 64}
_SIDE_KEYS = {
    'scale', 'crop_size', 'img_size', 'size', 'stride', 'img_shape', 'size_divisor', 'pad_size',
}  # fmt: skip


def released_file(path: Path, channels: int) -> Path:
    """An encoder as MaRS releases it (keys of timm), with random weights of the tiny backbone."""
    backbone = MODELS.build(dict(type='mmrsfm.SwinV2', arch=ARCH, in_channels=channels))
    backbone.init_weights()
    torch.save(to_timm(backbone.state_dict()), path)
    return path


def to_timm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Renames as the facts say (mars.md 4.3), not as our converter does."""
    renamed = {}
    for name, value in state.items():
        if name.endswith('downsample.reduction.weight'):
            # Column 4c + 2h + w of an unfold becomes (2w + h) C + c of timm.
            rows, columns = value.shape
            value = value.reshape(rows, columns // 4, 2, 2).permute(0, 3, 2, 1)
            value = value.reshape(rows, columns).clone()
        for ours, theirs in (
            ('patch_embed.projection', 'patch_embed.proj'), ('attn.w_msa.', 'attn.'),
            ('ffn.layers.0.0', 'mlp.fc1'), ('ffn.layers.1', 'mlp.fc2'), ('stages.', 'layers_'),
        ):  # fmt: skip
            name = name.replace(ours, theirs)
        renamed[name] = value
    return renamed


def tiny_config(
    file: Path,
    data: Path,
    checkpoints: dict[int, Path] | None = None,
    start: Path | None = None,
) -> Config:
    """A config with a small backbone and head, on generated data.

    Everything else is as it stands in the file: pipelines (with smaller sides), losses, optimizer
    groups, hooks, evaluators.

    Args:
        file: The config.
        data: The generated data, in the place of its folder below ``data/``.
        checkpoints: Number of channels -> file for a backbone of that many; others, and with
            ``None`` all, get random weights.
        start: A checkpoint for a model that is initialised as a whole.
    """
    cfg = load_config(file)
    set_dataloader_defaults(cfg)
    adapt_amp_to_device(cfg)
    shrunk = _paths(cfg.to_dict(), str(data))
    whole = shrunk['model'].pop('init_cfg', None)
    shrunk['model'] = _proposals(_widths(shrunk['model'], checkpoints or {}))
    if whole is not None and start is not None:
        shrunk['model']['init_cfg'] = {**whole, 'checkpoint': str(start)}
    cfg = Config(_sides(shrunk), filename=cfg.filename)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(name):
            cfg[name].update(num_workers=0, persistent_workers=False)
            if 'MaRS16M' in cfg[name].dataset.type:  # so that some lack a modality
                cfg[name].dataset.on_missing = 'keep'
            if 'DeepGlobe' in cfg[name].dataset.type:  # no split by name leaves some of so few
                part = 'train' if name.startswith('train') else 'val'
                cfg[name].dataset.ann_file = f'{part}.txt'
    cfg.train_dataloader.num_batch_per_epoch = 2
    cfg.train_dataloader.batch_size = 2
    if 'max_epochs' in cfg.train_cfg:
        cfg.train_cfg.max_epochs = 1
    else:
        cfg.train_cfg.max_iters = 2
    # Where the learning rate is not what a warm-up of hundreds of steps makes of it.
    cfg.param_scheduler = None
    cfg.default_hooks.logger.interval = 1
    return cfg


def data_folders(value: Any) -> set[str]:
    """Names of the folders below data/ that a config reads."""
    if isinstance(value, dict):
        return set().union(*map(data_folders, value.values()), set())
    if isinstance(value, (list, tuple)):
        return set().union(*map(data_folders, value), set())
    if isinstance(value, str) and value.startswith('data/'):
        return {Path(value).parts[1].removesuffix('.index')}
    return set()


def _paths(value: Any, data: str) -> Any:
    if isinstance(value, dict):
        return {name: _paths(one, data) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_paths(one, data) for one in value)
    if isinstance(value, str) and value.startswith('data/'):
        if value.endswith('.index'):  # it lies beside the data
            return f'{data}.index'
        return '/'.join([data, *value.split('/')[2:]])
    return value


def _widths(value: Any, checkpoints: dict[int, Path], key: str = '') -> Any:
    if isinstance(value, dict):
        value = dict(value)
        if str(value.get('type', '')).endswith('SwinV2'):
            value.update(arch=ARCH, window_size=4, pretrained_window_sizes=0)
        if 'checkpoint' in value and key == 'init_cfg':
            name = Path(value['checkpoint']).name
            checkpoint = checkpoints.get(1 if 'sar' in name else 3)
            if not name.startswith('mars'):  # of ImageNet
                checkpoint = None
            return None if checkpoint is None else {**value, 'checkpoint': str(checkpoint)}
        if value.get('type', '').endswith('GroupNorm') or value.get('type') == 'GN':
            value['num_groups'] = 4
        return {name: _widths(one, checkpoints, name) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_widths(one, checkpoints, key) for one in value)
    if isinstance(value, int) and ('channels' in key or 'dims' in key):
        return _WIDTHS.get(value, value)
    return value


def _proposals(value: Any, key: str = '') -> Any:
    """Fewer proposals; and untrained detectors, which are sure of nothing, find something."""
    fewer = {'nms_pre': 100, 'max_per_img': 30, 'score_thr': 0.0, 'num': 64}
    if isinstance(value, dict):
        return {name: _proposals(one, name) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_proposals(one, key) for one in value)
    return fewer.get(key, value) if isinstance(value, (int, float)) else value


def _sides(value: Any, key: str = '') -> Any:
    if isinstance(value, dict):
        return {name: _sides(one, name) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_sides(one, key) for one in value)
    if key in _SIDE_KEYS and isinstance(value, int) and not isinstance(value, bool):
        return _SIDES.get(value, value)
    return value
