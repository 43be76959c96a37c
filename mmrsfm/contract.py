# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What a model expects of its imagery: bands, sensor, scale, ground sampling distance, constants.

The contract is stated once, in the data preprocessor of a pretraining config. It is written into
every checkpoint of that run, and compared with the config that fine-tunes from it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from mmrsfm.errors import ConfigError

# Fields with one entry a band, where they are tuples.
_LISTS = ('band_names', 'mean', 'std', 'scale', 'offset')


def band_keys(names: Sequence[str]) -> list[str]:
    """What bands are compared by: Sentinel-2's ``'B2'`` is ``'B02'``.

    Args:
        names: Names of bands.
    """
    return [re.sub(r'^B(\d)$', r'B0\1', name) for name in names]


@dataclass(frozen=True)
class ImageryContract:
    """The imagery that a model was, or is to be, trained on. ``None`` means not stated.

    Attributes:
        band_names: Names of the input channels, in their order, e.g. ``('B02', 'B03', 'B04')``.
        sensor: Free text, e.g. ``'Sentinel-2 L1C'``.
        scale: Factor from stored numbers to the values that ``mean`` and ``std`` refer to,
            e.g. 1e-4 for reflectance stored as integers; 1.0 for 8-bit imagery used as it is. One
            number, or one a band; equal numbers become one.
        offset: What is added after scaling, ``value = stored * scale + offset``, in the units of
            ``mean``: e.g. -0.1 for Sentinel-2 from processing baseline 04.00 on, 0.0 before. One
            number, or one a band.
        gsd: Ground sampling distance in metres.
        mean: Mean of each band, after ``scale`` and ``offset``.
        std: Standard deviation of each band, after ``scale`` and ``offset``.
        licence: Licence of the weights, e.g. ``'CC-BY-NC-4.0'``.
        sensors: Instead of ``mean`` and ``std``, for imagery of several sensors in one model: from
            the name of the sensor, which every sample carries, to ``dict(mean=..., std=...)``.
    """

    band_names: tuple[str, ...] | None = None
    sensor: str | None = None
    scale: float | tuple[float, ...] | None = None
    offset: float | tuple[float, ...] | None = None
    gsd: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    licence: str | None = None
    sensors: Mapping[str, Mapping[str, tuple[float, ...]]] | None = None

    def __post_init__(self) -> None:
        for name in ('band_names', 'mean', 'std'):
            value = getattr(self, name)
            if value is not None:
                if isinstance(value, str) or not isinstance(value, Sequence):
                    raise ConfigError(f'contract: {name} must be a list, got {value!r}')
                object.__setattr__(self, name, tuple(value))
        for name in ('scale', 'offset'):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        lengths = {
            name: len(getattr(self, name))
            for name in _LISTS
            if isinstance(getattr(self, name), tuple)
        }
        if self.sensors is not None:
            object.__setattr__(self, 'sensors', _by_sensor(self.sensors))
            if self.mean is not None or self.std is not None:
                raise ConfigError('contract: give mean and std, or those of sensors, not both')
            lengths |= {
                f'{key} of {name}': len(values)
                for name, row in (self.sensors or {}).items()
                for key, values in row.items()
            }
        if len(set(lengths.values())) > 1:
            raise ConfigError(f'contract: the lists must have one entry per band, got {lengths}')
        for name in ('scale', 'offset'):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(set(value)) == 1:
                object.__setattr__(self, name, value[0])
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
        return {key: _listed(value) for key, value in asdict(self).items() if value is not None}

    @property
    def num_bands(self) -> int | None:
        """Number of channels, where it is known."""
        for name in _LISTS:
            value = getattr(self, name)
            if isinstance(value, tuple):
                return len(value)
        for row in (self.sensors or {}).values():
            return len(row['mean'])
        return None

    def select(self, columns: Sequence[int]) -> ImageryContract:
        """The contract of some of the bands.

        Args:
            columns: Their numbers, from 0, in the order wanted.
        """
        values: dict[str, Any] = {}
        for name in _LISTS:
            row = getattr(self, name)
            if isinstance(row, tuple):
                values[name] = tuple(row[column] for column in columns)
        if self.sensors is not None:
            values['sensors'] = {
                name: {key: tuple(row[column] for column in columns) for key, row in rows.items()}
                for name, rows in self.sensors.items()
            }
        return replace(self, **values)

    def differences(
        self, other: ImageryContract, ignore: Sequence[str] = ('licence',)
    ) -> dict[str, tuple[Any, Any]]:
        """Compares the fields that both sides state.

        Where one side has statistics by sensor, and the other is of one sensor, those of that one
        are compared; where both have, those of the sensors that both know, and a sensor of
        ``other`` that is unknown here is a difference.

        Args:
            other: The contract to compare with.
            ignore: Names of fields that may differ.

        Returns:
            For each field that differs, the value here and the value in ``other``.
        """
        result = {}
        mine, yours = self._for(other), other._for(self)
        for field in fields(self):
            ours, theirs = getattr(mine, field.name), getattr(yours, field.name)
            if field.name in ignore or ours is None or theirs is None:
                continue
            if field.name == 'band_names' and band_keys(ours) == band_keys(theirs):
                continue
            if not _same(ours, theirs):
                result[field.name] = (ours, theirs)
        return result

    def _for(self, other: ImageryContract) -> ImageryContract:
        """This contract as that of the one sensor of another."""
        if self.sensors is None or other.sensors is not None or other.sensor is None:
            return self
        row = self.sensors.get(other.sensor)
        if row is None:
            return replace(self, sensor=' or '.join(self.sensors), sensors=None)
        return replace(self, sensor=other.sensor, sensors=None, mean=row['mean'], std=row['std'])


def _numbers(name: str, value: Any) -> float | tuple[float, ...] | None:
    """One number, or one a band, as plain Python."""
    if value is None:
        return None
    several = isinstance(value, Sequence) and not isinstance(value, str)
    try:
        numbers = tuple(float(one) for one in (value if several else (value,)))
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise ConfigError(f'contract: {name} must be a number, or one per band, got {value!r}')
    return numbers if several else numbers[0]


def _by_sensor(sensors: Any) -> dict[str, dict[str, tuple[float, ...]]]:
    """Checked statistics by sensor, as plain Python."""
    if not isinstance(sensors, Mapping) or not sensors:
        raise ConfigError(f'contract: sensors must map names to statistics, got {sensors!r}')
    result = {}
    for name, row in sensors.items():
        if not isinstance(row, Mapping) or set(row) != {'mean', 'std'}:
            raise ConfigError(f'contract: sensor {name!r} needs mean and std, got {row!r}')
        values = {key: _numbers(f'{key} of {name}', row[key]) for key in ('mean', 'std')}
        if not all(isinstance(value, tuple) for value in values.values()):
            raise ConfigError(f'contract: mean and std of sensor {name!r} are lists, got {row!r}')
        result[str(name)] = values
    return result  # type: ignore[return-value]


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _listed(one) for key, one in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping):  # what only the first knows is not used by the second
        return all(name in a and _same(a[name], row) for name, row in b.items())
    if isinstance(a, tuple) != isinstance(b, tuple):
        return False
    if isinstance(a, tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, str):
        return a == b
    return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-8)
