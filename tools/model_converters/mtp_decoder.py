#!/usr/bin/env python
# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Takes encoder and decoder of a multi-task pretraining for a fine-tuning; no file is run."""

import argparse
import copy
import io
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope

from mmrsfm.checkpoints import file_digests, read_checkpoint
from mmrsfm.checkpoints.mtp_decoder import TASKS, DecoderReuse, fit_to_model, reuse_mtp_decoder
from mmrsfm.checkpoints.sources import locate
from mmrsfm.engine import command_line, run_config
from mmrsfm.engine.atomic_io import atomic_write
from mmrsfm.errors import CheckpointError, ConfigError


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description='Take the encoder and one decoder of a full MTP model file, under the names of '
        'the fine-tuning model; what has no place there is named. A published file, or a '
        'checkpoint of mmrsfm.MTP.'
    )
    parser.add_argument('src', help='the full model file (the one without "_encoder")')
    parser.add_argument('dst', help='the .pth to write, for load_from of the config')
    parser.add_argument('--task', choices=list(TASKS), default='rotated', help='[rotated]')
    parser.add_argument(
        '--config',
        help='the fine-tuning: tables are resized to its input size, what has another shape than '
        'in its model is left out, and the order of the classes is that of its dataset',
    )
    parser.add_argument(
        '--dataset',
        help='take the last layers of this data set too: sota, sior, fast, or what it is called in '
        'a pretraining of your own',
    )
    parser.add_argument(
        '--classes',
        help='classes of the fine-tuning in their order, with commas between them [those of the '
        "config's dataset, or of DOTA-2.0, DIOR, FAIR1M-2.0, or the data set's own]",
    )
    parser.add_argument('--sha256', help='digest of the source, or its first 8 or more digits')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing DST')
    parser.add_argument('--debug', action='store_true', help='show tracebacks')
    return parser


def classes_of(cfg: Config) -> list[str] | None:
    """Names of the classes of the training dataset of a config, where they are stated."""
    dataset = (cfg.get('train_dataloader') or {}).get('dataset')
    while dataset is not None and ('dataset' in dataset or 'datasets' in dataset):
        dataset = dataset['datasets'][0] if 'datasets' in dataset else dataset['dataset']
    if dataset is None:
        return None
    stated = (dataset.get('metainfo') or {}).get('classes')
    cls = dataset['type']
    if isinstance(cls, str):
        with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
            cls = registry.get(cls)
    names = stated or getattr(cls, 'METAINFO', {}).get('classes')
    return None if names is None else list(names)


def fit(reuse: DecoderReuse, cfg: Config) -> DecoderReuse:
    model = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model.pop('init_cfg', None)
    model.backbone.pop('init_cfg', None)  # nothing else is to be read
    return fit_to_model(reuse, MODELS.build(model))


def main(args: argparse.Namespace) -> None:
    target = Path(args.dst)
    if target.exists() and not args.overwrite:
        raise CheckpointError(f'{target} exists already; --overwrite replaces it')
    if args.classes is not None and args.dataset is None:
        raise ConfigError('--classes needs --dataset: they are those of its last layers')
    cfg, classes = None, None if args.classes is None else args.classes.split(',')
    if args.config is not None:
        cfg = run_config.load_config(args.config)
        init_default_scope(cfg.get('default_scope') or 'mmengine')
        if args.dataset is not None and classes is None:
            classes = classes_of(cfg)
    content = read_checkpoint(args.src, args.sha256)
    reuse = reuse_mtp_decoder(content, args.task, args.dataset, classes)
    if cfg is not None:
        reuse = fit(reuse, cfg)
    print(reuse.summary())
    if cfg is None:
        print('no --config: shapes are as they were pretrained; see --help')
    origin = {'file': Path(str(args.src)).name}
    local = locate(args.src)
    if isinstance(local, Path):
        origin['sha256'] = file_digests(local)['sha256']
    buffer = io.BytesIO()
    torch.save(reuse.content(origin), buffer)
    atomic_write(target, buffer.getvalue())
    print(
        f'wrote {target}: {len(reuse.state)} entries; train with --cfg-options load_from={target} '
        'model.backbone.init_cfg=None'
    )


if __name__ == '__main__':
    sys.exit(command_line.run_command(main, build_parser()))
