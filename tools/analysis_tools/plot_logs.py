#!/usr/bin/env python
# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Draws the curves of runs: losses, learning rates, metrics, speed; of any library on MMEngine.

plot_logs.py work_dirs/a work_dirs/b          the loss of both, in curves.png
plot_logs.py work_dirs/a --list               what was logged, with its last values
plot_logs.py work_dirs/a --keys 'loss*' lr 'coco/*' --out a.svg
                                              a panel for each
plot_logs.py work_dirs/* --keys loss --smooth 0.9 --log --axis hours --names ours theirs

A run that was killed and resumed is one curve: steps that were made twice count once. Read are
files, vis_data/scalars.json; TensorBoard is not needed.
"""

import argparse
import math
import sys
from pathlib import Path

from mmrsfm.engine import command_line
from mmrsfm.errors import ConfigError
from mmrsfm.visualization.curves import draw_curves
from mmrsfm.visualization.run_logs import AXES, RunLog, matching, read_run


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('runs', nargs='+', help='work folders, or scalars.json files')
    parser.add_argument(
        '--keys', nargs='+', default=['loss'], help="names, or patterns as 'loss_*'"
    )
    parser.add_argument('--out', default='curves.png', help='.png, .svg or .pdf [curves.png]')
    parser.add_argument('--names', nargs='+', help='of the runs, for the legend [their folders]')
    parser.add_argument('--axis', choices=AXES, default='iter', help='what lies below [iter]')
    parser.add_argument(
        '--smooth', type=float, default=0.0, help='weight of the past, as in TensorBoard, e.g. 0.9'
    )
    parser.add_argument('--log', action='store_true', help='logarithmic values')
    parser.add_argument('--title', default='', help='above the panels')
    parser.add_argument('--list', action='store_true', help='list what was logged; draw nothing')
    parser.add_argument('--debug', action='store_true', help='show tracebacks')
    return parser


def describe(run: RunLog) -> str:
    """What a run logged, a line each."""
    lines = [
        f'{run.name}: {len(run.records)} records up to step {run.records[-1]["iter"]:.0f}, '
        f'{run.starts} start{"s" * (run.starts != 1)}'
        + (f', {run.damaged} lines could not be read' if run.damaged else '')
    ]
    for key in run.numbers():
        values = run.series(key)[1]
        finite = [value for value in values if math.isfinite(value)]
        span = f', from {min(finite):.6g} to {max(finite):.6g}' if finite else ''
        bad = len(values) - len(finite)
        lines.append(
            f'  {key:32} {len(values):6} values{span}, last {values[-1]:.6g}'
            + (f', {bad} NaN or infinite' if bad else '')
        )
    return '\n'.join(lines)


def main(args: argparse.Namespace) -> None:
    if args.names and len(args.names) != len(args.runs):
        raise ConfigError(f'--names: {len(args.names)} names for {len(args.runs)} runs')
    if not 0 <= args.smooth < 1:
        raise ConfigError(f'--smooth is at least 0 and below 1, got {args.smooth}')
    runs = [
        read_run(path, name)
        for path, name in zip(args.runs, args.names or [None] * len(args.runs), strict=True)
    ]
    if args.list:
        print('\n'.join(describe(run) for run in runs))
        return
    known = list(dict.fromkeys(key for run in runs for key in run.numbers()))
    for pattern in args.keys:
        if not matching(known, [pattern]):
            raise ConfigError(f'--keys {pattern}: nothing of that name, only {", ".join(known)}')
    keys = matching(known, args.keys)
    path = draw_curves(args.out, runs, keys, args.axis, args.smooth, args.log, args.title)
    print(f'{Path(path).resolve()}: {", ".join(keys)}')


if __name__ == '__main__':
    sys.exit(command_line.run_command(main, build_parser()))
