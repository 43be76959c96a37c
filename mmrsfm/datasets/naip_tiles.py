# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""NAIP tiles as ``.npy`` files, with labels and splits in two more."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmpretrain.datasets import BaseDataset

from mmrsfm.errors import ConfigError, DatasetNotFoundError
from mmrsfm.registry import DATASETS

_PARTS = {'train': (0,), 'val': (1,), 'test': (2,), 'val+test': (1, 2)}


@DATASETS.register_module()
class NAIPTiles(BaseDataset):
    """Aerial tiles of NAIP (red, green, blue, near infrared at 1 m) with a land cover class each.

    Layout::

        {data_root}/
        ├── {data_prefix}/0tile.npy 1tile.npy ...   (H, W, bands), uint8
        ├── {labels}                                 (N,) land cover codes
        └── {split_file}                             (N,) 0 train, 1 val, 2 test

    The classes are the sorted codes that occur in ``labels``, as in the reference of Cross-Scale
    MAE, whose test set is ``'val+test'``.

    Args:
        labels: File of the codes, relative to ``data_root``.
        split_file: File of the splits, relative to ``data_root``.
        split: ``'train'``, ``'val'``, ``'test'`` or ``'val+test'``; ``None`` takes all.
        band_names: Names of the bands of a tile.
        **kwargs: As of mmpretrain's BaseDataset.

    Raises:
        DatasetNotFoundError: With the layout that is expected.
        ConfigError: For an unknown split.
    """

    bands: ClassVar[tuple[str, ...]] = ('R', 'G', 'B', 'NIR')
    citation: ClassVar[str] = (
        'Jean et al., "Tile2Vec: Unsupervised Representation Learning for Spatially Distributed '
        'Data", AAAI 2019, arXiv 1805.02855'
    )
    licence: ClassVar[str] = 'NAIP: USDA, public domain'
    splits: ClassVar[tuple[str, ...]] = tuple(_PARTS)

    def __init__(
        self,
        labels: str = 'y.npy',
        split_file: str = 'splits.npy',
        split: str | None = None,
        band_names: tuple[str, ...] = bands,
        **kwargs: Any,
    ) -> None:
        if split is not None and split not in _PARTS:
            raise ConfigError(f'NAIPTiles: split is one of {tuple(_PARTS)}, got {split!r}')
        self.labels = labels
        self.split_file = split_file
        self.split = split
        self.band_names = tuple(band_names)
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Reads labels and splits, and lists the tiles of the split."""
        root = Path(self.data_root or '.')
        codes = self._array(root / self.labels)
        parts = self._array(root / self.split_file)
        if len(codes) != len(parts):
            raise self._error(
                f'{len(parts)} entries, but {len(codes)} labels', root / self.split_file
            )
        names, labels = np.unique(codes, return_inverse=True)
        self._metainfo.setdefault('classes', tuple(str(name) for name in names))
        wanted = np.isin(parts, _PARTS[self.split]) if self.split else np.ones(len(parts), bool)
        folder = Path(self.img_prefix or root)
        samples: list[dict[str, Any]] = [
            {
                'img_path': str(folder / f'{number}tile.npy'),
                'gt_label': int(labels[number]),
                'band_names': self.band_names,
            }
            for number in np.flatnonzero(wanted)
        ]
        for sample in samples:
            if not Path(sample['img_path']).is_file():
                raise self._error('no such tile', sample['img_path'])
        if not samples:
            raise self._error(f'no entry for the split {self.split!r}', root / self.split_file)
        return samples

    def _array(self, path: Path) -> np.ndarray:
        if not path.is_file():
            raise self._error('no such file', path)
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise self._error(f'not a readable .npy array ({error})', path) from error
        return array.reshape(-1)

    def _error(self, reason: str, path: Path | str) -> DatasetNotFoundError:
        return DatasetNotFoundError(
            reason,
            path=path,
            hint=f'Expected: 0tile.npy, 1tile.npy, ... (H, W, bands) in data_prefix, and '
            f'{self.labels} (codes) and {self.split_file} (0, 1, 2 for train, val, test) in '
            'data_root, one entry a tile',
        )
