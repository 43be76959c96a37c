# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Reads pairs of images and maps of change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmseg.datasets.transforms import LoadAnnotations

from mmrsfm.compat.opencd.registry import TRANSFORMS
from mmrsfm.errors import CorruptImageError, DataError, ImageNotFoundError, ImageSizeError


@TRANSFORMS.register_module()
class MultiImgLoadImageFromFile(LoadImageFromFile):
    """Reads the two images that ``img_path``, a list, names.

    Adds ``img`` (a list of two (H, W, 3), BGR, uint8), ``img_shape`` and ``ori_shape`` ((H, W)).

    Args:
        to_float32: Whether to convert to float32.
        color_type: As of mmcv.imfrombytes.
        imdecode_backend: Likewise.
        **kwargs: As of mmcv's LoadImageFromFile.

    Raises:
        ImageNotFoundError: A file does not exist.
        CorruptImageError: A file cannot be decoded.
        ImageSizeError: The two dates differ in size.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Reads the pair."""
        images = []
        for path in results['img_path']:
            loaded = self._load(path)
            if loaded is None:
                return None
            images.append(loaded['img'])
        shapes = [image.shape for image in images]
        if len(set(shapes)) > 1:
            raise ImageSizeError(
                'the two dates differ in size (H, W, bands): '
                f'{" and ".join(str(shape) for shape in shapes)}',
                path=results['img_path'][1],
                hint=f'The first date is {results["img_path"][0]}; co-register the pair',
            )
        results['img'] = images
        results['img_shape'] = results['ori_shape'] = shapes[0][:2]
        return results

    def _load(self, path: str) -> dict[str, Any] | None:
        try:
            return super().transform({'img_path': path})
        except FileNotFoundError as error:
            raise ImageNotFoundError('no such image', path=path) from error
        except DataError:
            raise
        except Exception as error:  # each decoder has errors of its own
            raise CorruptImageError(f'cannot be decoded ({error})', path=path) from error


@TRANSFORMS.register_module()
class MultiImgLoadAnnotations(LoadAnnotations):
    """Reads the map of change, in grey.

    Colours become their luminance, palettes their colours, one bit 0 or 255. With
    ``format_seg_map`` of the sample ``'to_binary'``, values below 128 are class 0 and the others
    class 1.

    Adds ``gt_seg_map`` (H, W) uint8, and its name to ``seg_fields``.

    Args:
        reduce_zero_label: As of mmseg's LoadAnnotations; by default what the dataset says.
        backend_args: File backend.
        imdecode_backend: As of mmcv.imfrombytes.

    Raises:
        ImageNotFoundError: The file does not exist.
        CorruptImageError: It cannot be decoded.
        ImageSizeError: It has another size than the images as they were read.
        DataError: There is no map, or it holds other values than it should.
    """

    def _load_seg_map(self, results: dict[str, Any]) -> None:
        path = results.get('seg_map_path')
        if path is None:
            raise DataError(
                'there is no map of change for this pair',
                path=results['img_path'][0],
                hint='Give the dataset data_prefix=dict(seg_map_path=...), or leave '
                'MultiImgLoadAnnotations out of the pipeline of unlabelled images',
            )
        stored = self._read(path)
        size = results.get('ori_shape')
        if size is not None and stored.shape != tuple(size):
            raise ImageSizeError(
                f'the map of change is {stored.shape[0]} x {stored.shape[1]}, its images are '
                f'{size[0]} x {size[1]} (H x W)',
                path=path,
            )
        if results.get('format_seg_map') == 'to_binary':
            label = _to_binary(stored, path)
        else:
            label = stored
            _check_classes(stored, results.get('num_classes'), path)
        results['gt_seg_map'] = self._renumber(label, results)
        results.setdefault('seg_fields', []).append('gt_seg_map')

    def _read(self, path: str) -> np.ndarray:
        try:
            content = fileio.get(path, backend_args=self.backend_args)
        except FileNotFoundError as error:
            raise ImageNotFoundError('no such map of change', path=path) from error
        try:
            image = mmcv.imfrombytes(content, flag='grayscale', backend=self.imdecode_backend)
            return image.squeeze().astype(np.uint8)
        except Exception as error:  # each decoder has errors of its own
            raise CorruptImageError(f'cannot be decoded ({error})', path=path) from error

    def _renumber(self, label: np.ndarray, results: dict[str, Any]) -> np.ndarray:
        """Applies what mmseg's datasets ask for: no class zero, a part of the classes."""
        reduce = self.reduce_zero_label
        if reduce is None:
            reduce = results.get('reduce_zero_label', False)
        if reduce:
            label = np.where((label == 0) | (label == 255), 255, label - 1).astype(np.uint8)
        if results.get('label_map') is not None:
            original = label.copy()
            for old, new in results['label_map'].items():
                label[original == old] = new
        return label


def _to_binary(stored: np.ndarray, path: str) -> np.ndarray:
    if stored.size and stored.max() == 1 and Path(path).suffix.lower() not in ('.jpg', '.jpeg'):
        # All of it would be class 0, and nobody would notice.
        raise DataError(
            "the map of change holds 0 and 1, but format_seg_map='to_binary' expects 0 and 255",
            path=path,
            hint='Set format_seg_map=None in the dataset, or multiply the maps by 255',
        )
    return (stored >= 128).astype(np.uint8)


def _check_classes(stored: np.ndarray, num_classes: int | None, path: str) -> None:
    if num_classes is None:
        return
    wrong = (stored >= num_classes) & (stored != 255)
    if wrong.any():
        raise DataError(
            f'the map of change holds {np.unique(stored[wrong])[:8].tolist()}, expected are '
            f'0..{num_classes - 1} and 255 for what is not labelled',
            path=path,
            hint="If it holds 0 for unchanged and 255 for changed, set format_seg_map='to_binary'",
        )
