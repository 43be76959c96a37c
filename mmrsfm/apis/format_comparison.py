# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""How fast the tiles of a dataset come out of files of several formats."""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmrsfm.apis.tile_formats import FORMATS, TileFormat, choose_formats
from mmrsfm.engine import run_config
from mmrsfm.errors import ConfigError
from mmrsfm.registry import DATASETS

_MIB = 2**20
BASELINE = 'geotiff'


def tiles_of(cfg: Config, count: int, size: int | None = None) -> list[np.ndarray]:
    """Tiles of the training dataset of a config, as its files store them.

    Args:
        cfg: A config whose training pipeline begins with a loading transform of mmrsfm.
        count: How many. Images that are larger than ``size`` give as many as they hold; where there
            are fewer in all, further ones overlap.
        size: Edge in pixels; ``None``: the images as they are, which must be of one size.

    Returns:
        Arrays (C, size, size) of one type: integers stay integers.

    Raises:
        ConfigError: If there is no training dataset, or its images are of several sizes or smaller.
        DataError: If an image cannot be read.
    """
    loader: Any = cfg.get('train_dataloader')
    if not loader:
        raise ConfigError('the config has no train_dataloader')
    scope = cfg.get('default_scope') or 'mmpretrain'
    run_config.register_scope(scope)
    with DefaultScope.overwrite_default_scope(scope):
        dataset = DATASETS.build(loader['dataset'])
    load = dataset.pipeline.transforms[0]
    for name, value in (('scale', None), ('offset', None), ('to_float32', False)):
        if hasattr(load, name):
            setattr(load, name, value)
    images = []
    for number in range(min(len(dataset), count)):
        image = load(dataset.get_data_info(number))['img']
        images.append(np.ascontiguousarray(np.atleast_3d(image).transpose(2, 0, 1)))
    if size is None:
        tiles = [images[number % len(images)] for number in range(count)]
    else:
        tiles = list(_cut(images, count, size))
    forms = {(tile.shape, tile.dtype.name) for tile in tiles}
    if len(forms) > 1:
        raise ConfigError(f'the images are of several forms, {sorted(forms)[:3]}: say --tile-size')
    return tiles


def _cut(images: Sequence[np.ndarray], count: int, size: int) -> Iterator[np.ndarray]:
    """Windows, as many from each image, evenly over it."""
    edge = min(min(image.shape[1:]) for image in images)
    if edge < size:
        raise ConfigError(f'--tile-size {size}: an image has {edge} pixels only')
    each = -(-count // len(images))
    along = int(np.ceil(np.sqrt(each)))
    for number in range(count):
        image = images[number % len(images)]
        row, column = divmod(number // len(images), along)
        top, left = (
            round((edge_length - size) * place / max(along - 1, 1))
            for edge_length, place in zip(image.shape[1:], (row, column), strict=True)
        )
        yield np.ascontiguousarray(image[:, top : top + size, left : left + size])


class FormatComparison:
    """Writes tiles in several formats, and reads them back, side by side.

    A round reads every tile of every format once, in an order drawn anew: the formats in turn, each
    opened and closed. Times of a round are of one moment of the machine; medians over rounds count.

    Args:
        tiles: See :func:`tiles_of`.
        formats: What to compare.
        folder: Where the files go, into a folder of their own that is deleted at the end.
        cold: Ask the system to forget the files before each reading, so that they come from the
            disk.

    Raises:
        ConfigError: What is read is not what was written.
    """

    def __init__(
        self,
        tiles: Sequence[np.ndarray],
        formats: Sequence[type[TileFormat]],
        folder: str | Path | None = None,
        cold: bool = False,
    ) -> None:
        self.tiles, self.cold = tiles, cold
        self._folder = tempfile.TemporaryDirectory(prefix='formats_', dir=folder)
        self.formats: list[TileFormat] = []
        self._results: dict[str, dict[str, list[float]]] = {}
        for cls in formats:
            own = Path(self._folder.name) / cls.name
            own.mkdir()
            one = cls(own)
            one.write(tiles)
            _flush(one.files())
            self._check(one)
            self.formats.append(one)
            self._results[cls.name] = {'seconds': [], 'cpu': [], 'disk': []}

    def close(self) -> None:
        """Deletes the files."""
        self._folder.cleanup()

    def run(self) -> None:
        """One round."""
        for one in random.sample(self.formats, len(self.formats)):
            order = random.sample(range(len(self.tiles)), len(self.tiles))
            if self.cold:
                _forget(one.files())
            before, start = _usage(), time.perf_counter()
            with _opened(one):
                for number in order:
                    one.read(number)
            seconds, after = time.perf_counter() - start, _usage()
            found = self._results[one.name]
            found['seconds'].append(seconds / len(order))
            found['cpu'].append((after[0] - before[0]) / len(order))
            found['disk'].append((after[1] - before[1]) / len(order))

    def figures(self) -> dict[str, Any]:
        """Medians over the rounds, for each format.

        Returns:
            ``tiles_per_second``; ``cpu_ms``, processor time of a tile, which a busy machine changes
            less; ``disk_mib``, read from the disk for a tile; ``mib``, stored for a tile;
            ``speedup`` over ``geotiff``, or the first format, round by round, by time, and
            ``cpu_speedup``, by processor time.
        """
        names = list(self._results)
        base = self._results[BASELINE if BASELINE in names else names[0]]
        out = {}
        for one in self.formats:
            found = self._results[one.name]
            out[one.name] = dict(
                tiles_per_second=1 / statistics.median(found['seconds']),
                cpu_ms=1e3 * statistics.median(found['cpu']),
                disk_mib=statistics.median(found['disk']) / _MIB,
                mib=sum(file.stat().st_size for file in one.files()) / len(self.tiles) / _MIB,
                speedup=_ratio(base['seconds'], found['seconds']),
                cpu_speedup=_ratio(base['cpu'], found['cpu']),
            )
        return dict(
            tile=[*self.tiles[0].shape, self.tiles[0].dtype.name],
            tiles=len(self.tiles),
            rounds=len(base['seconds']),
            cold=self.cold,
            formats=out,
        )

    def _check(self, one: TileFormat) -> None:
        with _opened(one):
            for number in {0, len(self.tiles) // 2, len(self.tiles) - 1}:
                if not np.array_equal(one.read(number), self.tiles[number], equal_nan=True):
                    raise ConfigError(f'{one.name}: tile {number} is read otherwise than written')


@contextmanager
def _opened(one: TileFormat) -> Iterator[None]:
    one.open()
    try:
        yield
    finally:
        one.close()


def _ratio(base: Sequence[float], other: Sequence[float]) -> float:
    return statistics.median(a / max(b, 1e-9) for a, b in zip(base, other, strict=True))


def _usage() -> tuple[float, float]:
    """Processor seconds of this process, and bytes that it got from the disk."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_inblock * 512.0


def _flush(files: Sequence[Path]) -> None:
    for path in files:
        with path.open('rb') as file:
            os.fsync(file.fileno())


def _forget(files: Sequence[Path]) -> None:
    if not hasattr(os, 'posix_fadvise'):
        raise ConfigError('--cold: this system cannot forget files')
    for path in files:
        with path.open('rb') as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def describe(figures: dict[str, Any]) -> str:
    """The figures as a table in Markdown."""
    channels, height, width, dtype = figures['tile']
    where = 'from the disk' if figures['cold'] else 'from memory (page cache)'
    lines = [
        f'{figures["tiles"]} tiles of {channels} x {height} x {width} {dtype}, {where}, '
        f'one process, medians of {figures["rounds"]} rounds',
        '',
        '| format | tiles/s | times geotiff | CPU ms a tile | times geotiff (CPU) | MiB stored | '
        'MiB from disk |',
        '| --- | ---: | ---: | ---: | ---: | ---: | ---: |',
    ]
    for name, one in figures['formats'].items():
        lines.append(
            f'| {name} | {one["tiles_per_second"]:.0f} | {one["speedup"]:.1f} | '
            f'{one["cpu_ms"]:.2f} | {one["cpu_speedup"]:.1f} | {one["mib"]:.2f} | '
            f'{one["disk_mib"]:.2f} |'
        )
    return '\n'.join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of :func:`compare`."""
    parser.add_argument(
        '--formats',
        nargs='*',
        metavar='FORMAT',
        help=f'with --data-only: compare formats of files [all of {", ".join(FORMATS)}]',
    )
    parser.add_argument('--tiles', type=int, default=64, help='--formats: how many tiles [64]')
    parser.add_argument('--tile-size', type=int, help='--formats, --scene: edge of the tiles')
    parser.add_argument('--cold', action='store_true', help='--formats: from the disk, not memory')
    parser.add_argument('--scratch', metavar='DIR', help='--formats: where the files are written')


def compare(cfg: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Compares formats with the tiles of a config.

    Args:
        cfg: See :func:`tiles_of`.
        args: The options of :func:`add_arguments`, and ``iters``, the number of rounds.

    Returns:
        See :meth:`FormatComparison.figures`.
    """
    formats = choose_formats(args.formats or None)
    tiles = tiles_of(cfg, args.tiles, args.tile_size)
    comparison = FormatComparison(tiles, formats, args.scratch, args.cold)
    try:
        for _ in range(args.iters):
            comparison.run()
        return comparison.figures()
    finally:
        comparison.close()
