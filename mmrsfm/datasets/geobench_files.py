# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The files of a set of GEO-Bench v1.0: what it is about, its partitions, statistics, samples.

Lacoste et al., "GEO-Bench: Toward Foundation Models for Earth Monitoring", NeurIPS 2023, arXiv
2306.03831. Descriptions are pickles of classes of the package ``geobench``; they are read without
it, and without running anything that they name.
"""

from __future__ import annotations

import ast
import json
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmrsfm.errors import (
    BandMismatchError,
    CorruptImageError,
    DataError,
    DatasetNotFoundError,
)
from mmrsfm.utils.plain_pickle import PlainObject, load_plain_pickle

KINDS = {
    'Classification': 'classification',
    'MultiLabelClassification': 'multi_label',
    'SemanticSegmentation': 'segmentation',
    'SegmentationClasses': 'segmentation',
}
# What the pickles of all sets name; ``ccb`` is an older name of the package.
_CLASSES = ('geobench', 'ccb', 'affine', 'rasterio', 'datetime', 'pathlib')
_LAYOUT = (
    '<benchmark>_v1.0/<set>/ with task_specs.pkl, band_stats.json, default_partition.json and '
    '<sample>.hdf5, as geobench-download unpacks them'
)
_DATED = re.compile(r'_\d{4}-\d{2}-\d{2}.*$')
_LABEL = 'label'
# Nothing that a sample says of itself is longer; ForestNet has outlines of 170 kB.
_LONGEST = 16 * 1024 * 1024


@dataclass(frozen=True)
class StoredBand:
    """A band as a set describes it.

    Attributes:
        name: Its name in the files, e.g. ``'08A - Vegetation Red Edge'``.
        names: All names by which it can be chosen, with those that its number gives.
        count: Number of channels; more than 1 for a block of hyperspectral bands.
    """

    name: str
    names: tuple[str, ...]
    count: int = 1


@dataclass(frozen=True)
class Task:
    """What ``task_specs.pkl`` says.

    Attributes:
        name: Name of the folder.
        kind: ``'classification'``, ``'multi_label'`` or ``'segmentation'``.
        classes: Names of the classes; their numbers where the set names none.
        bands: The bands, in the order of the set.
        patch_size: Height and width of the images, where it is stated.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    bands: tuple[StoredBand, ...]
    patch_size: tuple[int, int] | None


def read_task(folder: str | Path) -> Task:
    """Reads ``task_specs.pkl``.

    Raises:
        DatasetNotFoundError: There is no such file.
        CorruptImageError: It is damaged, names classes that no set has, or lacks something.
    """
    path = Path(folder) / 'task_specs.pkl'
    specs = _unpickled(_bytes_of(path), path)
    label = specs.get('label_type') if isinstance(specs, PlainObject) else None
    kind = KINDS.get(label.name.rpartition('.')[2]) if isinstance(label, PlainObject) else None
    if label is None or kind is None:
        raise CorruptImageError(
            f'describes no task of {sorted(KINDS)}', path=path, hint=f'Expected: {_LAYOUT}'
        )
    count = label.get('n_classes')
    names = label.get('_class_names') or label.get('class_name') or range(int(count or 0))
    classes = tuple(str(name) for name in names)
    if not classes or len(classes) != count:
        raise CorruptImageError(f'says {count} classes and names {len(classes)}', path=path)
    bands = tuple(_stored_band(info) for info in specs.get('bands_info') or ())
    size = specs.get('patch_size')
    return Task(
        name=path.parent.resolve().name,
        kind=kind,
        classes=classes,
        bands=bands,
        patch_size=None if size is None else (int(size[0]), int(size[1])),
    )


def _stored_band(info: PlainObject) -> StoredBand:
    name = str(info.get('name'))
    names = [name, *info.get('alt_names', ())]
    number = re.match(r'(\d+)(A?) - ', name)
    # Radar bands are numbered too, and so are those of Landsat, otherwise.
    if number and info.name.endswith('.Sentinel2'):
        short = f'B{int(number[1])}{number[2]}' if number[2] else f'B{int(number[1]):02d}'
        names.append(short)
    return StoredBand(name, tuple(dict.fromkeys(names)), int(info.get('n_bands') or 1))


def read_partition(folder: str | Path, partition: str, split: str) -> list[str]:
    """Names of the samples of a split of a partition.

    Args:
        folder: The set.
        partition: ``'default'``, ``'0.01x_train'``, ..., ``'1.00x_train'``.
        split: ``'train'``, ``'valid'`` (or ``'val'``) or ``'test'``.

    Raises:
        DatasetNotFoundError: There is no such partition or split, or it is empty.
        CorruptImageError: The file is no JSON.
    """
    path = Path(folder) / f'{partition}_partition.json'
    if not path.is_file():
        suffix = '_partition.json'
        there = sorted(one.name[: -len(suffix)] for one in Path(folder).glob(f'*{suffix}'))
        raise DatasetNotFoundError(
            f'no such partition; there are {there}', path=path, hint=f'Expected: {_LAYOUT}'
        )
    splits = _json(path)
    names = splits.get('valid' if split == 'val' else split)
    if not names:
        sizes = {key: len(value) for key, value in splits.items()}
        raise DatasetNotFoundError(f'has no samples for {split!r}, only {sizes}', path=path)
    return [str(name) for name in names]


def read_statistics(folder: str | Path) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each band by its stored name.

    Raises:
        DatasetNotFoundError: There is no ``band_stats.json``.
        CorruptImageError: It is no such file.
    """
    path = Path(folder) / 'band_stats.json'
    try:
        return {name: (float(row['mean']), float(row['std'])) for name, row in _json(path).items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptImageError(f'are no statistics of bands ({error!r})', path=path) from error


def read_sample(
    path: str | Path, bands: Sequence[str], kind: str, date: str | None = None
) -> tuple[list[np.ndarray], Any]:
    """Bands of a sample as they are stored, and its label.

    Args:
        path: The file.
        bands: Stored names.
        kind: As of :class:`Task`.
        date: Of sets with several dates in a sample: ``'first'``, ``'last'``, or a date as it
            stands in the names. ``None``: there must be one.

    Returns:
        A map (H, W) or (H, W, C) for each band, in their own sizes; and the number of the class,
        an array of 0 and 1 for each class, or an array (H, W) of classes.

    Raises:
        DatasetNotFoundError: There is no such file.
        BandMismatchError: It lacks a band, or has it of several dates.
        CorruptImageError: It cannot be read.
    """
    try:
        # Not kept open: it may be one of 20,000. Locks are for writers, and fail on some disks.
        with h5py.File(path, 'r', locking=False) as file:
            stored = list(file)
            images = [file[_find(stored, band, date, path)][()] for band in bands]
            if kind == 'segmentation':
                return images, file[_find(stored, _LABEL, date, path)][()]
            text = file.attrs.get('pickle')
    except FileNotFoundError:
        raise DatasetNotFoundError('no such file', path=path, hint=_LAYOUT) from None
    except DataError:
        raise
    except (OSError, RuntimeError) as error:
        raise CorruptImageError(f'cannot be read as HDF5 ({error})', path=path) from error
    content = _unpickled(_literal(text, path), path)
    if not isinstance(content, dict) or content.get(_LABEL) is None:
        raise CorruptImageError('has no label', path=path)
    return images, content[_LABEL]


def _find(stored: Sequence[str], band: str, date: str | None, path: str | Path) -> str:
    """The dataset of a band, which may end in a date."""
    if band in stored:
        return band
    dated = sorted(name for name in stored if _DATED.sub('', name) == band)
    if not dated:
        raise BandMismatchError(f'has no such band, only {stored}', path=path, band=band)
    if date in ('first', 'last'):
        return dated[0 if date == 'first' else -1]
    if date is not None:
        dated = [name for name in dated if name == f'{band}_{date}']
    if len(dated) != 1:
        raise BandMismatchError(
            f'is there of {len(dated)} dates {dated}' + (f', none is {date}' if date else ''),
            path=path,
            band=band,
            hint="Choose one: date='first', 'last', or as it stands there",
        )
    return dated[0]


def _literal(text: Any, path: str | Path) -> bytes:
    """The bytes whose Python text the files hold."""
    text = text.decode('ascii', 'replace') if isinstance(text, bytes) else text
    if not isinstance(text, str) or text[:2] not in ("b'", 'b"') or len(text) > _LONGEST:
        raise CorruptImageError("has no attribute 'pickle' that holds its label", path=path)
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, MemoryError) as error:
        raise CorruptImageError(f"the attribute 'pickle' is damaged ({error})", path=path) from None


def _unpickled(data: bytes, path: str | Path) -> Any:
    try:
        return load_plain_pickle(data, arrays=True, objects=_CLASSES)
    except pickle.UnpicklingError as error:
        raise CorruptImageError(
            f'its pickle: {error}', path=path, hint='Nothing of it was run'
        ) from error


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DatasetNotFoundError('no such file', path=path, hint=f'Expected: {_LAYOUT}') from None


def _json(path: Path) -> Mapping[str, Any]:
    try:
        return json.loads(_bytes_of(path))
    except ValueError as error:
        raise CorruptImageError(f'is no JSON ({error})', path=path) from error
