# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Tiles in files of many formats, written and read alike: what ``benchmark.py --formats`` compares.

Training reads packed tiles (:class:`mmrsfm.PackedTileDataset`) and files of images; the other
formats are here so that the choice can be measured, on any machine and any data.
"""

from __future__ import annotations

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmrsfm.errors import ConfigError, MissingDependencyError


class TileFormat(ABC):
    """Tiles of one size in one format.

    Args:
        folder: An own folder.
    """

    name: ClassVar[str]

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @abstractmethod
    def write(self, tiles: Sequence[np.ndarray]) -> None:
        """Writes tiles, each (C, H, W), of one type and size."""

    @abstractmethod
    def open(self) -> None:
        """Opens what was written."""

    @abstractmethod
    def read(self, number: int) -> np.ndarray:
        """Reads a tile, (C, H, W), into memory of its own."""

    def close(self) -> None:
        """Lets go of the files, maps of them included."""
        self._reader: Any = None

    def files(self) -> list[Path]:
        """All files."""
        return sorted(path for path in self.folder.rglob('*') if path.is_file())


class GeoTiff(TileFormat):
    """A file a tile, by rasterio: uncompressed, or Deflate with a predictor."""

    name = 'geotiff'
    options: ClassVar[dict[str, Any]] = {}

    def write(self, tiles: Sequence[np.ndarray]) -> None:
        """See the base class."""
        import rasterio
        from rasterio.transform import from_origin

        for number, tile in enumerate(tiles):
            count, height, width = tile.shape
            with rasterio.open(
                self._path(number), 'w', driver='GTiff', count=count, height=height, width=width,
                dtype=tile.dtype.name, crs='EPSG:32618', transform=from_origin(4e5, 4e6, 10, 10),
                **self.options,
            ) as file:  # fmt: skip
                file.write(tile)

    def open(self) -> None:
        """Each file is opened when it is read."""

    def read(self, number: int) -> np.ndarray:
        """See the base class."""
        import rasterio

        with rasterio.open(self._path(number)) as file:
            return file.read()

    def _path(self, number: int) -> Path:
        return self.folder / f'{number:06d}.tif'


class GeoTiffDeflate(GeoTiff):
    """As most collections are handed out."""

    name = 'geotiff-deflate'
    options: ClassVar[dict[str, Any]] = {'compress': 'deflate', 'predictor': 2}


class Hdf5(TileFormat):
    """One HDF5 array, a chunk a tile."""

    name = 'hdf5'
    compression: ClassVar[str | None] = None

    def write(self, tiles: Sequence[np.ndarray]) -> None:
        """See the base class."""
        import h5py

        shape = tiles[0].shape
        with h5py.File(self.folder / 'tiles.h5', 'w') as file:
            array = file.create_dataset(
                'tiles',
                (len(tiles), *shape),
                tiles[0].dtype,
                chunks=(1, *shape),
                compression=self.compression,
            )
            for number, tile in enumerate(tiles):
                array[number] = tile

    def open(self) -> None:
        """See the base class."""
        import h5py

        self._reader = h5py.File(self.folder / 'tiles.h5', 'r')

    def read(self, number: int) -> np.ndarray:
        """See the base class."""
        return self._reader['tiles'][number]

    def close(self) -> None:
        """See the base class."""
        self._reader.close()


class Hdf5Gzip(Hdf5):
    """Compressed, as GEO-Bench's files are."""

    name = 'hdf5-gzip'
    compression: ClassVar[str | None] = 'gzip'


class Zarr(TileFormat):
    """One Zarr array in a folder, a chunk a tile."""

    name = 'zarr'
    compressors: ClassVar[Any] = None

    def write(self, tiles: Sequence[np.ndarray]) -> None:
        """See the base class."""
        import zarr

        shape = tiles[0].shape
        array = zarr.create_array(
            str(self.folder / 'tiles.zarr'),
            shape=(len(tiles), *shape),
            chunks=(1, *shape),
            dtype=tiles[0].dtype,
            compressors=self.compressors,
        )
        for number, tile in enumerate(tiles):
            array[number] = tile

    def open(self) -> None:
        """See the base class."""
        import zarr

        self._reader = zarr.open_array(str(self.folder / 'tiles.zarr'), mode='r')

    def read(self, number: int) -> np.ndarray:
        """See the base class."""
        return np.asarray(self._reader[number])


class ZarrZstd(Zarr):
    """With Zarr's own default, Zstandard."""

    name = 'zarr-zstd'
    compressors: ClassVar[Any] = 'auto'


class Lmdb(TileFormat):
    """LMDB: a value a tile, plain bytes."""

    name = 'lmdb'

    def write(self, tiles: Sequence[np.ndarray]) -> None:
        """See the base class."""
        size = sum(tile.nbytes for tile in tiles)
        np.savez(self.folder / 'form.npz', shape=tiles[0].shape, dtype=tiles[0].dtype.str)
        path = str(self.folder / 'tiles.lmdb')
        with _module('lmdb').open(path, map_size=2 * size + 2**26) as environment:
            for number, tile in enumerate(tiles):
                with environment.begin(write=True) as transaction:
                    transaction.put(number.to_bytes(8, 'big'), np.ascontiguousarray(tile).tobytes())

    def open(self) -> None:
        """See the base class."""
        form = np.load(self.folder / 'form.npz')
        self._shape, self._dtype = tuple(form['shape']), np.dtype(str(form['dtype']))
        self._reader = _module('lmdb').open(
            str(self.folder / 'tiles.lmdb'), readonly=True, lock=False
        )

    def read(self, number: int) -> np.ndarray:
        """See the base class."""
        with self._reader.begin(buffers=True) as transaction:
            found = transaction.get(number.to_bytes(8, 'big'))
            return np.frombuffer(found, self._dtype).reshape(self._shape).copy()

    def close(self) -> None:
        """See the base class."""
        self._reader.close()


class LitData(TileFormat):
    """LitData's chunks of 64 MB, as its ``optimize`` writes them."""

    name = 'litdata'

    def write(self, tiles: Sequence[np.ndarray]) -> None:
        """See the base class."""
        _module('litdata')
        cache = importlib.import_module('litdata.streaming.cache').Cache(
            str(self.folder), chunk_bytes=2**26
        )
        for number, tile in enumerate(tiles):
            cache[number] = {'tile': tile}
        cache.done()
        cache.merge()

    def open(self) -> None:
        """See the base class."""
        self._reader = _module('litdata').StreamingDataset(str(self.folder))

    def read(self, number: int) -> np.ndarray:
        """See the base class."""
        return np.array(self._reader[number]['tile'])


class Packed(TileFormat):
    """Ours, :mod:`mmrsfm.datasets.packed_tiles`, with checksums: as in the first epoch."""

    name = 'packed'
    verify: ClassVar[bool] = True

    def write(self, tiles: Sequence[np.ndarray]) -> None:
        """See the base class."""
        from mmrsfm.datasets.packed_tiles import PackedTileWriter

        with PackedTileWriter(self.folder / 'tiles.tiles') as writer:
            for number, tile in enumerate(tiles):
                writer.write(tile, f'{number:06d}')

    def open(self) -> None:
        """See the base class."""
        from mmrsfm.datasets.packed_tiles import PackedTiles

        self._reader = PackedTiles(self.folder / 'tiles.tiles')

    def read(self, number: int) -> np.ndarray:
        """See the base class."""
        return self._reader.read(number, self.verify)


class PackedUnverified(Packed):
    """Without checksums, as the others are: as in later epochs, or with ``verify=False``."""

    name = 'packed-unverified'
    verify: ClassVar[bool] = False


FORMATS: dict[str, type[TileFormat]] = {
    cls.name: cls
    for cls in (
        GeoTiff, GeoTiffDeflate, Hdf5, Hdf5Gzip, Zarr, ZarrZstd, Lmdb, LitData, Packed,
        PackedUnverified,
    )
}  # fmt: skip


def choose_formats(names: Sequence[str] | None = None) -> list[type[TileFormat]]:
    """The formats of some names.

    Args:
        names: Of :data:`FORMATS`; ``None``: those whose packages are installed.

    Raises:
        ConfigError: There is no such format.
        MissingDependencyError: Its package is not installed.
    """
    optional = {'lmdb': 'lmdb', 'litdata': 'litdata'}
    if names is None:
        installed = {name: importlib.util.find_spec(name) is not None for name in optional}
        return [cls for name, cls in FORMATS.items() if installed.get(name, True)]
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise ConfigError(f'--formats {unknown}: choose from {list(FORMATS)}')
    for name in names:
        if name in optional:
            _module(optional[name])
    return [FORMATS[name] for name in names]


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(f'the format {name} needs: pip install {name}') from error
