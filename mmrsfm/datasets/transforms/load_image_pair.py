# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Loads two images of one place, which every later transform treats as one."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmrsfm.datasets.transforms.load_multi_band_image import LoadMultiBandImage, check_nan
from mmrsfm.errors import (
    BandMismatchError,
    ConfigError,
    CorruptImageError,
    DataError,
    ImageNotFoundError,
    ImageSizeError,
)
from mmrsfm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImagePair(BaseTransform):
    """Loads before and after behind each other in one array, so that both are flipped alike.

    Required key: ``pair_paths``, the two files; or ``img_path``, one ``.npy`` of shape (2, C, H,
    W). Optional: ``rasters``, what was read of the two before (``raster`` of
    :class:`mmrsfm.LoadMultiBandImage`).

    Added keys: ``img`` (H, W, 2C) float32, first all bands of the first image; ``valid_mask`` (H,
    W, 2C) bool, only where something is invalid; ``band_names``, those of **one** image;
    ``num_dates``, 2; ``img_shape``, ``ori_shape`` (H, W); ``value_scale``, ``value_offset``;
    ``geo`` of the first.
    :class:`mmrsfm.PackImagePair` takes them apart again.

    Args:
        band_names: Names of all bands of a file, in its order; ``None``: those of the sample, else
            the file's.
        bands: Bands to load, by name or one-based number.
        **options: Of :class:`mmrsfm.LoadMultiBandImage` (``nodata``, ``scale``, ...), for files; an
            array of four axes has none of them but ``nodata``, a number, and ``all_nan``.

    Raises:
        DataError: One of its subclasses with the path: missing, corrupt, other bands, two sizes.
    """

    def __init__(
        self, band_names: list[str] | None = None, bands: list | None = None, **options: Any
    ) -> None:
        try:
            self.load = LoadMultiBandImage(bands=bands, band_names=band_names, **options)
        except TypeError as error:
            raise ConfigError(f'LoadImagePair: {error}') from error

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Loads; see the class."""
        paths = results.get('pair_paths')
        if paths is None:
            return self._from_array(results)
        if len(paths) != 2:
            raise DataError(f'a pair has two images, got {len(paths)}', results.get('img_path'))
        first, second = ({**results, 'img_path': path} for path in paths)
        rasters = results.pop('rasters', None)
        for number, one in enumerate((first, second)):
            one.pop('valid_mask', None)
            if rasters is not None:
                one['raster'] = rasters[number]
        first, second = self.load.transform(first), self.load.transform(second)
        images = [first['img'], second['img']]
        if images[0].shape != images[1].shape:
            kind = ImageSizeError if images[0].shape[:2] != images[1].shape[:2] else None
            raise (kind or BandMismatchError)(
                f'has the shape {images[1].shape} (H, W, C), its partner {paths[0]} '
                f'{images[0].shape}',
                path=paths[1],
            )
        masks = [one.get('valid_mask') for one in (first, second)]
        results.update(
            {key: value for key, value in first.items() if key not in ('img', 'valid_mask')}
        )
        results['img_path'] = paths[0]
        return _joined(results, images, masks)

    def _from_array(self, results: dict[str, Any]) -> dict[str, Any]:
        path = results['img_path']
        try:
            array = np.load(path, mmap_mode='r', allow_pickle=False)
        except FileNotFoundError as error:
            raise ImageNotFoundError('no such file', path=path) from error
        except (ValueError, OSError, EOFError) as error:
            raise CorruptImageError(f'not a readable .npy array ({error})', path=path) from error
        if array.ndim != 4 or len(array) != 2:
            raise ImageSizeError(
                f'a pair is an array of shape (2, C, H, W), got {array.shape}', path=path
            )
        from mmrsfm.datasets.raster import select_bands

        names = self.load.band_names or results.get('band_names')
        chosen = select_bands(array.shape[1], self.load.bands, names, path)
        pair = np.array(array[:, chosen], dtype=np.float32)
        nodata = self.load.nodata if isinstance(self.load.nodata, (int, float)) else None
        valid = np.isfinite(pair)
        if nodata is not None:
            valid &= pair != nodata
        for date in pair:
            check_nan(date.transpose(1, 2, 0), (), date.shape[1:], path, all_nan=self.load.all_nan)
        pair[~valid] = 0
        if names is not None:
            results['band_names'] = tuple(names[position] for position in chosen)
        results['value_scale'], results['value_offset'] = 1.0, 0.0
        images = [one.transpose(1, 2, 0) for one in pair]
        masks = [None if one.all() else one.transpose(1, 2, 0) for one in valid]
        return _joined(results, images, masks)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.load!r})'


def _joined(
    results: dict[str, Any], images: list[np.ndarray], masks: list[np.ndarray | None]
) -> dict[str, Any]:
    results.pop('valid_mask', None)
    if any(mask is not None for mask in masks):
        results['valid_mask'] = np.concatenate(
            [
                np.ones(image.shape, bool) if mask is None else mask
                for image, mask in zip(images, masks, strict=True)
            ],
            axis=2,
        )
    results['img'] = np.concatenate(images, axis=2).astype(np.float32, copy=False)
    results['num_dates'] = len(images)
    results['img_shape'] = results['ori_shape'] = images[0].shape[:2]
    return results
