#!/usr/bin/env python
# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Converts a checkpoint to another layout. The source is read without running what is in it."""

import argparse
import io
import json
import sys
from pathlib import Path

import torch

from mmrsfm.checkpoints import export_checkpoint, file_digests, known_layouts, read_checkpoint
from mmrsfm.checkpoints.exporting import ALIASES
from mmrsfm.checkpoints.inspection import contract_from_text
from mmrsfm.checkpoints.sources import locate
from mmrsfm.engine import command_line
from mmrsfm.engine.atomic_io import atomic_write
from mmrsfm.errors import CheckpointError


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description='Convert a checkpoint between layouts; what has no place is named.'
    )
    parser.add_argument('src', help='the checkpoint: a file, a URL, torchvision://NAME, ...')
    parser.add_argument('dst', help='the file to write: .pth or .safetensors')
    parser.add_argument(
        '--to',
        default='mmrsfm',
        choices=[*ALIASES, *known_layouts()],
        help='layout of the result [mmrsfm]',
    )
    parser.add_argument(
        '--from', dest='source', default='auto', help='layout of the source [found by its names]'
    )
    parser.add_argument('--sha256', help='digest of the source, or its first 8 or more digits')
    parser.add_argument('--md5', help='the same for MD5')
    parser.add_argument(
        '--weights', default='auto', help='entry that holds the weights, e.g. ema_state_dict'
    )
    parser.add_argument(
        '--part',
        help='what to convert of a model with several encoders, e.g. backbone.branches.sar (as '
        'MaRS calls its own), teacher [all]',
    )
    parser.add_argument(
        '--contract',
        nargs='+',
        metavar='KEY=VALUE',
        help='imagery that the weights were trained on: a .json file, or items such as '
        'band_names=R,G,B scale=1.0 sensor=WorldView-3 gsd=0.3 mean=... std=... licence=...',
    )
    parser.add_argument('--strict', action='store_true', help='fail where something is left out')
    parser.add_argument('--overwrite', action='store_true', help='replace an existing DST')
    parser.add_argument('--debug', action='store_true', help='show tracebacks')
    return parser


def main(args: argparse.Namespace) -> None:
    target = Path(args.dst)
    if target.exists() and not args.overwrite:
        raise CheckpointError(f'{target} exists already; --overwrite replaces it')
    contract = None if args.contract is None else contract_from_text(args.contract)
    content = read_checkpoint(args.src, args.sha256, args.md5)
    local = locate(args.src)
    origin = {'file': Path(str(args.src)).name}
    if isinstance(local, Path):
        origin['sha256'] = file_digests(local)['sha256']
    export = export_checkpoint(
        content, args.to, args.source, contract, origin, args.weights, args.strict, args.part
    )
    print(export.summary())
    if target.suffix == '.safetensors':
        data = _as_safetensors(export.content)
    else:
        buffer = io.BytesIO()
        torch.save(export.content, buffer)
        data = buffer.getvalue()
    atomic_write(target, data)
    for name, value in export.content['meta'].items():
        print(f'  {name}: {json.dumps(value)}')
    print(f'wrote {target}: {len(data)} bytes, sha256 {file_digests(target)["sha256"]}')


def _as_safetensors(content: dict) -> bytes:
    from safetensors.torch import save

    meta = {name: json.dumps(value) for name, value in content['meta'].items()}
    state = content.get('state_dict') or content['model']
    return save(state, metadata={'format': 'pt', **meta})


if __name__ == '__main__':
    sys.exit(command_line.run_command(main, build_parser()))
