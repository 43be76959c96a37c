# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Semantic segmentation of places that several sensors, or one at several dates, have seen."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mmengine.logging import print_log
from mmseg.datasets import BaseSegDataset

from mmrsfm.datasets.paired_modality_dataset import ON_MISSING
from mmrsfm.errors import ConfigError, DatasetNotFoundError
from mmrsfm.registry import DATASETS
from mmrsfm.utils.conversion import read_text

LABEL = 'seg_map_path'


@DATASETS.register_module()
class MultiModalSegDataset(BaseSegDataset):
    """A folder of images for each modality, and one of label maps; a place has one name in all.

    Layout, for ``data_prefix=dict(rgb='rgb', sar='sar', seg_map_path='label')``::

        data_root/
        ├── rgb/    a.tif b.tif ...      (file_suffix['rgb'])
        ├── sar/    a.tif b.tif ...      (file_suffix['sar'])
        └── label/  a.tif b.tif ...      (file_suffix['seg_map_path'])

    A sample has ``modality_paths`` (modality to file) for :class:`mmrsfm.LoadModalities`,
    ``img_path`` (of the first modality) and ``seg_map_path``. A modality that ``data_prefix`` does
    not name is not in ``modality_paths``: to test a model without it, leave it out there.

    Args:
        file_suffix: For each key of ``data_prefix`` what follows the name of a place in its files,
            or several such, of which the first that fits counts. A key that is not there has
            ``'.tif'``. Hidden files never count.
        on_missing: What to do with a place that lacks an image: ``'error'``; ``'skip'`` it, and
            say how many; ``'keep'``: the path of that modality is ``None``. One image at least it
            must have.
        **kwargs: As of mmseg's BaseSegDataset. ``data_prefix`` as above; without ``seg_map_path``
            there are no labels. ``ann_file``: a text file with one name a line, which selects the
            places; otherwise all that have a label map, or without label maps, an image.

    Raises:
        DatasetNotFoundError: A folder or the list is missing or empty, or a place lacks a file.
    """

    # Overridden by benchmarks.
    prefixes: ClassVar[Mapping[str, str]] = {}
    file_suffix: ClassVar[Mapping[str, str | Sequence[str]]] = {}
    layout: ClassVar[str] = 'one folder for each modality and one for label maps, names alike'
    citation: ClassVar[str] = ''

    def __init__(
        self,
        file_suffix: Mapping[str, str | Sequence[str]] | None = None,
        on_missing: str = 'error',
        data_prefix: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        if on_missing not in ON_MISSING:
            raise ConfigError(
                f'{type(self).__name__}: on_missing is one of {ON_MISSING}, got {on_missing!r}'
            )
        self.on_missing = on_missing
        prefix = dict(self.prefixes if data_prefix is None else data_prefix)
        if not set(prefix) - {LABEL}:
            raise ConfigError(
                f'{type(self).__name__}: data_prefix names no modality, got {prefix}; e.g. '
                "dict(rgb='rgb', sar='sar', seg_map_path='label')"
            )
        given = {**dict.fromkeys(prefix, '.tif'), **self.file_suffix, **(file_suffix or {})}
        self._endings = {
            key: (value,) if isinstance(value, str) else tuple(value)
            for key, value in given.items()
        }
        super().__init__(data_prefix=prefix, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Lists the places; see the class."""
        found = {key: self.find_files(key) for key in self.data_prefix}
        modalities = [key for key in found if key != LABEL]
        names = self._choose(found)
        classes = self._metainfo.get('classes')
        samples, lacking, skipped = [], [], 0
        for name in names:
            paths = {key: found[key].get(name) for key in modalities}
            present = [path for path in paths.values() if path is not None]
            missing = [key for key, path in paths.items() if path is None]
            if missing and (self.on_missing != 'keep' or not present):
                if self.on_missing == 'skip':
                    skipped += 1
                    continue
                lacking.append(f'{name} ({", ".join(missing)})')
                continue
            sample: dict[str, Any] = {'img_path': present[0], 'modality_paths': paths}
            if LABEL in found:
                if name not in found[LABEL]:
                    lacking.append(f'{name} ({LABEL})')
                    continue
                sample[LABEL] = found[LABEL][name]
            sample.update(
                label_map=self.label_map, reduce_zero_label=self.reduce_zero_label, seg_fields=[]
            )
            if classes is not None:
                sample['num_classes'] = len(classes)
            samples.append(sample)
        if lacking or not samples:
            raise self.not_found(
                f'{len(lacking)} of {len(names)} places lack files, the first are '
                f'{"; ".join(lacking[:3])}'
                if lacking
                else 'no place has images of all modalities',
                self.data_root or '.',
            )
        if skipped:
            print_log(
                f'{type(self).__name__}: {skipped} of {len(names)} places lack images and are left '
                'out',
                logger='current',
                level=logging.WARNING,
            )
        return samples

    def find_files(self, key: str) -> dict[str, str]:
        """Files of a modality, or label maps.

        Args:
            key: A key of ``data_prefix``.

        Returns:
            From the names of the places to paths, sorted.
        """
        folder = Path(self.data_prefix[key])
        if not folder.is_dir():
            raise self.not_found(f"no such folder (data_prefix['{key}'])", folder)
        found = self._scan(folder, key)
        if not found:
            raise self.not_found(
                f'holds no file that ends in {" or ".join(self._endings[key])}', folder
            )
        return found

    def _scan(self, folder: Path, key: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for path in sorted(folder.iterdir()):
            if path.name.startswith('.'):
                continue
            ending = next((end for end in self._endings[key] if path.name.endswith(end)), None)
            if ending is not None:
                found.setdefault(path.name[: len(path.name) - len(ending)], str(path))
        return found

    def _choose(self, found: Mapping[str, Mapping[str, str]]) -> list[str]:
        if self.ann_file:
            source = Path(self.ann_file)
            if not source.is_file():
                raise self.not_found('no such list of names (ann_file)', source)
            lines = read_text(source, 'list of names').splitlines()
            names = [line.strip() for line in lines if line.strip()]
            if not names:
                raise self.not_found('the list names nothing', source)
            return names
        if LABEL in found:
            return sorted(found[LABEL])
        return sorted({name for table in found.values() for name in table})

    def not_found(self, reason: str, path: str | Path) -> DatasetNotFoundError:
        """The error with the layout that is expected."""
        source = f' ({self.citation})' if self.citation else ''
        return DatasetNotFoundError(reason, path=path, hint=f'Expected: {self.layout}{source}')
