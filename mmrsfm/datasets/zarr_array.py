# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Arrays and attributes of Zarr stores in folders, versions 2 and 3, read without a hierarchy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mmrsfm.errors import CorruptImageError, DatasetNotFoundError

_ARRAY_FILES = ('.zarray', 'zarr.json')


def is_zarr_array(path: str | Path) -> bool:
    """Whether a folder is an array of a Zarr store."""
    return any((Path(path) / name).is_file() for name in _ARRAY_FILES)


def read_zarr_array(path: str | Path, npy_order: str = 'HWC') -> np.ndarray:
    """Reads a whole array as (H, W, C).

    Args:
        path: Folder of the array.
        npy_order: ``'HWC'`` or ``'CHW'``: the order of the axes of a three-dimensional array.

    Raises:
        CorruptImageError: It cannot be decoded, is no image, or lacks chunks and states another
            value for them than NaN.
    """
    import zarr

    _check_blosc(Path(path))
    try:
        # Asked for a group, zarr.open would look for it in every folder above.
        stored = zarr.open_array(str(path), mode='r')
        array = np.asarray(stored[...])
        missing = _missing_chunks(stored)
    except Exception as error:  # codecs and metadata raise errors of every kind
        raise CorruptImageError(f'cannot be read as a Zarr array ({error})', path=path) from error
    if missing:
        raise CorruptImageError(
            f'{missing} of the {stored.nchunks} chunks of the Zarr array are missing, which would '
            f'be read as {stored.fill_value}',
            path=path,
            hint='Copy the store again; or write it with write_empty_chunks=True, if these are '
            'pixels without data',
        )
    if array.ndim == 2:
        return array[:, :, None]
    if array.ndim != 3:
        raise CorruptImageError(
            f'an image has two or three axes, this array has shape {array.shape}', path=path
        )
    return array.transpose(1, 2, 0) if npy_order == 'CHW' else array


def _check_blosc(folder: Path) -> None:
    """Raises for a chunk that is shorter than its Blosc header says.

    Blosc does not look: it decodes whatever lies in memory behind the chunk, mostly without an
    error. (Header: c-blosc, README_CHUNK_FORMAT; the number of bytes stands at 12, little endian.)
    """
    if not _is_blosc(folder):
        return
    for chunk in folder.rglob('*'):
        if chunk.name.startswith('.') or chunk.name in _ARRAY_FILES or not chunk.is_file():
            continue
        with chunk.open('rb') as file:
            header = file.read(16)
        stated = int.from_bytes(header[12:16], 'little')
        size = chunk.stat().st_size
        if len(header) < 16 or stated != size:
            raise CorruptImageError(
                f'cannot be read as a Zarr array: a chunk is truncated ({size} bytes)', path=chunk
            )


def _is_blosc(folder: Path) -> bool:
    """Whether Blosc is what the chunks of an array were compressed with last."""
    for name in _ARRAY_FILES:
        file = folder / name
        if not file.is_file():
            continue
        try:
            content = json.loads(file.read_text(encoding='utf-8'))
            last = content['compressor'] if name == '.zarray' else content['codecs'][-1]
            return isinstance(last, dict) and 'blosc' in (last.get('id'), last.get('name'))
        except (ValueError, KeyError, TypeError, IndexError):
            return False  # zarr says what is wrong with it
    return False


def _missing_chunks(stored: Any) -> int:
    """How many chunks are not there, where that is not a way to say "no data"."""
    fill = stored.fill_value
    if fill is not None and np.issubdtype(stored.dtype, np.floating) and np.isnan(fill):
        return 0
    return int(stored.nchunks - stored.nchunks_initialized)


def zarr_image_shape(path: str | Path) -> tuple[int, int]:
    """(H, W) of an array of rows and columns, from its metadata.

    Raises:
        CorruptImageError: The metadata cannot be read.
    """
    for name in _ARRAY_FILES:
        file = Path(path) / name
        if file.is_file():
            try:
                height, width = json.loads(file.read_text(encoding='utf-8'))['shape'][:2]
                return int(height), int(width)
            except (ValueError, KeyError, TypeError) as error:
                raise CorruptImageError(f'states no shape ({error})', path=file) from error
    raise CorruptImageError('is no Zarr array', path=path)


def zarr_attributes(path: str | Path) -> dict[str, Any]:
    """The attributes of a group or an array.

    The file is read as JSON: half a million groups take seconds, through zarr minutes.

    Raises:
        DatasetNotFoundError: There is no group or array.
        CorruptImageError: Its metadata cannot be read.
    """
    folder = Path(path)
    try:
        for name in ('.zattrs', 'zarr.json'):
            if (folder / name).is_file():
                content = json.loads((folder / name).read_text(encoding='utf-8'))
                return content if name == '.zattrs' else content.get('attributes', {})
    except (ValueError, AttributeError, UnicodeDecodeError) as error:
        raise CorruptImageError(
            f'the attributes of the Zarr group cannot be read ({error})', path=folder / name
        ) from error
    if any((folder / name).is_file() for name in ('.zgroup', '.zarray')):
        return {}  # version 2 writes no file for no attributes
    raise DatasetNotFoundError('is no group of a Zarr store', path=folder)
