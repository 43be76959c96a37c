#!/usr/bin/env python
# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Draws what the data pipeline of a config makes of its samples: look before you train."""

import argparse
import sys
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS, init_default_scope

from mmrsfm.engine import command_line, run_config
from mmrsfm.errors import ConfigError
from mmrsfm.visualization import samples
from mmrsfm.visualization.panels import draw_panels


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description='Write PNGs of samples as the data pipeline of a config gives them. Invalid '
        'pixels are hatched in red; label maps are laid over the image.'
    )
    command_line.add_config_arguments(parser)
    parser.add_argument('--output-dir', default='work_dirs/browse', help='folder of the pictures')
    parser.add_argument('--phase', choices=('train', 'val', 'test'), default='train')
    parser.add_argument(
        '--mode',
        choices=samples.MODES,
        default='transformed',
        help='as loaded, as the model gets it (before normalisation), or every step',
    )
    parser.add_argument(
        '--bands', help='three bands, or one, by name or number from 1: B12,B08,B04 or 4,3,2'
    )
    parser.add_argument('--show-number', type=int, default=8, help='how many samples')
    parser.add_argument('--start', type=int, default=0, help='first sample')
    parser.add_argument('--epoch', type=int, default=0, help='draw what this epoch draws')
    parser.add_argument('--opacity', type=float, default=0.45, help='of label maps')
    return parser


def find_dataset(cfg: Any, phase: str) -> Any:
    """Builds the dataset of a phase; of wrappers (repeat, concatenate), the first one inside."""
    loader = cfg.get(f'{phase}_dataloader')
    if loader is None:
        raise ConfigError(f'the config has no {phase}_dataloader')
    dataset = loader.dataset
    while 'pipeline' not in dataset and ('dataset' in dataset or 'datasets' in dataset):
        dataset = dataset.get('dataset') or dataset.datasets[0]
    return DATASETS.build(dataset)


def main(args: argparse.Namespace) -> None:
    cfg = run_config.load_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    dataset = find_dataset(cfg, args.phase)
    bands = None if args.bands is None else [band.strip() for band in args.bands.split(',')]
    classes = dataset.metainfo.get('classes') or ()
    palette = dataset.metainfo.get('palette') or ()
    seed = (cfg.get('randomness') or {}).get('seed') or 0
    stop = min(args.start + args.show_number, len(dataset))
    if args.start >= len(dataset):
        raise ConfigError(f'--start {args.start}: the dataset has {len(dataset)} samples')
    for index in range(args.start, stop):
        steps = samples.run_pipeline(dataset, index, seed, args.epoch)
        bgr = any(name.endswith('LoadImageFromFile') for name, _ in steps)
        panels, labelled = [], False
        for name, sample in samples.choose_steps(steps, args.mode):
            has_labels = 'gt_seg_map' in sample and bool(palette)
            for date, picture in samples.draw_dates(sample, bands, bgr):
                title = f'{name}{date}\n{picture.shape[0]} x {picture.shape[1]}'
                if date or not has_labels or args.mode != 'pipeline':
                    panels.append((title, picture))
            if has_labels:
                # Over the later date, where there are two.
                labelled = True
                overlay = samples.draw_labels(sample, picture, palette, args.opacity)
                panels.append((title if args.mode == 'pipeline' else 'labels\n', overlay))
        path = sample.get('img_path', f'sample {index}')
        caption = str(path[0] if isinstance(path, list) else path)
        if 'gt_label' in sample:
            caption += f'   class: {samples.describe_label(sample["gt_label"], classes)}'
        legend = list(zip(classes, palette, strict=False)) if labelled else ()
        stem = Path(caption.split('   ')[0]).stem
        path = draw_panels(
            Path(args.output_dir) / f'{index:05d}_{stem}.png',
            panels,
            legend,
            caption,
            width=max(11.0, 2.8 * len(panels)),
        )
        print(path)


if __name__ == '__main__':
    sys.exit(command_line.run_command(main, build_parser()))
