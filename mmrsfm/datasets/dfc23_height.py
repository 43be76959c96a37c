# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""DFC23, track 2: heights of buildings from an optical and a radar image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, ClassVar

from mmrsfm.datasets.paired_modality_dataset import PairedModalityDataset
from mmrsfm.datasets.splits import names_in_split
from mmrsfm.registry import DATASETS


@DATASETS.register_module()
class DFC23HeightDataset(PairedModalityDataset):
    """The 2023 IEEE GRSS Data Fusion Contest, track 2: patches of 512 x 512 pixels.

    Layout::

        data_root/
        ├── train/rgb/NAME.tif    3 bands, 8 bits (SuperView, Gaofen-2 and others, 0.5 to 1 m)
        ├── train/sar/NAME.tif    1 band (Gaofen-3, 1 m)
        ├── train/dsm/NAME.tif    heights above ground in metres, float32
        └── val/rgb/, val/sar/, val/dsm/

    A sample is one of :class:`mmrsfm.PairedModalityDataset`, with ``height_map_path`` where there
    are heights; :class:`mmrsfm.LoadModalities` and :class:`mmrsfm.LoadHeightMap` read it.

    The publisher keeps the heights of the validation and the test part (the published fine-tuning
    of MaRS has a ``val`` with heights, and tests on it). Who has those of ``train`` only divides it
    by ``split``, by name; see :func:`mmrsfm.datasets.splits.names_in_split`.

    Data: C. Persello et al., "2023 IEEE GRSS Data Fusion Contest: Large-scale fine-grained building
    classification for semantic urban reconstruction", IEEE GRSM 2023; DOI 10.21227/mrnt-8w27.

    Args:
        data_prefix: Folders of the modalities and, as ``dsm``, of the heights; without ``dsm``
            the dataset has none.
        split: ``'train'``, ``'val'``, or ``None``: everything in the folders. With a list
            (``ann_file``), the list decides.
        val_fraction: See ``split``.
        **kwargs: See :class:`PairedModalityDataset`.
    """

    layout: ClassVar[str] = 'train/rgb/*.tif, train/sar/*.tif, train/dsm/*.tif of the same names'
    citation: ClassVar[str] = 'DFC23 track 2, DOI 10.21227/mrnt-8w27'

    def __init__(
        self,
        data_root: str = '',
        data_prefix: Mapping[str, str] | None = None,
        split: str | None = None,
        val_fraction: float = 0.2,
        **kwargs: Any,
    ) -> None:
        if data_prefix is None:
            data_prefix = dict(rgb='train/rgb', sar='train/sar', dsm='train/dsm')
        self.split = split
        self.val_fraction = val_fraction
        super().__init__(data_root=data_root, data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> list[Any]:
        """Lists the samples of the split."""
        rows = super().load_data_list()
        if self.ann_file:
            return rows
        names = [PurePath(row.split('\t')[1]).stem for row in rows]
        wanted = names_in_split(names, self.split, self.val_fraction)
        rows = [row for row, name in zip(rows, names, strict=True) if name in wanted]
        if not rows:
            raise self.not_found(f'holds no sample of split={self.split!r}', self.data_root or '.')
        return rows

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The sample at ``idx``; see the class."""
        info = super().get_data_info(idx)
        paths = info['modality_paths']
        heights = paths.pop('dsm', None)
        if heights is not None:
            info['height_map_path'] = heights
        # Never the heights: what is predicted is written on the grid of this file.
        info['img_path'] = next((path for path in paths.values() if path is not None), None)
        return info
