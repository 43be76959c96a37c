# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What a model expects of its imagery: bands, sensor, scale, ground sampling distance, constants.

The contract is stated once, in the data preprocessor of a pretraining config. It is written into
every checkpoint of that run, and compared with the config that fine-tunes from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from mmrsfm.errors import ConfigError


@dataclass(frozen=True)
class ImageryContract:
    """The imagery that a model was, or is to be, trained on. ``None`` means not stated.

    Attributes:
        band_names: Names of the input channels, in their order, e.g. ``('B02', 'B03', 'B04')``.
        sensor: Free text, e.g. ``'Sentinel-2 L1C'``.
        scale: Factor from stored numbers to the values that ``mean`` and ``std`` refer to,
            e.g. 1e-4 for reflectance stored as integers; 1.0 for 8-bit imagery used as it is.
        gsd: Ground sampling distance in metres.
        mean: Mean of each band, after ``scale``.
        std: Standard deviation of each band, after ``scale``.
        licence: Licence of the weights, e.g. ``'CC-BY-NC-4.0'``.
    """

    band_names: tuple[str, ...] | None = None
    sensor: str | None = None
    scale: float | None = None
    gsd: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    licence: str | None = None

    def __post_init__(self) -> None:
        for name in ('band_names', 'mean', 'std'):
            value = getattr(self, name)
            if value is not None:
                if isinstance(value, str) or not isinstance(value, Sequence):
                    raise ConfigError(f'contract: {name} must be a list, got {value!r}')
                object.__setattr__(self, name, tuple(value))
        lengths = {
            name: len(getattr(self, name))
            for name in ('band_names', 'mean', 'std')
            if getattr(self, name) is not None
        }
        if len(set(lengths.values())) > 1:
            raise ConfigError(f'contract: the lists must have one entry per band, got {lengths}')
        if self.band_names is not None and len(set(self.band_names)) != len(self.band_names):
            raise ConfigError(f'contract: a band name occurs twice in {self.band_names}')

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImageryContract:
        """Builds a contract from a mapping; an unknown field is an error."""
        known = {field.name for field in fields(cls)}
        unknown = set(values) - known
        if unknown:
            raise ConfigError(
                f'contract: unknown fields {sorted(unknown)}; known are {sorted(known)}'
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Returns the stated fields as plain Python values (lists, not tuples)."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value is not None
        }

    @property
    def num_bands(self) -> int | None:
        """Number of channels, where it is known."""
        for value in (self.band_names, self.mean, self.std):
            if value is not None:
                return len(value)
        return None

    def differences(
        self, other: ImageryContract, ignore: Sequence[str] = ('licence',)
    ) -> dict[str, tuple[Any, Any]]:
        """Compares the fields that both sides state.

        Args:
            other: The contract to compare with.
            ignore: Names of fields that may differ.

        Returns:
            For each field that differs, the value here and the value in ``other``.
        """
        result = {}
        for field in fields(self):
            ours, theirs = getattr(self, field.name), getattr(other, field.name)
            if field.name in ignore or ours is None or theirs is None:
                continue
            if not _same(ours, theirs):
                result[field.name] = (ours, theirs)
        return result


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, str):
        return a == b
    return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-8)
