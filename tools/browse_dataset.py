#!/usr/bin/env python
# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Draws what the data pipeline of a config makes of its samples: look before you train."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import ConfigDict
from mmengine.registry import DATASETS, init_default_scope

from mmrsfm.engine import command_line, run_config
from mmrsfm.errors import ConfigError
from mmrsfm.visualization import objects, samples
from mmrsfm.visualization.panels import draw_panels


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description='Write PNGs of samples as the data pipeline of a config gives them. Invalid '
        'pixels are hatched in red; label maps, masks and boxes are drawn over the image.'
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
    parser.add_argument('--opacity', type=float, default=0.45, help='of label maps and masks')
    parser.add_argument(
        '--part', type=int, default=0, help='which of several data sets, from 0 (default: 0)'
    )
    return parser


def find_dataset(cfg: Any, phase: str, part: int = 0) -> Any:
    """Builds the dataset of a phase; of wrappers (repeat, concatenate), a part of what is inside.

    Args:
        cfg: The config.
        phase: train, val or test.
        part: Which of several.

    Raises:
        ConfigError: If there is no such phase or part.
    """
    loader = cfg.get(f'{phase}_dataloader')
    if loader is None:
        raise ConfigError(f'the config has no {phase}_dataloader')
    dataset = loader.dataset
    while 'datasets' in dataset or ('pipeline' not in dataset and 'dataset' in dataset):
        inner = dataset.get('datasets')
        if inner is None:
            dataset = dataset.dataset
            continue
        if not 0 <= part < len(inner):
            raise ConfigError(f'--part {part}: there are {len(inner)} data sets, from 0')
        # A pipeline of all is that of those that have none.
        shared = {'pipeline': dataset.pipeline} if 'pipeline' in dataset else {}
        dataset = ConfigDict({**shared, **inner[part]})
    return DATASETS.build(dataset)


def draw_steps(
    steps: list, args: argparse.Namespace, bands: list | None, bgr: bool, meta: dict
) -> tuple[list, bool]:
    """The panels of a sample, and whether one of them shows classes."""
    palette = meta.get('palette') or ()
    pixel_palette = meta.get('semantic_palette') or palette
    panels, labelled = [], False
    for name, sample in steps:
        has_map = 'gt_seg_map' in sample and bool(pixel_palette)
        has_objects = any(sample.get(key) is not None for key in ('gt_bboxes', 'gt_rboxes'))
        labelled |= has_map or has_objects
        for date, picture in samples.draw_dates(sample, bands, bgr):
            title = f'{name}{date}\n{picture.shape[0]} x {picture.shape[1]}'
            if date or not (has_map or has_objects) or args.mode != 'pipeline':
                panels.append((title, picture))
        # Over the later date, where there are two.
        over = []
        if has_map:
            if meta.get('background'):  # the class of what is no object hides nothing
                label = sample['gt_seg_map']
                sample = {**sample, 'gt_seg_map': np.where(label == 0, 255, label)}
            drawn = samples.draw_labels(sample, picture, pixel_palette, args.opacity)
            over.append(('labels\n', drawn))
        if has_objects:
            # Step by step, all kinds in one picture.
            one = args.mode == 'pipeline'
            ground = over[0][1] if one and over else picture
            if one and over:  # masks are where the label map is
                sample = {**sample, 'gt_masks': None}
            kinds = objects.draw_sample_objects(sample, ground, palette, args.opacity, one)
            over = [(title, kinds[-1][1])] if one else [*over, *((f'{k}\n', d) for k, d in kinds)]
        elif over and args.mode == 'pipeline':
            over = [(title, over[0][1])]
        panels += over
    return panels, labelled


def make_legend(sample: dict, meta: dict) -> list:
    """Name and colour of each class; of many, of those that the sample shows."""
    classes, palette = meta.get('classes') or (), meta.get('palette') or ()
    legend = list(zip(classes, palette, strict=False))
    if len(legend) <= 8:
        return legend
    keys = [key for key in ('gt_bboxes_labels', 'gt_rboxes_labels') if key in sample]
    if not keys:
        return legend
    shown = sorted({int(label) for key in keys for label in sample[key]})
    return [legend[label] for label in shown]


def main(args: argparse.Namespace) -> None:
    cfg = run_config.load_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    dataset = find_dataset(cfg, args.phase, args.part)
    bands = None if args.bands is None else [band.strip() for band in args.bands.split(',')]
    classes = dataset.metainfo.get('classes') or ()
    seed = (cfg.get('randomness') or {}).get('seed') or 0
    stop = min(args.start + args.show_number, len(dataset))
    if args.start >= len(dataset):
        raise ConfigError(f'--start {args.start}: the dataset has {len(dataset)} samples')
    for index in range(args.start, stop):
        steps = samples.run_pipeline(dataset, index, seed, args.epoch)
        bgr = any(name.endswith('LoadImageFromFile') for name, _ in steps)
        chosen = samples.choose_steps(steps, args.mode)
        panels, labelled = draw_steps(chosen, args, bands, bgr, dataset.metainfo)
        sample = chosen[-1][1]
        path = sample.get('img_path', f'sample {index}')
        caption = str(path[0] if isinstance(path, list) else path)
        if 'gt_label' in sample:
            caption += f'   class: {samples.describe_label(sample["gt_label"], classes)}'
        legend = make_legend(sample, dataset.metainfo) if labelled else ()
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
