# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Reads a sample of GEO-Bench, and normalises it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from mmrsfm.datasets.geobench_files import read_sample
from mmrsfm.datasets.transforms.geometry import fill_invalid
from mmrsfm.errors import DataError, ImageSizeError
from mmrsfm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadGeoBench(BaseTransform):
    """Reads the bands and the label of a sample of :class:`mmrsfm.GeoBench`.

    Bands of coarser resolution are enlarged (bilinear) to the largest one. Values are normalised
    by the statistics of the set, ``(value - mean) / deviation`` of each band, as published.

    Added keys: ``img`` (H, W, C) float32; ``img_shape``, ``ori_shape``; ``valid_mask`` (H, W, C),
    only where a value is NaN or infinite; and ``gt_label``, the number of the class, or
    ``gt_score`` (K,), 0 or 1 for each class, or ``gt_seg_map`` (H, W) uint8.

    Args:
        normalize: ``False`` leaves the values as they are stored.
        ignore_index: What a label map of 255 is, for "no label".

    Raises:
        DataError: When a sample is loaded, one of its subclasses with the path: a band is missing,
            a file is damaged, a label is no class of the set.
    """

    def __init__(self, normalize: bool = True, ignore_index: int = 255) -> None:
        self.normalize = normalize
        self.ignore_index = ignore_index

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Loads; see the class."""
        path, kind = results['img_path'], results['task_kind']
        names = [band.name for band in results['stored_bands']]
        maps, label = read_sample(path, names, kind, results.get('date'))
        image = self._join(maps, results)
        finite = np.isfinite(image)
        if not finite.all():
            results['valid_mask'] = finite
            image = fill_invalid(image, finite)
        if self.normalize:
            mean, deviation = results['band_statistics']
            image = (image - mean) / deviation
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        count = results['num_classes']
        if kind == 'classification':
            results['gt_label'] = self._class(label, count, path)
        elif kind == 'multi_label':
            results['gt_score'] = self._scores(label, count, path)
        else:
            results['gt_seg_map'] = self._map(label, count, image.shape[:2], path)
            results.setdefault('seg_fields', []).append('gt_seg_map')
        return results

    def _join(self, maps: list[np.ndarray], results: dict[str, Any]) -> np.ndarray:
        size = (max(one.shape[0] for one in maps), max(one.shape[1] for one in maps))
        channels = []
        for band, stored in zip(results['stored_bands'], maps, strict=True):
            layer = np.asarray(stored, np.float32).reshape(*stored.shape[:2], -1)
            if layer.shape[2] != band.count:
                raise ImageSizeError(
                    f'has {layer.shape[2]} channels, the set says {band.count}',
                    path=results['img_path'],
                    band=band.name,
                )
            if layer.shape[:2] != size:
                layer = cv2.resize(layer, size[::-1], interpolation=cv2.INTER_LINEAR)
                layer = layer.reshape(*size, -1)
            channels.append(layer)
        return np.concatenate(channels, axis=2)

    def _class(self, label: Any, count: int, path: str) -> int:
        number = np.asarray(label)
        if number.size != 1 or not 0 <= int(number.reshape(())) < count:
            raise DataError(f'the label {label!r} is no class of 0..{count - 1}', path=path)
        return int(number.reshape(()))

    def _scores(self, label: Any, count: int, path: str) -> np.ndarray:
        scores = np.asarray(label, np.float32).reshape(-1)
        if scores.shape != (count,) or not np.isin(scores, (0, 1)).all():
            raise DataError(f'the label is not of {count} numbers, 0 or 1', path=path)
        return scores

    def _map(self, label: Any, count: int, size: tuple[int, ...], path: str) -> np.ndarray:
        classes = np.squeeze(np.asarray(label))
        if classes.shape != tuple(size):
            raise ImageSizeError(
                f'the label has the shape {classes.shape}, the image {tuple(size)}', path=path
            )
        known = ((classes >= 0) & (classes < count)) | (classes == self.ignore_index)
        if not known.all():
            values = np.unique(classes[~known])[:8].tolist()
            raise DataError(f'the label holds {values}, the classes are 0..{count - 1}', path=path)
        return classes.astype(np.uint8)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(normalize={self.normalize})'
