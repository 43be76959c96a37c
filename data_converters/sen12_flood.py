# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Prepares SEN12-FLOOD: radar on the optical grid, and the pairs of dates of each sequence.

The download has radar images in longitude and latitude, each polarisation for itself, beside
optical ones in UTM. Each radar image is written once, with both polarisations, on the grid of the
first optical image of its sequence; the pairs are lists. (The published preparation writes every
image again for every pair that it is in.)

Example::

    python data_converters/sen12_flood.py SEN12FLOOD data/sen12flood --train a.csv --test b.csv

gives ``data/sen12flood/aligned/<sequence>/<image>.tif`` (VH and VV, float32, linear power) and
``pairs_train.csv`` and ``pairs_test.csv`` (sequence, first, second, label), for
:class:`mmrsfm.SEN12Flood`. A stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.warp import reproject

from mmrsfm.datasets.sen12_flood import COLUMNS
from mmrsfm.datasets.splits import names_in_split
from mmrsfm.errors import (
    BandMismatchError,
    ConfigError,
    CorruptImageError,
    DataError,
    DatasetNotFoundError,
)
from mmrsfm.utils.conversion import (
    each,
    errors_end_command,
    read_text,
    refuse_source,
    whole_file,
    write_whole,
)
from mmrsfm.utils.raster_errors import decoding

POLARISATIONS = ('VH', 'VV')
# What an image was made with, and the share of zeros of each polarisation, stands in its file.
_TAG = 'MMRSFM_SEN12_FLOOD'


@dataclass
class Aligned:
    """What became of one sequence.

    Attributes:
        zeros: From the name of an image to the share of exact zeros of VH and of VV.
        skipped: Name of an image, or of the sequence, and why it is left out.
    """

    zeros: dict[str, tuple[float, ...]] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Image:
    """One entry of ``S1list.json``: file name without ending, day, and whether there is a flood."""

    name: str
    date: str
    flooded: bool


def read_sequences(source: str | Path) -> dict[str, list[Image]]:
    """Reads ``S1list.json``.

    Args:
        source: Folder of the download.

    Returns:
        From the folder of a sequence to its images, in the order of their numbers.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DataError: If it is not of that form.
    """
    path = Path(source) / 'S1list.json'
    text = read_text(path, 'list of radar images')
    found: dict[str, list[Image]] = {}
    try:
        for number, sequence in json.loads(text).items():
            entries = sorted((int(key), one) for key, one in sequence.items() if key.isdigit())
            folder = str(sequence.get('folder', number))
            found[folder] = [
                Image(_name(one['filename']), str(one.get('date', '')), _is_true(one['FLOODING']))
                for _, one in entries
            ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f'is not the list of SEN12-FLOOD ({type(error).__name__}: {error})', path=path
        ) from error
    return found


def align_sequence(
    source: str | Path,
    target: str | Path,
    images: Sequence[Image],
    resampling: str = 'nearest',
    size: int | None = 512,
) -> Aligned:
    """Writes the radar images of one sequence on the grid of its first optical one.

    The grid is that of the first ``S2*B04.tif``, by name. Images that are there already, made with
    the same options, are kept.

    Args:
        source: Folder of the sequence, with ``<name>_corrected_{VH,VV}.tif``.
        target: Folder to fill with ``<name>.tif``.
        images: Which ones.
        resampling: One of rasterio's, ``'nearest'`` as published.
        size: Sequences whose optical images have another height or width are left out; ``None``:
            none is.

    Returns:
        Shares of zeros, and what was left out.

    Raises:
        CorruptImageError: A file cannot be read.
    """
    source, target = Path(source), Path(target)
    optical = sorted(source.glob('S2*B04.tif'))
    if not optical:
        return Aligned(skipped=[(source.name, 'has no optical image (S2*B04.tif)')])
    with _open(optical[0]) as grid:
        crs, transform, shape = grid.crs, grid.transform, grid.shape
    if size is not None and shape != (size, size):
        return Aligned(skipped=[(source.name, f'has {shape[0]} x {shape[1]} pixels, not {size}')])
    if crs is None:
        return Aligned(skipped=[(source.name, f'{optical[0].name} is not georeferenced')])
    record = {'grid': optical[0].name, 'resampling': resampling}
    done = Aligned()
    for image in images:
        paths = [source / f'{image.name}_corrected_{name}.tif' for name in POLARISATIONS]
        absent = [path.name for path in paths if not path.is_file()]
        if absent:
            done.skipped.append((image.name, f'{" and ".join(absent)} is missing'))
            continue
        out = target / f'{image.name}.tif'
        zeros = _made_before(out, record)
        if zeros is None:
            planes = [_warp(path, crs, transform, shape, resampling) for path in paths]
            zeros = tuple(float((plane == 0).mean()) for plane in planes)
            _write(out, np.stack(planes), crs, transform, {**record, 'zeros': zeros})
        done.zeros[image.name] = zeros
    return done


def pairs_of(
    images: Sequence[Image],
    zeros: Mapping[str, Sequence[float]],
    max_zeros: float = 0.25,
    later: bool = False,
) -> list[tuple[str, str, int]]:
    """Pairs of dates of one sequence: before, another date, and whether that one is flooded.

    Each image without a flood with each other image, a pair of two of them once. An image with too
    many zeros (outside of the swath) is in no pair.

    Args:
        images: In their order.
        zeros: By name, the share of zeros of each polarisation; images that are not in it are in no
            pair.
        max_zeros: An image with this share of zeros, or more, in a polarisation is left out.
        later: Only pairs whose second date is later than the first; the published ones are any.

    Returns:
        (first, second, label) by the order of the images; label 1: flooded in the second.
    """
    usable = [
        image for image in images if image.name in zeros and max(zeros[image.name]) < max_zeros
    ]
    pairs = []
    for place, first in enumerate(usable):
        if first.flooded:
            continue
        for other, second in enumerate(usable):
            if other == place or (not second.flooded and other < place and not later):
                continue
            if later and not second.date > first.date:
                continue
            pairs.append((first.name, second.name, int(second.flooded)))
    return pairs


def prepare(
    source: str | Path,
    target: str | Path,
    splits: Mapping[str, Sequence[str]] | None = None,
    resampling: str = 'nearest',
    size: int | None = 512,
    max_zeros: float = 0.25,
    later: bool = False,
    workers: int = 1,
    quiet: bool = False,
) -> dict[str, dict[str, int]]:
    """Aligns all sequences and writes the lists of pairs.

    Args:
        source: Folder of the download, with ``S1list.json``.
        target: Folder to fill.
        splits: Name of a list -> folders of its sequences. ``None``: ``train`` and ``test``, a
            fifth of the sequences by :func:`mmrsfm.datasets.splits.names_in_split`.
        resampling: See :func:`align_sequence`.
        size: See :func:`align_sequence`.
        max_zeros: See :func:`pairs_of`.
        later: See :func:`pairs_of`.
        workers: Number of sequences at the same time.
        quiet: No progress line.

    Returns:
        For each split the number of ``sequences``, ``pairs``, ``flood`` and ``no flood`` among
        them; under ``'skipped'`` why how many images and sequences were left out is written to
        ``skipped.csv``: their number.

    Raises:
        ConfigError: For contradictory options.
        DataError: One of its subclasses, with the file.
    """
    source, target = Path(source), Path(target)
    refuse_source(target, [source])
    if resampling not in Resampling.__members__:
        raise ConfigError(f'resampling is one of {list(Resampling.__members__)}')
    if not 0 < max_zeros <= 1:
        raise ConfigError(f'max_zeros is in (0, 1], got {max_zeros}')
    sequences = read_sequences(source)
    chosen = _splits(sequences, splits)
    names = [name for name in sequences if any(name in part for part in chosen.values())]

    def one(name: str) -> Aligned:
        if not (source / name).is_dir():
            return Aligned(skipped=[(name, 'there is no such folder')])
        folder = target / 'aligned' / name
        return align_sequence(source / name, folder, sequences[name], resampling, size)

    aligned = dict(zip(names, each(one, names, 'sequences', workers, quiet), strict=True))
    counts: dict[str, dict[str, int]] = {}
    for split, part in chosen.items():
        rows = [
            (name, *pair)
            for name in sorted(part)
            for pair in pairs_of(sequences[name], aligned[name].zeros, max_zeros, later)
        ]
        _write_table(target / f'pairs_{split}.csv', COLUMNS, rows)
        flooded = sum(int(row[3]) for row in rows)
        counts[split] = {
            'sequences': len({row[0] for row in rows}), 'pairs': len(rows), 'flood': flooded,
            'no flood': len(rows) - flooded,
        }  # fmt: skip
    skipped = [(name, *entry) for name in names for entry in aligned[name].skipped]
    _write_table(target / 'skipped.csv', ('sequence', 'what', 'why'), skipped)
    counts['skipped'] = {'entries': len(skipped)}
    return counts


def _splits(
    sequences: Mapping[str, Any], splits: Mapping[str, Sequence[str]] | None
) -> dict[str, set[str]]:
    if splits is None:
        train = names_in_split(sequences, 'train', 0.2)
        return {'train': train, 'test': set(sequences) - train}
    chosen = {split: set(names) for split, names in splits.items()}
    for split, names in chosen.items():
        unknown = sorted(names - set(sequences))
        if unknown:
            raise DataError(
                f'the list of {split} names {unknown[0]}, which is no sequence of S1list.json '
                f'({len(unknown)} are unknown)'
            )
    parts = list(chosen.items())
    for place, (split, names) in enumerate(parts):
        for other, others in parts[place + 1 :]:
            if names & others:
                raise ConfigError(f'{min(names & others)} is in {split} and in {other}')
    return chosen


def read_folders(path: str | Path) -> list[str]:
    """Names of sequences, one a line, or in the first column of a table.

    Raises:
        DatasetNotFoundError: If there is no such file.
    """
    rows = csv.reader(io.StringIO(read_text(path, 'list of sequences')))
    names = [row[0].strip() for row in rows if row and row[0].strip()]
    # A title in the first line is no number, as all names of folders are.
    return names[1:] if names and not names[0].isdigit() else names


def _name(filename: str) -> str:
    return re.sub(r'(_corrected)?(_V[HV])?(\.tif)?$', '', Path(filename).name)


def _is_true(value: Any) -> bool:
    return value if isinstance(value, bool) else str(value).strip().lower() in ('true', '1')


def _open(path: Path) -> Any:
    try:
        return rasterio.open(path)
    except RasterioError as error:
        raise CorruptImageError(f'cannot be opened as an image ({error})', path=path) from error


def _warp(path: Path, crs: Any, transform: Any, shape: Any, resampling: str) -> np.ndarray:
    """(H, W) float32 on another grid; 0 where there is no image."""
    with _open(path) as radar:
        if radar.crs is None:
            raise DataError('has no coordinate reference system, by which to align it', path=path)
        if radar.count != 1:
            raise BandMismatchError(f'one band is expected, got {radar.count}', path=path)
        with decoding(path):
            values = radar.read(1).astype(np.float32)
        if values.size and not np.isfinite(values).any():
            raise CorruptImageError('holds nothing but NaN or infinities', path=path)
        plane = np.zeros(shape, np.float32)
        reproject(
            np.nan_to_num(values, nan=0.0), plane, src_transform=radar.transform,
            src_crs=radar.crs, dst_transform=transform, dst_crs=crs, src_nodata=radar.nodata,
            dst_nodata=0, resampling=Resampling[resampling],
        )  # fmt: skip
    return plane


def _made_before(path: Path, record: Mapping[str, Any]) -> tuple[float, ...] | None:
    if not path.is_file():
        return None
    with _open(path) as image:
        stored = json.loads(image.tags().get(_TAG, '{}'))
    zeros = stored.pop('zeros', None)
    return tuple(zeros) if zeros is not None and stored == record else None


def _write(path: Path, planes: np.ndarray, crs: Any, transform: Any, record: Any) -> None:
    profile = {
        'driver': 'GTiff', 'count': len(planes), 'height': planes.shape[1],
        'width': planes.shape[2], 'dtype': 'float32', 'crs': crs, 'transform': transform,
    }  # fmt: skip
    with whole_file(path) as partial, rasterio.open(partial, 'w', **profile) as out:
        out.write(planes)
        out.descriptions = POLARISATIONS
        out.update_tags(**{_TAG: json.dumps(record)})


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(header)
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('source', help='folder of the download, with S1list.json')
    parser.add_argument('target', help='folder to fill')
    parser.add_argument('--train', help='list of training sequences (default: four fifths)')
    parser.add_argument('--test', help='list of test sequences (default: a fifth)')
    parser.add_argument('--resampling', default='nearest', help='of the radar image')
    parser.add_argument('--size', type=int, default=512, help='side of an image; 0 takes any')
    parser.add_argument(
        '--max-zeros', type=float, default=0.25, help='images with that share of zeros are left out'
    )
    parser.add_argument('--later', action='store_true', help='the second date must be later')
    parser.add_argument('--workers', type=int, default=1, help='sequences at the same time')
    args = parser.parse_args()
    if (args.train is None) != (args.test is None):
        parser.error('give both --train and --test, or neither')
    with errors_end_command():
        splits = None
        if args.train is not None:
            splits = {'train': read_folders(args.train), 'test': read_folders(args.test)}
        if not Path(args.source).is_dir():
            raise DatasetNotFoundError('there is no such folder', path=args.source)
        counts = prepare(
            args.source, args.target, splits, args.resampling, args.size or None, args.max_zeros,
            args.later, args.workers,
        )  # fmt: skip
    for name, row in counts.items():
        print(f'{name}: ' + ', '.join(f'{count} {what}' for what, count in row.items()))


if __name__ == '__main__':
    main()
