# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""SEN12-FLOOD: was a place flooded between two radar images?"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from mmpretrain.datasets import BaseDataset

from mmrsfm.datasets.splits import SPLITS, names_in_split
from mmrsfm.errors import ConfigError, DataError, DatasetNotFoundError
from mmrsfm.registry import DATASETS
from mmrsfm.utils.conversion import read_rows

COLUMNS = ('sequence', 'first', 'second', 'label')


@DATASETS.register_module()
class SEN12Flood(BaseDataset):
    """Pairs of Sentinel-1 images of SEN12-FLOOD: before, and another date; flooded or not.

    Two layouts. Made by ``data_converters/sen12_flood.py``, each image once::

        data_root/
        ├── aligned/<sequence>/<image>.tif       VH and VV, float32, linear power (data_prefix)
        └── pairs_train.csv, pairs_test.csv      sequence,first,second,label (ann_file)

    Made by the published code, each pair for itself (without ``ann_file``)::

        data_root/train/<sequence>__<first>__<second>__<label>.npy      (2, 2, H, W)

    A sample has ``pair_paths`` (or ``img_path`` of an array), ``gt_label`` (1: flooded in the
    second image), ``sequence``, ``sample_name``, ``band_names``; :class:`mmrsfm.LoadImagePair`
    reads it. Pairs are in the order of their names.

    335 sequences of West and South-East Africa, the Middle East and Australia, December 2018 to
    May 2019, 512 x 512 pixels at 10 m. The published lists have no validation part, and the
    published model was selected on the test part; take ``split='train'`` and ``'val'`` of the
    training pairs instead. All pairs of a sequence are in one part.

    Args:
        data_root: Folder of the dataset.
        ann_file: The list of pairs; empty: the folder holds arrays.
        data_prefix: Folder of the images, or of the arrays, below ``data_root``.
        split: ``'train'``, ``'val'``, or ``None`` for all; by the names of the sequences, see
            :func:`mmrsfm.datasets.splits.names_in_split`.
        val_fraction: The share of the sequences in ``'val'``.
        **kwargs: As of mmpretrain's BaseDataset (``pipeline``, ``test_mode``, ``indices``, ...).

    Raises:
        DatasetNotFoundError: A folder, list or image is missing, with the layout that is expected.
        DataError: A line of the list, or the name of an array, is not of that form.
        ConfigError: For another split.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'classes': ('no flood', 'flood')}
    bands: ClassVar[tuple[str, ...]] = ('VH', 'VV')
    citation: ClassVar[str] = (
        'Rambour et al., "Flood Detection in Time Series of Optical and SAR Images", ISPRS '
        'Archives XLIII-B2-2020, DOI 10.21227/w6xz-s898'
    )
    licence: ClassVar[str] = 'CC BY 4.0; contains modified Copernicus Sentinel data'
    layout: ClassVar[str] = (
        'aligned/<sequence>/<image>.tif and pairs_*.csv (data_converters/sen12_flood.py), or '
        '<sequence>__<first>__<second>__<label>.npy'
    )

    def __init__(
        self,
        data_root: str = '',
        ann_file: str = '',
        data_prefix: str | dict = 'aligned',
        split: str | None = None,
        val_fraction: float = 0.1,
        **kwargs: Any,
    ) -> None:
        if split is not None and split not in SPLITS:
            raise ConfigError(f'SEN12Flood: split is one of {SPLITS} or None, got {split!r}')
        self.split = split
        self.val_fraction = val_fraction
        super().__init__(ann_file=ann_file, data_root=data_root, data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Lists the pairs; see the class."""
        folder = Path(self.img_prefix)
        if not folder.is_dir():
            raise DatasetNotFoundError('no such folder (data_prefix)', folder, hint=self._expected)
        pairs = self._listed(folder) if self.ann_file else self._arrays(folder)
        if not pairs:
            raise DatasetNotFoundError(
                'holds no pair', self.ann_file or folder, hint=self._expected
            )
        wanted = names_in_split((pair['sequence'] for pair in pairs), self.split, self.val_fraction)
        kept = [pair for pair in pairs if pair['sequence'] in wanted]
        if not kept:
            raise DatasetNotFoundError(
                f'split {self.split!r} with val_fraction={self.val_fraction} leaves no sequence of '
                f'{len({pair["sequence"] for pair in pairs})}',
                self.ann_file or folder,
            )
        return kept

    @property
    def _expected(self) -> str:
        return f'Expected: {self.layout} ({self.citation})'

    def _listed(self, folder: Path) -> list[dict[str, Any]]:
        source = Path(self.ann_file)
        if not source.is_file():
            raise DatasetNotFoundError(
                'no such list of pairs (ann_file)', source, hint=self._expected
            )
        header, *rows = read_rows(source, 'list of pairs') or [[]]
        if tuple(header) != COLUMNS:
            raise DataError(f'its first line is {header}, not {list(COLUMNS)}', source)
        pairs = []
        for number, row in enumerate(rows, start=2):
            if len(row) != len(COLUMNS) or row[3] not in ('0', '1'):
                raise DataError(f'line {number}: {row} is not {list(COLUMNS)}', source)
            paths = [str(folder / row[0] / f'{name}.tif') for name in row[1:3]]
            pairs.append(self._sample(*row, pair_paths=paths, img_path=paths[0]))
        images = {path for pair in pairs for path in pair['pair_paths']}
        missing = sorted(path for path in images if not Path(path).is_file())
        if missing:
            raise DatasetNotFoundError(
                f'{len(missing)} images of {source} are missing, the first is this',
                missing[0],
                hint=self._expected,
            )
        return sorted(pairs, key=lambda pair: (pair['sequence'], pair['pair_paths']))

    def _arrays(self, folder: Path) -> list[dict[str, Any]]:
        pairs = []
        for path in sorted(folder.glob('*.npy')):
            parts = path.stem.split('__')
            if len(parts) != 4 or parts[3] not in ('0', '1'):
                raise DataError(
                    'is not named <sequence>__<first>__<second>__<0 or 1>.npy', path=path
                )
            pairs.append(self._sample(*parts, img_path=str(path)))
        return pairs

    def _sample(
        self, sequence: str, first: str, second: str, label: str, **paths: Any
    ) -> dict[str, Any]:
        return {
            **paths,
            'sequence': sequence,
            'sample_name': f'{sequence}__{first}__{second}',
            'gt_label': int(label),
            'band_names': self.bands,
        }
