# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Tiles of several layers out of an HDF5 file, or out of a packed one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmrsfm.datasets.packed_tiles import open_packed
from mmrsfm.errors import BandMismatchError, CorruptImageError, DatasetNotFoundError

LEVEL_FIELD = 's2_type'  # of what the index of a packed file says of each tile


class _OpenFiles:
    """The open HDF5 files of this process.

    HDF5 shares what is open with a forked process, down to the place in the file, and two processes
    then read each other's bytes. So nothing is open while the process forks: all files are closed
    before, and opened again by whoever reads.
    """

    def __init__(self) -> None:
        self._files: dict[str, tuple[h5py.File, dict[str, h5py.Dataset]]] = {}
        os.register_at_fork(before=self.close)

    def layers(self, path: str) -> dict[str, h5py.Dataset]:
        """The datasets of a file by name."""
        if path not in self._files:
            file = _open_hdf5(path)
            try:
                found = {name: one for name, one in file.items() if isinstance(one, h5py.Dataset)}
            except (OSError, RuntimeError, KeyError, ValueError) as error:
                file.close()
                raise CorruptImageError(
                    f'the list of its layers cannot be read ({error})', path=path
                ) from error
            self._files[path] = (file, found)
        return self._files[path][1]

    def close(self) -> None:
        """Closes all files."""
        for file, _ in self._files.values():
            file.close()
        self._files.clear()


def _open_hdf5(path: str) -> h5py.File:
    """Opens a file for reading."""
    try:
        # A tile is a chunk, and no tile is read twice in a row: no cache of chunks.
        return h5py.File(path, 'r', rdcc_nbytes=0)
    except FileNotFoundError:
        raise DatasetNotFoundError('no such file', path=path) from None
    except OSError as error:
        reason = error
        if 'lock' in str(error):  # many network file systems have no locks, and nobody writes
            try:
                return h5py.File(path, 'r', rdcc_nbytes=0, locking=False)
            except OSError as second:
                reason = second
        raise CorruptImageError(f'cannot be opened as HDF5 ({reason})', path=path) from reason


_open = _OpenFiles()


def close_files() -> None:
    """Closes the HDF5 files that this process has open; the next read opens them again."""
    _open.close()


def read_hdf5_tile(path: str | Path, row: int, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Layers of a tile as they are stored, (bands, H, W) or (bands,).

    Args:
        path: The file.
        row: The tile, from 0.
        names: The layers.

    Raises:
        DatasetNotFoundError: There is no such file.
        BandMismatchError: It has no such layer.
        CorruptImageError: The file is no HDF5 file, or the tile cannot be read.
    """
    layers = _open.layers(str(path))
    tile = {}
    for name in names:
        if name not in layers:
            raise BandMismatchError(
                f'has no such layer, only {sorted(layers)}',
                path=path,
                band=name,
                hint='Leave it out of the targets',
            )
        try:
            tile[name] = np.asarray(layers[name][row])
        except (OSError, ValueError, IndexError, RuntimeError) as error:
            raise CorruptImageError(
                f'tile {row} cannot be read ({error})', path=path, band=name
            ) from error
    return tile


def read_packed_tile(
    path: str | Path, number: int, names: Sequence[str], verify: bool = True
) -> dict[str, np.ndarray]:
    """The same from a file that ``data_converters/pack_mmearth.py`` wrote.

    Raises:
        DatasetNotFoundError: There is no such file.
        BandMismatchError: It has no such layer.
        CorruptImageError: The bytes are not those that were written.
    """
    tiles = open_packed(path)
    record = tiles.read(number, verify).reshape(-1).view(record_type(tiles.metadata))[0]
    fields = record.dtype.names or ()
    for name in names:
        if name not in fields:
            raise BandMismatchError(
                f'was packed without this layer, only with {list(fields)}',
                path=path,
                band=name,
                hint='Pack it again with the layer, or leave it out of the targets',
            )
    return {name: record[name] for name in names}


def record_type(metadata: Mapping[str, Any] | None) -> np.dtype:
    """The type of a packed tile, of all its layers one after the other."""
    if not metadata or 'fields' not in metadata:
        raise CorruptImageError(
            'is no packed file of MMEarth tiles', hint='data_converters/pack_mmearth.py writes them'
        )
    return np.dtype([(name, dtype, tuple(shape)) for name, dtype, shape in metadata['fields']])


def layer_shapes(path: str | Path) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Number type and shape of a tile of each layer of an HDF5 file; leaves it closed."""
    close_files()  # what is open may have been replaced since
    shapes = {
        name: (layer.dtype, tuple(layer.shape[1:]))
        for name, layer in _open.layers(str(path)).items()
    }
    close_files()
    return shapes


def read_names(path: str | Path) -> tuple[np.ndarray, np.ndarray | None, int]:
    """What an HDF5 file says of its tiles; leaves it closed.

    Returns:
        The identifiers (bytes), whether each is L2A (``None``: not in the file), and their number.

    Raises:
        CorruptImageError: There is no table of the tiles, it cannot be read, or a level is unknown.
    """
    close_files()  # what is open may have been replaced since
    try:
        layers = _open.layers(str(path))
        table = layers.get('metadata')
        names = None if table is None else table.dtype.names
        if table is None or (names is not None and 'tile_id' not in names):
            raise CorruptImageError(
                f'has no table of its tiles ("metadata" with "tile_id"), only {sorted(layers)}',
                path=path,
            )
        ids = table[:] if names is None else table.fields('tile_id')[:]
        ids = ids.astype('S')  # also from text of any length
        width = max(1, int(np.char.str_len(ids).max(initial=1)))  # 100 bytes a tile are stored
        levels = None
        if names is not None and 'S2_type' in names:
            levels = _is_l2a(table.fields('S2_type')[:], path)
        return ids.astype(f'S{width}'), levels, len(ids)
    except OSError as error:
        raise CorruptImageError(
            f'the table of tiles cannot be read ({error})', path=path
        ) from error
    finally:
        close_files()


def _is_l2a(levels: np.ndarray, path: str | Path) -> np.ndarray:
    l2a = levels == b'l2a'
    unknown = ~(l2a | (levels == b'l1c'))
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        raise CorruptImageError(
            f'tile {row} is of the product {levels[row]!r}, known are l1c and l2a', path=path
        )
    return l2a
