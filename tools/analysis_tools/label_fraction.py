#!/usr/bin/env python
# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""How few labels are enough: fine-tunes on fractions of a training set, pretrained and from random.

label_fraction.py CONFIG                      12.5, 25, 50 and 100 % of the labels, both starts
label_fraction.py CONFIG --seeds 0 1 2        three subsets and three runs of each; mean, std
label_fraction.py CONFIG --checkpoint FILE    another pretraining for the backbone
label_fraction.py CONFIG --gpus 8 --amp       each run on eight GPUs

Every run chooses its checkpoint on the validation split (save_best of CONFIG, else the last), and
is tested once. Subsets of one seed lie in each other and depend on the names of the samples alone
(mmrsfm.LabelFraction). A study that was cut off goes on where it was. The fractions are those of
SAR-W-MixMAE (arXiv 2503.01181); any config of a classifier with a pretrained backbone can be given.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmrsfm.apis.training_step import without_pretrained
from mmrsfm.engine import command_line, run_config
from mmrsfm.engine.atomic_io import atomic_write
from mmrsfm.errors import ConfigError, LaunchError

TOOLS = Path(__file__).resolve().parents[1]
STARTS = ('pretrained', 'random')


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command_line.add_config_arguments(parser)
    parser.add_argument('--fractions', type=float, nargs='+', default=[0.125, 0.25, 0.5, 1.0])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='one run each [0]')
    parser.add_argument('--starts', nargs='+', choices=STARTS, default=list(STARTS))
    parser.add_argument('--checkpoint', help="for the pretrained backbone [the config's]")
    parser.add_argument('--work-dir', help='[work_dirs/CONFIG_NAME_label_fraction]')
    parser.add_argument('--gpus', type=int, default=1, help='processes of each run [1]')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--dry-run', action='store_true', help='write the configs only')
    return parser


def make_config(
    base: Config, fraction: float, seed: int, start: str, checkpoint: str | None
) -> Config:
    """The config of one run.

    Raises:
        ConfigError: CONFIG has no pretrained backbone, or nothing to choose and test models with.
    """
    cfg = deepcopy(base)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'test_evaluator'):
        if not cfg.get(name):
            raise ConfigError(f'{base.filename} has no {name}, which the study needs')
    parts = [cfg[name].dataset for name in ('val_dataloader', 'test_dataloader')]
    if parts[0] == parts[1]:
        raise ConfigError(
            f'{base.filename} validates on its test data: models would be chosen by what they are '
            'measured with'
        )
    if start == 'random':
        cfg.model = without_pretrained(cfg.model)
    else:
        init = cfg.model.backbone.get('init_cfg')
        if not isinstance(init, dict) or not str(init.get('type')).endswith('Pretrained'):
            if checkpoint is None:
                raise ConfigError(
                    f'the backbone of {base.filename} is not pretrained: give --checkpoint FILE, '
                    'or --starts random'
                )
            cfg.model.backbone.init_cfg = init = dict(type='mmrsfm.Pretrained')
        if checkpoint is not None:
            for key in ('sha256', 'md5'):  # of the other file
                cfg.model.backbone.init_cfg.pop(key, None)
            cfg.model.backbone.init_cfg['checkpoint'] = checkpoint
    cfg.train_dataloader.dataset = dict(
        type='mmrsfm.LabelFraction',
        dataset=cfg.train_dataloader.dataset,
        fraction=fraction,
        seed=seed,
    )
    cfg.setdefault('randomness', {})['seed'] = seed
    return cfg


def run_once(folder: Path, config: Path, args: argparse.Namespace) -> dict[str, float]:
    """Trains and tests one config; returns its metrics."""
    training = ['--work-dir', str(folder), '--resume', *(['--amp'] if args.amp else [])]
    call(command('train', [str(config)], training, args.gpus))
    best = sorted(folder.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    checkpoint = best[-1] if best else run_config.find_last_checkpoint(folder)
    if checkpoint is None:
        raise LaunchError(f'{folder}: the training left no checkpoint')
    tested = folder / 'test'
    call(command('test', [str(config), str(checkpoint)], ['--work-dir', str(tested)], args.gpus))
    found = sorted(tested.glob('*/*.json'), key=lambda path: path.stat().st_mtime)
    if not found:
        raise LaunchError(f'{tested}: the test left no metrics')
    metrics = json.loads(found[-1].read_text().splitlines()[-1])
    return {key: value for key, value in metrics.items() if isinstance(value, (int, float))}


def command(tool: str, words: list[str], options: list[str], gpus: int) -> list[str]:
    if gpus <= 1:
        return [sys.executable, str(TOOLS / f'{tool}.py'), *words, *options]
    script = str(TOOLS / f'dist_{tool}.sh')
    return ['bash', script, *words, str(gpus), *options]


def call(words: list[str]) -> None:
    result = subprocess.run(words, env={**os.environ, 'PYTHON': sys.executable})
    if result.returncode:
        raise LaunchError(f'ended with {result.returncode}: {" ".join(words)}')


def tabulate(results: dict[str, dict[str, Any]]) -> str:
    """A table in Markdown: a row for each fraction and start, mean and std over the seeds."""
    rows: dict[tuple[float, str], list[dict[str, float]]] = {}
    for result in results.values():
        rows.setdefault((result['fraction'], result['start']), []).append(result['metrics'])
    # Numbers of single classes would make it unreadable: they are in results.json.
    first = next(iter(rows.values()))[0]
    names = [
        name for name in first if name.count('/') <= 1 and not name.startswith(('time', 'data'))
    ]
    lines = ['| labels | start | runs | ' + ' | '.join(names) + ' |']
    lines.append('| ---: | --- | ---: |' + ' ---: |' * len(names))
    for (fraction, start), runs in sorted(rows.items(), key=lambda item: (-item[0][0], item[0][1])):
        cells = []
        for name in names:
            values = [one[name] for one in runs if name in one]
            text = f'{statistics.mean(values):.2f}' if values else '-'
            cells.append(text + (f' ± {statistics.stdev(values):.2f}' if len(values) > 1 else ''))
        lines.append(f'| {fraction:.1%} | {start} | {len(runs)} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def main(args: argparse.Namespace) -> None:
    base = run_config.load_config(args.config, args.cfg_options)
    root = Path(args.work_dir or f'work_dirs/{Path(args.config).stem}_label_fraction')
    root.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    for seed in args.seeds:
        for fraction in args.fractions:
            for start in args.starts:
                name = f'{start}_{100 * fraction:g}pct_seed{seed}'
                folder = root / name
                folder.mkdir(exist_ok=True)
                cfg = make_config(base, fraction, seed, start, args.checkpoint)
                config, done = root / f'{name}.py', folder / 'result.json'
                text = cfg.pretty_text.encode()
                digest = hashlib.sha256(text).hexdigest()
                atomic_write(config, text)
                if args.dry_run:
                    print(config)
                    continue
                if done.is_file():
                    results[name] = json.loads(done.read_text())
                    if results[name].get('config') != digest:
                        raise ConfigError(
                            f'{done} is of another config: give another --work-dir, or remove it'
                        )
                    print(f'{name}: is done')
                    continue
                metrics = run_once(folder, config, args)
                results[name] = dict(
                    fraction=fraction, start=start, seed=seed, config=digest, metrics=metrics
                )
                atomic_write(done, json.dumps(results[name], indent=1).encode())
    if results:
        atomic_write(root / 'results.json', json.dumps(results, indent=1).encode())
        table = tabulate(results)
        atomic_write(root / 'results.md', (table + '\n').encode())
        print(table)


if __name__ == '__main__':
    sys.exit(command_line.run_command(main, build_parser()))
