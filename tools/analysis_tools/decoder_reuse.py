#!/usr/bin/env python
# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What a decoder of MTP brings: fine-tunes from its encoder, with a fresh decoder and with its own.

decoder_reuse.py CHECKPOINT CONFIG...                       for each config, both starts
decoder_reuse.py CHECKPOINT CONFIG... --seeds 0 1 2         three runs of each; mean, std
decoder_reuse.py CHECKPOINT CONFIG... --dataset neon        a third start: last layers of neon too
decoder_reuse.py CHECKPOINT CONFIG --gpus 8 --amp           each run on eight GPUs

CHECKPOINT is a full model file of a multi-task pretraining, published or of mmrsfm.MTP; CONFIGs are
fine-tunings of Oriented R-CNN, Mask R-CNN or UPerHead, whose kind is seen from their models. All
starts have the same encoder, steps, seed and order of images. What goes over is what
tools/model_converters/mtp_decoder.py takes over. A study that was cut off goes on where it was.
"""

import argparse
import hashlib
import json
import statistics
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config

TOOLS = Path(__file__).resolve().parents[1]
if str(TOOLS / 'analysis_tools') not in sys.path:
    sys.path.insert(0, str(TOOLS / 'analysis_tools'))

from label_fraction import call, run_once  # noqa: E402

from mmrsfm.checkpoints import file_digests  # noqa: E402
from mmrsfm.engine import command_line, run_config  # noqa: E402
from mmrsfm.engine.atomic_io import atomic_write  # noqa: E402
from mmrsfm.errors import ConfigError  # noqa: E402

STARTS = ('fresh', 'reused', 'reused with last layers')


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('checkpoint', help='the full model file')
    parser.add_argument('configs', nargs='+', help='fine-tunings')
    parser.add_argument('--dataset', help='whose last layers are tried too [none]')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='one run each [0]')
    parser.add_argument('--work-dir', help='[work_dirs/decoder_reuse]')
    parser.add_argument('--gpus', type=int, default=1, help='processes of each run [1]')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--dry-run', action='store_true', help='write the configs only')
    parser.add_argument('--debug', action='store_true', help='show tracebacks')
    return parser


def task_of(cfg: Config) -> str:
    """Which decoder of the pretraining fits a fine-tuning.

    Raises:
        ConfigError: If none does.
    """
    model = cfg.model
    if 'decode_head' in model:
        return 'semantic'
    heads = model.get('roi_head') or {}
    if 'rpn_head' in model and heads:
        rotated = 'Oriented' in model.rpn_head.type
        if rotated or 'mask_head' in heads:
            return 'rotated' if rotated else 'instance'
    raise ConfigError(
        f'{cfg.filename}: {model.type} is neither an Oriented R-CNN, nor a Mask R-CNN, nor a '
        'segmentor with a decode head, so that no decoder of MTP fits it'
    )


def make_config(base: Config, seed: int, checkpoint: str, decoder: str | None) -> Config:
    """The config of one run.

    Args:
        base: The fine-tuning.
        seed: Of the run.
        checkpoint: The pretraining.
        decoder: What was taken out of it for this model; ``None``: the encoder alone.
    """
    cfg = deepcopy(base)
    for name in ('train_dataloader', 'test_dataloader', 'test_evaluator'):
        if not cfg.get(name):
            raise ConfigError(f'{base.filename} has no {name}, which the study needs')
    cfg.model.backbone.init_cfg = None
    if decoder is None:
        cfg.model.backbone.init_cfg = dict(type='mmrsfm.Pretrained', checkpoint=checkpoint)
    cfg.load_from = decoder
    cfg.setdefault('randomness', {})['seed'] = seed
    return cfg


def convert(checkpoint: str, config: str, task: str, dataset: str | None, target: Path) -> None:
    """Writes what goes over into the model of a config."""
    words = [sys.executable, str(TOOLS / 'model_converters' / 'mtp_decoder.py'), checkpoint]
    words += [str(target), '--task', task, '--config', config, '--overwrite']
    call(words + ([] if dataset is None else ['--dataset', dataset]))


def tabulate(results: dict[str, dict[str, Any]]) -> str:
    """A table in Markdown: a row for each config, metric and start; mean, std and single runs."""
    rows: dict[tuple[str, str], dict[str, list[float]]] = {}
    for result in results.values():
        for name, value in result['metrics'].items():
            if name.count('/') <= 1 and not name.startswith(('time', 'data')):
                key = (result['task'], name)
                rows.setdefault(key, {}).setdefault(result['start'], []).append(value)
    lines = ['| decoder | metric | start | mean | runs |', '| --- | --- | --- | ---: | --- |']
    for (task, name), starts in rows.items():
        for start in STARTS:
            values = starts.get(start, [])
            if not values:
                continue
            text = f'{statistics.mean(values):.3f}'
            text += f' ± {statistics.stdev(values):.3f}' if len(values) > 1 else ''
            runs = ', '.join(f'{value:.3f}' for value in values)
            lines.append(f'| {task} | {name} | {start} | {text} | {runs} |')
    return '\n'.join(lines)


def main(args: argparse.Namespace) -> None:
    root = Path(args.work_dir or 'work_dirs/decoder_reuse')
    root.mkdir(parents=True, exist_ok=True)
    run_config.check_checkpoint(args.checkpoint, 'the checkpoint')
    origin = file_digests(args.checkpoint)['sha256']
    starts = STARTS if args.dataset else STARTS[:2]
    results: dict[str, dict[str, Any]] = {}
    bases = {file: run_config.load_config(file) for file in args.configs}
    tasks = {file: task_of(base) for file, base in bases.items()}
    for file, base in bases.items():
        task = tasks[file]
        for start in starts:
            decoder = None
            if start != 'fresh':
                decoder = root / f'{Path(file).stem}_{start.replace(" ", "_")}.pth'
                if not args.dry_run:
                    convert(args.checkpoint, file, task, args.dataset if ' ' in start else None,
                            decoder)  # fmt: skip
            for seed in args.seeds:
                name = f'{Path(file).stem}_{start.replace(" ", "_")}_seed{seed}'
                cfg = make_config(base, seed, args.checkpoint, decoder and str(decoder))
                config, folder = root / f'{name}.py', root / name
                text = cfg.pretty_text.encode()
                atomic_write(config, text)
                if args.dry_run:
                    print(config)
                    continue
                digest = hashlib.sha256(text + origin.encode()).hexdigest()
                folder.mkdir(exist_ok=True)
                done = folder / 'result.json'
                if done.is_file():
                    results[name] = json.loads(done.read_text())
                    if results[name].get('inputs') != digest:
                        raise ConfigError(
                            f'{done} is of another config or checkpoint: give another --work-dir, '
                            'or remove it'
                        )
                    print(f'{name}: is done')
                    continue
                metrics = run_once(folder, config, args)
                results[name] = dict(
                    config=Path(file).name, task=task, start=start, seed=seed, inputs=digest,
                    metrics=metrics,
                )  # fmt: skip
                atomic_write(done, json.dumps(results[name], indent=1).encode())
    if results:
        atomic_write(root / 'results.json', json.dumps(results, indent=1).encode())
        table = tabulate(results)
        atomic_write(root / 'results.md', (table + '\n').encode())
        print(table)


if __name__ == '__main__':
    sys.exit(command_line.run_command(main, build_parser()))
