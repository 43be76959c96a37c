#!/usr/bin/env python
# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Shows what a checkpoint holds, without running what is in it."""

import argparse
import json
import sys

from mmrsfm.checkpoints import inspect_checkpoint
from mmrsfm.engine import command_line


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description='Show layout, contract, sizes, digests and meta of a checkpoint.'
    )
    parser.add_argument('checkpoint', help='a file, a URL, torchvision://NAME, ...')
    parser.add_argument('--sha256', help='digest it must have, or its first 8 or more digits')
    parser.add_argument('--md5', help='the same for MD5')
    parser.add_argument(
        '--weights', default='auto', help='entry that holds the weights, e.g. ema_state_dict'
    )
    parser.add_argument('--keys', action='store_true', help='list every tensor')
    parser.add_argument(
        '--config', action='store_true', help='print the config that it holds; it is not run'
    )
    parser.add_argument('--json', action='store_true', help='everything, as JSON')
    parser.add_argument('--debug', action='store_true', help='show tracebacks')
    return parser


def main(args: argparse.Namespace) -> None:
    found = inspect_checkpoint(args.checkpoint, args.sha256, args.md5, args.weights)
    if args.json:
        print(json.dumps(found, indent=2))
        return
    if args.config:
        print(found['config_text'] or '(the checkpoint holds no config)')
        return
    print(f'{found["file"]}: {found.get("bytes", 0) / 1e6:.1f} MB')
    for name in ('sha256', 'md5'):
        print(f'  {name:<11}{found.get(name, "-")}')
    layout = found['layout'] or f'unknown ({found["layout_error"]})'
    print(f'  layout     {layout}')
    if found['layout']:
        print(f'  origin     {found["origin"]}')
        print(f'  licence    {found["licence"]} (of the layout; the contract may say more)')
        print(f'  norm style {found["norm_style"] or "not stated"}')
    print(f'  weights in {" ".join(found["steps"]) or "the top level"}')
    parts = ', '.join(f'{name} {count:,}' for name, count in found['parts'].items())
    print(f'  {found["parameters"]:,} numbers in {len(found["tensors"])} tensors: {parts}')
    print(f'  contract   {json.dumps(found["contract"]) if found["contract"] else "none"}')
    for name in ('traits', 'source'):
        if found[name]:
            print(f'  {name:<11}{json.dumps(found[name])}')
    for name, text in found['entries'].items():
        print(f'  entry      {name}: {text}')
    for name, value in found['meta'].items():
        print(f'  meta       {name}: {json.dumps(value)}')
    if found['config_text']:
        lines = found['config_text'].count('\n') + 1
        print(f'  config     {lines} lines of text (--config prints them)')
    for note in found['notes']:
        print(f'  note       {note}')
    if args.keys:
        for name, tensor in found['tensors'].items():
            print(f'  {name} {tuple(tensor["shape"])} {tensor["dtype"]}')


if __name__ == '__main__':
    sys.exit(command_line.run_command(main, build_parser()))
