# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Many tiles of one size in one file, memory-mapped, with an index and a checksum for each.

A folder of half a million small GeoTIFFs costs two file openings and two decodings a sample; here a
sample is a slice of a memory map. The form (little endian)::

    0       8 bytes  magic
    4096    count * bands * height * width values, band after band, row after row
    ...     the index: JSON in UTF-8
    end-24  offset and length of the index (uint64 each), its CRC-32 (uint32), magic (4 bytes)

The index holds ``dtype``, ``shape`` (bands, height, width), ``band_names``, ``classes``, and for
each tile its name, labels, the CRC-32 of its bytes, and what else is known (country, season ...).
What is invalid is NaN in tiles of floating point numbers.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mmrsfm.errors import ConfigError, CorruptImageError, DatasetNotFoundError, ImageSizeError

MAGIC = b'MMRSTILE'
_END = b'TILE'
_DATA = 4096  # of a memory page
_TRAILER = struct.Struct('<QQI4s')
_DTYPES = ('uint8', 'int8', 'int16', 'uint16', 'int32', 'float32')
VERSION = 1


class PackedTiles:
    """Reads a file of tiles.

    Args:
        path: The file.

    Attributes:
        shape: (bands, height, width) of every tile.
        dtype: Type of the values.
        classes: Names of the classes, or ``None``.
        metadata: What the writer said of the whole file, or ``None``.

    Raises:
        DatasetNotFoundError: There is no such file.
        CorruptImageError: It is not one of this form, truncated, or its index is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DatasetNotFoundError(
                'no such file of packed tiles', path=path, hint='data_converters/pack_tiles.py'
            )
        index = self.index
        self.shape: tuple[int, int, int] = tuple(index['shape'])
        self.dtype = np.dtype(index['dtype']).newbyteorder('<')
        self.classes: list[str] | None = index['classes']
        self.metadata: dict[str, Any] | None = index.get('metadata')
        self._checksums = np.array(index['crc32'], np.uint32)
        self._sound = np.zeros(len(self._checksums), bool)
        self._map: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._checksums)

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be sent to spawned workers as an array.
        return {**self.__dict__, '_map': None}

    def read(self, number: int, verify: bool = True) -> np.ndarray:
        """A tile, (bands, height, width), as an array of its own.

        Args:
            number: Which, from 0.
            verify: Whether its checksum is compared: the first time that this process reads it. Of
                a tile that is in memory, that takes four times as long as reading it.

        Raises:
            CorruptImageError: The bytes are not those that were written.
        """
        if self._map is None:
            self._map = np.memmap(
                self.path, self.dtype, 'r', offset=_DATA, shape=(len(self), *self.shape)
            )
        tile = np.array(self._map[number])
        if not verify or self._sound[number]:
            return tile
        if zlib.crc32(tile.data) != self._checksums[number]:
            raise CorruptImageError(
                f'tile {number} ({self.index["names"][number]}) is damaged: its checksum differs',
                path=self.path,
                hint='Copy or pack the file again',
            )
        self._sound[number] = True
        return tile

    @property
    def index(self) -> dict[str, Any]:
        """The whole index, read again each time: the objects of half a million tiles are large."""
        size = self.path.stat().st_size
        with self.path.open('rb') as file:
            if file.read(len(MAGIC)) != MAGIC or size < _DATA + _TRAILER.size:
                raise CorruptImageError('is no file of packed tiles', path=self.path)
            file.seek(-_TRAILER.size, 2)
            start, length, crc, end = _TRAILER.unpack(file.read())
            if end != _END or start + length + _TRAILER.size != size:
                raise CorruptImageError('truncated: the end of the file is missing', path=self.path)
            file.seek(start)
            text = file.read(length)
        if zlib.crc32(text) != crc:
            raise CorruptImageError('the index is damaged: its checksum differs', path=self.path)
        index = json.loads(text)
        if index['version'] != VERSION:
            raise CorruptImageError(
                f'is of version {index["version"]} of the form, this mmrsfm reads {VERSION}',
                path=self.path,
            )
        values = int(np.prod((index['count'], *index['shape']), dtype=np.int64))
        if _DATA + values * np.dtype(index['dtype']).itemsize != start:
            raise CorruptImageError('the index does not fit the tiles', path=self.path)
        return index


class PackedTileWriter:
    """Writes a file of tiles, one after the other; it gets its name when it is whole.

    Args:
        path: The file.
        band_names: Names of the bands, where they are known.
        classes: Names of the classes that labels are numbers of.
        dtype: Type of the values; ``None``: that of the first tile.
        metadata: What else is to be known of the whole file, as JSON holds it.

    Attributes:
        band_names: As given; may be set until the end.

    Raises:
        ConfigError: For a type that is not possible.
    """

    def __init__(
        self,
        path: str | Path,
        band_names: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        dtype: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        if dtype is not None and dtype not in _DTYPES:
            raise ConfigError(f'packed tiles are one of {_DTYPES}, got {dtype!r}')
        self.path = Path(path)
        self.dtype = None if dtype is None else np.dtype(dtype)
        self.shape: tuple[int, ...] | None = None
        self.band_names = None if band_names is None else tuple(band_names)
        self._index: dict[str, Any] = {
            'version': VERSION,
            'classes': None if classes is None else list(classes),
            'metadata': None if metadata is None else dict(metadata),
            'names': [],
            'labels': [],
            'crc32': [],
            'extra': [],
        }
        self._partial = self.path.with_name(self.path.name + '.partial')

    def __len__(self) -> int:
        return len(self._index['names'])

    def __enter__(self) -> PackedTileWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._partial.open('wb')
        self._file.write(MAGIC.ljust(_DATA, b'\0'))
        return self

    def write(
        self,
        tile: np.ndarray,
        name: str,
        labels: Sequence[int] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Appends a tile.

        Args:
            tile: (bands, height, width).
            name: Name of the sample.
            labels: Numbers of its classes; ``None``: not labelled.
            extra: What else is known of it, as JSON holds it.

        Raises:
            ImageSizeError: It has another shape than the first.
            ConfigError: Its values do not fit the type of the file.
        """
        if self.shape is None:
            self.shape = tile.shape
            self.dtype = self.dtype or tile.dtype
            if self.dtype.name not in _DTYPES:
                raise ConfigError(f'packed tiles are one of {_DTYPES}, got {self.dtype}')
        if tile.ndim != 3 or tile.shape != self.shape:
            raise ImageSizeError(
                f'has shape {tile.shape} (bands, height, width), the first tile {self.shape}',
                path=name,
                hint='One file holds tiles of one size: cut or resample first (--size)',
            )
        assert self.dtype is not None
        with np.errstate(invalid='ignore'):  # NaN among integers: seen below
            stored = np.ascontiguousarray(tile, self.dtype.newbyteorder('<'))
        if tile.dtype != self.dtype and not np.array_equal(
            stored.astype(np.float64), tile.astype(np.float64), equal_nan=True
        ):
            raise ConfigError(f'{name}: {self.dtype} does not hold values of {tile.dtype}')
        self._file.write(stored.data)
        self._index['names'].append(name)
        self._index['labels'].append(None if labels is None else [int(one) for one in labels])
        self._index['crc32'].append(zlib.crc32(stored.data))
        self._index['extra'].append(dict(extra or {}))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._file.close()
            self._partial.unlink(missing_ok=True)

    def _finish(self) -> None:
        if self.shape is None or self.dtype is None:
            raise DatasetNotFoundError('there are no tiles to pack', path=self.path)
        index = {
            **self._index,
            'band_names': self.band_names,
            'count': len(self._index['names']),
            'shape': list(self.shape),
            'dtype': self.dtype.name,
        }
        text = json.dumps(index, ensure_ascii=False).encode()
        start = self._file.tell()
        self._file.write(text)
        self._file.write(_TRAILER.pack(start, len(text), zlib.crc32(text), _END))
        self._file.close()
        self._partial.replace(self.path)


def open_packed(path: str | Path) -> PackedTiles:
    """The reader of a file, one for each process; another one when the file was replaced.

    Raises:
        DatasetNotFoundError: There is no such file.
        CorruptImageError: See :class:`PackedTiles`.
    """
    try:
        changed = Path(path).stat().st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        changed = 0
    return _opened(str(path), changed)


@lru_cache(maxsize=16)
def _opened(path: str, changed: int) -> PackedTiles:
    return PackedTiles(path)
