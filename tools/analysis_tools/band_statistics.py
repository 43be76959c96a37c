#!/usr/bin/env python
# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Measures mean and standard deviation of each band of a dataset, for the data preprocessor.

band_statistics.py CONFIG                       of what the training pipeline gives the model
band_statistics.py CONFIG --samples 1000        of more samples, spread over the dataset

Counted is what the pipeline leaves before it is packed, after the loader's scale and offset (and
those of the data preprocessor with ``scale_on_device``), after ScaleSAR and the like, without what
is invalid; by sensor, where the samples say theirs.
"""

import argparse
import sys
from typing import Any

import numpy as np
from mmengine.registry import DATASETS, init_default_scope

from mmrsfm.engine import command_line, run_config
from mmrsfm.errors import ConfigError
from mmrsfm.utils.progress import progress
from mmrsfm.visualization import samples


class BandStatistics:
    """Count, mean, deviation, least and largest value of each band, image by image (float64)."""

    def __init__(self, bands: int) -> None:
        self.names = tuple(str(number) for number in range(1, bands + 1))
        self.seen = 0
        self.count, self.mean, self.squares = np.zeros((3, bands))
        self.low, self.high = np.full(bands, np.inf), np.full(bands, -np.inf)

    def add(self, image: np.ndarray, valid: np.ndarray | None) -> None:
        """Counts the valid values of an image (H, W, C)."""
        if image.shape[2] != len(self.count):
            raise ConfigError(
                f'an image has {image.shape[2]} band(s), those before it {len(self.count)}'
            )
        known = np.isfinite(image) if valid is None else np.isfinite(image) & valid
        self.seen += image.shape[0] * image.shape[1]
        for band in range(image.shape[2]):
            values = image[..., band][known[..., band]].astype(np.float64)
            if not values.size:
                continue
            # Chan's way to unite two sets: sums of squares would lose the digits of large values.
            total = self.count[band] + values.size
            apart = values.mean() - self.mean[band]
            self.squares[band] += values.var() * values.size
            self.squares[band] += apart**2 * self.count[band] * values.size / total
            self.mean[band] += apart * values.size / total
            self.count[band] = total
            self.low[band] = min(self.low[band], values.min())
            self.high[band] = max(self.high[band], values.max())

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of each band, of the whole set of values."""
        return np.sqrt(self.squares / np.maximum(self.count, 1))


def innermost(dataset: Any) -> list[Any]:
    """The configs of the datasets with a pipeline, inside of those that repeat or unite others."""
    below = dataset.get('datasets') or [one for one in [dataset.get('dataset')] if one]
    if 'pipeline' in dataset or not below:
        return [dataset]
    return [found for one in below for found in innermost(one)]


def measure(cfg: Any, count: int, quiet: bool = False) -> dict[str | None, BandStatistics]:
    """Statistics by sensor (``None``: the samples name none).

    Args:
        cfg: The config, with ``train_dataloader``.
        count: How many samples, spread over the dataset.
        quiet: No progress line.

    Raises:
        ConfigError: Without samples to count, or if their bands differ.
    """
    if cfg.get('train_dataloader') is None or count < 1:
        raise ConfigError('a train_dataloader, and at least one sample, are needed')
    datasets = [DATASETS.build(one) for one in innermost(cfg.train_dataloader.dataset)]
    ends = np.cumsum([len(one) for one in datasets])
    settings = cfg.get('data_preprocessor') or (cfg.get('model') or {}).get('data_preprocessor')
    settings = settings or {}
    scale, offset = 1.0, 0.0
    if settings.get('scale_on_device'):
        scale, offset = settings.get('scale'), settings.get('offset') or 0.0
    chosen = np.unique(np.linspace(0, ends[-1] - 1, count).round().astype(int)).tolist()
    found: dict[str | None, BandStatistics] = {}
    for number in chosen if quiet else progress(chosen, 'samples'):
        place = int(np.searchsorted(ends, number, side='right'))
        dataset, index = datasets[place], number - int(ends[place]) + len(datasets[place])
        ((_, last),) = samples.choose_steps(samples.run_pipeline(dataset, index), 'transformed')
        sensor = dataset.get_data_info(index).get('sensor')
        images = last['img'] if isinstance(last['img'], list) else [last['img']]
        for image in images:
            image = image[..., None] if image.ndim == 2 else image
            one = found.setdefault(sensor, BandStatistics(image.shape[2]))
            one.names = last.get('band_names') or one.names
            one.add(image * np.asarray(scale) + np.asarray(offset), last.get('valid_mask'))
    return found


def listed(values: np.ndarray) -> str:
    """Numbers with five digits, to be pasted into a config."""
    return '[' + ', '.join(f'{value:.5g}' for value in values) + ']'


def main(args: argparse.Namespace) -> None:
    cfg = run_config.load_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    found = measure(cfg, args.samples)
    for sensor, one in found.items():
        print(f'{sensor or "all samples"}: {one.seen} pixels')
        print(f'  {"band":<12} {"mean":>12} {"std":>12} {"least":>12} {"largest":>12} {"valid":>8}')
        for row in zip(one.names, one.mean, one.std, one.low, one.high, one.count, strict=True):
            name, *values, counted = row
            numbers = ' '.join(f'{value:12.5g}' for value in values)
            print(f'  {name:<12} {numbers} {counted / one.seen:8.1%}')
    rows = [f'mean={listed(one.mean)}, std={listed(one.std)}' for one in found.values()]
    if len(found) == 1:
        print(rows[0])
    else:
        rows = [f'{sensor}=dict({row})' for sensor, row in zip(found, rows, strict=True)]
        print('sensors=dict(' + ', '.join(rows) + ')')


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command_line.add_config_arguments(parser)
    parser.add_argument('--samples', type=int, default=200, help='how many [200]')
    return parser


if __name__ == '__main__':
    sys.exit(command_line.run_command(main, build_parser()))
