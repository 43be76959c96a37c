# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""GUSO: pairs of SAR and optical images for registration and translation, 0.16 to 0.98 m."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmrsfm.datasets.paired_modality_dataset import PairedModalityDataset
from mmrsfm.errors import DataError, DatasetNotFoundError
from mmrsfm.registry import DATASETS
from mmrsfm.utils.homography import as_homography


@DATASETS.register_module()
class GUSODataset(PairedModalityDataset):
    """GUSO (593,335 pairs: urban, rural, plain, hill, water, disaster), or pairs like it.

    Layout (the names of the folders are arguments: that of the distribution, which comes in one zip
    a scene type, is not documented)::

        {data_root}/
        ├── {data_prefix[optical]}/NAME.png ...
        ├── {data_prefix[sar]}/NAME.png ...
        └── {homography_dir}/NAME.txt ...      optional

    A homography file gives the true map from the first modality of ``data_prefix`` to the second,
    in pixels of the files, (0, 0) being the centre of the first pixel: nine numbers (or six, an
    affine map) in rows, as text, ``.npy`` or ``.json`` (nested lists). Without such files the
    images of a pair cover the same ground, and :class:`mmrsfm.RandomHomography` displaces them.

    Data: the repository of the authors' registration method, FHReg (facts: mars.md, section 5).

    Args:
        data_prefix: From modality to folder below ``data_root``.
        homography_dir: Folder of the homographies below ``data_root``; ``None``: there are none.
        homography_suffix: ``'.txt'``, ``'.npy'`` or ``'.json'``; a name without the suffix is that
            of the images.
        **kwargs: See :class:`mmrsfm.PairedModalityDataset`.

    Raises:
        DatasetNotFoundError: A folder is missing or empty; when a sample is read, if its homography
            is missing.
        DataError: When a sample is read, if its homography is none.
    """

    layout: ClassVar[str] = (
        'a folder of optical and one of SAR images (data_prefix), files of a pair named alike'
    )
    citation: ClassVar[str] = 'GUSO, from the authors of FHReg'

    def __init__(
        self,
        data_root: str = '',
        data_prefix: Mapping[str, str] | None = None,
        homography_dir: str | None = None,
        homography_suffix: str = '.txt',
        **kwargs: Any,
    ) -> None:
        self.homography_suffix = homography_suffix
        self.homography_dir = None if homography_dir is None else Path(data_root) / homography_dir
        super().__init__(
            data_root=data_root,
            data_prefix=data_prefix or dict(optical='optical', sar='sar'),
            **kwargs,
        )

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The sample at ``idx``, with ``homography`` (3, 3) where there are files of them."""
        info = super().get_data_info(idx)
        if self.homography_dir is not None:
            first = next(iter(self.data_prefix))
            image = Path(info['modality_paths'][first] or info['img_path'])
            folder = Path(self.data_prefix[first])
            relative = image.relative_to(folder) if folder in image.parents else Path(image.name)
            path = self.homography_dir / relative.with_suffix(self.homography_suffix)
            info['homography'] = read_homography(path)
        return info


def read_homography(path: str | Path) -> np.ndarray:
    """Reads a 3 x 3 (or affine 2 x 3) matrix from text, ``.npy`` or ``.json``.

    Args:
        path: The file. Text: rows of numbers, separated by blanks or commas.

    Returns:
        float64, (3, 3).

    Raises:
        DatasetNotFoundError: If there is no such file.
        DataError: If it holds no such matrix.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetNotFoundError('no such homography file', path=path)
    try:
        if path.suffix == '.npy':
            matrix = np.load(path, allow_pickle=False)
        elif path.suffix == '.json':
            matrix = json.loads(path.read_text())
        else:
            text = path.read_text().replace(',', ' ')
            matrix = np.array([float(word) for word in text.split()])
            matrix = matrix.reshape(-1, 3)
    except (ValueError, EOFError) as error:
        raise DataError(f'this is no matrix of 3 x 3 numbers ({error})', path=path) from error
    return as_homography(matrix, str(path))
