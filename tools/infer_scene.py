#!/usr/bin/env python
# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Makes maps of scenes of any size with a trained model of any task."""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from mmengine import dist
from mmengine.config import Config
from mmengine.logging import MMLogger, print_log

from mmrsfm.engine import command_line, run_config
from mmrsfm.errors import (
    ConfigError,
    DataError,
    DatasetNotFoundError,
    MMRSFMError,
    OutsideAreaError,
)

_PATIENCE = 7 * 24 * 3600.0
_SHOWN = 3
SUFFIXES = ('.tif', '.tiff', '.vrt', '.jp2', '.img', '.png', '.jpg', '.jpeg')


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description='Make maps of scenes: classes, changes and heights become GeoTIFFs, objects '
        'GeoJSON and GeoPackage, classes of tiles a grid. A run that was killed goes on with the '
        'same command.'
    )
    command_line.add_config_arguments(parser)
    parser.add_argument('checkpoint', help='the trained weights, or a file of tools/export.py '
                        '(*.onnx; CONFIG is not read then, give -)')  # fmt: skip
    parser.add_argument('scene', help='a file that GDAL reads, a folder of them, or a list (*.txt)')
    parser.add_argument(
        'further', nargs='*', metavar='SCENE2',
        help='the second date, or further modalities: a file, a folder with files of the same '
        'names, or a list of the same length',
    )  # fmt: skip
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for the results')
    parser.add_argument('--device', help='cpu, cuda, cuda:1 ... [a GPU where there is one]')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--tile-size', type=int, help='side of the tiles in pixels [of the config]')
    parser.add_argument('--overlap', type=int, help='pixels that tiles share [a quarter]')
    parser.add_argument('--batch-size', type=int, default=1, help='tiles at once [1]')
    parser.add_argument(
        '--image-size', type=int,
        help='where the test pipeline resizes: side of the images of the dataset before it',
    )  # fmt: skip
    parser.add_argument(
        '--features', type=int, nargs='?', const=-1, metavar='LEVEL',
        help='instead of the task: the feature map of this level of the backbone [the last]',
    )  # fmt: skip
    area = parser.add_mutually_exclusive_group()
    area.add_argument('--aoi', metavar='FILE', help='polygons of the area of interest')
    area.add_argument(
        '--bounds', type=float, nargs=4, metavar=('LEFT', 'BOTTOM', 'RIGHT', 'TOP'),
        help='the area of interest, in the CRS of the scene',
    )  # fmt: skip
    parser.add_argument(
        '--bands',
        nargs='+',
        metavar='BAND',
        help="the model's bands in the file: names or numbers (from 1) of all, or NAME=BAND",
    )
    parser.add_argument('--band-names', nargs='+', metavar='NAME', help='names of all bands of '
                        'the file, where it has none')  # fmt: skip
    parser.add_argument(
        '--stretch', type=float, nargs=2, metavar=('LOW', 'HIGH'),
        help='values that become 0 and 255, for models of 8-bit pictures',
    )  # fmt: skip
    parser.add_argument(
        '--on-error', choices=('raise', 'skip'), default='raise',
        help='blocks that cannot be decoded: stop, or leave them as no data [raise]',
    )  # fmt: skip
    parser.add_argument('--probabilities', action='store_true', help='write those of all classes')
    parser.add_argument('--min-score', type=float, default=0.3, help='of objects [0.3]')
    parser.add_argument(
        '--formats', nargs='+', choices=('geojson', 'gpkg', 'dota'), help='of objects [all]'
    )
    parser.add_argument(
        '--keep-cut', action='store_true',
        help='keep what the border of a tile cuts where the tile that sees it whole finds nothing',
    )  # fmt: skip
    parser.add_argument(
        '--merge-by', choices=('iou', 'ios'), default='iou',
        help='objects of two tiles are one by intersection over union, or over the smaller area '
        '[iou]',
    )  # fmt: skip
    parser.add_argument('--page', action='store_true', help='write an HTML page and a picture')
    parser.add_argument('--overwrite', action='store_true', help='replace results of other runs')
    command_line.add_launcher_arguments(parser)
    return parser


def find_scenes(text: str) -> list[str]:
    """Files of a scene, a folder, or a list."""
    path = Path(text)
    if path.is_dir():
        found = sorted(
            str(one)
            for one in path.iterdir()
            if one.suffix.lower() in SUFFIXES and not one.name.startswith('.')
        )
        if not found:
            raise DatasetNotFoundError(f'holds no scene ({", ".join(SUFFIXES)})', path=path)
        return found
    if path.suffix.lower() == '.txt':
        if not path.is_file():
            raise DatasetNotFoundError('there is no such list', path=path)
        lines = [line.strip() for line in path.read_text(encoding='utf-8').splitlines()]
        # Relative to the list.
        return [
            line if '://' in line or line.startswith('/vsi') else str(path.parent / line)
            for line in lines
            if line and not line.startswith('#')
        ]
    return [text]


def match_scenes(first: list[str], text: str) -> list[str]:
    """The scenes that belong to others: of the same name, else in the same order."""
    found = find_scenes(text)
    if len(first) == len(found) == 1:
        return found
    by_name = {Path(path).name: path for path in found}
    names = [Path(path).name for path in first]
    if set(names) <= set(by_name):
        return [by_name[name] for name in names]
    if Path(text).is_dir() or len(found) != len(first):
        missing = [name for name in names if name not in by_name]
        raise DatasetNotFoundError(
            f'{len(missing)} of {len(first)} scenes have no partner of the same name, e.g. '
            f'{missing[0] if missing else names[0]}', path=text,
        )  # fmt: skip
    return found


def parse_bands(words: list[str] | None) -> dict[str, str | int] | list[str | int] | None:
    """``B04=3 B03=green`` as a mapping, ``3 2 1`` or names as a list."""
    if not words:
        return None
    pairs = [word.split('=', 1) for word in words]
    if all(len(pair) == 2 for pair in pairs):
        return {key: int(value) if value.isdigit() else value for key, value in pairs}
    if any(len(pair) == 2 for pair in pairs):
        raise ConfigError(f'--bands: either NAME=BAND for each, or only bands, got {words}')
    return [int(word) if word.isdigit() else word for word in words]


def main(args: argparse.Namespace) -> None:
    import torch

    from mmrsfm.apis import SceneInferencer

    scenes = find_scenes(args.scene)
    partners = [match_scenes(scenes, text) for text in args.further]
    stems = [Path(path).stem for path in scenes]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise ConfigError(f'several scenes are named {twice}: their results would be one file')
    onnx = args.checkpoint.endswith('.onnx')
    cfg = Config() if onnx else run_config.load_config(args.config, args.cfg_options)
    run_config.check_checkpoint(args.checkpoint, 'CHECKPOINT')
    # Ranks wait for one another at the end of each scene, which may be long after their own part.
    options = cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {})
    options.setdefault('timeout', _PATIENCE)
    command_line.start_distributed(cfg, args)
    MMLogger.get_instance('mmrsfm')
    device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    inferencer = SceneInferencer(
        None if onnx else cfg, args.checkpoint, device, args.amp, args.tile_size, args.overlap,
        args.batch_size, args.features, args.image_size,
    )  # fmt: skip
    try:
        run(inferencer, scenes, partners, args)
    except KeyboardInterrupt:
        print('Finished blocks are kept: the same command goes on.', file=sys.stderr)
        raise


def run(
    inferencer: Any, scenes: list[str], partners: list[list[str]], args: argparse.Namespace
) -> None:
    """Makes the maps; of several scenes one that cannot be used does not stop the others."""
    failed: dict[str, str] = {}
    outside: list[str] = []
    for number, scene in enumerate(scenes):
        try:
            run_one(inferencer, [scene, *(column[number] for column in partners)], args)
        except OutsideAreaError:
            if len(scenes) == 1:
                raise
            outside.append(scene)
        except MMRSFMError as error:
            if len(scenes) == 1:
                raise
            failed[scene] = str(error)
            print_log(f'{scene} has no map: {error}', 'current', logging.WARNING)
    if outside:
        print_log(f'{len(outside)} scene(s) lie outside of the area of interest', 'current')
    # As long as one computes, the end of another would be taken for a failure by the launcher.
    everywhere: list[dict[str, str]] = dist.all_gather_object(failed)
    reasons = {scene: text for part in reversed(everywhere) for scene, text in part.items()}
    if reasons:
        shown = '\n'.join(reasons[scene] for scene in sorted(reasons)[:_SHOWN])
        more = '\n...' if len(reasons) > _SHOWN else ''
        raise DataError(
            f'{len(reasons)} of {len(scenes)} scenes have no map (the same command does only these '
            f'again):\n{shown}{more}'
        )
    if len(outside) == len(scenes):
        raise OutsideAreaError('the area of interest does not lie in any of the scenes')


def run_one(inferencer: Any, files: list[str], args: argparse.Namespace) -> None:
    inferencer(
        *files, out_dir=args.out,
        aoi=args.aoi or args.bounds, bands=parse_bands(args.bands),
        band_names=args.band_names, on_error=args.on_error,
        stretch=None if args.stretch is None else tuple(args.stretch),
        probabilities=args.probabilities, min_score=args.min_score, formats=args.formats,
        overwrite=args.overwrite, page=args.page, keep_cut=args.keep_cut,
        merge_by=args.merge_by,
    )  # fmt: skip


if __name__ == '__main__':
    sys.exit(command_line.run_command(main, build_parser()))
