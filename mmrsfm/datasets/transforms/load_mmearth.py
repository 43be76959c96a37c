# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Reads the layers of a tile of MMEarth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmrsfm.datasets.mmearth_files import read_hdf5_tile, read_packed_tile
from mmrsfm.datasets.mmearth_layers import LAYERS, Layer, define_layer
from mmrsfm.errors import ConfigError, ImageSizeError
from mmrsfm.registry import TRANSFORMS

Wanted = Sequence[str] | Mapping[str, Sequence[str] | None]


@dataclass(frozen=True)
class LayerChoice:
    """Some bands of a layer.

    Attributes:
        layer: The layer.
        columns: Which of its stored bands.
    """

    layer: Layer
    columns: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bands."""
        return tuple(self.layer.bands[column] for column in self.columns)


@TRANSFORMS.register_module()
class LoadMMEarth(BaseTransform):
    """Reads what a model sees of a tile, and what it is to predict; as it is stored.

    Required keys: those of a sample of :class:`mmrsfm.MMEarth`. Added: ``img`` (H, W, bands), all
    stored bands of the first input; each other map (H, W, bands) under its own name, listed in
    ``seg_fields``, so that every mmrsfm transform that crops, flips or turns keeps them aligned;
    ``layer_vectors``, from names to what is not a map; ``band_names``, ``img_shape``,
    ``ori_shape``; ``layer_choices``, for :class:`mmrsfm.NormalizeMMEarth`, which comes after the
    cropping.

    A layer of one's own is a dataset in the same file::

        dict(
            type='mmrsfm.LoadMMEarth',
            targets=['sentinel2', 'night_lights'],
            modalities=dict(night_lights=dict(kind='map', bands=['radiance'], missing=[-1])),
        )

    Args:
        inputs: What the model sees: names of maps, or from names to names of bands (``None``:
            those that are used, of Sentinel-2 all but B10). Several are joined.
        targets: What it predicts, likewise, of any kind.
        modalities: Layers of one's own, or other options for a published one: from names to the
            fields of :class:`mmrsfm.datasets.mmearth_layers.Layer`; ``statistics`` are
            ``dict(mean=[...], std=[...])``, without them those of the data set.

    Raises:
        ConfigError: For contradictory arguments.
        DataError: When a sample is loaded, one of its subclasses with the path.
    """

    def __init__(
        self,
        inputs: Wanted = ('sentinel2',),
        targets: Wanted = tuple(LAYERS),
        modalities: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        own = {name: define_layer(name, options) for name, options in (modalities or {}).items()}
        layers = {**LAYERS, **own}
        self.inputs = _choose(inputs, layers, 'inputs')
        self.targets = _choose(targets, layers, 'targets')
        if not self.inputs or any(one.layer.kind != 'map' for one in self.inputs.values()):
            raise ConfigError(
                f'LoadMMEarth: inputs are maps of numbers, at least one; got {list(self.inputs)}'
            )
        self.names = tuple(dict.fromkeys((*self.inputs, *self.targets)))

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Loads the layers; see the class."""
        path, row = results['img_path'], results['row']
        if results.get('packed'):
            tile = read_packed_tile(path, row, self.names, results.get('verify_tile', True))
        else:
            tile = read_hdf5_tile(path, row, self.names)
        first = next(iter(self.inputs))
        size = tile[first].shape[1:] or ('H', 'W')
        chosen = self.targets | self.inputs
        vectors = {}
        results['seg_fields'] = []
        for name, stored in tile.items():
            layer = chosen[name].layer
            self._check(layer, stored, size, results)
            if not layer.is_map:
                vectors[name] = stored
            elif name == first:
                results['img'] = stored.transpose(1, 2, 0)
            else:
                results[name] = stored.transpose(1, 2, 0)
                results['seg_fields'].append(name)
        results['layer_vectors'] = vectors
        results['layer_choices'] = (self.inputs, self.targets)
        results['band_names'] = chosen[first].layer.bands
        results['img_shape'] = results['ori_shape'] = size
        return results

    def _check(
        self, layer: Layer, stored: np.ndarray, size: tuple[Any, ...], results: dict[str, Any]
    ) -> None:
        expected = (len(layer.bands), *(size if layer.is_map else ()))
        if stored.shape != expected:
            raise ImageSizeError(
                f'tile {results["row"]} has shape {stored.shape}, expected {expected}',
                path=results['img_path'],
                band=layer.name,
                hint=f'modalities=dict({layer.name}=dict(bands=[...])) names other bands',
            )

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(inputs={ {k: v.names for k, v in self.inputs.items()} }, '
            f'targets={list(self.targets)})'
        )


def _choose(wanted: Wanted, layers: Mapping[str, Layer], what: str) -> dict[str, LayerChoice]:
    if isinstance(wanted, str):
        raise ConfigError(f'LoadMMEarth: {what} is a list of names, got {wanted!r}')
    bands = wanted if isinstance(wanted, Mapping) else dict.fromkeys(wanted)
    unknown = [name for name in bands if name not in layers]
    if unknown:
        raise ConfigError(
            f'LoadMMEarth: {what} has unknown names {unknown}; known: {list(layers)}. A layer of '
            f'your own: modalities=dict({unknown[0]}=dict(kind=..., bands=[...]))'
        )
    chosen = {}
    for name, names in bands.items():
        layer = layers[name]
        if names is not None and layer.kind in ('class_map', 'class'):
            raise ConfigError(f'LoadMMEarth: {name} has classes, no bands to choose from')
        whole = layer.kind in ('class_map', 'class')
        columns = range(len(layer.bands)) if whole else layer.columns(names)
        chosen[name] = LayerChoice(layer, tuple(columns))
    return chosen
