# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Images of several modalities of the same places, paired by name."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmengine.dataset import BaseDataset, force_full_init
from mmengine.logging import print_log

from mmrsfm.datasets.pair_index import PairIndex, PairRules, load_index
from mmrsfm.datasets.tile_dataset import SUFFIXES
from mmrsfm.errors import ConfigError, DatasetNotFoundError
from mmrsfm.registry import DATASETS
from mmrsfm.utils.conversion import read_text

ON_MISSING = ('error', 'skip', 'keep')


@DATASETS.register_module()
class PairedModalityDataset(BaseDataset):
    """Folders of images, one a modality; files of the same name are of the same place.

    Layout::

        {data_root}/
        ├── {data_prefix[rgb]}/NAME.tif ...
        └── {data_prefix[sar]}/NAME.tif ...

    The samples are in the order of the names. A sample has ``modality_paths`` (from modality to
    path, ``None`` where it is missing), ``img_path`` (the first of them), ``sensor`` and
    ``sample_idx``; :class:`mmrsfm.LoadModalities` reads it.

    Only names are kept in memory, about 50 bytes a sample.

    Args:
        data_root: Folder of the dataset.
        data_prefix: From the name of each modality to its folder below ``data_root``.
        ann_file: Optional list of names (without the endings of ``file_suffix``; else as the files
            are called, with or without suffix), one a line, relative to ``data_root``: a split.
        sensor: Name of the sensor of all samples, for statistics by sensor.
        file_suffix: By modality, what follows the common part of the names, e.g.
            ``dict(rgb='_pre_disaster.tif', sar='_post_disaster.tif')``. ``None``: the files of a
            pair have the same name.
        suffixes: Endings of images, in small letters, where ``file_suffix`` is ``None``. Other
            files, and hidden ones, are passed over.
        recursive: Whether to look into folders below.
        on_missing: What to do with an image whose partner is missing: ``'error'``; ``'skip'``,
            which says how many; ``'keep'``: a sample in which that modality is missing.
        index_file: Where the list of pairs is kept, for datasets that take long to list; it may lie
            outside ``data_root``, relative paths start where the program does. It is written once,
            by one process, and again when files were added, removed or renamed. ``None``: the
            folders are listed every time.
        **kwargs: As of MMEngine's BaseDataset (``pipeline``, ``metainfo``, ``indices``, ...).

    Attributes:
        num_incomplete: Number of names whose partner is missing.

    Raises:
        DatasetNotFoundError: A folder or list is missing, holds nothing, or an image has no
            partner.
        ConfigError: For contradictory arguments.
    """

    layout: ClassVar[str] = 'one folder a modality (data_prefix), files of a pair named alike'
    citation: ClassVar[str] = ''
    licence: ClassVar[str] = ''

    def __init__(
        self,
        data_root: str = '',
        data_prefix: Mapping[str, str] | None = None,
        ann_file: str = '',
        sensor: str | None = None,
        file_suffix: Mapping[str, str] | None = None,
        suffixes: Sequence[str] = SUFFIXES,
        recursive: bool = False,
        on_missing: str = 'error',
        index_file: str | None = None,
        **kwargs: Any,
    ) -> None:
        prefix = dict(rgb='rgb', sar='sar') if data_prefix is None else dict(data_prefix)
        who = type(self).__name__
        if on_missing not in ON_MISSING:
            raise ConfigError(f'{who}: on_missing must be one of {ON_MISSING}, got {on_missing!r}')
        if not prefix:
            raise ConfigError(f'{who}: data_prefix names no modality')
        if file_suffix is not None and set(file_suffix) != set(prefix):
            raise ConfigError(
                f'{who}: file_suffix is for {list(file_suffix)}, data_prefix for {list(prefix)}'
            )
        self.sensor = sensor
        self.on_missing = on_missing
        self.index_file = None if index_file is None else Path(index_file)
        endings = tuple(suffix.lower() for suffix in suffixes)
        self.rules = PairRules(
            suffixes={
                name: endings if file_suffix is None else (file_suffix[name],) for name in prefix
            },
            whole_name=file_suffix is None,
            recursive=recursive,
        )
        self.num_incomplete = 0
        super().__init__(ann_file=ann_file, data_root=data_root, data_prefix=prefix, **kwargs)

    def groups(self) -> list[tuple[str | None, dict[str, Path]]]:
        """The sensors, and for each the folder of each modality."""
        return [(self.sensor, {name: Path(path) for name, path in self.data_prefix.items()})]

    def load_data_list(self) -> list[Any]:
        """Lists the samples, as text: ``group<TAB>name<TAB>missing modality...``."""
        self._groups = self.groups()
        try:
            found = load_index(
                [folders for _, folders in self._groups], self.rules, self.index_file
            )
        except DatasetNotFoundError as error:
            raise self.not_found(error.reason, error.path) from None
        wanted = self._read_list(found) if self.ann_file else None
        samples = []
        lacking: list[tuple[str, tuple[str, ...]]] = []
        for number, index in enumerate(found):
            for key in index.keys:
                if wanted is not None and key not in wanted:
                    continue
                missing = index.incomplete.get(key, ())
                if missing:
                    lacking.append((self._path(number, key, missing), missing))
                    if self.on_missing == 'skip':
                        continue
                samples.append('\t'.join([str(number), key, *missing]))
        self.num_incomplete = len(lacking)
        if lacking:
            self._report(lacking)
        if not samples:
            raise self.not_found('holds no pair', self.data_root or '.')
        return samples

    def not_found(self, reason: str, path: str | Path | None) -> DatasetNotFoundError:
        """The error with the layout that is expected."""
        source = f' ({self.citation})' if self.citation else ''
        return DatasetNotFoundError(reason, path=path, hint=f'Expected: {self.layout}{source}')

    @force_full_init
    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The sample at ``idx``; see the class."""
        index = int(idx) + (len(self) if idx < 0 else 0)
        if self.serialize_data:
            start = 0 if index == 0 else int(self.data_address[index - 1])
            end = int(self.data_address[index])
            row = self.data_bytes[start:end].tobytes().decode('utf-8', 'surrogateescape')
        else:
            row = self.data_list[index]  # type: ignore[assignment]
        number, key, *missing = row.split('\t')
        sensor, folders = self._groups[int(number)]
        paths = {
            name: None if name in missing else str(folder / self._name(name, key))
            for name, folder in folders.items()
        }
        info: dict[str, Any] = {
            'modality_paths': paths,
            'img_path': next(path for path in paths.values() if path is not None),
            'sample_idx': index,
        }
        if sensor is not None:
            info['sensor'] = sensor
        return info

    def _serialize_data(self) -> tuple[np.ndarray, np.ndarray]:
        rows = [str(row).encode('utf-8', 'surrogateescape') for row in self.data_list]
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        self.data_list.clear()
        return np.frombuffer(b''.join(rows), dtype=np.uint8), np.cumsum(lengths)

    def _name(self, modality: str, key: str) -> str:
        return key if self.rules.whole_name else key + self.rules.suffixes[modality][0]

    def _path(self, number: int, key: str, missing: Sequence[str]) -> str:
        """A file of the pair that is there."""
        folders = self._groups[number][1]
        name = next(name for name in folders if name not in missing)
        return str(folders[name] / self._name(name, key))

    def _report(self, lacking: list[tuple[str, tuple[str, ...]]]) -> None:
        path, missing = lacking[0]
        what = f'{len(lacking)} image(s) have no partner'
        if self.on_missing == 'error':
            raise DatasetNotFoundError(
                f'has no {" and no ".join(missing)} of the same name ({what})',
                path=path,
                hint="on_missing='skip' leaves them out, 'keep' takes them with that modality "
                f'missing. Expected: {self.layout}',
            )
        done = 'they are left out' if self.on_missing == 'skip' else 'that modality is missing'
        print_log(
            f'{type(self).__name__}: {what}, the first is {path} (no {", no ".join(missing)}); '
            f'{done}',
            logger='current',
            level=logging.WARNING,
        )

    def _read_list(self, found: Sequence[PairIndex]) -> set[str]:
        source = Path(self.ann_file)
        if not source.is_file():
            raise self.not_found('no such list of names (ann_file)', source)
        by_name: dict[str, str] = {}
        twice: set[str] = set()
        for key in itertools.chain.from_iterable(index.keys for index in found):
            short = key if not self.rules.whole_name else key.rpartition('.')[0]
            if by_name.setdefault(short, key) != key:  # a.tif and a.png
                twice.add(short)
            by_name[key] = key
        wanted = set()
        for number, line in enumerate(read_text(source, 'list of names').splitlines(), start=1):
            if not line.strip():
                continue
            if line.strip() not in by_name:
                raise self.not_found(f'line {number}: there is no {line.strip()}', source)
            if line.strip() in twice:
                raise self.not_found(
                    f'line {number}: {line.strip()} is more than one file; name them with suffix',
                    source,
                )
            wanted.add(by_name[line.strip()])
        return wanted
