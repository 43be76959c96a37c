# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Tiles of any dataset out of one memory-mapped file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpretrain.datasets import MultiLabelDataset

from mmrsfm.datasets.packed_tiles import open_packed
from mmrsfm.errors import ConfigError, DataError, DatasetNotFoundError
from mmrsfm.registry import DATASETS


@DATASETS.register_module()
class PackedTileDataset(MultiLabelDataset):
    """What ``data_converters/pack_tiles.py`` wrote, for the pipeline of the original dataset.

    A sample has ``img_path`` (the file), ``tile`` (its number there), ``band_names``,
    ``sample_name``, what else was known (``country``, ``season`` ...), and ``gt_label`` (a list of
    class numbers) where it has labels. :class:`mmrsfm.LoadMultiBandImage` reads it, chooses bands
    and scales as from files, so that in a config only the dataset changes::

        dataset=dict(type='mmrsfm.PackedTileDataset', ann_file='benv2_s1_train.tiles', ...)

    Tiles have no georeference.

    Args:
        ann_file: The file, relative to ``data_root``.
        where: Which samples are read: from a key of what is known of them to the values that are
            wanted, e.g. ``dict(country=['Portugal', 'Austria'])``. ``None``: all.
        verify: Whether the checksum of each tile is compared, the first time that a process (a
            worker of the data loader) reads it.
        **kwargs: As of mmpretrain's BaseDataset (``pipeline``, ``indices``, ...). Classes are those
            of the file.

    Raises:
        DatasetNotFoundError: There is no such file, or no sample is left.
        CorruptImageError: The file is damaged.
        ConfigError: ``where`` names what is not known, or ``classes`` are others than the file's.
    """

    def __init__(
        self,
        ann_file: str,
        where: Mapping[str, Any] | None = None,
        verify: bool = True,
        **kwargs: Any,
    ) -> None:
        self.where = {
            key: list(values) if isinstance(values, (list, tuple)) else [values]
            for key, values in (where or {}).items()
        }
        self.verify = verify
        source = Path(kwargs.get('data_root') or '', ann_file).expanduser()
        stated = open_packed(source).classes
        classes = kwargs.pop('classes', None)
        if stated is not None and classes is not None and list(classes) != stated:
            raise ConfigError(f'{source}: its classes are {stated[:4]} ..., not {classes[:4]} ...')
        super().__init__(ann_file=ann_file, classes=stated or classes, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Lists the tiles; see the class."""
        index = open_packed(self.ann_file).index
        samples = []
        for number, name in enumerate(index['names']):
            extra = index['extra'][number]
            if not self._wanted(extra, name):
                continue
            sample = {**extra, 'tile': number, 'sample_name': name}
            if index['labels'][number] is not None:
                sample['gt_label'] = index['labels'][number]
            samples.append(sample)
        if not samples:
            raise DatasetNotFoundError(
                f'none of its {len(index["names"])} tiles has {self.where}', path=self.ann_file
            )
        self._bands = None if index['band_names'] is None else tuple(index['band_names'])
        return samples

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The sample at ``idx``; see the class."""
        info = super().get_data_info(idx)
        info['img_path'] = str(self.ann_file)
        info['verify_tile'] = self.verify
        if self._bands is not None:
            info['band_names'] = self._bands
        return info

    def get_cat_ids(self, idx: int) -> list[int]:
        """Numbers of the classes of a sample.

        Raises:
            DataError: It was packed without labels.
        """
        info = self.get_data_info(idx)
        if 'gt_label' not in info:
            raise DataError(f'{info["sample_name"]} has no labels', path=self.ann_file)
        return info['gt_label']

    def extra_repr(self) -> list[str]:
        """Lines for ``repr``."""
        return [f'File: \t{self.ann_file}', f'Where: \t{self.where}']

    def _wanted(self, extra: Mapping[str, Any], name: str) -> bool:
        for key, values in self.where.items():
            if key not in extra:
                raise ConfigError(
                    f'{self.ann_file}: {key!r} is not known of {name}, only {sorted(extra)}'
                )
            if extra[key] not in values:
                return False
        return True
