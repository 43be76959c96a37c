# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""GUSO: pairs of SAR and optical images for registration and translation, 0.16 to 0.98 m."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmrsfm.datasets.paired_modality_dataset import PairedModalityDataset
from mmrsfm.errors import DataError, DatasetNotFoundError
from mmrsfm.registry import DATASETS
from mmrsfm.utils.conversion import read_text
from mmrsfm.utils.homography import as_homography


@DATASETS.register_module()
class GUSODataset(PairedModalityDataset):
    """GUSO (593,335 pairs: urban, rural, plain, hill, water, disaster), or pairs like it.

    Layout (one archive a terrain and split is published; the folders inside are arguments, since
    that of the distribution is not documented)::

        {data_root}/
        └── {part: urban-train, hill-test, ...}/
            ├── {data_prefix[rgb]}/NAME.png ...
            ├── {data_prefix[sar]}/NAME.png ...
            └── {homography_dir}/NAME.txt ...      optional

    A homography file gives the true map from the first modality of ``data_prefix`` to the second,
    in pixels of the files, (0, 0) being the centre of the first pixel: nine numbers (or six, an
    affine map) in rows, as text, ``.npy`` or ``.json`` (nested lists). Without such files the
    images of a pair cover the same ground, and :class:`mmrsfm.RandomHomography` displaces them.

    Data: the repository of the authors' registration method, FHReg (facts: mars.md, section 5).

    Args:
        data_root: Folder of the dataset.
        parts: Names of folders below ``data_root``, or patterns such as ``'*-train'``; ``None``:
            the folders of ``data_prefix`` are below ``data_root`` itself.
        data_prefix: From modality to folder below each part.
        homography_dir: Folder of the homographies below each part; ``None``: there are none.
        homography_suffix: ``'.txt'``, ``'.npy'`` or ``'.json'``; a name without the suffix is that
            of the first image.
        **kwargs: See :class:`mmrsfm.PairedModalityDataset`.

    Raises:
        DatasetNotFoundError: A folder is missing or empty; when a sample is read, if its homography
            is missing.
        DataError: When a sample is read, if its homography is none.
    """

    layout: ClassVar[str] = (
        'folders <terrain>-<split> (parts), in each a folder of optical and one of SAR images '
        '(data_prefix), files of a pair named alike'
    )
    citation: ClassVar[str] = 'GUSO, from the authors of FHReg'

    def __init__(
        self,
        data_root: str = '',
        parts: str | Sequence[str] | None = None,
        data_prefix: Mapping[str, str] | None = None,
        homography_dir: str | None = None,
        homography_suffix: str = '.txt',
        **kwargs: Any,
    ) -> None:
        self.parts = [parts] if isinstance(parts, str) else parts
        self.homography_dir = homography_dir
        self.homography_suffix = homography_suffix
        self._folders = dict(data_prefix or dict(rgb='opt', sar='sar'))
        super().__init__(data_root=data_root, data_prefix=dict(self._folders), **kwargs)

    def groups(self) -> list[tuple[str | None, dict[str, Path]]]:
        """The sensor, and the folder of each modality, of each part."""
        self._found = self._part_folders()
        return [
            (self.sensor, {name: part / folder for name, folder in self._folders.items()})
            for part in self._found
        ]

    def _part_folders(self) -> list[Path]:
        root = Path(self.data_root or '.')
        if self.parts is None:
            return [root]
        found: dict[Path, None] = {}
        for pattern in self.parts:
            matching = sorted(path for path in root.glob(pattern) if path.is_dir())
            if not matching:
                raise self.not_found('no such folder', root / pattern)
            found.update(dict.fromkeys(matching))
        return list(found)

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The sample at ``idx``, with ``homography`` (3, 3) where there are files of them."""
        info = super().get_data_info(idx)
        if self.homography_dir is not None:
            info['homography'] = read_homography(self._homography_file(info['modality_paths']))
        return info

    def _homography_file(self, paths: Mapping[str, str | None]) -> Path:
        name, image = next((name, Path(path)) for name, path in paths.items() if path is not None)
        for part, (_, folders) in zip(self._found, self._groups, strict=True):
            if folders[name] in image.parents:
                relative = image.relative_to(folders[name]).with_suffix(self.homography_suffix)
                return part / str(self.homography_dir) / relative
        raise DatasetNotFoundError('belongs to no part', path=image)  # cannot be


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
            matrix = json.loads(read_text(path, 'homography'))
        else:
            text = read_text(path, 'homography').replace(',', ' ')
            matrix = np.array([float(word) for word in text.split()])
            matrix = matrix.reshape(-1, 3)
    except (ValueError, EOFError) as error:
        raise DataError(f'this is no matrix of 3 x 3 numbers ({error})', path=path) from error
    return as_homography(matrix, str(path))
