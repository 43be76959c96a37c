# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pairs of images of two dates with a map of what has changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.fileio import list_dir_or_file, list_from_file
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS as MMSEG_DATASETS

from mmrsfm.compat.opencd.registry import DATASETS
from mmrsfm.errors import ConfigError, DatasetNotFoundError

_LAYOUT = (
    "Expected: images of one name in data_prefix['img_path_from'] and ['img_path_to'], maps of "
    "that name in ['seg_map_path']"
)


@DATASETS.register_module()
class _BaseCDDataset(BaseSegDataset):
    """Three folders with files of the same names: first date, second date, change maps.

    Layout::

        data_root/
        ├── {data_prefix['img_path_from']}/   a.png b.png ...      (img_suffix)
        ├── {data_prefix['img_path_to']}/     a.png b.png ...      (img_suffix)
        └── {data_prefix['seg_map_path']}/    a.png b.png ...      (seg_map_suffix)

    Items have ``img_path`` (a list: first and second date), ``seg_map_path``, ``label_map``,
    ``format_seg_map``, ``reduce_zero_label``, ``num_classes`` and ``seg_fields``; they are sorted
    by the path of the first date. Registered with mmseg too, where Open-CD has it.

    Args:
        ann_file: A text file with one name a line, without suffix; by default all images count,
            those in subfolders too.
        img_suffix: Suffix of the images; ``''`` takes any file.
        seg_map_suffix: Suffix of the maps, which replaces that of the images.
        format_seg_map: ``'to_binary'``: maps hold 0 (unchanged) and 255 (changed), see
            MultiImgLoadAnnotations; ``None``: they hold class numbers.
        metainfo: ``dict(classes=(...), palette=[...])``.
        data_prefix: See above. Without ``seg_map_path`` the dataset has no maps.
        **kwargs: As of mmseg's BaseSegDataset (``data_root``, ``pipeline``, ``test_mode``, ...).

    Raises:
        ConfigError: For an unknown ``format_seg_map`` or incomplete prefixes.
        DatasetNotFoundError: If a folder is missing or empty, or the folders hold different files.
    """

    def __init__(
        self,
        ann_file: str = '',
        img_suffix: str = '.jpg',
        seg_map_suffix: str = '.png',
        format_seg_map: str | None = None,
        metainfo: dict[str, Any] | None = None,
        data_prefix: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        if format_seg_map not in (None, 'to_binary'):
            raise ConfigError(
                f"{type(self).__name__}: format_seg_map is None or 'to_binary', got "
                f'{format_seg_map!r}'
            )
        if data_prefix is None:
            data_prefix = dict(img_path_from='', img_path_to='', seg_map_path='')
        missing = {'img_path_from', 'img_path_to'} - set(data_prefix)
        if missing:
            raise ConfigError(
                f'{type(self).__name__}: data_prefix has no {" and no ".join(sorted(missing))}. '
                f'{_LAYOUT}'
            )
        self.format_seg_map = format_seg_map
        super().__init__(
            ann_file=ann_file,
            img_suffix=img_suffix,
            seg_map_suffix=seg_map_suffix,
            metainfo=metainfo,
            # None says "no such folder", which MMEngine does not let pass.
            data_prefix={key: value for key, value in data_prefix.items() if value is not None},
            **kwargs,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Lists the pairs, and checks that both dates and the maps are there."""
        folders = [self.data_prefix['img_path_from'], self.data_prefix['img_path_to']]
        label_folder = self.data_prefix.get('seg_map_path')
        if self.ann_file:
            names = self._listed_names(folders)
        else:
            names = self._found_names(folders)
        classes = self._metainfo.get('classes')
        samples = []
        for name in names:
            sample: dict[str, Any] = {'img_path': [_join(folder, name) for folder in folders]}
            if label_folder is not None:
                stem = name.removesuffix(self.img_suffix)
                sample['seg_map_path'] = _join(label_folder, f'{stem}{self.seg_map_suffix}')
            sample['label_map'] = self.label_map
            sample['format_seg_map'] = self.format_seg_map
            sample['reduce_zero_label'] = self.reduce_zero_label
            sample['num_classes'] = None if not classes else len(self._stored_classes(classes))
            sample['seg_fields'] = []
            samples.append(sample)
        if label_folder is not None:
            self._check_there([sample['seg_map_path'] for sample in samples], 'change maps')
        return sorted(samples, key=lambda sample: sample['img_path'][0])

    def _stored_classes(self, classes: Sequence[str]) -> Sequence[str]:
        """The classes that the files know: those of the class, if a config selects a part."""
        return self.METAINFO.get('classes', classes)

    def _listed_names(self, folders: Sequence[str]) -> list[str]:
        if self._is_local and not Path(self.ann_file).is_file():
            raise DatasetNotFoundError(
                'no such list of names (ann_file)',
                path=self.ann_file,
                hint='Leave ann_file out to take all images of the folders',
            )
        lines = list_from_file(self.ann_file, backend_args=self.backend_args)
        names = [f'{line.strip()}{self.img_suffix}' for line in lines if line.strip()]
        if not names:
            raise DatasetNotFoundError('the list of names is empty', path=self.ann_file)
        for folder in folders:
            self._check_there([_join(folder, name) for name in names], 'images')
        return names

    def _found_names(self, folders: Sequence[str]) -> list[str]:
        first, second = (self._list(folder) for folder in folders)
        if not first:
            raise DatasetNotFoundError(
                f'holds no images (*{self.img_suffix})', path=folders[0], hint=_LAYOUT
            )
        lonely = sorted(set(first) ^ set(second))
        if lonely:
            name = lonely[0]
            has, lacks = folders if name in set(first) else folders[::-1]
            raise DatasetNotFoundError(
                f'the two dates hold different files ({len(first)} and {len(second)}, '
                f'{len(lonely)} of them in one folder only): {name} is in {has}, not in {lacks}',
                path=lacks,
                hint='Complete or remove the pairs, or name those to use in ann_file',
            )
        return first

    def _list(self, folder: str) -> list[str]:
        if self._is_local and not Path(folder).is_dir():
            raise DatasetNotFoundError('no such folder', path=folder, hint=_LAYOUT)
        return sorted(
            list_dir_or_file(
                folder,
                list_dir=False,
                suffix=self.img_suffix,
                recursive=True,
                backend_args=self.backend_args,
            )
        )

    def _check_there(self, paths: Sequence[str], what: str) -> None:
        if not self._is_local:
            return
        missing = [path for path in paths if not Path(path).is_file()]
        if missing:
            raise DatasetNotFoundError(
                f'{len(missing)} of {len(paths)} {what} are missing, the first is this',
                path=missing[0],
                hint=f'{_LAYOUT}; lines of ann_file are names without suffix, img_suffix='
                f'{self.img_suffix!r}, seg_map_suffix={self.seg_map_suffix!r}',
            )

    @property
    def _is_local(self) -> bool:
        root = str(self.data_prefix['img_path_from'])
        return not self.backend_args and '://' not in root and not root.startswith('s3:')


def _join(folder: str, name: str) -> str:
    return name if not folder else f'{folder.rstrip("/")}/{name}'


# mmseg's registry is where Open-CD registers this one class; an imported Open-CD has done it.
if _BaseCDDataset.__name__ not in MMSEG_DATASETS.module_dict:
    MMSEG_DATASETS.register_module(module=_BaseCDDataset)
