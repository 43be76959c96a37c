# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Scene classification from images of several modalities of the same places."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mmpretrain.datasets import BaseDataset

from mmrsfm.datasets.paired_modality_dataset import PairedModalityDataset
from mmrsfm.errors import ConfigError, DataError, DatasetNotFoundError
from mmrsfm.registry import DATASETS
from mmrsfm.utils.conversion import read_rows

_FORMATS = ('.csv', '.json')


@DATASETS.register_module()
class ScenePairDataset(BaseDataset):
    """A folder of images for each modality; classes from folders, from a CSV or from a JSON file.

    Layout, with the folders of the classes inside those of the modalities, or with a list::

        {data_root}/                             {data_root}/
        ├── {data_prefix[rgb]}/{class}/*.tif     ├── {data_prefix[rgb]}/*.tif
        └── {data_prefix[sar]}/{class}/*.tif     ├── {data_prefix[sar]}/*.tif
                                                 └── labels.csv (ann_file)

    Lists name files below the folders of the modalities, with or without suffix:

    * CSV, with a header. ``name,label``: a class, several with ``;`` between them, or none; or
      ``name,<class>,<class>,...``: a column of 0 and 1 for each class.
    * JSON in mmpretrain's form: ``metainfo.classes`` and ``data_list`` of ``img_path`` and
      ``gt_label`` (a number or a list of numbers).

    A sample has ``modality_paths`` for :class:`mmrsfm.LoadModalities`, ``img_path`` and
    ``gt_label``. To test a model without a modality, leave it out of ``data_prefix``.

    Args:
        data_root: Folder of the dataset.
        data_prefix: From the name of each modality to its folder.
        ann_file: The list, relative to ``data_root``; empty: the folders are the classes.
        multi_label: Whether a place has any number of classes: ``gt_label`` is a list then.
        on_missing: See :class:`mmrsfm.PairedModalityDataset`: ``'error'``, ``'skip'``, ``'keep'``.
        file_suffix: See there.
        **kwargs: As of mmpretrain's BaseDataset (``classes``, ``metainfo``, ``pipeline``, ...).
            Without classes there, those of the list, or the sorted names of the folders.

    Raises:
        ConfigError: For contradictory arguments.
        DatasetNotFoundError: Something is missing.
        DataError: The list holds what it should not, with the line.
    """

    layout: ClassVar[str] = (
        '{data_prefix[modality]}/{class}/<name>, or {data_prefix[modality]}/<name> and a list'
    )

    def __init__(
        self,
        data_root: str = '',
        data_prefix: Mapping[str, str] | None = None,
        ann_file: str = '',
        multi_label: bool = False,
        on_missing: str = 'error',
        file_suffix: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        who = type(self).__name__
        if ann_file and Path(ann_file).suffix.lower() not in _FORMATS:
            raise ConfigError(f'{who}: ann_file must be one of {_FORMATS}, got {ann_file!r}')
        if multi_label and not ann_file:
            raise ConfigError(f'{who}: folders give one class a place; multi_label needs ann_file')
        self.multi_label = multi_label
        self._file_suffix = None if file_suffix is None else dict(file_suffix)
        self._pairs: dict[str, Any] = dict(
            data_root=data_root,
            data_prefix=dict(rgb='rgb', sar='sar') if data_prefix is None else dict(data_prefix),
            on_missing=on_missing,
            file_suffix=self._file_suffix,
            recursive=True,
        )
        super().__init__(ann_file=ann_file, data_root=data_root, data_prefix='', **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Lists the places and their classes; see the class."""
        pairs = PairedModalityDataset(**self._pairs)
        found: dict[str, dict[str, Any]] = {}
        for index in range(len(pairs)):
            sample = pairs.get_data_info(index)
            found[self._name(sample, pairs.data_prefix)] = sample
        rows = self._from_list(found) if self.ann_file else self._from_folders(found)
        classes = self._metainfo['classes']
        samples = []
        for name, labels in rows:
            if not self.multi_label and len(labels) != 1:
                raise self._wrong(f'{name} has {len(labels)} classes; multi_label=False wants one')
            if any(not 0 <= label < len(classes) for label in labels):
                raise self._wrong(f'{name} has classes {labels}, there are {len(classes)}')
            sample = {**found[name], 'gt_label': list(labels) if self.multi_label else labels[0]}
            samples.append(sample)
        return samples

    def _name(self, sample: Mapping[str, Any], folders: Mapping[str, str]) -> str:
        for key, path in sample['modality_paths'].items():
            if path is not None:
                name = Path(path).relative_to(folders[key]).as_posix()
                return name.removesuffix((self._file_suffix or {}).get(key, ''))
        raise AssertionError('a pair without a file')

    def _from_folders(self, found: Iterable[str]) -> list[tuple[str, list[int]]]:
        names = list(found)
        stray = [name for name in names if '/' not in name]
        if stray:
            raise self._wrong(f'{stray[0]} is in no folder of a class')
        index = self._index(sorted({name.split('/')[0] for name in names}))
        return [(name, [self._number(name.split('/')[0], index, name)]) for name in names]

    def _from_list(self, found: Mapping[str, Any]) -> list[tuple[str, list[int]]]:
        source = Path(self.ann_file)
        if not source.is_file():
            raise DatasetNotFoundError('no such list (ann_file)', source, hint=self.layout)
        known: dict[str, str] = {}
        twice: set[str] = set()
        for name in found:
            short = str(Path(name).with_suffix(''))
            if known.setdefault(short, name) != name:  # a.tif and a.png
                twice.add(short)
        known.update({name: name for name in found})
        read = self._read_csv if source.suffix.lower() == '.csv' else self._read_json
        rows = []
        for name, labels in read(source):
            if name not in known:
                raise self._wrong(f'there is no {name}')
            if name in twice and name not in found:
                raise self._wrong(f'{name} is more than one file; name them with suffix')
            rows.append((known[name], labels))
        if not rows:
            raise self._wrong('the list names nothing')
        return rows

    def _read_csv(self, source: Path) -> list[tuple[str, list[int]]]:
        header, *lines = read_rows(source, 'table of labels') or [[]]
        if len(header) < 2:
            raise self._wrong('the first line must be "name,label" or "name,<class>,<class>,..."')
        for number, row in enumerate(lines, start=2):
            if len(row) != len(header):
                raise self._wrong(f'line {number} has {len(row)} fields, the first {len(header)}')
        if len(header) == 2:
            split = [[part.strip() for part in row[1].split(';') if part.strip()] for row in lines]
            index = self._index(sorted({name for names in split for name in names}))
            return [
                (row[0].strip(), [self._number(name, index, row[0]) for name in names])
                for row, names in zip(lines, split, strict=True)
            ]
        titles = [title.strip() for title in header[1:]]
        index = self._index(titles)
        columns = [self._number(title, index, 'the first line') for title in titles]
        rows = []
        for number, (name, *values) in enumerate(lines, start=2):
            if any(value.strip() not in ('0', '1') for value in values):
                raise self._wrong(f'line {number}: the columns of the classes hold 0 and 1')
            chosen = [c for c, value in zip(columns, values, strict=True) if value.strip() == '1']
            rows.append((name.strip(), sorted(chosen)))
        return rows

    def _read_json(self, source: Path) -> list[tuple[str, list[int]]]:
        try:
            content = json.loads(source.read_text(encoding='utf-8'))
            entries = [(one['img_path'], one['gt_label']) for one in content['data_list']]
            titles = content.get('metainfo', {}).get('classes')
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._wrong(
                f'is not of the form of mmpretrain ({type(error).__name__}: {error})'
            ) from error
        if titles is not None:
            stated = self._metainfo.get('classes')
            if stated is not None and list(stated) != list(titles):
                raise self._wrong(f'its classes are {titles[:5]}, the config says {stated[:5]}')
            self._metainfo['classes'] = tuple(titles)
        elif self._metainfo.get('classes') is None:
            raise self._wrong('names no classes (metainfo.classes), neither does the config')
        count = len(self._metainfo['classes'])
        found = []
        for name, label in entries:
            numbers = [label] if isinstance(label, int) else label
            if not isinstance(numbers, list) or any(
                type(one) is not int or not 0 <= one < count for one in numbers
            ):
                raise self._wrong(
                    f'{name}: gt_label is a number in 0..{count - 1} or a list of them, got {label}'
                )
            found.append((name, numbers))
        return found

    def _index(self, names: Sequence[str]) -> dict[str, int]:
        """Class names to numbers; those of the config, or these."""
        if self._metainfo.get('classes') is None:
            self._metainfo['classes'] = tuple(names)
        return {_key(name): number for number, name in enumerate(self._metainfo['classes'])}

    def _number(self, name: str, index: Mapping[str, int], where: str) -> int:
        if _key(name) not in index:
            raise self._wrong(
                f'{where}: {name!r} is none of the classes {list(self._metainfo["classes"])[:8]}'
            )
        return index[_key(name)]

    def _wrong(self, reason: str) -> DataError:
        path = self.ann_file or self._pairs['data_root'] or '.'
        return DataError(reason, path, hint=f'Expected: {self.layout}')


def _key(name: str) -> str:
    return ''.join(letter for letter in name.lower() if letter.isalnum())
