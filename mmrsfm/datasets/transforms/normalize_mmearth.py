# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Makes the input and the targets of a pretraining out of the layers of a tile."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmrsfm.datasets.mmearth_layers import RULES, band_statistics, convert
from mmrsfm.datasets.transforms.load_mmearth import LayerChoice
from mmrsfm.errors import BandMismatchError, ConfigError
from mmrsfm.registry import TRANSFORMS


class TargetDict(dict):
    """A dict of tensors that moves to a device with the data sample that holds it."""

    def to(self, *args: Any, **kwargs: Any) -> TargetDict:
        """The same with each tensor moved, as :meth:`torch.Tensor.to`."""
        return TargetDict({name: value.to(*args, **kwargs) for name, value in self.items()})

    def pin_memory(self) -> TargetDict:
        """The same in page-locked memory."""
        return TargetDict({name: value.pin_memory() for name, value in self.items()})


@TRANSFORMS.register_module()
class NormalizeMMEarth(BaseTransform):
    """Finds what is missing, normalises, and turns stored numbers into classes.

    Numbers are normalised by the statistics of the data set; those of Sentinel-2 are of the product
    (L1C or L2A) that the tile is from. Which numbers count as missing:
    :mod:`mmrsfm.datasets.mmearth_layers`; what :class:`mmrsfm.Pad` added is, in every map.

    Required keys: those of :class:`mmrsfm.LoadMMEarth`; it comes after whatever crops. Modified:
    ``img`` (H, W, C) float32, 0 where missing; ``band_names``. Added: ``valid_mask`` (H, W, C)
    bool, where something is missing; ``targets``, from names to tensors: maps (C, H, W) float32,
    NaN where missing; class maps (H, W) int64, -1 where missing; vectors (C,) float32, NaN where
    missing; classes () int64, -1 where missing. Pack with::

        dict(
            type='mmrsfm.PackInputs', algorithm_keys=('targets',), meta_keys=('tile_id', 's2_type')
        )

    Args:
        rules: ``'corrected'``, ``'legacy2024'`` or ``'head'``.

    Raises:
        ConfigError: The rules are unknown, or the sample was not loaded by LoadMMEarth.
        BandMismatchError: The data set has no statistics of a band.
    """

    def __init__(self, rules: str = 'corrected') -> None:
        if rules not in RULES:
            raise ConfigError(f'NormalizeMMEarth: rules are one of {RULES}, got {rules!r}')
        self.rules = rules
        self._statistics: dict[tuple[str, tuple[int, ...], str], Any] = {}
        self._source: Any = None

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Normalises; see the class."""
        if 'layer_choices' not in results:
            raise ConfigError('NormalizeMMEarth comes after mmrsfm.LoadMMEarth')
        inputs, targets = results['layer_choices']
        first = next(iter(inputs))
        # Added by mmrsfm.Pad; before it there is none.
        valid = results.pop('valid_mask', None)
        padded = None if valid is None or valid.all() else ~valid.any(-1)
        stored = dict(results['layer_vectors'])
        for name in (first, *results['seg_fields']):
            stored[name] = results['img' if name == first else name].transpose(2, 0, 1)
        done: dict[tuple[str, tuple[int, ...]], np.ndarray] = {}

        def value_of(choice: LayerChoice) -> np.ndarray:
            key = (choice.layer.name, choice.columns)
            if key not in done:
                try:
                    done[key] = self._convert(choice, stored[choice.layer.name], results)
                except BandMismatchError as error:
                    where = results['img_path'], error.band, error.hint
                    raise BandMismatchError(error.reason, *where) from None
                if padded is not None and choice.layer.is_map:
                    missing = np.nan if choice.layer.kind == 'map' else -1
                    done[key][..., padded] = missing
            return done[key]

        seen = [value_of(choice) for choice in inputs.values()]
        image = seen[0] if len(seen) == 1 else np.concatenate(seen)
        invalid = np.isnan(image)
        if invalid.any():
            image = np.where(invalid, np.float32(0), image)
            results['valid_mask'] = ~invalid.transpose(1, 2, 0)
        # An own copy, as the input may be changed in place: its target is the same array.
        elif any(done[key] is image for key in done if key[0] in targets):
            image = image.copy()
        results['targets'] = TargetDict(
            {name: torch.from_numpy(value_of(choice)) for name, choice in targets.items()}
        )
        results['img'] = image.transpose(1, 2, 0)
        results['img_shape'] = image.shape[1:]
        results['band_names'] = tuple(name for choice in inputs.values() for name in choice.names)
        for name in results['seg_fields']:
            del results[name]
        del results['seg_fields'], results['layer_vectors'], results['layer_choices']
        return results

    def _convert(
        self, choice: LayerChoice, stored: np.ndarray, results: dict[str, Any]
    ) -> np.ndarray:
        level = results['s2_type']
        if self._source is not results['band_stats']:
            self._statistics, self._source = {}, results['band_stats']
        key = (choice.layer.name, choice.columns, level)
        if key not in self._statistics:
            self._statistics[key] = (
                choice.layer.for_rules(self.rules),
                band_statistics(choice.layer, choice.columns, self._source, level),
            )
        layer, rows = self._statistics[key]
        return convert(layer, stored, choice.columns, rows)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(rules={self.rules!r})'
