# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What the two versions of BigEarthNet share: modalities, filters, classes, missing files."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mmengine.logging import print_log
from mmpretrain.datasets import MultiLabelDataset

from mmrsfm.datasets.bigearthnet_labels import CLASSES
from mmrsfm.datasets.bigearthnet_table import SEASONS, SPLITS, Patch, read_table, season_of
from mmrsfm.errors import ConfigError, DatasetNotFoundError

BANDS: dict[str, tuple[str, ...]] = {
    's1': ('VH', 'VV'),
    's2': (
        'B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B11', 'B12',
    ),
}  # fmt: skip
ON_MISSING = ('error', 'skip')


class BigEarthNet(MultiLabelDataset):
    """Base of :class:`BigEarthNetV1` and :class:`BigEarthNetV2`: patches of 1.2 km, several labels.

    A sample has ``img_path`` (one file, or Zarr array, for each band of all modalities, in the
    order of ``band_names``) for :class:`mmrsfm.LoadMultiBandImage`, which resamples Sentinel-2's 20
    and 60 m bands to 10 m; ``modality_paths``, the same by modality, for
    :class:`mmrsfm.LoadModalities`; ``gt_label``, the sorted numbers of its classes (none, one or
    several); ``sample_name``; and, where known, ``country`` and ``season``.

    Sentinel-1 is backscatter in dB, VH before VV, float32, 120 x 120 pixels; Sentinel-2 is level
    2A, reflectance times 1e4, uint16, without B10.

    Args:
        data_root: Folder of the dataset.
        data_prefix: From ``'s1'`` and ``'s2'`` to their folders below ``data_root``.
        ann_file: Table of the patches, or several, relative to ``data_root``; see
            :func:`mmrsfm.datasets.bigearthnet_table.read_table`.
        modalities: ``('s1',)``, ``('s2',)`` or both, in the order of the channels.
        num_classes: 19, or the 43 of CORINE Land Cover level 3 that they are made of.
        split: ``'train'``, ``'val'`` or ``'test'``, or several of them, where the table has a
            column for it. ``None``: every row.
        countries: Which countries are read, as the table writes them (``'Portugal'``). ``None``:
            all.
        seasons: Which of ``'winter'`` (December to February), ``'spring'``, ``'summer'``,
            ``'autumn'``: by the date of Sentinel-2 where the table names it, otherwise of
            Sentinel-1, a few days apart. ``None``: all.
        on_missing: What to do with patches of which files are missing. ``'error'``: the loader
            names the file when it comes to it (only the first patch is looked for before).
            ``'skip'``: every file is looked for, and incomplete patches are left out, with a
            warning that counts them. For patches with a part of their bands:
            ``LoadMultiBandImage(missing='invalid')``; for NaN: ``max_invalid`` there.
        keep_unlabelled: Whether patches without any of the classes are kept, as negative examples
            of all (so do the published runs).
        **kwargs: As of mmpretrain's BaseDataset (``pipeline``, ``indices``, ...).

    Raises:
        ConfigError: For contradictory arguments.
        DatasetNotFoundError: A folder or a table is missing, or nothing is left.
        DataError: The table holds what it should not, with the line.
    """

    METAINFO: ClassVar[dict[str, Any]] = {}
    default_prefix: ClassVar[dict[str, str]]
    layout: ClassVar[str]
    citation: ClassVar[str]
    licence: ClassVar[str] = 'Community Data License Agreement - Permissive 1.0'

    def __init__(
        self,
        data_root: str = '',
        data_prefix: Mapping[str, str] | None = None,
        ann_file: str | Sequence[str] = '',
        modalities: Sequence[str] = ('s1',),
        num_classes: int = 19,
        split: str | Sequence[str] | None = None,
        countries: Sequence[str] | None = None,
        seasons: Sequence[str] | None = None,
        on_missing: str = 'error',
        keep_unlabelled: bool = True,
        **kwargs: Any,
    ) -> None:
        self.modalities = self._known('modalities', modalities, BANDS)
        if num_classes not in CLASSES:
            raise ConfigError(f'{type(self).__name__}: num_classes is 19 or 43, got {num_classes}')
        self.num_classes = num_classes
        self.split = None if split is None else self._known('split', split, SPLITS)
        self.seasons = None if seasons is None else self._known('seasons', seasons, SEASONS)
        self.countries = (countries,) if isinstance(countries, str) else countries
        self.on_missing = self._known('on_missing', on_missing, ON_MISSING)[0]
        self.keep_unlabelled = keep_unlabelled
        self.bands = tuple(band for name in self.modalities for band in BANDS[name])
        tables = [ann_file] if isinstance(ann_file, str) else list(ann_file)
        self.tables = [Path(data_root, table).expanduser() for table in tables if table]
        prefix = {**self.default_prefix, **(data_prefix or {})}
        kwargs.setdefault('classes', CLASSES[num_classes])
        super().__init__(
            ann_file='',
            data_root=data_root,
            data_prefix={name: prefix[name] for name in self.modalities},
            **kwargs,
        )

    def _known(
        self, what: str, given: str | Sequence[str], known: Iterable[str]
    ) -> tuple[str, ...]:
        names = (given,) if isinstance(given, str) else tuple(given)
        if not names or set(names) - set(known) or len(set(names)) < len(names):
            raise ConfigError(
                f'{type(self).__name__}: {what} is one or some of {list(known)}, got {given!r}'
            )
        return names

    @abstractmethod
    def find_patches(self) -> list[Patch]:
        """The patches of the folders, where there is no table."""

    @abstractmethod
    def patch_name(self, patch: Patch, modality: str) -> str | None:
        """Name of the folder of a patch of a modality; ``None`` where the table does not say it."""

    @abstractmethod
    def band_paths(self, name: str, modality: str) -> list[str]:
        """The files of a patch, in the order of :data:`BANDS`."""

    @abstractmethod
    def labels_of(self, patch: Patch, names: Mapping[str, str]) -> list[int]:
        """Numbers of the classes of a patch; ``names`` are those of its folders."""

    def load_data_list(self) -> list[dict[str, Any]]:
        """Lists the patches: names and labels; paths are made when a patch is asked for."""
        for modality in self.modalities:
            if not Path(self.data_prefix[modality]).is_dir():
                raise self.not_found('no such folder', self.data_prefix[modality])
        patches = [patch for table in self.tables for patch in read_table(table)]
        if not self.tables:
            patches = self.find_patches()
        samples: list[dict[str, Any]] = []
        incomplete: list[str] = []
        for patch in patches:
            if not self._wanted(patch):
                continue
            names = {modality: self._name(patch, modality) for modality in self.modalities}
            if self.on_missing == 'skip' or not samples:
                missing = self._first_missing(names)
                if missing is not None:
                    incomplete.append(missing)
                    if self.on_missing == 'error':
                        break
                    continue
            labels = self.labels_of(patch, names)
            if not labels and not self.keep_unlabelled:
                continue
            sample: dict[str, Any] = {'names': names, 'gt_label': labels}
            if patch.country is not None:
                sample['country'] = patch.country
            if patch.month is not None:
                sample['season'] = season_of(patch.month)
            samples.append(sample)
        self._report(incomplete)
        if not samples:
            raise self.not_found(
                f'none of {len(patches)} patches is left (split {self.split}, countries '
                f'{self.countries}, seasons {self.seasons})',
                self.tables[0] if self.tables else self.data_root,
            )
        return samples

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The sample at ``idx``; see the class."""
        info = super().get_data_info(idx)
        names = info.pop('names')
        paths = {modality: self.band_paths(names[modality], modality) for modality in names}
        info['sample_name'] = next(iter(names.values()))
        info['modality_paths'] = paths
        info['img_path'] = [path for modality in self.modalities for path in paths[modality]]
        info['band_names'] = self.bands
        return info

    def extra_repr(self) -> list[str]:
        """Lines for ``repr``."""
        return [
            f'Tables: \t{[str(table) for table in self.tables]}',
            f'Folders: \t{dict(self.data_prefix)}',
            f'Split: \t{self.split}',
        ]

    def not_found(self, reason: str, path: str | Path | None) -> DatasetNotFoundError:
        """The error with the layout that is expected."""
        return DatasetNotFoundError(
            reason, path=path, hint=f'Expected: {self.layout} ({self.citation})'
        )

    def _wanted(self, patch: Patch) -> bool:
        for what, wanted, value in (
            ('split', self.split, patch.split),
            ('countries', self.countries, patch.country),
            ('seasons', self.seasons, patch.month and season_of(patch.month)),
        ):
            if wanted is None:
                continue
            if value is None:
                raise ConfigError(
                    f'{type(self).__name__}: {what}={list(wanted)} asks for what is not known of '
                    f'{patch.s2 or patch.s1}: the tables {[str(one) for one in self.tables]} have '
                    'no such column; the official metadata of version 2 have it'
                )
            if value not in wanted:
                return False
        return True

    def _name(self, patch: Patch, modality: str) -> str:
        name = self.patch_name(patch, modality)
        if name is None:
            raise self.not_found(
                f'does not name the {modality.upper()} patch of '
                f'{patch.s2 or patch.s2_v1 or patch.s1}',
                self.tables[0] if self.tables else self.data_root,
            )
        return name

    def _first_missing(self, names: Mapping[str, str]) -> str | None:
        paths = (p for modality, name in names.items() for p in self.band_paths(name, modality))
        return next((path for path in paths if not Path(path).exists()), None)

    def _report(self, incomplete: Sequence[str]) -> None:
        if not incomplete:
            return
        if self.on_missing == 'error':
            raise self.not_found('no such file, of the first patch', incomplete[0])
        print_log(
            f'{type(self).__name__}: {len(incomplete)} patch(es) lack a file and are left out; the '
            f'first missing one is {incomplete[0]}',
            logger='current',
            level=logging.WARNING,
        )
