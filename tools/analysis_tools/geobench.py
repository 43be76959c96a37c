#!/usr/bin/env python
# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""GEO-Bench v1.0 in one command: trains and tests on a list of sets, and prints the table.

geobench.py CONFIG ...                     configs of sets, such as configs/mp_mae/geobench/*.py
geobench.py --sets m-eurosat m-so2sat --backbones configs/_base_/backbones/rvsa-base_mtp-pre.py
                                           any backbone; --protocols finetune linear
geobench.py CONFIG ... --checkpoints mine.pth random   other weights for the backbone, or none
geobench.py CONFIG ... --partitions 0.01x_train default --seeds 0 1 2

A row for each model, checkpoint and partition, a column for each set; mean and standard deviation
over the seeds, in percent: accuracy, micro F1 (m-bigearthnet), mIoU (segmentation). Sets are read
from local copies (--data-root). Runs that are finished are not run again, and one that was cut off
goes on where it was. A run that fails does not end the others.
"""

import argparse
import hashlib
import inspect
import json
import statistics
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmrsfm.apis.training_step import without_pretrained
from mmrsfm.contract import band_keys
from mmrsfm.datasets import GeoBench
from mmrsfm.datasets.geobench_files import Task, read_task
from mmrsfm.engine import command_line, run_config
from mmrsfm.engine.atomic_io import atomic_write
from mmrsfm.errors import ConfigError, LaunchError
from mmrsfm.registry import MODELS

sys.path.insert(0, str(Path(__file__).resolve().parent))
from label_fraction import run_once

TASKS = Path(__file__).resolve().parents[2] / 'configs' / '_base_' / 'tasks' / 'geobench'
SETS = [name for names in GeoBench.SETS.values() for name in names]
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
WHOLE = ('default', '1.00x_train')
RGB = ['B04', 'B03', 'B02']


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', nargs='*', metavar='CONFIG', help='configs of single sets')
    parser.add_argument('--sets', nargs='+', choices=[*SETS, 'all'], help='with --backbones')
    parser.add_argument(
        '--backbones', nargs='+', default=[], metavar='FILE',
        help='configs with backbone and channels, as in configs/_base_/backbones',
    )  # fmt: skip
    parser.add_argument(
        '--protocols', nargs='+', choices=('finetune', 'linear'), default=['finetune'],
        help='of --backbones: all of the model is trained, or what stands on it [finetune]',
    )  # fmt: skip
    parser.add_argument(
        '--checkpoints', nargs='+', default=[None], metavar='FILE',
        help="weights of the backbone; 'random': none [those of the config]",
    )  # fmt: skip
    parser.add_argument('--partitions', nargs='+', default=['default'], help='[default]')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='one run each [0]')
    parser.add_argument('--data-root', default='data/geobench', help='[data/geobench]')
    parser.add_argument(
        '--as-published', action='store_true',
        help='for numbers like those of MP-MAE: names of bands as in the files, B08 and B8A '
        'swapped, the unpadded classifier, the full learning rate for the stem',
    )  # fmt: skip
    command_line.add_config_options(parser, '--cfg-options', 'override values of every config')
    parser.add_argument('--work-dir', default='work_dirs/geobench', help='[work_dirs/geobench]')
    parser.add_argument('--gpus', type=int, default=1, help='processes of each run [1]')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--dry-run', action='store_true', help='write the configs only')
    parser.add_argument('--debug', action='store_true', help='show tracebacks')
    return parser


def compose(name: str, backbone_file: str, protocol: str) -> Config:
    """The config of a set with any backbone: as those in configs/mp_mae/geobench are made.

    Raises:
        ConfigError: The file has no backbone and channels, or the backbone takes other bands.
    """
    cfg = run_config.load_config(TASKS / f'{name}.py')
    parts = run_config.load_config(backbone_file)
    if not parts.get('backbone') or not parts.get('channels'):
        raise ConfigError(f'{backbone_file} has no backbone and channels')
    backbone = deepcopy(parts.backbone.to_dict())
    options = inspect.signature(MODELS.get(backbone['type']).__init__).parameters
    bands = _bands_for(backbone, list(cfg.bands), f'{backbone_file} on {name}')
    backbone['in_channels'] = len(bands)
    with_unet = 'stem_maps' in options
    segments = cfg.default_scope == 'mmseg'
    if segments and with_unet:
        backbone.update(parts.get('unet_maps', {}))
        head = dict(type='mmrsfm.ConvNeXtUNetHead', in_channels=parts.unet_channels)
    elif segments:
        if 'with_fpn' not in options:
            backbone.setdefault('out_indices', tuple(range(len(parts.channels))))
        upernet = Config.fromfile(TASKS.parents[1] / 'models' / 'upernet.py').model.decode_head
        head = dict(upernet.to_dict(), in_channels=list(parts.channels))
    else:
        head = dict(in_channels=parts.channels[-1])
        if with_unet:
            backbone.pop('out_indices', None)
            cfg.model.neck = None
        elif 'with_fpn' in options:
            backbone['with_fpn'] = False
    changes: dict[str, Any] = {
        'model': {'backbone': backbone, 'decode_head' if segments else 'head': head}
    }
    if not segments:
        plain = dict(paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0))
        changes['optim_wrapper'] = dict(parts.get('layer_decay') or plain)
    if protocol == 'linear':
        hook = dict(type='mmrsfm.FreezeHook', module='backbone', eval_mode=not with_unet)
        changes |= dict(custom_hooks=[hook], find_unused_parameters=True)
    cfg.merge_from_dict(changes)
    choose_bands(cfg, bands)
    return cfg


def _bands_for(backbone: dict[str, Any], bands: list[str], where: str) -> list[str]:
    """Those of the set, if the backbone takes as many, or says how it takes others; or RGB."""
    init = backbone.get('init_cfg')
    if not init or init.get('adapt'):
        if init:
            init.setdefault('contract', dict(band_names=bands))
        return bands
    count = backbone.get('in_channels', 3)
    if count == len(bands):
        return bands
    if count == 3 and set(RGB) <= set(bands):
        return RGB
    raise ConfigError(
        f"{where}: the backbone takes {count} bands, the set has {bands}. init_cfg=dict(adapt='"
        "by_name') or 'mean' of the backbone gives its weights other bands"
    )


def datasets_of(cfg: Config) -> list[Any]:
    """Those of training, validation and test; a config may do without validation."""
    return [cfg[name].dataset for name in LOADERS if cfg.get(name)]


def choose_bands(cfg: Config, bands: list[str]) -> None:
    cfg.model.data_preprocessor.band_names = bands
    for dataset in datasets_of(cfg):
        dataset.bands = bands
        if dataset.get('substitutes'):
            kept = {key: dataset.substitutes[key] for key in bands if key in dataset.substitutes}
            dataset.substitutes = kept or None


def make_config(
    base: Config,
    task: Task | None,
    partition: str = 'default',
    checkpoint: str | None = None,
    seed: int = 0,
    data_root: str | None = None,
    as_published: bool = False,
) -> Config:
    """The config of one run.

    Args:
        base: Of a set.
        task: What the set says of itself; ``None``: as the config says.
        partition: Of the training data.
        checkpoint: For the backbone; ``'random'``: none; ``None``: as the config says.
        seed: Of the run.
        data_root: The folder that holds ``classification_v1.0`` and ``segmentation_v1.0``.
        as_published: See :func:`publish`.

    Raises:
        ConfigError: It is no config of a set of GEO-Bench.
    """
    cfg = deepcopy(base)
    for dataset in datasets_of(cfg):
        dataset.partition = partition
        if data_root is not None:
            dataset.data_root = str(Path(data_root, *Path(dataset.data_root).parts[-2:]))
    if task is not None:
        set_classes(cfg, len(task.classes))
    if partition not in WHOLE:
        few_shot(cfg)
    backbone = cfg.model.backbone
    if checkpoint == 'random':
        cfg.model = without_pretrained(cfg.model)
    elif checkpoint is not None:
        init = dict(backbone.get('init_cfg') or dict(type='mmrsfm.Pretrained'))
        for key in ('sha256', 'md5'):  # of the other file
            init.pop(key, None)
        backbone.init_cfg = dict(init, checkpoint=checkpoint)
    if as_published:
        publish(cfg)
    cfg.setdefault('randomness', {})['seed'] = seed
    return cfg


def set_classes(cfg: Config, count: int) -> None:
    """Gives the head as many classes as the set has."""
    head = cfg.model.get('decode_head') or cfg.model.head
    if head.get('num_classes') == count:
        return
    print(f'{cfg.filename}: {head.get("num_classes")} classes, the set has {count}: {count} it is')
    head.num_classes = count
    loss = head.get('loss') or {}
    if 'num_classes' in loss:
        loss.num_classes = count
    if loss.get('mode') == 'multi_label':
        loss.loss_weight = 1 / count


def few_shot(cfg: Config) -> None:
    """A smaller batch, not accumulated, and the learning rate in proportion, as published."""
    batch = cfg.get('few_shot_batch_size', cfg.train_dataloader.batch_size)
    cfg.train_dataloader.batch_size = batch
    cfg.optim_wrapper.pop('accumulative_counts', None)
    cfg.optim_wrapper.optimizer.lr *= batch / cfg.auto_scale_lr.base_batch_size
    cfg.auto_scale_lr.base_batch_size = batch


def publish(cfg: Config) -> None:
    """What the published fine-tunings of MP-MAE did, mistakes included."""
    swapped = {'B08': 'B8A', 'B8A': 'B08'}
    for dataset in datasets_of(cfg):
        dataset.names = 'as_published'
        bands = set(band_keys(dataset.bands))
        found = dict(dataset.get('substitutes') or {})
        if Path(dataset.data_root).name == 'm-brick-kiln':
            found = {}  # for bands that it has under the names of its files
        if swapped.keys() <= bands and not swapped.keys() & found.keys():
            found |= swapped
        dataset.substitutes = found or None
    if str(cfg.model.backbone.type).endswith('ConvNeXtV2'):
        if cfg.default_scope == 'mmpretrain':
            cfg.model.backbone.padding = 'published'
        if 'ConvNeXtLayerDecay' in cfg.optim_wrapper.get('constructor', ''):
            cfg.optim_wrapper.paramwise_cfg.faithful = True


def label_of(cfg: Config, stem: str, name: str) -> str:
    """What a row is called: the config without the set."""
    return stem.replace(f'_{name}', '')


def collect(args: argparse.Namespace) -> list[tuple[str, str, Config]]:
    """The configs to run: what their rows are called, their sets, and themselves."""
    if bool(args.backbones) != bool(args.sets) or not (args.configs or args.sets):
        raise ConfigError('give CONFIGs of sets, or --sets and --backbones')
    found = []
    for path in args.configs:
        cfg = run_config.load_config(path, args.cfg_options)
        dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
        if dataset.get('type') != 'mmrsfm.GeoBench' or 'metric' not in cfg:
            raise ConfigError(
                f'{path} is no config of a set of GEO-Bench: it trains on {dataset.get("type")} '
                'instead of mmrsfm.GeoBench, or names no metric'
            )
        name = Path(dataset.data_root).name
        found.append((label_of(cfg, Path(path).stem, name), name, cfg))
    names = SETS if args.sets and 'all' in args.sets else args.sets or []
    for backbone in args.backbones:
        for protocol in args.protocols:
            for name in names:
                cfg = compose(name, backbone, protocol)
                cfg.merge_from_dict(dict(args.cfg_options or {}))
                found.append((f'{Path(backbone).stem}_{protocol}', name, cfg))
    return found


def tabulate(results: list[dict[str, Any]]) -> str:
    """The table in Markdown."""
    order = [name for name in SETS if any(one['set'] == name for one in results)]
    metrics = {one['set']: one['metric'].rpartition('/')[2] for one in results}
    head = ['model', 'weights', 'partition', *(f'{name} ({metrics[name]})' for name in order)]
    lines = ['| ' + ' | '.join(head) + ' |', '| --- | --- | ---: |' + ' ---: |' * len(order)]
    rows: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for one in results:
        row = rows.setdefault((one['model'], one['weights'], one['partition']), {})
        row.setdefault(one['set'], []).append(one['value'])
    for key, row in rows.items():
        cells = []
        for name in order:
            values = row.get(name, [])
            text = f'{statistics.mean(values):.2f}' if values else '-'
            cells.append(text + (f' ± {statistics.stdev(values):.2f}' if len(values) > 1 else ''))
        lines.append('| ' + ' | '.join([*key, *cells]) + ' |')
    return '\n'.join(lines)


def run(name: str, cfg: Config, args: argparse.Namespace, about: dict[str, Any]) -> dict[str, Any]:
    """Trains and tests, unless that was done."""
    root = Path(args.work_dir)
    folder, config, done = root / name, root / f'{name}.py', root / name / 'result.json'
    folder.mkdir(parents=True, exist_ok=True)
    text = cfg.pretty_text.encode()
    digest = hashlib.sha256(text).hexdigest()
    if done.is_file():
        result = json.loads(done.read_text())
        if result.get('config') != digest:
            raise ConfigError(
                f'{done} is of another config: give another --work-dir, or remove {folder}'
            )
        print(f'{name}: is done, {result["value"]:.2f}')
        return result
    atomic_write(config, text)
    metrics = {key: float(value) for key, value in run_once(folder, config, args).items()}
    if cfg.metric not in metrics:
        raise LaunchError(f'{name}: the test gave no {cfg.metric}, only {sorted(metrics)}')
    result = dict(
        about, config=digest, metric=cfg.metric, value=metrics[cfg.metric], metrics=metrics
    )
    atomic_write(done, json.dumps(result, indent=1).encode())
    return result


def main(args: argparse.Namespace) -> None:
    root = Path(args.work_dir)
    results, failed = [], []
    for model, set_name, base in collect(args):
        base_root = Path(args.data_root, *Path(base.train_dataloader.dataset.data_root).parts[-2:])
        task = None if args.dry_run and not base_root.is_dir() else read_task(base_root)
        for checkpoint in args.checkpoints:
            weights = 'config' if checkpoint is None else Path(checkpoint).stem
            for partition in args.partitions:
                for seed in args.seeds:
                    cfg = make_config(
                        base, task, partition, checkpoint, seed, args.data_root, args.as_published
                    )
                    kind = '_published' if args.as_published else ''
                    # Names of checkpoints repeat (checkpoint-199): their folders tell them apart.
                    where = hashlib.sha256(str(checkpoint).encode()).hexdigest()[:6]
                    label = weights if weights in ('config', 'random') else f'{weights}-{where}'
                    name = f'{model}_{set_name}_{label}_{partition}{kind}_seed{seed}'
                    about = dict(
                        model=model + kind, set=set_name, weights=label, partition=partition,
                        seed=seed, checkpoint=checkpoint,
                    )  # fmt: skip
                    if args.dry_run:
                        root.mkdir(parents=True, exist_ok=True)
                        atomic_write(root / f'{name}.py', cfg.pretty_text.encode())
                        print(root / f'{name}.py')
                        continue
                    try:
                        results.append(run(name, cfg, args, about))
                    except LaunchError as error:
                        failed.append(f'{name}: {error}')
                        print(failed[-1], file=sys.stderr)
    if results:
        atomic_write(root / 'results.json', json.dumps(results, indent=1).encode())
        table = tabulate(results)
        atomic_write(root / 'results.md', (table + '\n').encode())
        print(table)
    if failed:
        raise LaunchError(f'{len(failed)} runs failed: ' + '; '.join(failed))


if __name__ == '__main__':
    sys.exit(command_line.run_command(main, build_parser()))
