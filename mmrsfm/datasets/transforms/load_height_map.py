# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Loads the heights of all pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmrsfm.datasets.raster import read_raster
from mmrsfm.errors import BandMismatchError, ConfigError, ImageSizeError
from mmrsfm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadHeightMap(BaseTransform):
    """Loads a raster of one band of numbers, as heights in metres; NaN where there is none.

    Required keys: ``height_map_path``. Optional: ``window``, ``img`` (whose size the map must
    have).

    Added keys: ``gt_depth_map`` (H, W) float32, mmseg's name, with NaN for pixels without data;
    ``seg_fields`` names it, so that geometric transforms keep it aligned (resizing by nearest
    neighbour, which mixes no roof with the ground).

    Args:
        nodata: ``'auto'``: what the file declares (value, mask band); a number: this value,
            instead; ``None``: nothing. NaN and infinities always are.
        valid_range: Lowest and highest number that is a height; others become NaN.
        scale: Factor from stored numbers to metres.
        backend: See :func:`mmrsfm.datasets.raster.read_raster`.

    Raises:
        ConfigError: The sample has no ``height_map_path``.
        BandMismatchError: The file holds more than one band.
        ImageSizeError: The map has another size than the image.
    """

    def __init__(
        self,
        nodata: str | float | None = 'auto',
        valid_range: tuple[float, float] | None = None,
        scale: float = 1.0,
        backend: str = 'auto',
    ) -> None:
        if isinstance(nodata, str) and nodata != 'auto':
            raise ConfigError(f"LoadHeightMap: nodata must be 'auto', None or a number: {nodata!r}")
        if valid_range is not None and not valid_range[0] < valid_range[1]:
            raise ConfigError(f'LoadHeightMap: valid_range={tuple(valid_range)} holds nothing')
        self.nodata = nodata
        self.valid_range = valid_range
        self.scale = scale
        self.backend = backend

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Reads the map; see the class."""
        path = results.get('height_map_path')
        if path is None:
            raise ConfigError(
                f'LoadHeightMap: there are no heights for {results.get("img_path")} '
                '(height_map_path). Give the dataset the folder that holds them, or take '
                'LoadHeightMap out of the pipeline'
            )
        raster = read_raster(path, window=results.get('window'), backend=self.backend)
        if raster.array.shape[2] != 1:
            raise BandMismatchError(
                f'a height map has one band, got {raster.array.shape[2]}', path=path
            )
        with np.errstate(over='ignore'):  # what float32 cannot hold is no height
            heights = raster.array[..., 0].astype(np.float32)
        if 'img' in results and heights.shape != results['img'].shape[:2]:
            h, w = results['img'].shape[:2]
            raise ImageSizeError(
                f'the heights are {heights.shape[0]} x {heights.shape[1]} pixels (H x W), their '
                f'image {results.get("img_path")} has {h} x {w}',
                path=path,
            )
        valid = np.isfinite(heights)
        missing = raster.nodata[0] if self.nodata == 'auto' else self.nodata
        if missing is not None:
            with np.errstate(over='ignore'):
                valid &= heights != np.float32(missing)
        if self.nodata == 'auto' and raster.mask is not None:
            valid &= raster.mask
        heights = heights * np.float32(self.scale)
        if self.valid_range is not None:
            with np.errstate(invalid='ignore'):
                valid &= (heights >= self.valid_range[0]) & (heights <= self.valid_range[1])
        heights[~valid] = np.nan
        results['gt_depth_map'] = heights
        fields = results.setdefault('seg_fields', [])
        if 'gt_depth_map' not in fields:
            fields.append('gt_depth_map')
        return results

    def __repr__(self) -> str:
        options = ', '.join(f'{key}={value!r}' for key, value in vars(self).items())
        return f'{type(self).__name__}({options})'
