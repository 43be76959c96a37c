# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Unlabelled tiles of any imagery, for pretraining."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from mmrsfm.errors import DataError, DatasetNotFoundError
from mmrsfm.registry import DATASETS
from mmrsfm.utils.conversion import read_rows, read_text

SUFFIXES = ('.tif', '.tiff', '.jp2', '.npy', '.png', '.jpg', '.jpeg')


@DATASETS.register_module()
class TileDataset(BaseDataset):
    """A folder, a list or a table of image files, with any number of bands.

    Without ``ann_file`` every file below ``data_prefix['img_path']`` with one of the suffixes is a
    sample, in the order of the names. A ``.txt`` file names one image a line; a ``.csv`` file has a
    header and one row a sample: the column ``path_column`` and, optionally, ``row, col, height,
    width`` of a window in pixels. Paths in them are relative to ``data_prefix['img_path']``.

    Args:
        ann_file: Optional list (``.txt``) or table (``.csv``) of images.
        band_names: Names of all bands of the files, in their order.
        suffixes: Suffixes of images, in small letters.
        recursive: Whether to look into folders below.
        tile_size: Cut every image into windows of this edge, in pixels, which are read one by one
            (a window at the border is moved inside; an image that is smaller is one window).
        stride: Distance of the windows in pixels; ``None``: ``tile_size``.
        path_column: Column of a ``.csv`` file that holds the path.
        **kwargs: As of MMEngine's BaseDataset (``data_root``, ``data_prefix``, ``pipeline``, ...).

    Raises:
        DatasetNotFoundError: The folder, the list or a file that it names is missing, or there is
            no image.
    """

    def __init__(
        self,
        ann_file: str = '',
        band_names: Sequence[str] | None = None,
        suffixes: Sequence[str] = SUFFIXES,
        recursive: bool = True,
        tile_size: int | None = None,
        stride: int | None = None,
        path_column: str = 'path',
        **kwargs: Any,
    ) -> None:
        self.band_names = None if band_names is None else tuple(band_names)
        self.suffixes = tuple(suffixes)
        self.recursive = recursive
        self.tile_size = tile_size
        self.stride = stride or tile_size
        self.path_column = path_column
        super().__init__(ann_file=ann_file, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Lists the samples; see the class."""
        root = Path(self.data_prefix.get('img_path') or '.')
        if not root.is_dir():
            raise DatasetNotFoundError(
                'no such folder',
                path=root,
                hint=f'Expected: a folder of images ({", ".join(self.suffixes)})',
            )
        samples = self._from_list(root) if self.ann_file else self._from_folder(root)
        if not samples:
            raise DatasetNotFoundError(
                f'holds no images ({", ".join(self.suffixes)})', path=self.ann_file or root
            )
        if self.tile_size is not None:
            samples = [window for sample in samples for window in self._windows(sample)]
        if self.band_names is not None:
            for sample in samples:
                sample['band_names'] = self.band_names
        return samples

    def _from_folder(self, root: Path) -> list[dict[str, Any]]:
        found = root.rglob('*') if self.recursive else root.glob('*')
        paths = [path for path in found if path.suffix.lower() in self.suffixes]
        return [{'img_path': str(path)} for path in sorted(paths)]

    def _from_list(self, root: Path) -> list[dict[str, Any]]:
        source = Path(self.ann_file)
        if not source.is_file():
            raise DatasetNotFoundError('no such list of images (ann_file)', path=source)
        samples: list[dict[str, Any]] = []
        if source.suffix.lower() == '.csv':
            samples = self._from_table(source, root)
        else:
            for line in read_text(source, 'list of images').splitlines():
                if line.strip():
                    samples.append({'img_path': str(root / line.strip())})
        for sample in samples:
            if not Path(sample['img_path']).is_file():
                raise DatasetNotFoundError(
                    f'named in {source}, but missing', path=sample['img_path']
                )
        return samples

    def _from_table(self, source: Path, root: Path) -> list[dict[str, Any]]:
        header, *rows = read_rows(source, 'table of images') or [[]]
        if self.path_column not in header:
            raise DatasetNotFoundError(
                f'has no column {self.path_column!r}, only {header}',
                path=source,
                hint='Give path_column=...',
            )
        samples: list[dict[str, Any]] = []
        for number, row in enumerate(rows, start=2):
            if len(row) != len(header):
                raise DataError(
                    f'line {number} has {len(row)} columns, the first {len(header)}', path=source
                )
            named = dict(zip(header, row, strict=True))
            samples.append({'img_path': str(root / named[self.path_column])})
            if named.get('row', '') == '':
                continue
            try:
                window = tuple(int(named[key]) for key in ('row', 'col', 'height', 'width'))
            except (KeyError, ValueError) as error:
                raise DataError(
                    f'line {number}: row, col, height and width are whole numbers ({error})',
                    path=source,
                ) from error
            samples[-1]['window'] = window
        return samples

    def _windows(self, sample: dict[str, Any]) -> list[dict[str, Any]]:
        from mmrsfm.datasets.raster import image_shape

        height, width = image_shape(sample['img_path'])
        size, stride = self.tile_size or 0, self.stride or 0
        h, w = min(size, height), min(size, width)
        return [
            {**sample, 'window': (row, column, h, w)}
            for row in _starts(height, h, stride)
            for column in _starts(width, w, stride)
        ]


def _starts(length: int, size: int, stride: int) -> list[int]:
    starts = list(range(0, length - size + 1, stride))
    if starts[-1] + size < length:
        starts.append(length - size)
    return starts
