# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Tiles of a scene take the place of files in a config's own pipeline."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS

from mmrsfm.datasets.raster import Raster
from mmrsfm.errors import BandMismatchError, ConfigError

_SIZES = ('scale', 'size', 'crop_size')
# What only the targets need.
_TARGETS = ('LoadAnnotations', 'Label', 'LoadHeightMap', 'MultiTaskAnnotations', 'ConvertBoxType')


@dataclass(frozen=True)
class InputSpec:
    """What a model reads of one scene.

    Attributes:
        name: What the input is, e.g. ``'image'``, ``'first'``, ``'sar'``.
        bands: The bands in the model's order, by name or one-based number; ``None``: all.
        count: How many bands; ``None``: not stated.
        eight_bit: Whether values are those of 8-bit pictures, as common image readers give them.
        optional: Whether the model also runs without it.
    """

    name: str
    bands: tuple[str | int, ...] | None = None
    count: int | None = None
    eight_bit: bool = False
    optional: bool = False


class TilePipeline:
    """The steps of a config's pipeline, with arrays in memory instead of files.

    The step that loads (mmcv's LoadImageFromFile, ``mmrsfm.LoadMultiBandImage``,
    ``LoadModalities``, ``LoadImagePair``, ``LoadGeoBench``, Open-CD's MultiImgLoadImageFromFile)
    takes the tile, with its own scale, offset and order of channels; steps that load targets are
    left out; sizes (Resize, Crop, Pad) are multiplied, so that a pixel of the ground is scaled as
    in training.

    Args:
        steps: Configs of the pipeline.
        factor: What sizes are multiplied by: the side of the tiles, divided by that of the images
            that the pipeline was written for.
        contract_bands: Bands by name where the loading step names none; ``None``: not stated.
        num_bands: How many, where only that is known.

    Attributes:
        inputs: What is read of each scene.

    Raises:
        ConfigError: If no step loads, or none that is known.
    """

    def __init__(
        self,
        steps: Sequence[Mapping[str, Any]],
        factor: float = 1.0,
        contract_bands: Sequence[str] | None = None,
        num_bands: int | None = None,
    ) -> None:
        position = next((n for n, step in enumerate(steps) if _kind(step) is not None), None)
        if position is None:
            raise ConfigError(
                'the pipeline of the config has no step that a scene can take the place of (of '
                f'{sorted(_KINDS)}), only {[str(step["type"]) for step in steps]}'
            )
        step = dict(copy.deepcopy(steps[position]))
        self._kind = str(_kind(step))
        bands = None if contract_bands is None else tuple(contract_bands)
        if self._kind == 'picture':
            self._flag = str(step.get('color_type', 'color'))
            self._float = bool(step.get('to_float32', False))
            self._plain = step.get('imdecode_backend') == 'tifffile' or 'SingleRS' in step['type']
            pair = 'MultiImg' in str(step['type'])
            counted = {'unchanged': num_bands, 'grayscale': 1}.get(self._flag, 3)
            names = ('first', 'second') if pair else ('image',)
            spec = dict(count=counted, eight_bit=not self._plain)
            self.inputs = tuple(InputSpec(name, **spec) for name in names)  # type: ignore[arg-type]
        else:
            if 'LoadGeoBench' in str(step['type']):
                step = dict(type='mmrsfm.LoadMultiBandImage')
            self._load: Any = TRANSFORMS.build(step)
            self.inputs = self._specify(bands, num_bands)
        rest = [step for step in steps[position + 1 :] if not _loads_target(step)]
        self._rest = Compose([_scaled(one, factor) for one in rest])

    def _specify(
        self, bands: tuple[str, ...] | None, num_bands: int | None
    ) -> tuple[InputSpec, ...]:
        if self._kind == 'modalities':
            result = []
            for part in self._load._modalities:
                part.load.max_invalid = None
                chosen = part.load.bands
                chosen = None if chosen is None else tuple(chosen)
                optional = self._load.allow_missing and len(self._load.modalities) > 1
                result.append(InputSpec(part.name, chosen, part.channels, False, optional))
            return tuple(result)
        load = self._load.load if self._kind == 'pair' else self._load
        load.max_invalid = None  # a scene may have any share of no-data
        load.expected_size = None
        chosen = bands if load.bands is None else tuple(load.bands)
        count = num_bands if chosen is None else len(chosen)
        names = ('first', 'second') if self._kind == 'pair' else ('image',)
        return tuple(InputSpec(name, chosen, count) for name in names)

    def __call__(self, rasters: Sequence[Raster | None], name: str = 'scene') -> dict[str, Any]:
        """Runs the pipeline on one tile.

        Args:
            rasters: One for each input, with the bands that :attr:`inputs` asks for, of one size;
                ``None`` for an input that is missing.
            name: What errors call the tile.

        Returns:
            What the last step packs: ``dict(inputs, data_samples)``.

        Raises:
            DataError: If the bands are not those of the model.
        """
        results: dict[str, Any] = {'img_path': name, 'img_id': 0, 'reduce_zero_label': False}
        if self._kind == 'picture':
            images = [self._picture(raster, name) for raster in rasters if raster is not None]
            results['img'] = images if len(self.inputs) > 1 else images[0]
            results['img_shape'] = results['ori_shape'] = images[0].shape[:2]
        elif self._kind == 'modalities':
            there = zip(self.inputs, rasters, strict=False)
            results['rasters'] = {one.name: raster for one, raster in there if raster is not None}
            results['modality_paths'] = dict.fromkeys(results['rasters'], name)
            results = self._load.transform(results)
        elif self._kind == 'pair':
            results['rasters'] = list(rasters)
            results['pair_paths'] = [name, name]
            results = self._load.transform(results)
        else:
            results['raster'] = rasters[0]
            results = self._load.transform(results)
        return self._rest(results)

    def _picture(self, raster: Raster, name: str) -> np.ndarray:
        image = raster.array
        if self._plain:
            return image.astype(np.float32)
        wanted = self.inputs[0].count
        if wanted is not None and image.shape[2] != wanted:
            raise BandMismatchError(
                f'the model takes {wanted} band(s), got {image.shape[2]}', path=name
            )
        if wanted == 1:
            image = image[..., 0]
        elif image.shape[2] in (3, 4):
            image = image[..., [2, 1, 0, 3][: image.shape[2]]]  # as OpenCV gives them
        return np.ascontiguousarray(image.astype(np.float32) if self._float else image)


_KINDS = {
    'LoadImageFromFile': 'picture',
    'LoadSingleRSImageFromFile': 'picture',
    'MultiImgLoadImageFromFile': 'picture',
    'LoadMultiBandImage': 'bands',
    'LoadGeoBench': 'bands',
    'LoadModalities': 'modalities',
    'LoadImagePair': 'pair',
}


def _type(step: Mapping[str, Any]) -> str:
    kind = step['type']
    return (kind if isinstance(kind, str) else kind.__name__).rsplit('.', 1)[-1]


def _kind(step: Mapping[str, Any]) -> str | None:
    return _KINDS.get(_type(step))


def _loads_target(step: Mapping[str, Any]) -> bool:
    return any(word in _type(step) for word in _TARGETS)


def _scaled(step: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """A step with its sizes multiplied."""
    result = dict(copy.deepcopy(step))
    if factor != 1:
        for key in _SIZES:
            if isinstance(result.get(key), int):
                result[key] = round(result[key] * factor)
            elif isinstance(result.get(key), (list, tuple)):
                result[key] = tuple(round(value * factor) for value in result[key])
    return result


def stated_size(steps: Sequence[Mapping[str, Any]], last: bool = False) -> int | None:
    """The larger side, in pixels, that the first (or last) step with a size gives.

    Args:
        steps: Configs of a pipeline.
        last: Whether to look from its end.

    Returns:
        The side; ``None`` where no step states one.
    """
    for step in reversed(steps) if last else steps:
        for key in _SIZES:
            value = step.get(key)
            sides = np.atleast_1d(value) if isinstance(value, (int, list, tuple)) else np.empty(0)
            if sides.size and sides.dtype.kind == 'i' and sides.min() > 1:
                return int(sides.max())
    return None


def enlarged(size: int, least: int) -> int:
    """The smallest multiple of a size that is not below another, both in pixels."""
    return size * math.ceil(least / size)
