# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The configs of SAR-W-MixMAE, made so small that a CPU trains two steps of them in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmrsfm.engine.run_config import (
    adapt_amp_to_device,
    load_config,
    set_dataloader_defaults,
)

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'sar_w_mixmae'
# Folder below data/ in the configs -> (key of tests.formats.MAKERS, its arguments).
DATA: dict[str, tuple[str, dict[str, Any]]] = {
    'bigearthnet_v2': ('bigearthnet_v2', dict(count=4)),
    'bigearthnet_v1': ('bigearthnet_v1', dict(count=4, optical=False)),
    'sentinel1_tiles': ('flood_masks', dict(count=2)),
    'sen12flood': ('sen12_flood', dict(count=3, size=64)),
    'flood_masks': ('flood_masks', dict(count=4, size=64)),
}
ARCH = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
_WIDTHS = [8, 16, 32, 64]  # of its maps
_SIDES = {512: 64, 384: 64, 128: 64}
_SIDE_KEYS = {'crop_size', 'img_size', 'size', 'stride', 'tile_size'}


def tiny_config(file: Path, data: Path, start: Path | None = None) -> Config:
    """A config with a small model, on generated data; pipelines, losses, groups, hooks stay.

    Args:
        file: The config.
        data: The generated data, in the place of its folder below ``data/``.
        start: A checkpoint for the backbone, in the place of the released one; ``None``: random.
    """
    cfg = load_config(file)
    set_dataloader_defaults(cfg)
    adapt_amp_to_device(cfg)
    cfg = Config(_shrunk(cfg.to_dict(), str(data), start), filename=cfg.filename)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if not loader:
            continue
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
        loader.pop('pin_memory', None)
        if loader.dataset.get('ann_file') == 'metadata.parquet':  # not written without pyarrow
            loader.dataset.ann_file = 'metadata.csv'
        if loader.dataset.type == 'mmrsfm.SEN12Flood':  # the layout of the published preparation
            part = 'test' if name.startswith('test') else 'train'
            loader.dataset.update(ann_file='', data_prefix=part)
            if loader.dataset.get('split'):
                loader.dataset.val_fraction = 0.34
    cfg.train_dataloader.num_batch_per_epoch = 2
    cfg.train_cfg.max_epochs = 1
    # Where the learning rate is not what a warm-up of hundreds of steps makes of it.
    cfg.param_scheduler = None
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.checkpoint.interval = 1
    return cfg


def _shrunk(value: Any, data: str, start: Path | None, key: str = '') -> Any:
    if isinstance(value, dict):
        value = dict(value)
        kind = str(value.get('type', ''))
        if kind.endswith('MixMIM'):
            value['arch'] = ARCH
        if kind.endswith('MixMIMDecoder'):
            value.update(decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2)
        if key == 'init_cfg' and 'checkpoint' in value:
            value.pop('sha256', None)
            return None if start is None else {**value, 'checkpoint': str(start)}
        if kind == 'UPerHead' or kind.endswith('.UPerHead'):
            value['channels'] = 16
        return {name: _shrunk(one, data, start, name) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        if key == 'depths':
            return ARCH['depths']
        if key == 'in_channels' and len(value) == len(_WIDTHS):
            return _WIDTHS
        return type(value)(_shrunk(one, data, start, key) for one in value)
    if isinstance(value, str) and value.startswith('data/'):
        return '/'.join([data, *value.split('/')[2:]])
    if isinstance(value, int) and not isinstance(value, bool):
        if key == 'in_channels' and value > 14:  # not bands
            return _WIDTHS[-1]
        if key in _SIDE_KEYS:
            return _SIDES.get(value, value)
    return value
