# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Loads an image of any format, number of bands and data type."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log

from mmrsfm.datasets.raster import BACKENDS, Raster, read_raster
from mmrsfm.datasets.transforms.geometry import fill_invalid
from mmrsfm.errors import BandMismatchError, ConfigError, CorruptImageError, ImageSizeError
from mmrsfm.registry import TRANSFORMS

# Types that torch can collate and move; others are converted to float32.
_WIRE_TYPES = ('uint8', 'int8', 'int16', 'uint16', 'int32', 'float32')

_TOLD: set[Path] = set()  # folders of which a file of nothing but NaN was named


@TRANSFORMS.register_module()
class LoadMultiBandImage(BaseTransform):
    """Loads GeoTIFF, TIFF, JPEG 2000, ``.npy``, PNG or JPEG with any number of bands.

    Required keys: ``img_path``: a file, or a list of files with one band each (for example the
    folder of a Sentinel-2 product), which may come at several resolutions: they are resampled
    (bilinear) to the finest. Optional: ``band_names`` (all bands of the file, from the dataset) and
    ``window`` (row, column, height, width); ``tile``: the number of a tile of ``img_path``, a
    file of packed tiles (:class:`mmrsfm.PackedTileDataset`). ``raster``: a
    :class:`mmrsfm.datasets.raster.Raster` that was read before, with the bands that would be
    loaded; then ``img_path`` is only a name.

    Added keys: ``img`` (H, W, C), ``band_names`` (where known; otherwise absent), ``value_scale``
    and ``value_offset`` (``value = stored * scale + offset``; packed as ``scale``, a name that
    mmcv's resizing transforms use for a size, and ``offset``), ``img_shape`` and ``ori_shape``
    (H, W), ``geo`` (where the file is georeferenced) and ``valid_mask`` (H, W, C) bool, only where
    something is invalid. Invalid values in ``img`` are replaced by the mean of the band's valid
    ones, so that no later step meets a NaN.

    Args:
        bands: Bands to load, by name or one-based number, in this order. ``None``: all.
        band_names: Names of all bands of the file. ``None``: those of the sample, else the file's.
        scale: Factor from stored numbers to values, one or one per loaded band. Give it here, or
            leave stored numbers as they are and let the data preprocessor scale on the device.
        offset: Added after scaling, one or one per loaded band.
        nodata: ``'auto'``: what the file declares (values, mask band); ``None``: nothing; a number,
            or one per loaded band: these values, instead of the file's. NaN and infinities are
            always invalid.
        backend: See :func:`mmrsfm.datasets.raster.read_raster`.
        window: (row, column, height, width) in pixels; a window in the sample takes precedence.
        expected_size: (H, W) that the image must have.
        npy_order: ``'HWC'`` or ``'CHW'``, for ``.npy`` files.
        to_float32: False keeps the stored integers, which are 2 to 4 times smaller on their way
            to the device. With ``scale`` or ``offset`` the result is float32 in any case.
        missing: What a file of a list that is not there is: an ``'error'``, or a band that is
            wholly ``'invalid'`` (as long as one band is there).
        max_invalid: Largest share of pixels, in [0, 1], that may be invalid in a band; above it the
            sample is a :class:`CorruptImageError`, which the policy of the run (``raise`` or
            ``skip``) deals with. 0: no NaN at all. ``None``: any share.
        all_nan: What a file is that holds nothing but NaN or infinities, and does not declare NaN
            as its no-data value: an ``'error'``, or an image (of a list: a band) that is wholly
            ``'invalid'``. A window may lie where a scene has no data, in either case.

    Raises:
        DataError: One of its subclasses, with path and band: missing, corrupt, wrong bands, wrong
            size, complex values.
    """

    def __init__(
        self,
        bands: Sequence[str | int] | None = None,
        band_names: Sequence[str] | None = None,
        scale: float | Sequence[float] | None = None,
        offset: float | Sequence[float] | None = None,
        nodata: str | float | Sequence[float | None] | None = 'auto',
        backend: str = 'auto',
        window: Sequence[int] | None = None,
        expected_size: Sequence[int] | None = None,
        npy_order: str = 'HWC',
        to_float32: bool = True,
        missing: str = 'error',
        max_invalid: float | None = None,
        all_nan: str = 'error',
    ) -> None:
        if backend not in BACKENDS:
            raise ConfigError(f'LoadMultiBandImage: backend must be one of {BACKENDS}')
        if isinstance(nodata, str) and nodata != 'auto':
            raise ConfigError("LoadMultiBandImage: nodata must be 'auto', None or numbers")
        if npy_order not in ('HWC', 'CHW'):
            raise ConfigError("LoadMultiBandImage: npy_order must be 'HWC' or 'CHW'")
        if isinstance(bands, str) or isinstance(band_names, str):
            raise ConfigError('LoadMultiBandImage: bands and band_names are lists')
        if bands is not None and not len(bands):
            raise ConfigError('LoadMultiBandImage: bands names no band; None loads all')
        if missing not in ('error', 'invalid'):
            raise ConfigError("LoadMultiBandImage: missing must be 'error' or 'invalid'")
        if all_nan not in ('error', 'invalid'):
            raise ConfigError("LoadMultiBandImage: all_nan must be 'error' or 'invalid'")
        if max_invalid is not None and not 0 <= max_invalid <= 1:
            raise ConfigError(f'LoadMultiBandImage: max_invalid is in [0, 1], got {max_invalid}')
        self.bands = None if bands is None else list(bands)
        self.band_names = None if band_names is None else tuple(band_names)
        self.scale = scale
        self.offset = offset
        self.nodata = nodata
        self.backend = backend
        self.window = None if window is None else tuple(window)
        self.expected_size = None if expected_size is None else tuple(expected_size)
        self.npy_order = npy_order
        self.to_float32 = to_float32
        self.missing = missing
        self.max_invalid = max_invalid
        self.all_nan = all_nan

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Reads the image; see the class."""
        path = results['img_path']
        names = self.band_names or results.get('band_names')
        window: Any = results.get('window') or self.window
        if 'raster' in results:
            raster = results.pop('raster')
        elif 'tile' in results:
            raster = self._read_packed(results, names)
        elif isinstance(path, (list, tuple)):
            raster = self._read_band_files(path, names, window)
            path = path[0]
        else:
            raster = read_raster(path, self.bands, names, window, self.backend, self.npy_order)
            check_nan(raster.array, raster.nodata, raster.full_shape, path, all_nan=self.all_nan)
        image = raster.array
        if self.expected_size is not None and image.shape[:2] != self.expected_size:
            raise ImageSizeError(
                f'{image.shape[0]} x {image.shape[1]} pixels (H x W), expected '
                f'{self.expected_size[0]} x {self.expected_size[1]}',
                path=path,
            )
        valid = self._find_valid(raster, path)
        with np.errstate(over='ignore'):  # what float32 cannot hold is marked as invalid
            image = self._convert(image, path)
        if valid is not None:
            self._check_invalid(valid, raster.band_names, path)
            image = fill_invalid(image, valid)
            results['valid_mask'] = valid
        results['img'] = image
        results['value_scale'] = _plain(self.scale, 1.0)
        results['value_offset'] = _plain(self.offset, 0.0)
        if raster.band_names is not None:
            results['band_names'] = raster.band_names
        else:
            results.pop('band_names', None)
        if raster.geo is not None:
            results['geo'] = raster.geo
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _read_packed(self, results: dict[str, Any], names: Sequence[str] | None) -> Raster:
        from mmrsfm.datasets.packed_tiles import open_packed
        from mmrsfm.datasets.raster import select_bands

        packed = open_packed(results['img_path'])
        image = packed.read(results['tile'], results.get('verify_tile', True))
        positions = select_bands(len(image), self.bands, names, results['img_path'])
        if positions != list(range(len(image))):
            image = image[positions]
        chosen = None if names is None else tuple(names[i] for i in positions)
        nodata = (None,) * len(positions)
        return Raster(image.transpose(1, 2, 0), chosen, nodata, None, None, image.shape[1:])

    def _read_band_files(
        self, paths: Sequence[str], names: Sequence[str] | None, window: Any
    ) -> Raster:
        from mmrsfm.datasets.raster import select_bands
        from mmrsfm.datasets.transforms.band_files import read_band_files

        positions = select_bands(len(paths), self.bands, names, paths[0])
        chosen = None if names is None else tuple(names[i] for i in positions)
        return read_band_files(
            [paths[i] for i in positions], chosen, window, self.missing, self.all_nan
        )

    def _check_invalid(
        self, valid: np.ndarray, names: Sequence[str] | None, path: str | Path
    ) -> None:
        if self.max_invalid is None:
            return
        shares = 1 - valid.mean(axis=(0, 1))
        worst = int(shares.argmax())
        if shares[worst] > self.max_invalid:
            raise CorruptImageError(
                f'{shares[worst]:.1%} of the pixels are NaN, infinite or no data, at most '
                f'{self.max_invalid:.1%} may be',
                path=path,
                band=worst + 1 if names is None else names[worst],
                hint='LoadMultiBandImage(max_invalid=...) sets the limit; the run leaves such '
                "samples out with on_error='skip'",
            )

    def _find_valid(self, raster: Raster, path: str) -> np.ndarray | None:
        """(H, W, C) bool, or ``None`` where everything is valid."""
        image = raster.array
        count = image.shape[2]
        values: Sequence[float | None]
        if self.nodata == 'auto':
            values = raster.nodata
        elif isinstance(self.nodata, (list, tuple)):
            values = self._per_band('nodata', self.nodata, count, path)
        else:
            values = [self.nodata] * count  # type: ignore[list-item]
        valid: np.ndarray | None = None
        if np.issubdtype(image.dtype, np.floating):
            # Judged as the float32 that they become: a no-data value of -1.8e308 is infinite then.
            with np.errstate(over='ignore'):
                finite = np.isfinite(image.astype(np.float32, copy=False))
            if not finite.all():
                valid = finite
        for band, value in enumerate(values):
            stored = _as_stored(value, image.dtype)
            if stored is None:
                continue
            hit = image[..., band] == stored
            if hit.any():
                if valid is None:
                    valid = np.ones(image.shape, bool)
                valid[..., band] &= ~hit
        if self.nodata == 'auto' and raster.mask is not None and not raster.mask.all():
            valid = np.ones(image.shape, bool) if valid is None else valid
            valid &= raster.mask[..., None]
        return valid

    def _convert(self, image: np.ndarray, path: str) -> np.ndarray:
        if self.scale is None and self.offset is None:
            if self.to_float32 or image.dtype.name not in _WIRE_TYPES:
                return image.astype(np.float32, copy=False)
            return image
        count = image.shape[2]
        scale = 1.0 if self.scale is None else self.scale
        offset = 0.0 if self.offset is None else self.offset
        image = image.astype(np.float32)
        image *= np.asarray(self._per_band('scale', scale, count, path), np.float32)
        image += np.asarray(self._per_band('offset', offset, count, path), np.float32)
        return image

    @staticmethod
    def _per_band(what: str, value: Any, count: int, path: str) -> Any:
        if isinstance(value, (list, tuple)) and len(value) != count:
            raise BandMismatchError(
                f'{count} bands are loaded, but {what} has {len(value)} entries', path=path
            )
        return value

    def __repr__(self) -> str:
        options = ', '.join(f'{key}={value!r}' for key, value in vars(self).items())
        return f'{type(self).__name__}({options})'


def check_nan(
    array: np.ndarray,
    nodata: Sequence[float | None],
    full_shape: Sequence[int],
    path: str | Path,
    band: str | int | None = None,
    all_nan: str = 'error',
) -> None:
    """Finds a file that holds nothing but NaN, and does not say that this is on purpose.

    A single image without a number teaches nothing, and mostly is one that a program failed to
    write. Of several modalities one may be missing: :class:`mmrsfm.LoadModalities` takes it so.

    Args:
        array: (H, W, ...), what was read.
        nodata: The no-data values that the file declares: NaN says that nothing was seen here.
        full_shape: (H, W) of the file: a window may lie where a scene has no data.
        path: The file.
        band: The band, where it is a single one.
        all_nan: ``'error'``; or ``'invalid'``: the log names the first such file of a folder.

    Raises:
        CorruptImageError: There is no finite number, and that is an error.
    """
    # Almost always the first number is finite: nothing else is looked at.
    if not array.size or not np.issubdtype(array.dtype, np.floating) or np.isfinite(array.flat[0]):
        return
    declared = any(value is not None and np.isnan(value) for value in nodata)
    if declared or array.shape[:2] != tuple(full_shape) or np.isfinite(array).any():
        return
    if all_nan == 'error':
        raise CorruptImageError(
            'holds nothing but NaN or infinities',
            path=path,
            band=band,
            hint="Leave the file out (train_cfg: on_bad_sample='skip' does), or, if that is meant, "
            "declare NaN as its no-data value or load it with all_nan='invalid'",
        )
    folder = Path(path).parent
    if folder not in _TOLD:
        _TOLD.add(folder)
        print_log(
            f'{path} holds nothing but NaN or infinities and is taken as missing; no further file '
            'of this folder is named (by this process)',
            logger='current',
            level=logging.WARNING,
        )


def _as_stored(value: float | None, dtype: np.dtype) -> Any:
    """The no-data value in the image's type, or ``None`` where the type cannot hold it."""
    if value is None or not np.isfinite(value):
        return None
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        whole = float(value).is_integer() and limits.min <= value <= limits.max
        return dtype.type(int(value)) if whole else None
    with np.errstate(over='ignore'):
        return dtype.type(value)


def _plain(value: Any, default: float) -> Any:
    if value is None:
        return default
    return tuple(value) if isinstance(value, (list, tuple)) else float(value)
