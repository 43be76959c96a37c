# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Loads a label map for semantic segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmrsfm.datasets.raster import read_raster
from mmrsfm.errors import BandMismatchError, ConfigError, DataError, ImageSizeError
from mmrsfm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadSegLabel(BaseTransform):
    """Loads the classes of all pixels from a one-band raster (GeoTIFF, PNG, ``.npy``, ...).

    Required keys: ``seg_map_path``. Optional: ``window``, ``label_map`` and ``reduce_zero_label``
    as mmseg's datasets give them, ``num_classes``, ``img`` (whose size the label must have).

    Added keys: ``gt_seg_map`` (H, W) uint8; ``seg_fields`` names it.

    Args:
        value_map: From values in the file to class indices, e.g. ``{10: 0, 20: 1}``; values that it
            does not name become ``ignore_index``. ``None``: the values are the class indices.
        ignore_values: Values in the file that mean "no label". The file's no-data value and NaN
            always do.
        threshold: Two classes: 1 where the file holds this or more, else 0, e.g. 128 for masks of 0
            and 255 whose edges an encoder has blurred. Then there is no ``value_map``.
        band: Number, from one, of the band that holds the classes, of a file with several, e.g. 1
            of masks that were saved as grey RGB. ``None``: there must be one band only.
        num_classes: Classes are 0..num_classes-1: any other value is an error here, instead of a
            crash in the loss. ``None``: what the dataset says, else no check below 255.
        ignore_index: What unlabelled pixels become.
        backend: See :func:`mmrsfm.datasets.raster.read_raster`.

    Raises:
        ImageSizeError: The label has another size than the image.
        BandMismatchError: The file holds more than one band, or not ``band``.
        DataError: It holds values that are no class.
    """

    def __init__(
        self,
        value_map: Mapping[int, int] | None = None,
        ignore_values: Sequence[int] = (),
        num_classes: int | None = None,
        ignore_index: int = 255,
        backend: str = 'auto',
        threshold: float | None = None,
        band: int | None = None,
    ) -> None:
        if threshold is not None and value_map is not None:
            raise ConfigError('LoadSegLabel: give a threshold or a value_map, not both')
        self.value_map = None if value_map is None else dict(value_map)
        self.ignore_values = tuple(ignore_values)
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.backend = backend
        self.threshold = threshold
        self.band = band

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Reads the label map; see the class."""
        path = results['seg_map_path']
        bands = None if self.band is None else [self.band]
        raster = read_raster(path, bands, window=results.get('window'), backend=self.backend)
        stored = raster.array
        if stored.shape[2] != 1:
            raise BandMismatchError(
                f'a label map has one band, got {stored.shape[2]}',
                path=path,
                hint='LoadSegLabel(band=1) takes the first',
            )
        stored = stored[..., 0]
        if 'img' in results and stored.shape != results['img'].shape[:2]:
            h, w = results['img'].shape[:2]
            raise ImageSizeError(
                f'the label has {stored.shape[0]} x {stored.shape[1]} pixels (H x W), its image '
                f'{results["img_path"]} has {h} x {w}',
                path=path,
            )
        ignored: list[float] = list(self.ignore_values)
        if raster.nodata[0] is not None:
            ignored.append(raster.nodata[0])
        label = self._to_classes(stored, ignored, path)
        label = self._as_mmseg(label, results)
        self._check(label, self.num_classes or results.get('num_classes'), path)
        results['gt_seg_map'] = label.astype(np.uint8)
        if 'gt_seg_map' not in results.setdefault('seg_fields', []):
            results['seg_fields'].append('gt_seg_map')
        return results

    def _to_classes(self, stored: np.ndarray, ignored: Sequence[float], path: str) -> np.ndarray:
        """(H, W) int64 class indices: no stored value may wrap around to a class."""
        if self.threshold is not None:
            unlabelled = np.isin(stored, list(ignored)) | ~np.isfinite(stored)
            return np.where(unlabelled, self.ignore_index, stored >= self.threshold)
        unlabelled = np.zeros(stored.shape, bool)
        if np.issubdtype(stored.dtype, np.floating):
            unlabelled |= np.isnan(stored)
            stored = np.where(unlabelled, self.ignore_index, stored)
            whole = np.isfinite(stored) & (stored == np.rint(stored))
            if not whole.all():
                raise DataError(
                    f'a label map holds whole numbers, got {stored[~whole].flat[0]}', path=path
                )
        for value in ignored:
            unlabelled |= stored == value
        label = stored.astype(np.int64)
        if self.value_map is not None:
            mapped = np.full(label.shape, self.ignore_index, np.int64)
            for value, index in self.value_map.items():
                mapped[label == value] = index
            label = mapped
        label[unlabelled] = self.ignore_index
        return label

    def _as_mmseg(self, label: np.ndarray, results: dict[str, Any]) -> np.ndarray:
        """Applies what mmseg's datasets ask for: a subset of the classes, no class zero."""
        if results.get('reduce_zero_label'):
            label = np.where(
                (label == 0) | (label == self.ignore_index), self.ignore_index, label - 1
            )
        if results.get('label_map') is not None:
            original = label.copy()
            for old, new in results['label_map'].items():
                label[original == old] = new
        return label

    def _check(self, label: np.ndarray, num_classes: int | None, path: str) -> None:
        limit = 256 if num_classes is None else num_classes
        wrong = ((label < 0) | (label >= limit)) & (label != self.ignore_index)
        if wrong.any():
            values = np.unique(label[wrong])[:8].tolist()
            raise DataError(
                f'the label holds {values}, the classes are 0..{limit - 1}',
                path=path,
                hint='Give LoadSegLabel a value_map, or name them in ignore_values',
            )

    def __repr__(self) -> str:
        options = ', '.join(f'{key}={value!r}' for key, value in vars(self).items())
        return f'{type(self).__name__}({options})'
