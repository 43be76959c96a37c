# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Writes tiles in the form of MMEarth: one HDF5 file and three JSON files.

The form is that of MMEarth (Nedungadi et al., ECCV 2024, arXiv 2405.02771), written from a
description of the published files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmrsfm.datasets.mmearth_layers import LEVELS
from mmrsfm.errors import ConfigError, ImageSizeError

_NAME_BYTES = 100
METADATA = np.dtype([('tile_id', f'S{_NAME_BYTES}'), ('S2_type', 'S10')])


@dataclass(frozen=True)
class StoredLayer:
    """How a layer is stored.

    Attributes:
        bands: How many.
        dtype: Number type.
        missing: The number that stands for missing.
        is_map: Whether there is a number for each pixel.
    """

    bands: int
    dtype: str
    missing: float
    is_map: bool = True


STORED = {
    'sentinel2': StoredLayer(13, 'uint16', 0),
    'sentinel2_cloudmask': StoredLayer(1, 'uint16', 65535),
    'sentinel2_cloudprod': StoredLayer(1, 'uint16', 65535),
    'sentinel2_scl': StoredLayer(1, 'uint8', 255),
    'sentinel1': StoredLayer(8, 'float32', -math.inf),
    'aster': StoredLayer(2, 'int16', -32768),
    'era5': StoredLayer(12, 'float32', math.nan, False),
    'dynamic_world': StoredLayer(1, 'uint8', 0),
    'canopy_height_eth': StoredLayer(2, 'int8', 127),
    'lat': StoredLayer(2, 'float32', -math.inf, False),
    'lon': StoredLayer(2, 'float32', -math.inf, False),
    'biome': StoredLayer(14, 'uint8', 255, False),
    'eco_region': StoredLayer(846, 'uint16', 65535, False),
    'month': StoredLayer(2, 'float32', -math.inf, False),
    'esa_worldcover': StoredLayer(1, 'uint8', 255),
}
_CLASSES = ('biome', 'eco_region', 'dynamic_world', 'esa_worldcover', 'sentinel2_scl')


class MMEarthWriter:
    """Writes the HDF5 file, tile by tile, and sums up the statistics of its training tiles.

    What is not known of a tile is left out, takes no space, and reads as missing.

    Args:
        path: The HDF5 file.
        size: Side of a tile in pixels.
        layers: Layers besides those of MMEarth, or instead of them.

    Attributes:
        rows: Numbers of the tiles of each split.
    """

    def __init__(
        self, path: str | Path, size: int, layers: Mapping[str, StoredLayer] | None = None
    ) -> None:
        self.path, self.size = Path(path), size
        self.layers = {**STORED, **(layers or {})}
        self.information: dict[str, Any] = {}
        self.rows: dict[str, list[int]] = {}
        self._sums: dict[str, _Moments] = {}
        self._levels: list[str] = []

    def __enter__(self) -> MMEarthWriter:
        self.file = h5py.File(self.path, 'w')
        for name, layer in self.layers.items():
            shape = (layer.bands, *((self.size, self.size) if layer.is_map else ()))
            self.file.create_dataset(
                name, (0, *shape), layer.dtype, maxshape=(None, *shape), chunks=(1, *shape),
                compression='gzip', fillvalue=layer.missing,
            )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def write(
        self, name: str, split: str, level: str, tile: Mapping[str, Any], information: Any
    ) -> None:
        """Appends a tile.

        Args:
            name: Its identifier, at most 100 bytes; each once.
            split: ``'train'``, ``'val'`` or ``'test'``.
            level: ``'l1c'`` or ``'l2a'``.
            tile: By layer (bands, H, W), or (bands,).
            information: What the table of tiles says of it.

        Raises:
            ConfigError: The identifier is taken or too long, the level or a layer is unknown, or
                numbers do not fit the type of their layer.
            ImageSizeError: A layer has another shape.
        """
        self._check(name, level, tile)
        number = len(self.information)
        self.information[name] = information
        self._levels.append(level)
        self.rows.setdefault(split, []).append(number)
        for layer in self.layers:
            dataset = self.file[layer]
            if number >= len(dataset):
                dataset.resize(2 * number + 64, axis=0)
            if layer not in tile:
                continue
            values = np.asarray(tile[layer]).astype(self.layers[layer].dtype)
            dataset[number] = values
            if split == 'train' and layer not in _CLASSES:
                key = f'{layer}_{level}' if layer == 'sentinel2' else layer
                moments = self._sums.setdefault(key, _Moments(self.layers[layer]))
                moments.add(values)

    def _check(self, name: str, level: str, tile: Mapping[str, Any]) -> None:
        if name in self.information or not 0 < len(name.encode()) <= _NAME_BYTES:
            raise ConfigError(
                f'tiles have different names of at most {_NAME_BYTES} bytes, got {name!r}'
            )
        if level not in LEVELS:
            raise ConfigError(f'tile {name!r}: level is one of {LEVELS}, got {level!r}')
        for layer, values in tile.items():
            if layer not in self.layers:
                raise ConfigError(
                    f'tile {name!r}: the writer was made without {layer!r}, for {list(self.layers)}'
                )
            stored, values = self.layers[layer], np.asarray(values)
            expected = (stored.bands, *((self.size, self.size) if stored.is_map else ()))
            if values.shape != expected:
                raise ImageSizeError(
                    f'has shape {values.shape}, expected {expected}', path=name, band=layer
                )
            dtype = np.dtype(stored.dtype)
            if dtype.kind in 'iu' and values.dtype != dtype:
                limits = np.iinfo(dtype)
                if not (values.min() >= limits.min and values.max() <= limits.max):
                    raise ConfigError(
                        f'tile {name!r}: {layer} holds {dtype}, got {values.min()} to '
                        f'{values.max()}; {stored.missing} stands for missing'
                    )

    def finish(self, target: Path) -> None:
        """Writes the table of tiles, and the JSON files.

        Args:
            target: Their folder, whose last part names them.

        Raises:
            ConfigError: There is no training tile.
        """
        if not self.rows.get('train'):
            raise ConfigError('no training tile has enough data: smaller tiles, or min_valid')
        count = len(self.information)
        for layer in self.layers:
            self.file[layer].resize(count, axis=0)
        table = np.zeros(count, METADATA)
        table['tile_id'] = [name.encode() for name in self.information]
        table['S2_type'] = [level.encode() for level in self._levels]
        self.file.create_dataset('metadata', data=table)
        statistics = {
            key: self._sums.get(key, _Moments(self.layers[layer])).summary()
            for layer in self.layers
            if layer not in _CLASSES
            for key in ([f'{layer}_{one}' for one in LEVELS] if 'sentinel2' in layer else [layer])
        }
        for suffix, content in (
            ('splits', {'train': [], 'val': [], 'test': [], **self.rows}),
            ('tile_info', self.information),
            ('band_stats', statistics),
        ):
            (target / f'{target.name}_{suffix}.json').write_text(json.dumps(content))


class _Moments:
    """Mean, deviation, least and largest value of each band, without what is missing.

    Tiles are joined by the sums of their squared deviations (Chan et al. 1979): a sum of squares
    less the square of the sum would leave nothing of a small deviation from a large mean.
    """

    def __init__(self, layer: StoredLayer) -> None:
        self.missing = layer.missing
        self.count = np.zeros(layer.bands)
        self.mean = np.zeros(layer.bands)
        self.squares = np.zeros(layer.bands)
        self.least = np.full(layer.bands, np.inf)
        self.largest = np.full(layer.bands, -np.inf)

    def add(self, values: np.ndarray) -> None:
        rows = values.reshape(len(values), -1).astype(np.float64)
        known = np.isfinite(rows) & (rows != self.missing)
        count = known.sum(1)
        some = np.maximum(count, 1)
        mean = np.where(known, rows, 0).sum(1) / some
        squares = (np.where(known, rows - mean[:, None], 0) ** 2).sum(1)
        total = np.maximum(self.count + count, 1)
        step = mean - self.mean
        self.squares += np.where(count > 0, squares + step**2 * self.count * count / total, 0)
        self.mean += np.where(count > 0, step * count / total, 0)
        self.count += count
        self.least = np.minimum(self.least, np.where(known, rows, np.inf).min(1))
        self.largest = np.maximum(self.largest, np.where(known, rows, -np.inf).max(1))

    def summary(self) -> dict[str, list[float]]:
        some = self.count > 0
        mean = np.where(some, self.mean, np.nan)
        std = np.where(some, np.sqrt(self.squares / np.maximum(self.count, 1)), np.nan)
        # One date, one place: what is the same everywhere is normalised to 0, not divided by 0.
        std[std <= 1e-9 * np.abs(mean)] = 1.0
        return dict(
            mean=mean.tolist(), std=std.tolist(), min=self.least.tolist(), max=self.largest.tolist()
        )
