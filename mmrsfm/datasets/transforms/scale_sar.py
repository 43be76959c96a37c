# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Brings heavy-tailed SAR values into a range that a model can take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmrsfm.errors import ConfigError
from mmrsfm.registry import TRANSFORMS

METHODS = ('linear', 'sqrt', 'log', 'db')
# What a value that is not positive counts as, where a logarithm is taken.
_FLOOR = 1e-6


@TRANSFORMS.register_module()
class ScaleSAR(BaseTransform):
    """Compresses, clips and stretches the SAR channels of an image.

    The amplitude of SAR images is heavy-tailed: a few bright targets are orders of magnitude above
    the rest, so that mean and standard deviation describe them, and not the scene (Capella's in
    MaRS-16M: 2353 and 4327). In three steps, each of which can be left out:

    1. ``method``: ``'linear'``: as it is; ``'sqrt'``; ``'log'``: log(1 + value); ``'db'``: 20 log10
       of amplitudes, 10 log10 of ``quantity='power'``. Values below 0 count as 0.
    2. ``limits``: everything outside is clipped to them.
    3. ``out_range``: the limits become these numbers.

    Mean and standard deviation of the data preprocessor are those of the result. What is invalid in
    ``valid_mask``, and NaN, is not counted and stays invalid.

    Required keys: ``img`` (H, W, C), and ``modalities`` unless ``channels`` are given. Modified:
    ``img`` (float32); ``value_scale`` and ``value_offset`` are removed, since the image is in other
    units than the loader said.

    Args:
        method: See above.
        limits: ``(low, high)`` in units of the result of step 1, the same for all images, which
            keeps images comparable; ``None``: the percentiles of the valid pixels of each channel
            of the image.
        percentiles: Two percentiles in [0, 100], where ``limits`` is ``None``; ``None``: nothing is
            clipped, and the image's own range is stretched.
        out_range: What the limits become; ``None``: nothing is stretched.
        modality: Whose channels, of the image's ``modalities``.
        channels: Zero-based channels, instead of ``modality``.
        quantity: ``'amplitude'`` or ``'power'``, for ``'db'``.

    Raises:
        ConfigError: For contradictory arguments, or an image without these channels.
    """

    def __init__(
        self,
        method: str = 'sqrt',
        limits: Sequence[float] | None = None,
        percentiles: Sequence[float] | None = (1.0, 99.0),
        out_range: Sequence[float] | None = (0.0, 255.0),
        modality: str = 'sar',
        channels: Sequence[int] | None = None,
        quantity: str = 'amplitude',
    ) -> None:
        if method not in METHODS or quantity not in ('amplitude', 'power'):
            raise ConfigError(
                f"ScaleSAR: method is one of {METHODS} and quantity 'amplitude' or 'power', got "
                f'{method!r} and {quantity!r}'
            )
        pairs = {'limits': limits, 'percentiles': percentiles, 'out_range': out_range}
        for name, pair in pairs.items():
            if pair is not None and (len(pair) != 2 or not pair[0] < pair[1]):
                raise ConfigError(f'ScaleSAR: {name} must be (low, high), got {pair}')
        if percentiles is not None and not 0 <= percentiles[0] < percentiles[1] <= 100:
            raise ConfigError(f'ScaleSAR: percentiles lie in [0, 100], got {percentiles}')
        self.method = method
        self.limits = None if limits is None else (float(limits[0]), float(limits[1]))
        self.percentiles = None if percentiles is None else tuple(percentiles)
        self.out_range = None if out_range is None else (float(out_range[0]), float(out_range[1]))
        self.modality = modality
        self.channels = None if channels is None else tuple(channels)
        self.quantity = quantity

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Scales the channels; see the class."""
        image = results['img']
        valid = results.get('valid_mask')
        scaled = image.astype(np.float32)
        for channel in self._channels(results, image.shape[2]):
            known = np.isfinite(scaled[..., channel])
            if valid is not None:
                known &= valid[..., channel]
            scaled[..., channel] = self._scale(scaled[..., channel], known)
        results['img'] = scaled
        for key in ('value_scale', 'value_offset'):
            results.pop(key, None)
        return results

    def _channels(self, results: dict[str, Any], count: int) -> Sequence[int]:
        if self.channels is not None:
            if not all(0 <= channel < count for channel in self.channels):
                raise ConfigError(f'ScaleSAR: channels {self.channels} of an image of {count}')
            return self.channels
        modalities = results.get('modalities') or {}
        if self.modality not in modalities:
            raise ConfigError(
                f'ScaleSAR: the image has no modality {self.modality!r}, only {list(modalities)}; '
                'give channels=[...] for images that mmrsfm.LoadModalities has not loaded'
            )
        names = list(modalities)
        start = sum(modalities[name] for name in names[: names.index(self.modality)])
        return range(start, start + modalities[self.modality])

    def _scale(self, values: np.ndarray, known: np.ndarray) -> np.ndarray:
        if self.method == 'sqrt':
            values = np.sqrt(np.maximum(values, 0))
        elif self.method == 'log':
            values = np.log1p(np.maximum(values, 0))
        elif self.method == 'db':
            decibels = 20 if self.quantity == 'amplitude' else 10
            values = decibels * np.log10(np.maximum(values, _FLOOR))
        if self.limits is not None:
            low, high = self.limits
        elif not known.any():
            return values
        elif self.percentiles is not None:
            low, high = (float(v) for v in np.percentile(values[known], self.percentiles))
        else:
            low, high = float(values[known].min()), float(values[known].max())
        if self.limits is not None or self.percentiles is not None:
            values = np.clip(values, low, high)
        if self.out_range is None:
            return values
        first, last = self.out_range
        # An image of one value gets the lower end.
        factor = (last - first) / (high - low) if high > low else 0.0
        return first + (values - low) * np.float32(factor)

    def __repr__(self) -> str:
        options = ', '.join(f'{key}={value!r}' for key, value in vars(self).items())
        return f'{type(self).__name__}({options})'
