# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The configs of MTP, made so small that a CPU trains two steps of them in a second or two."""

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmrsfm.engine.run_config import load_config, set_dataloader_defaults
from mmrsfm.registry import MODELS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'mtp'
# Folder below configs/mtp -> (key of tests.formats.MAKERS, its arguments). Counts are such that an
# epoch has two batches, also without the images that have no objects.
DATA: dict[str, tuple[str, dict[str, int]]] = {
    'eurosat': ('eurosat', dict(count=2)),
    'resisc45': ('resisc45', dict(count=1)),
    'xview': ('xview', dict(count=3)),
    'dior': ('dior', dict(count=3)),
    'dior_r': ('dior_r', dict(count=3)),
    'fair1m': ('fair1m', dict(count=3)),
    'dota1': ('dota1', dict(count=5)),
    'dota2': ('dota2', dict(count=5)),
    'spacenetv1': ('spacenet_v1', dict(count=2)),
    'loveda': ('loveda', dict(count=2)),
    'oscd': ('oscd', dict(count=8)),
    'whu_cd': ('whu_cd', dict(count=8)),
    'levir_cd': ('levir_cd', dict(count=8)),
    'cdd': ('cdd', dict(count=8)),
}
# Side of a training image -> that of the tiny one.
SIZES = {224: 32, 256: 48, 384: 64, 416: 64, 512: 64, 800: 96, 1024: 96}
INTERN = dict(
    channels=16, depths=[1, 1, 1, 1], groups=[2, 4, 8, 16], layer_scale=1e-5, offset_scale=2.0,
    post_norm=True,
)  # fmt: skip


def config_file(folder: str, start: str = 'rvsa-base_mtp-pre') -> Path:
    """The config of a dataset that begins with a backbone and its weights."""
    (found,) = (CONFIGS / folder).glob(f'{start}_*.py')
    return found


def released_file(start: str, path: Path) -> Path:
    """A file as MTP releases its encoders, with random weights of the tiny backbones."""
    if start.startswith('rvsa'):
        # Pretrained on other sides than any of the tiny images, with parts that not all tasks use.
        backbone = dict(type='mmrsfm.RVSAViT', arch='tiny', img_size=80, final_norm=True)
    else:
        backbone = dict(type='mmrsfm.InternImage', arch=INTERN)
    model = MODELS.build(backbone)
    model.init_weights()
    torch.save({'state_dict': model.state_dict()}, path)
    return path


def tiny_config(
    folder: str,
    data: Path,
    start: str = 'rvsa-base_mtp-pre',
    checkpoint: Path | None = None,
    file: Path | None = None,
) -> Config:
    """A published config with a small backbone and head, on generated data.

    Everything else is as published: pipelines (with smaller sides), loss, optimizer groups, hooks,
    evaluators.

    Args:
        folder: Below configs/mtp.
        data: The generated data.
        start: How the name of the config begins.
        checkpoint: From :func:`released_file`; ``None``: random weights.
        file: A config that inherits the published one.
    """
    cfg = load_config(file or config_file(folder, start))
    set_dataloader_defaults(cfg)
    (root,) = {part for part in _strings(cfg.train_dataloader) if part.startswith('data/')} or {
        'none'
    }
    root = 'data/eurosat' if folder == 'eurosat' else root
    cfg = Config(_shrink(cfg.to_dict(), root, str(data)), filename=cfg.filename)
    model = cfg.model
    if model.backbone.type == 'mmrsfm.RVSAViT':
        model.backbone.update(arch='tiny', out_indices=(0, 1, 2, 3))
        channels = [96] * 4
        cfg.optim_wrapper.paramwise_cfg.num_layers = 4
    else:
        model.backbone.arch = INTERN
        channels = [16, 32, 64, 128]
        cfg.optim_wrapper.paramwise_cfg.update(num_layers=4, depths=[1, 1, 1, 1])
    model.backbone.init_cfg.checkpoint = str(checkpoint)
    if checkpoint is None:
        model.backbone.init_cfg = None
    scope = cfg.default_scope
    if scope == 'mmpretrain':
        model.head.in_channels = channels[-1]
    elif scope == 'mmseg':
        model.decode_head.update(in_channels=channels, channels=16)
    elif scope == 'opencd':
        model.decode_head.update(
            in_channels=channels, encoder_channels=channels, decoder_channels=[16, 16, 8, 8],
            channels=8,
        )  # fmt: skip
    else:
        model.neck.in_channels = channels
        _shrink_detector(model)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(name):
            cfg[name].update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.num_batch_per_epoch = 2
    if 'max_epochs' in cfg.train_cfg:
        cfg.train_cfg.max_epochs = 1
    else:
        cfg.train_cfg.max_iters = 2
    # Where the learning rate is not what a warm-up of hundreds of steps makes of it.
    cfg.param_scheduler = None
    cfg.default_hooks.logger.interval = 1
    return cfg


def _shrink_detector(model: Any) -> None:
    model.neck.out_channels = 32
    for key in ('bbox_head', 'rpn_head'):
        if key in model:
            model[key].update(in_channels=32, feat_channels=32)
    if 'roi_head' in model:
        model.roi_head.bbox_roi_extractor.out_channels = 32
        model.roi_head.bbox_head.update(in_channels=32, fc_out_channels=32)
        model.train_cfg.rpn_proposal.update(nms_pre=100, max_per_img=50)
        model.test_cfg.rpn.update(nms_pre=100, max_per_img=50)
        # An untrained model is sure of nothing: so that there is something to write.
        model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=20)
    else:
        model.test_cfg.update(score_thr=0.0, max_per_img=20)


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, one in value.items() if key == 'data_root' for text in [one]] + [
            text for one in value.values() for text in _strings(one)
            if isinstance(one, (dict, list, tuple))
        ]  # fmt: skip
    if isinstance(value, (list, tuple)):
        return [text for one in value for text in _strings(one)]
    return []


def _shrink(value: Any, root: str, data: str, key: str = '') -> Any:
    if isinstance(value, dict):
        return {name: _shrink(one, root, data, name) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_shrink(one, root, data, key) for one in value)
    if isinstance(value, str) and (value == root or value.startswith(f'{root}/')):
        return data + value[len(root) :]
    sides = {'scale', 'crop_size', 'img_size', 'size', 'stride', 'img_shape'}
    if key in sides and isinstance(value, int) and not isinstance(value, bool):
        return SIZES.get(value, value)
    return value
