#!/usr/bin/env python
# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Proofs of the inference on scenes: memory, and what tile size and overlap change."""

import argparse
import json
import resource
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin
from rasterio.windows import Window
from torch.nn import functional

from mmrsfm.apis.scene.inferencer import SceneInferencer, load_model
from mmrsfm.apis.scene.pipeline import InputSpec
from mmrsfm.apis.scene.tile_data import TileInput, TilePrediction
from mmrsfm.engine import command_line, run_config


class PlainModel:
    """A segmentation without weights to learn: random convolutions, as wide as they are asked.

    Args:
        tile_size: Side of the tiles.
        reach: Pixels around one that its classes depend on; 0: the pixel alone.
        classes: How many.
        bands: Bands of the scene.
    """

    task = 'segmentation'
    checkpoint = 'random weights'
    palette = contract = file_bands = None
    threshold, multi_label, amp = 0.5, False, False
    device = torch.device('cpu')

    def __init__(self, tile_size: int, reach: int = 0, classes: int = 6, bands: int = 3) -> None:
        generator = torch.Generator().manual_seed(0)
        self.tile_size, self.reach = tile_size, reach
        self.channels = classes
        self.classes = [f'class_{number}' for number in range(classes)]
        self.inputs = (InputSpec('image', None, bands),)
        side = 2 * reach + 1
        self.weights = torch.randn(classes, bands, side, side, generator=generator) / side
        self.settings = {'reach': reach, 'classes': classes, 'bands': bands}

    def predict(self, tiles: list[TileInput]) -> list[TilePrediction]:
        """Class scores of tiles."""
        found = []
        with torch.no_grad():
            for tile in tiles:
                image = torch.from_numpy(np.ascontiguousarray(tile.arrays[0])).float()
                image = image.permute(2, 0, 1)[None] / 128 - 1
                if self.reach == 0:  # for exactly the same sums whatever the size
                    planes = [
                        sum(w * plane for w, plane in zip(row, image[0], strict=True))
                        for row in self.weights[:, :, 0, 0].tolist()
                    ]
                    logits = torch.stack(planes)
                else:
                    logits = functional.conv2d(image, self.weights, padding=self.reach)[0]
                found.append(TilePrediction(tile.tile, logits=logits))
        return found


def write_scene(path: Path, size: int, bands: int = 3, block: int = 512) -> None:
    """Writes a scene of smooth noise, block by block."""
    options: dict[str, Any] = {
        'driver': 'GTiff', 'count': bands, 'dtype': 'uint8', 'height': size, 'width': size,
        'crs': 'EPSG:32633', 'transform': from_origin(5e5, 5e6, 0.5, 0.5), 'tiled': True,
        'blockxsize': block, 'blockysize': block, 'compress': 'deflate', 'BIGTIFF': 'IF_SAFER',
    }  # fmt: skip
    with rasterio.open(path, 'w', **options) as out:
        for row in range(0, size, block):
            for col in range(0, size, block):
                rng = np.random.default_rng((row, col))
                height, width = min(block, size - row), min(block, size - col)
                small = rng.integers(0, 255, (bands, block // 16, block // 16), dtype=np.uint8)
                values = small.repeat(16, 1).repeat(16, 2)[:, :height, :width]
                out.write(values, window=Window(col, row, width, height))


def peak() -> int:
    """Largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def check_memory(args: argparse.Namespace) -> None:
    for size in args.sizes:
        folder = Path(tempfile.mkdtemp(dir=args.work))
        try:
            write_scene(folder / 'scene.tif', size)
            inferencer = SceneInferencer.of(PlainModel(args.tile_size), batch_size=args.batch_size)
            before = peak()
            result = inferencer(folder / 'scene.tif', out_dir=folder / 'out')
            print(
                f'{size} x {size} px: peak {peak() / 1e9:.2f} GB ({before / 1e9:.2f} GB before the '
                f'run), {result.info["seconds"]:.0f} s, {result.info["seconds_per_megapixel"]} s '
                f'per megapixel, waiting for data {result.info["waiting_share"]:.1%}',
                flush=True,
            )
        finally:
            shutil.rmtree(folder)


def read_map(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def check_overlap(args: argparse.Namespace) -> None:
    rows = []
    with tempfile.TemporaryDirectory(dir=args.work) as name:
        folder = Path(name)
        if args.config is None:
            write_scene(folder / 'scene.tif', args.size, block=128)
            scene = str(folder / 'scene.tif')
        else:
            scene = args.scene

        def run(tile: int, overlap: int) -> dict[str, Any]:
            if args.config is None:
                model: Any = PlainModel(tile, args.reach)
            else:
                cfg = run_config.load_config(args.config)
                model = load_model(cfg, args.checkpoint, tile_size=tile)
            out = folder / f'{tile}_{overlap}'
            result = SceneInferencer.of(model, overlap)(
                scene, out_dir=out, aoi=args.bounds, probabilities=True, on_error='skip'
            )
            return {
                'map': read_map(result.outputs['map'])[0],
                'p': read_map(result.outputs['probabilities']),
                'tiles': result.info['tiles'],
            }

        whole = run(args.whole, 0)
        for tile in args.tile_sizes:
            for share in args.overlaps:
                overlap = round(tile * share)
                found = run(tile, overlap)
                other = found['map'] != whole['map']
                rows.append(
                    {
                        'tile': tile,
                        'overlap': overlap,
                        'tiles': found['tiles'],
                        'other_class_percent': round(100 * float(other.mean()), 4),
                        'mean_difference': float(np.nanmean(np.abs(found['p'] - whole['p']))),
                        'largest_difference': float(np.nanmax(np.abs(found['p'] - whole['p']))),
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
    print('\n| tile | overlap | tiles | other class | mean / largest difference of probabilities |')
    print('|---|---|---|---|---|')
    for row in rows:
        print(
            f'| {row["tile"]} | {row["overlap"]} | {row["tiles"]} | {row["other_class_percent"]} % '
            f'| {row["mean_difference"]:.2e} / {row["largest_difference"]:.2e} |'
        )


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--debug', action='store_true', help='show tracebacks')
    parser.add_argument('--work', help='folder for what is written meanwhile')
    commands = parser.add_subparsers(dest='command', required=True)
    memory = commands.add_parser('memory', help='peak memory of scenes of several sizes')
    memory.add_argument('--sizes', type=int, nargs='+', default=[5000, 10000, 20000])
    memory.add_argument('--tile-size', type=int, default=512)
    memory.add_argument('--batch-size', type=int, default=4)
    memory.set_defaults(run=check_memory)
    overlap = commands.add_parser(
        'overlap', help='tiles of several sizes and overlaps against the whole scene at once'
    )
    overlap.add_argument('--config', help='of a segmentation or change model [random weights]')
    overlap.add_argument('--checkpoint')
    overlap.add_argument('--scene')
    overlap.add_argument('--bounds', type=float, nargs=4, help='part of the scene')
    overlap.add_argument('--whole', type=int, default=1024, help='side of the one tile [1024]')
    overlap.add_argument('--size', type=int, default=900, help='of the generated scene [900]')
    overlap.add_argument('--reach', type=int, default=0, help='of the random weights [0]')
    overlap.add_argument('--tile-sizes', type=int, nargs='+', default=[128, 256, 512])
    overlap.add_argument('--overlaps', type=float, nargs='+', default=[0.0, 0.125, 0.25, 0.5])
    overlap.set_defaults(run=check_overlap)
    return parser


def main(args: argparse.Namespace) -> None:
    args.run(args)


if __name__ == '__main__':
    sys.exit(command_line.run_command(main, build_parser()))
