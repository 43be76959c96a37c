# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Loads the images of several modalities of one place behind each other."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmrsfm.datasets.transforms import geometry
from mmrsfm.datasets.transforms.load_multi_band_image import LoadMultiBandImage
from mmrsfm.errors import (
    BandMismatchError,
    ConfigError,
    CorruptImageError,
    DataError,
    ImageSizeError,
)
from mmrsfm.registry import TRANSFORMS

INVALID = ('mean', 'nan')


@dataclass
class _Modality:
    name: str
    channels: int
    names: tuple[str, ...]
    load: LoadMultiBandImage


@TRANSFORMS.register_module()
class LoadModalities(BaseTransform):
    """Loads one image a modality; their channels follow each other in one array.

    Required key: ``modality_paths``, a mapping from the name of a modality to its file (or to a
    list of files of one band each). A modality that is not in it, or ``None``, is missing in this
    sample: its channels are there, and wholly invalid. So is one whose file holds nothing but NaN,
    as a tile beside the swath of a radar (the log names the first; ``all_nan='error'`` of a
    modality makes it an error), as long as another modality has something. Optional keys:
    ``window`` (row, column, height, width), the same for all; ``rasters``: from the name of a
    modality to what was read of it before (``raster`` of :class:`mmrsfm.LoadMultiBandImage`).

    Added keys: ``img`` (H, W, C), ``valid_mask`` (H, W, C) bool where something is invalid,
    ``band_names``, ``modalities`` (name to number of channels), ``value_scale``, ``value_offset``,
    ``img_shape``, ``ori_shape``, ``geo`` and, unless it is there, ``img_path`` (both of the
    modality that gives the size, the first that is present). See
    :class:`mmrsfm.LoadMultiBandImage`, which reads each file.

    Args:
        modalities: From the name of each modality, in their order, to its number of channels, or to
            ``dict(channels=..., names=..., **options)``: ``names`` of its channels for
            ``band_names`` (otherwise the name of the modality, numbered from 1 if there are
            several: ``rgb1, rgb2, rgb3, sar``) and options of :class:`mmrsfm.LoadMultiBandImage`
            (``bands``, ``band_names`` of the file, ``scale``, ``offset``, ``nodata``, ...).
        interpolation: How an image of another size is brought to the size of the first:
            ``'nearest'``, ``'bilinear'``, ``'bicubic'``; ``None``: other sizes are an error. Both
            must cover the same ground.
        allow_missing: Whether a modality may be missing.
        invalid: ``'mean'``: invalid pixels get the mean of their band and ``valid_mask`` marks
            them, for pipelines of the mmrsfm transforms. ``'nan'``: they are NaN in the image,
            without a mask, for pipelines of other libraries, which would leave a mask behind.
        to_float32: False keeps integers, in a type that holds those of all modalities.
        dtype: With ``to_float32=False``, the type of all integers, e.g. ``'uint16'``: where files
            of one modality have 8 and 16 bits, or one that is missing has 16, the samples of a
            batch would be of several types. Files of floating point numbers stay such.

    Raises:
        ConfigError: For contradictory arguments.
        DataError: When a sample is loaded, one of its subclasses with the path: missing, corrupt,
            complex values, another number of bands, another size.
    """

    def __init__(
        self,
        modalities: Mapping[str, int | Mapping[str, Any]],
        interpolation: str | None = None,
        allow_missing: bool = True,
        invalid: str = 'mean',
        to_float32: bool = True,
        dtype: str | None = None,
    ) -> None:
        if dtype is not None and (to_float32 or not np.issubdtype(np.dtype(dtype), np.integer)):
            raise ConfigError(
                f'LoadModalities: dtype is a type of integers, with to_float32=False, got {dtype!r}'
            )
        if not modalities:
            raise ConfigError('LoadModalities: modalities names none')
        if interpolation is not None and interpolation not in geometry.INTERPOLATIONS:
            raise ConfigError(
                f'LoadModalities: interpolation is one of {geometry.INTERPOLATIONS}, or None for '
                f'images of one size, got {interpolation!r}'
            )
        if invalid not in INVALID or (invalid == 'nan' and not to_float32):
            raise ConfigError(
                f'LoadModalities: invalid must be one of {INVALID}, got {invalid!r}'
                + (' (integers hold no NaN)' if invalid == 'nan' else '')
            )
        self._modalities = [
            _parse(name, value, to_float32 or invalid == 'nan', allow_missing)
            for name, value in modalities.items()
        ]
        self.band_names = tuple(band for one in self._modalities for band in one.names)
        if len(set(self.band_names)) != len(self.band_names):
            raise ConfigError(f'LoadModalities: a name occurs twice among {self.band_names}')
        self.modalities = {one.name: one.channels for one in self._modalities}
        self.interpolation = interpolation
        self.allow_missing = allow_missing
        self.invalid = invalid
        self.to_float32 = to_float32
        self.dtype = None if dtype is None else np.dtype(dtype)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Loads the images; see the class."""
        paths = results.get('modality_paths')
        if not isinstance(paths, Mapping):
            raise ConfigError(
                'LoadModalities: the sample has no modality_paths, a mapping from modality to file'
            )
        self._check_paths(paths, results)
        loaded: dict[str, dict[str, Any]] = {}
        for one in self._modalities:
            if paths.get(one.name) is not None:
                given = {'window': results.get('window')}
                given['raster'] = results.get('rasters', {}).get(one.name)
                loaded[one.name] = self._load(one, paths[one.name], given)
        if 'rasters' not in results:
            self._check_any(paths, loaded, results.get('window'))
        results.pop('rasters', None)
        first = next(iter(loaded.values()))
        size = first['img'].shape[:2]
        images, masks = [], []
        for one in self._modalities:
            image, valid = self._at_size(loaded.get(one.name), one, size)
            images.append(image)
            masks.append(valid)
        image = np.concatenate(images, axis=2)
        if image.dtype == np.float64:  # NumPy's common type of int32 and float32
            image = image.astype(np.float32)
        if self.dtype is not None and image.dtype != self.dtype and image.dtype.kind in 'iu':
            if not np.can_cast(image.dtype, self.dtype):
                raise CorruptImageError(
                    f'LoadModalities(dtype={self.dtype.name!r}) does not hold its {image.dtype}',
                    path=first['img_path'],
                )
            image = image.astype(self.dtype)
        results.pop('valid_mask', None)
        if any(valid is not None for valid in masks):
            valid = np.concatenate(
                [
                    np.ones(plane.shape, bool) if mask is None else mask
                    for plane, mask in zip(images, masks, strict=True)
                ],
                axis=2,
            )
            if self.invalid == 'nan':
                image[~valid] = np.nan
            else:
                results['valid_mask'] = valid
        results['img'] = image
        results['band_names'] = self.band_names
        results['modalities'] = dict(self.modalities)
        for key, neutral in (('scale', 1.0), ('offset', 0.0)):
            results[f'value_{key}'] = self._by_channel(key, neutral)
        results.pop('geo', None)
        if 'geo' in first:
            results['geo'] = first['geo']
        results.setdefault('img_path', first['img_path'])
        results['img_shape'] = results['ori_shape'] = size
        return results

    def _check_paths(self, paths: Mapping[str, Any], results: dict[str, Any]) -> None:
        where = next((path for path in paths.values() if path is not None), None)
        where = where[0] if isinstance(where, (list, tuple)) else where or results.get('img_path')
        missing = [name for name in self.modalities if paths.get(name) is None]
        if len(missing) == len(self.modalities):
            raise DataError(
                f'the sample has none of the modalities {list(self.modalities)}, only '
                f'{[name for name, path in paths.items() if path is not None]}',
                path=where,
            )
        if missing and not self.allow_missing:
            raise DataError(
                f'the sample has no {" and no ".join(missing)}',
                path=where,
                hint='LoadModalities(allow_missing=True) goes on without it',
            )

    def _check_any(
        self, paths: Mapping[str, Any], loaded: Mapping[str, dict[str, Any]], window: Any
    ) -> None:
        """Raises for a sample of whose files none holds a number."""
        masks = [sample.get('valid_mask') for sample in loaded.values()]
        if any(mask is None or mask.any() for mask in masks):
            return
        errors = []
        for one in self._modalities:
            if one.name in loaded:
                strict = copy(one.load)
                strict.all_nan = 'error'
                try:
                    strict.transform({'img_path': paths[one.name], 'window': window})
                except CorruptImageError as error:
                    errors.append(error)
        if len(errors) == len(loaded):  # otherwise a file declares that it holds no data
            raise errors[0]

    def _load(self, one: _Modality, path: Any, given: dict[str, Any]) -> dict[str, Any]:
        sample = {key: value for key, value in given.items() if value is not None}
        sample['img_path'] = path
        sample = one.load.transform(sample)
        count = sample['img'].shape[2]
        if isinstance(path, (list, tuple)):
            sample['img_path'] = path = path[0]
        if count != one.channels:
            raise BandMismatchError(
                f'{count} band(s), but the modality {one.name!r} has {one.channels} channel(s)',
                path=path,
                hint=f'Choose them: modalities=dict({one.name}=dict(channels={one.channels}, '
                f'bands={list(range(1, min(count, one.channels) + 1))}))',
            )
        return sample

    def _at_size(
        self, sample: dict[str, Any] | None, one: _Modality, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if sample is None:  # the smallest type that there is: the others decide
            shape = (*size, one.channels)
            dtype = np.float32 if self.to_float32 else np.uint8
            return np.zeros(shape, dtype), np.zeros(shape, bool)
        image, valid = sample['img'], sample.get('valid_mask')
        if image.shape[:2] == size:
            return image, valid
        if self.interpolation is None:
            raise ImageSizeError(
                f'{image.shape[0]} x {image.shape[1]} pixels (H x W), another modality of the same '
                f'sample has {size[0]} x {size[1]}',
                path=sample['img_path'],
                hint="LoadModalities(interpolation='bilinear') resamples, where both cover the "
                'same ground',
            )
        if valid is not None:
            valid = geometry.resample_valid(valid, size, self.interpolation, antialias=True)
        keep = not self.to_float32
        return geometry.resample_image(image, size, self.interpolation, True, keep), valid

    def _by_channel(self, key: str, neutral: float) -> Any:
        """Scale or offset of all channels: one number where they agree."""
        values: list[float] = []
        for one in self._modalities:
            given: Any = getattr(one.load, key)
            given = neutral if given is None else given
            several = isinstance(given, (list, tuple))
            values += [float(v) for v in given] if several else [float(given)] * one.channels
        return values[0] if len(set(values)) == 1 else tuple(values)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(modalities={self.modalities}, interpolation='
            f'{self.interpolation!r}, allow_missing={self.allow_missing}, invalid='
            f'{self.invalid!r}, to_float32={self.to_float32}, dtype={self.dtype})'
        )


def _parse(
    name: str, value: int | Mapping[str, Any], to_float32: bool, allow_missing: bool
) -> _Modality:
    options: dict[str, Any] = dict(value) if isinstance(value, Mapping) else {'channels': value}
    channels = options.pop('channels', None)
    if not isinstance(channels, int) or channels < 1:
        raise ConfigError(
            f'LoadModalities: modality {name!r} needs its number of channels, got {value!r}'
        )
    default = [name] if channels == 1 else [f'{name}{i}' for i in range(1, channels + 1)]
    names: Any = options.pop('names', None) or default
    if isinstance(names, str) or len(names) != channels:
        raise ConfigError(
            f'LoadModalities: modality {name!r} has {channels} channel(s), but the names {names!r}'
        )
    options.setdefault('all_nan', 'invalid' if allow_missing else 'error')
    try:
        load = LoadMultiBandImage(**options, to_float32=to_float32)
    except TypeError as error:
        raise ConfigError(f'LoadModalities: modality {name!r}: {error}') from error
    return _Modality(name, channels, tuple(names), load)
