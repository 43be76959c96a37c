# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Takes a modality away: in training at random, in testing always."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmrsfm.errors import ConfigError
from mmrsfm.registry import TRANSFORMS

INVALID = ('mask', 'nan')


@TRANSFORMS.register_module()
class DropModality(BaseTransform):
    """Marks all channels of one modality as invalid, as if it were missing in the sample.

    So a model meets in training what it meets when a modality is absent at test time; with
    ``prob=1, keep_one=False`` a test is one without the modality. (The idea of modality dropout:
    Neverova et al., "ModDrop: adaptive multi-modal gesture recognition", arXiv 1501.00102.)

    Required keys: ``img`` (H, W, C) and ``modalities`` (from :class:`mmrsfm.LoadModalities`, or
    given here). Modified: ``valid_mask`` (added if it is not there), or ``img``.

    Args:
        names: The modalities of which one, drawn uniformly, is taken away.
        prob: Probability that one is taken away, in [0, 1].
        modalities: From the names of the modalities, in the order of the channels, to their numbers
            of channels, for images from another loader.
        keep_one: Whether a sample without any other valid modality keeps the one.
        invalid: ``'mask'`` marks in ``valid_mask``; ``'nan'`` writes NaN into the image, for
            pipelines that know no mask (``LoadModalities(invalid='nan')``).

    Raises:
        ConfigError: For unknown modalities or an image of other channels.
    """

    def __init__(
        self,
        names: str | Sequence[str],
        prob: float = 0.5,
        modalities: Mapping[str, int] | None = None,
        keep_one: bool = True,
        invalid: str = 'mask',
    ) -> None:
        self.names = (names,) if isinstance(names, str) else tuple(names)
        if not self.names or not 0 <= prob <= 1:
            raise ConfigError(
                f'DropModality: needs names and a prob in [0, 1], got {names} and {prob}'
            )
        if invalid not in INVALID:
            raise ConfigError(f'DropModality: invalid must be one of {INVALID}, got {invalid!r}')
        self.prob = prob
        self.modalities = None if modalities is None else dict(modalities)
        self.keep_one = keep_one
        self.invalid = invalid

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Takes a modality away; see the class."""
        # Both are always drawn: what follows in the pipeline does not depend on the outcome.
        draw, which = np.random.rand(), np.random.randint(len(self.names))
        image = results['img']
        places = self._places(results, image.shape[2])
        if draw >= self.prob:
            return results
        if self.keep_one and not self._any_left(results, places, self.names[which]):
            return results
        place = places[self.names[which]]
        if self.invalid == 'nan':
            results['img'] = image = image.astype(np.float32)
            image[..., place] = np.nan
            return results
        valid = results.get('valid_mask')
        valid = np.ones(image.shape, bool) if valid is None else valid.copy()
        valid[..., place] = False
        results['valid_mask'] = valid
        return results

    def _places(self, results: dict[str, Any], count: int) -> dict[str, slice]:
        modalities = self.modalities or results.get('modalities')
        if modalities is None:
            raise ConfigError(
                'DropModality: the sample does not say which channels are which modality; load it '
                'with mmrsfm.LoadModalities, or give modalities=dict(name=channels, ...)'
            )
        if sum(modalities.values()) != count or set(self.names) - set(modalities):
            raise ConfigError(
                f'DropModality: asked for {self.names} of the modalities {modalities}, in an image '
                f'of {count} channels'
            )
        places, start = {}, 0
        for name, channels in modalities.items():
            places[name] = slice(start, start + channels)
            start += channels
        return places

    def _any_left(self, results: dict[str, Any], places: dict[str, slice], name: str) -> bool:
        others = [place for key, place in places.items() if key != name]
        if self.invalid == 'nan':
            return any(np.isfinite(results['img'][..., place]).any() for place in others)
        valid = results.get('valid_mask')
        return bool(others) and (valid is None or any(valid[..., place].any() for place in others))

    def __repr__(self) -> str:
        options = ', '.join(f'{key}={value!r}' for key, value in vars(self).items())
        return f'{type(self).__name__}({options})'
