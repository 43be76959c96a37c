# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""How long a scene takes, and what for: the model, or waiting for its pixels."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmrsfm.apis.scene.grid import TileGrid
from mmrsfm.apis.scene.inferencer import SceneInferencer
from mmrsfm.apis.scene.source import SceneSource
from mmrsfm.apis.training_step import quiet, without_pretrained
from mmrsfm.engine import run_config
from mmrsfm.errors import ConfigError

_PARTS = ('model', 'waiting', 'writing')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``benchmark.py --scene``, besides ``--tile-size``."""
    group = parser.add_argument_group('scenes')
    group.add_argument(
        '--scene', nargs='+', metavar='FILE', help='measure the map of a scene (of two dates: two)'
    )
    group.add_argument(
        '--checkpoint', help='trained weights, or an .onnx file (CONFIG: -) [random weights]'
    )
    group.add_argument('--overlap', type=int, help='pixels that tiles share [a quarter]')
    group.add_argument('--runs', type=int, default=3, help='how often the map is made [3]')


def measure_scene(args: argparse.Namespace) -> dict[str, Any]:
    """Makes the map of a scene a few times.

    Args:
        args: Of :func:`add_arguments`, with ``config``, ``cfg_options``, ``device``, ``amp`` and
            ``batch_size`` (tiles at once).

    Returns:
        Figures: medians of seconds for each megapixel of the scene, as a whole and of its parts;
        the share of the time of model and data that is waiting for data; and what reading all
        tiles takes without a model.

    Raises:
        ConfigError: For contradictory options.
        DataError: If the scene cannot be read.
    """
    if args.runs < 1:
        raise ConfigError('--runs must be at least 1')
    onnx = str(args.checkpoint or '').endswith('.onnx')
    cfg = None if onnx else run_config.load_config(args.config, args.cfg_options)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = args.checkpoint
        if checkpoint is None:
            assert cfg is not None
            checkpoint = _random_weights(cfg, Path(folder) / 'random.pth')
        inferencer = SceneInferencer(
            cfg, checkpoint, args.device, args.amp, args.tile_size, args.overlap,
            args.batch_size or 1,
        )  # fmt: skip
        reading, pixels, tiles = _read_all(inferencer, args.scene)
        runs = []
        for number in range(args.runs):
            out = Path(folder) / str(number)
            runs.append(inferencer(*args.scene, out_dir=out, formats=None, min_score=0.3).info)
    megapixels = pixels / 1e6
    model = inferencer.model
    return dict(
        config='-' if onnx else args.config,
        checkpoint=args.checkpoint,
        scene=list(args.scene),
        task=model.task,
        device=args.device,
        threads=torch.get_num_threads(),
        amp=args.amp,
        batch_size=inferencer.batch_size,
        tile_size=model.tile_size,
        overlap=inferencer.overlap,
        tiles=tiles,
        megapixels=megapixels,
        runs=len(runs),
        seconds_per_megapixel=_median([run['seconds'] / megapixels for run in runs]),
        parts={part: _median([run['times'][part] / megapixels for run in runs]) for part in _PARTS},
        waiting_share=_median([run['waiting_share'] for run in runs]),
        reading_alone=reading / megapixels,
    )


def describe_scene(figures: dict[str, Any]) -> str:
    """The figures as text."""
    parts = figures['parts']
    lines = [
        f'{figures["config"]} {figures["checkpoint"] or "(random weights)"}',
        f'{figures["task"]} of {", ".join(figures["scene"])}: {figures["megapixels"]:.2f} '
        f'megapixels, {figures["tiles"]} tiles of {figures["tile_size"]} pixels, overlap '
        f'{figures["overlap"]}, {figures["batch_size"]} at once',
        f'{figures["device"]}, {figures["threads"]} threads, '
        f'{"mixed precision" if figures["amp"] else "float32"}, medians of {figures["runs"]}, '
        'seconds per megapixel of the scene:',
        f'  {"whole":14}{figures["seconds_per_megapixel"]:10.3f}',
        *(f'    {part:12}{parts[part]:10.3f}' for part in _PARTS),
        f'  {"reading alone":14}{figures["reading_alone"]:10.3f}   (no model; it is done while '
        'the model computes)',
        f'waiting for data: {figures["waiting_share"]:.1%} of the time of model and data',
    ]
    return '\n'.join(lines)


def _read_all(inferencer: SceneInferencer, scenes: list[str]) -> tuple[float, int, int]:
    """Seconds of reading all tiles; pixels of the scene; number of tiles."""
    model = inferencer.model
    with SceneSource(tuple(scenes), model.inputs, known_names=model.file_bands) as source:
        grid = TileGrid(source.height, source.width, model.tile_size, inferencer.overlap)
        start = time.perf_counter()
        for tile in grid:
            source.read(tile)
        return time.perf_counter() - start, source.height * source.width, len(grid)


def _random_weights(cfg: Config, path: Path) -> str:
    scope = cfg.get('default_scope') or 'mmengine'
    run_config.register_scope(scope)
    model = dict(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(scope), quiet():
        built = MODELS.build(without_pretrained(model))
        built.init_weights()
    torch.save({'state_dict': built.state_dict()}, path)
    return str(path)


def _median(values: list[float]) -> float:
    return float(statistics.median(values))
