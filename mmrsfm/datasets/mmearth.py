# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""MMEarth: tiles of Sentinel-2 with up to eleven further layers, for pretraining."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init

from mmrsfm.datasets.mmearth_files import LEVEL_FIELD, read_names
from mmrsfm.datasets.mmearth_layers import LEVELS
from mmrsfm.datasets.packed_tiles import open_packed
from mmrsfm.errors import CorruptImageError, DatasetNotFoundError
from mmrsfm.registry import DATASETS

_LAYOUT = '<name>/<name>.h5 with <name>_splits.json, <name>_tile_info.json, <name>_band_stats.json'
_SENSORS = {'l1c': 'Sentinel-2 L1C', 'l2a': 'Sentinel-2 L2A'}


@DATASETS.register_module()
class MMEarth(BaseDataset):
    """Tiles of MMEarth (Nedungadi et al., ECCV 2024, arXiv 2405.02771), as they are downloaded.

    Layout: a folder with ``<name>.h5`` and ``<name>_{splits,tile_info,band_stats}.json``;
    ``<name>`` is the folder's, e.g. ``data_1M_v001_64`` (64 pixels), ``data_1M_v001`` or
    ``data_100k_v001`` (128 pixels). ``tile_info`` is only read where the HDF5 file does not say
    which tiles are L1C and which are L2A.

    A sample has ``img_path`` (the file), ``row`` (its number there), ``tile_id``, ``s2_type``
    (``'l1c'`` or ``'l2a'``), ``sensor``, ``sample_idx`` and ``band_stats``;
    :class:`mmrsfm.LoadMMEarth` reads it. The HDF5 file is open in no process that forks, so that
    any number of workers read it. About 40 bytes a tile are kept in memory.

    Args:
        data_root: The folder.
        split: ``'train'``, ``'val'`` or ``'test'``: rows that ``<name>_splits.json`` lists, in that
            order; in the published sets all tiles are in ``'train'``. ``None``: all rows.
        name: ``<name>``, where it is not that of the folder.
        packed: Instead of the HDF5 file: a file that ``data_converters/pack_mmearth.py`` made of a
            split, relative to ``data_root``. It holds all that is needed; ``split`` is that of the
            packing.
        verify: Of a packed file: whether the checksum of each tile is compared when it is read.
        **kwargs: As of MMEngine's BaseDataset (``pipeline``, ``indices``, ...).

    Raises:
        DatasetNotFoundError: A file is missing, or the split has no tiles.
        CorruptImageError: A file is damaged, or they do not belong together.
    """

    def __init__(
        self,
        data_root: str = '',
        split: str | None = 'train',
        name: str | None = None,
        packed: str | None = None,
        verify: bool = True,
        **kwargs: Any,
    ) -> None:
        self.split = split
        self.name = name
        self.packed = packed
        self.verify = verify
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[Any]:
        """Lists the rows; see the class."""
        root = Path(self.data_root or '.').expanduser()
        if self.packed is not None:
            return self._from_packed(root / self.packed)
        name = self.name or root.resolve().name
        self._file = root / f'{name}.h5'
        if not self._file.is_file():
            there = sorted(path.name for path in root.glob('*.h5')) if root.is_dir() else []
            raise DatasetNotFoundError(
                'no such file', path=self._file, hint=f'Expected: {_LAYOUT}. '
                + (f'There is {there}: name=... takes another name' if there else ''),
            )  # fmt: skip
        self._band_stats = _read_json(root / f'{name}_band_stats.json')
        self._ids, l2a, count = read_names(self._file)
        self._l2a = self._levels_of(root / f'{name}_tile_info.json') if l2a is None else l2a
        if self.split is None:
            return list(range(count))
        source = root / f'{name}_splits.json'
        splits = _read_json(source)
        if self.split not in splits:
            raise DatasetNotFoundError(
                f'has no split {self.split!r}, only {list(splits)}', path=source
            )
        rows = splits[self.split]
        if not rows:
            sizes = {key: len(value) for key, value in splits.items()}
            raise DatasetNotFoundError(
                f'the split {self.split!r} has no tiles (all splits: {sizes})',
                path=source,
                hint='The published sets have nothing but training tiles',
            )
        wrong = [row for row in rows if type(row) is not int or not 0 <= row < count]
        if wrong:
            raise CorruptImageError(
                f'names row {wrong[0]!r}, but {self._file.name} has {count} tiles', path=source
            )
        return rows

    def _from_packed(self, path: Path) -> list[Any]:
        self._file = path
        tiles = open_packed(path)
        metadata = tiles.metadata or {}
        if 'band_stats' not in metadata:
            raise CorruptImageError(
                'is no packed file of MMEarth tiles',
                path=path,
                hint='data_converters/pack_mmearth.py writes them',
            )
        self._band_stats = metadata['band_stats']
        index = tiles.index
        self._ids = np.array([name.encode() for name in index['names']])
        self._l2a = np.array([extra[LEVEL_FIELD] == 'l2a' for extra in index['extra']])
        return list(range(len(tiles)))

    def _levels_of(self, source: Path) -> np.ndarray:
        """Which tiles are L2A, by the table of tiles: gigabytes for a million of them."""
        information = _read_json(source)
        levels = []
        for tile in self._ids:
            entry = information.get(tile.decode(errors='replace'))
            if entry is None or entry.get('S2_type') not in LEVELS:
                raise CorruptImageError(
                    f'says nothing of tile {tile!r}, or not whether it is l1c or l2a',
                    path=source,
                )
            levels.append(entry['S2_type'] == 'l2a')
        return np.array(levels, bool)

    @force_full_init
    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The sample at ``idx``; see the class."""
        index = int(idx) + (len(self) if idx < 0 else 0)
        if self.serialize_data:
            row = int(self.data_bytes[8 * index : 8 * index + 8].view(np.int64)[0])
        else:
            row = int(self.data_list[index])  # type: ignore[call-overload]
        level = LEVELS[int(self._l2a[row])]
        return {
            'img_path': str(self._file),
            'row': row,
            'packed': self.packed is not None,
            'verify_tile': self.verify,
            'tile_id': self._ids[row].decode(errors='replace'),
            's2_type': level,
            'sensor': _SENSORS[level],
            'band_stats': self._band_stats,
            'sample_idx': index,
        }

    def _serialize_data(self) -> tuple[np.ndarray, np.ndarray]:
        rows = np.array(self.data_list, np.int64)
        self.data_list.clear()
        return rows.view(np.uint8), 8 * np.arange(1, len(rows) + 1)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise DatasetNotFoundError('no such file', path=path, hint=f'Expected: {_LAYOUT}') from None
    except (ValueError, UnicodeDecodeError) as error:
        raise CorruptImageError(f'is no JSON ({error})', path=path) from error
