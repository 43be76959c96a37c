#!/usr/bin/env python
# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Writes a trained model to ONNX, after its numbers were compared with those of PyTorch.

export.py CONFIG CHECKPOINT --out model.onnx           segmentation, change, height, classification
export.py CONFIG CHECKPOINT --out backbone.onnx --part backbone
                                                       the maps of the backbone of any model
export.py CONFIG CHECKPOINT --out model.onnx --size 512 --size-divisor 32
                                                       for images of any multiples of 32 pixels

The file takes what the files of a scene hold, normalises it, and says itself which bands it takes
and what its output means: infer_scene.py needs no config beside it (infer_scene.py - MODEL.onnx
SCENE). docs/export.md lists what can be exported, and why the rest cannot.
"""

import argparse
import sys

from mmrsfm.apis.exporting import export_onnx
from mmrsfm.apis.exporting.exporter import INPUTS, PARTS
from mmrsfm.apis.exporting.graph import OPSET, TOLERANCE
from mmrsfm.engine import command_line, run_config
from mmrsfm.errors import ConfigError


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command_line.add_config_arguments(parser)
    parser.add_argument('checkpoint', help='the checkpoint of that config')
    parser.add_argument('--out', required=True, metavar='FILE', help='the file to write, .onnx')
    parser.add_argument('--part', choices=PARTS, default='model', help='[model]')
    parser.add_argument('--size', type=int, help='side of the images in pixels [from the config]')
    parser.add_argument(
        '--size-divisor',
        type=int,
        metavar='N',
        help='height and width may be any multiples of N [as --size says]',
    )
    parser.add_argument(
        '--fixed-batch', action='store_true', help='two images at once, no other number'
    )
    parser.add_argument(
        '--input',
        choices=INPUTS,
        default='stored',
        help='stored: what files hold; normalized: what the data preprocessor makes, for other '
        'programs than infer_scene.py [stored]',
    )
    parser.add_argument('--opset', type=int, default=OPSET, help=f'[{OPSET}]')
    parser.add_argument(
        '--tolerance',
        type=float,
        default=TOLERANCE,
        help=f'largest difference from PyTorch, relative to the largest value [{TOLERANCE:g}]',
    )
    return parser


def main(args: argparse.Namespace) -> None:
    if not args.out.endswith('.onnx'):
        raise ConfigError(f'--out: {args.out} must end in .onnx')
    metadata = export_onnx(
        run_config.load_config(args.config, args.cfg_options),
        args.checkpoint,
        args.out,
        part=args.part,
        size=args.size,
        size_divisor=args.size_divisor,
        dynamic_batch=not args.fixed_batch,
        input=args.input,
        opset=args.opset,
        tolerance=args.tolerance,
    )
    size = f'{metadata.size} x {metadata.size}'
    if metadata.size_divisor:
        size = f'any multiples of {metadata.size_divisor}'
    print(f'{args.out}: {metadata.task}, {metadata.model}')
    for one in metadata.inputs:
        bands = ', '.join(map(str, one['bands'])) if one['bands'] else f'{one["count"]} bands'
        print(f'  input    {one["name"]}: {bands}; {size} pixels')
    print(f'  batch    {metadata.batch or "any number"}')
    if metadata.classes:
        print(f'  classes  {", ".join(metadata.classes)}')
    print(f'  differs from PyTorch by at most {metadata.error:.1e} of the largest value')


if __name__ == '__main__':
    sys.exit(command_line.run_command(main, build_parser()))
