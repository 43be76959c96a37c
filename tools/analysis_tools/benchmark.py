#!/usr/bin/env python
# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Times the training step of any config: its parts, its memory, and what it could be at best.

benchmark.py CONFIG                           medians of the parts of a step, images/s, peak memory
benchmark.py CONFIG --versus OTHER_CONFIG     both in alternation, and the ratio pair by pair
benchmark.py CONFIG --versus-options KEY=VALUE ...
                                              the same with the config itself, of other values
benchmark.py CONFIG --versus 'python ref.py'  a command that prints seconds on its last line
benchmark.py CONFIG --floor                   the time of the model's matrix products alone
benchmark.py CONFIG --backbone forward --input-shape 3,512,512
                                              inference of its backbone alone (train: with the
                                              backward pass); of any size that it takes
benchmark.py CONFIG --data-only --versus PACKED_CONFIG
                                              the training data loaders alone
benchmark.py CONFIG --data-only --formats     images of the training set in GeoTIFF, HDF5, Zarr,
                                              packed tiles and (where installed) LMDB and LitData,
                                              read side by side; --cold: from the disk
benchmark.py CONFIG --scene SCENE.tif --checkpoint FILE
                                              the map of a scene: time per megapixel, share of
                                              waiting for data
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from mmrsfm.apis import format_comparison
from mmrsfm.apis.backbone_step import PASSES, BackboneStep
from mmrsfm.apis.loader_step import LoaderStep
from mmrsfm.apis.scene import speed
from mmrsfm.apis.training_step import PARTS, TrainingStep
from mmrsfm.engine import command_line, run_config
from mmrsfm.errors import ConfigError
from mmrsfm.utils.conversion import write_whole
from mmrsfm.utils.host_memory import keep_freed_memory
from mmrsfm.utils.matmul_floor import MatmulFloor, MatmulRecorder
from mmrsfm.utils.resource_use import peak_memory


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command_line.add_config_arguments(parser)
    parser.add_argument('--versus', metavar='CONFIG|COMMAND', help='what to compare with')
    command_line.add_config_options(
        parser,
        '--versus-options',
        'override values of the config of --versus; without it, of CONFIG, on top of --cfg-options',
    )
    parser.add_argument(
        '--backbone', choices=PASSES, help='measure the backbone alone: inference, or both passes'
    )
    parser.add_argument(
        '--data-only',
        '--loader',
        dest='loader',
        action='store_true',
        help='measure the training data loader alone, without a model',
    )
    format_comparison.add_arguments(parser)
    speed.add_arguments(parser)
    parser.add_argument('--floor', action='store_true', help='time the matrix products alone too')
    parser.add_argument('--batch-size', type=int, help="[the config's]")
    parser.add_argument('--threads', type=int, help='CPU threads')
    parser.add_argument('--warmup', type=int, default=3, help='steps before the measurement [3]')
    parser.add_argument('--iters', type=int, default=10, help='measured steps [10]')
    parser.add_argument('--device', help="'cpu', 'cuda', 'cuda:1' [cuda where there is one]")
    parser.add_argument('--amp', action='store_true', help='mixed precision [float32]')
    parser.add_argument(
        '--release-memory',
        action='store_true',
        help='on a CPU: give freed memory back to the system in every step, as plain torch does',
    )
    parser.add_argument(
        '--data',
        choices=['auto', 'real', 'random'],
        default='auto',
        help='the training data loader, or one random batch [auto: real where there are data]',
    )
    parser.add_argument(
        '--input-shape',
        type=parse_shape,
        metavar='C,H,W',
        help='of random images [from the config]',
    )
    parser.add_argument('--profile', action='store_true', help='list the longest operators')
    parser.add_argument('--json', metavar='FILE', help='write the figures to a file')
    parser.add_argument('--memory-probe', action='store_true', help=argparse.SUPPRESS)
    return parser


def parse_shape(text: str) -> tuple[int, int, int]:
    parts = text.split(',')
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not C,H,W, for example 13,128,128")
    return int(parts[0]), int(parts[1]), int(parts[2])


def build_step(
    args: argparse.Namespace, other: bool = False
) -> TrainingStep | BackboneStep | LoaderStep:
    if not other:
        config, options = args.config, args.cfg_options
    elif args.versus is None:
        config, options = args.config, {**(args.cfg_options or {}), **args.versus_options}
    else:
        # --cfg-options are meant for the first config: this may be built quite differently.
        config, options = args.versus, args.versus_options
    cfg = run_config.load_config(config, options)
    if args.loader:
        return LoaderStep(cfg, args.batch_size)
    if args.backbone:
        return BackboneStep(
            cfg, args.backbone, args.input_shape, args.device, args.batch_size or 1, args.amp
        )
    return TrainingStep(
        cfg,
        device=args.device,
        batch_size=args.batch_size,
        data=args.data,
        input_shape=args.input_shape,
        amp=args.amp,
    )


def versus_is_config(args: argparse.Namespace) -> bool:
    if args.versus is None:
        return bool(args.versus_options)
    # One word that ends in .py: 'python ref.py' is a command.
    words = shlex.split(args.versus)
    return len(words) == 1 and words[0].endswith('.py')


def run_command(command: str) -> float:
    """Runs a shell command; returns the number on the last line of its output."""
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    lines = result.stdout.strip().splitlines()
    try:
        if result.returncode == 0:
            return float(lines[-1])
    except (IndexError, ValueError):
        pass
    tail = (result.stderr.strip() or result.stdout.strip()).splitlines()[-1:]
    raise ConfigError(
        f'--versus: {command!r} ended with {result.returncode} and must print a number of seconds '
        f'on its last line ({" ".join(tail)[:200] or "it printed nothing"})'
    )


def probe_memory(args: argparse.Namespace, other: bool = False) -> dict[str, int]:
    """Peak memory of a few steps, in a process that does nothing else."""
    own = not other or args.versus is None
    config = args.config if own else args.versus
    command = [sys.executable, str(Path(__file__).resolve()), config, '--memory-probe']
    command += ['--device', args.device, '--data', args.data]
    command += ['--threads', str(torch.get_num_threads())]
    if args.release_memory:
        command += ['--release-memory']
    if args.batch_size:
        command += ['--batch-size', str(args.batch_size)]
    if args.input_shape:
        command += ['--input-shape', ','.join(map(str, args.input_shape))]
    if args.amp:
        command.append('--amp')
    if args.backbone:
        command += ['--backbone', args.backbone]
    if args.loader:
        command.append('--loader')
    options = raw_options(sys.argv, '--cfg-options') if own else []
    if other:
        options += raw_options(sys.argv, '--versus-options')
    if options:
        command += ['--cfg-options', *options]  # last: it takes every word that follows
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise ConfigError(f'the memory measurement failed:\n{result.stderr[-1500:]}')
    return json.loads(result.stdout.splitlines()[-1])


def raw_options(argv: list[str], flag: str) -> list[str]:
    words: list[str] = []
    if flag not in argv:
        return words
    for word in argv[argv.index(flag) + 1 :]:
        if word.startswith('--') or '=' not in word:
            break
        words.append(word)
    return words


def measure_memory(args: argparse.Namespace) -> None:
    before = peak_memory(args.device)
    step = build_step(args)
    for _ in range(2):  # the second has the states of the optimizer
        step.run()
    print(json.dumps(dict(peak=peak_memory(args.device), before=before)))


def summarize(values: list[float]) -> dict[str, float]:
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return dict(
        median=statistics.median(values),
        min=min(values),
        max=max(values),
        quartile_low=low,
        quartile_high=high,
    )


def record_floor(step: TrainingStep | BackboneStep | LoaderStep) -> MatmulFloor:
    with MatmulRecorder() as recorder:
        step.run()
    return MatmulFloor(recorder)


def measure(args: argparse.Namespace) -> dict:
    first = build_step(args)
    if first.note:
        print(first.note)
    other: TrainingStep | BackboneStep | LoaderStep | None = None
    if versus_is_config(args):
        other = build_step(args, True)
    for _ in range(max(args.warmup, 1)):
        first.run()
        if other is not None:
            other.run()
    floor = record_floor(first) if args.floor else None
    if floor is not None:
        floor.run()

    def run_other() -> float:
        return other.run()['step'] if other is not None else run_command(args.versus)

    compared = args.versus is not None or other is not None
    steps: list[dict[str, float]] = []
    floors: list[float] = []
    others: list[float] = []
    for number in range(args.iters):
        # A B, B A, A B ...: neither is always the one that runs on warm caches.
        if compared and number % 2:
            others.append(run_other())
        steps.append(first.run())
        if compared and not number % 2:
            others.append(run_other())
        if floor is not None:
            floors.append(floor.run())
    parts = [part for part in PARTS if part in steps[0]]
    figures: dict = dict(
        config=args.config,
        device=device_name(args.device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        amp=args.amp,
        data=first.data,
        batch_size=first.batch_size,
        iters=args.iters,
        parameters=sum(p.numel() for p in first.model.parameters() if p.requires_grad),
        seconds={part: summarize([step[part] for step in steps]) for part in parts},
    )
    figures['images_per_second'] = first.batch_size / figures['seconds']['step']['median']
    if floor is not None:
        ours = [step['step'] - step['data_wait'] for step in steps]
        figures['floor'] = dict(
            seconds=summarize(floors),
            overhead=summarize([a - b for a, b in zip(ours, floors, strict=True)]),
            ratio=summarize([a / b for a, b in zip(ours, floors, strict=True)]),
            gflops=floor.flops / 1e9,
            gflops_per_second=floor.flops / 1e9 / statistics.median(floors),
            by_operator=floor.by_operator(),
        )
    if compared:
        pairs = [step['step'] / b for step, b in zip(steps, others, strict=True)]
        figures['versus'] = dict(
            what=what_is_compared(args),
            seconds=summarize(others),
            ratio=summarize(pairs),
            pairs=pairs,
        )
    if args.profile:
        figures['profile'] = profile(first)
    return figures


def what_is_compared(args: argparse.Namespace) -> str:
    changes = [f'{key}={value}' for key, value in (args.versus_options or {}).items()]
    return ' '.join([args.versus or args.config, *changes])


def profile(step: TrainingStep | BackboneStep | LoaderStep) -> str:
    activities = [torch.profiler.ProfilerActivity.CPU]
    if step.device.type == 'cuda':
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        step.run()
    key = f'self_{step.device.type}_time_total'
    return profiler.key_averages().table(sort_by=key, row_limit=20, max_name_column_width=50)


def device_name(device: str) -> str:
    if torch.device(device).type == 'cuda':
        return f'{device} ({torch.cuda.get_device_name(device)})'
    return device


def describe(figures: dict) -> str:
    def ms(summary: dict) -> str:
        low, high = summary['quartile_low'] * 1e3, summary['quartile_high'] * 1e3
        least = summary['min'] * 1e3
        return (
            f'{summary["median"] * 1e3:10.1f} ms   '
            f'(least {least:.1f}, quartiles {low:.1f} to {high:.1f})'
        )

    lines = [
        f'{figures["config"]}',
        f'{figures["device"]}, {figures["threads"]} threads, torch {figures["torch"]}, '
        f'{"mixed precision" if figures["amp"] else "float32"}, {figures["data"]} data, '
        f'batch {figures["batch_size"]}, {figures["parameters"] / 1e6:.2f} M trained parameters, '
        f'medians of {figures["iters"]}',
    ]
    lines += [f'  {part:12}{ms(summary)}' for part, summary in figures['seconds'].items()]
    lines.append(f'  {"images/s":12}{figures["images_per_second"]:10.2f}')
    if 'memory' in figures:
        memory = figures['memory']
        lines.append(
            f'  {"peak memory":12}{memory["peak"] / 2**20:10.0f} MiB  '
            f'({memory["before"] / 2**20:.0f} MiB before the model was built)'
        )
    if 'floor' in figures:
        floor = figures['floor']
        lines += [
            f'matrix products alone, {floor["gflops"]:.1f} GFLOP at '
            f'{floor["gflops_per_second"]:.0f} GFLOP/s:',
            f'  {"floor":12}{ms(floor["seconds"])}',
            f'  {"above it":12}{ms(floor["overhead"])}',
            f'  {"ratio":12}{floor["ratio"]["median"]:10.2f}   (step without data wait / floor)',
        ]
        lines += [
            f'    {name:56}{seconds * 1e3:8.1f} ms'
            for name, seconds in floor['by_operator'].items()
        ]
    if 'versus' in figures:
        versus = figures['versus']
        ratio = versus['ratio']
        lines += [
            f'versus {versus["what"]}, in alternation:',
            f'  {"step":12}{ms(versus["seconds"])}',
            f'  {"ratio":12}{ratio["median"]:10.3f}   (first / other, pair by pair; quartiles '
            f'{ratio["quartile_low"]:.3f} to {ratio["quartile_high"]:.3f})',
        ]
        if 'memory' in versus:
            lines.append(f'  {"peak memory":12}{versus["memory"]["peak"] / 2**20:10.0f} MiB')
    if 'profile' in figures:
        lines.append(figures['profile'])
    return '\n'.join(lines)


def main(args: argparse.Namespace) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.iters < 1:
        raise ConfigError('--iters must be at least 1')
    if args.formats is not None and not args.loader:
        raise ConfigError('--formats compares how data are read: with --data-only')
    if args.loader and (args.backbone or args.floor or args.data == 'random'):
        raise ConfigError(
            '--data-only reads real data, without a model: not with --backbone, --floor'
        )
    if args.backbone and args.input_shape is None:
        raise ConfigError('--backbone needs --input-shape C,H,W')
    args.device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    if args.device == 'cpu' and not args.release_memory:
        keep_freed_memory()  # as tools/train.py does
    if args.memory_probe:
        measure_memory(args)
        return
    if args.versus and versus_is_config(args) and not Path(args.versus).is_file():
        raise ConfigError(f'--versus: the config {args.versus} does not exist')
    if args.scene:
        figures = speed.measure_scene(args)
        write(args, figures, speed.describe_scene(figures))
        return
    if args.formats is not None:
        cfg = run_config.load_config(args.config, args.cfg_options)
        figures = format_comparison.compare(cfg, args)
        write(args, figures, format_comparison.describe(figures))
        return
    memory = probe_memory(args)
    figures = measure(args)
    figures['memory'] = memory
    if versus_is_config(args):
        figures['versus']['memory'] = probe_memory(args, True)
    write(args, figures, describe(figures))


def write(args: argparse.Namespace, figures: dict, text: str) -> None:
    print(text)
    if args.json:
        write_whole(args.json, f'{json.dumps(figures, indent=2)}\n'.encode())


if __name__ == '__main__':
    sys.exit(command_line.run_command(main, build_parser()))
