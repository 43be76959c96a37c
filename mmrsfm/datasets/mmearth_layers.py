# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The layers of MMEarth: their bands, what in them is missing, and how they become targets.

MMEarth: Nedungadi et al., "MMEarth: Exploring Multi-Modal Pretext Tasks for Geospatial
Representation Learning", ECCV 2024, arXiv 2405.02771; data CC BY 4.0. Written from a description of
the files.

Three sets of rules say what counts as missing:

``'corrected'``
    Reflectance 0; radar, position, month and climate that are not finite; elevation -32768; tree
    height 127 (what the 8 bits of the files make of 255); land cover 0 and 255 and whatever is no
    class.
``'legacy2024'``
    As the published checkpoints were trained: reflectance 0, elevation -32768 and tree height 127
    are values like any other; of ESA WorldCover, 0 is tree cover.
``'head'``
    As the published code is since 2026: reflectance 0 is missing; of ESA WorldCover, tree cover is
    missing, too, as a number that is compared twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from mmrsfm.errors import BandMismatchError, ConfigError

KINDS = ('map', 'class_map', 'vector', 'class')
RULES = ('corrected', 'legacy2024', 'head')
LEVELS = ('l1c', 'l2a')
Statistics = Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class Layer:
    """One dataset of the file.

    Attributes:
        name: Of the dataset.
        kind: ``'map'``: numbers a pixel, stored (bands, H, W); ``'class_map'``: a class a pixel,
            (1, H, W); ``'vector'``: numbers of the tile, (bands,); ``'class'``: a class of the
            tile, one-hot, (bands,).
        bands: Names of the stored bands, in their order; of a ``'class'``, of the classes.
        used: Names of the bands that are used unless others are asked for; empty: all.
        missing: Stored numbers that stand for missing, besides what is not finite.
        classes: Of a ``'class_map'``: from the stored number to the class; all else is missing.
        by_level: Whether the statistics are those of ``<name>_l1c`` or ``<name>_l2a``, by the
            product that the tile is from.
        statistics: ``dict(mean=..., std=...)``, one number a stored band, instead of those of the
            data set.
        normalise: Whether numbers are normalised at all.
    """

    name: str
    kind: str
    bands: tuple[str, ...]
    used: tuple[str, ...] = ()
    missing: tuple[float, ...] = ()
    classes: Mapping[int, int] = field(default_factory=dict)
    by_level: bool = False
    statistics: Mapping[str, Sequence[float]] | None = None
    normalise: bool = True

    @property
    def is_map(self) -> bool:
        """Whether it has a value for every pixel."""
        return self.kind in ('map', 'class_map')

    def columns(self, names: Sequence[str] | None) -> list[int]:
        """Numbers of the bands of these names; of those that are used, without names.

        Names are taken as the files have them (``B1``) and as the library writes those of
        Sentinel-2 (``B01``).

        Raises:
            BandMismatchError: There is no such band.
        """
        names = list(self.used or self.bands) if names is None else list(names)
        wanted = [_short(one) for one in names]
        known = {_short(one): number for number, one in enumerate(self.bands)}
        for name, short in zip(names, wanted, strict=True):
            if short not in known:
                raise BandMismatchError(
                    f'{self.name} has no such band, only {list(self.bands)[:16]}', band=name
                )
        return [known[name] for name in wanted]

    def for_rules(self, rules: str) -> Layer:
        """This layer as a set of rules reads it; see the module."""
        if rules == 'corrected' or self.name not in _PUBLISHED:
            return self
        return replace(self, **_PUBLISHED[self.name][rules])


def _short(name: str) -> str:
    """``B01`` and ``B1`` are one band."""
    return name[0] + name[2:] if name[:2] == 'B0' and len(name) > 2 else name


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(count))


SENTINEL2_BANDS = (
    'B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B8A', 'B08', 'B09', 'B10', 'B11', 'B12',
)  # fmt: skip
_ESA = dict(zip((10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100), range(11), strict=True))
LAYERS = {
    layer.name: layer
    for layer in (
        Layer(
            'sentinel2',
            'map',
            SENTINEL2_BANDS,
            used=tuple(band for band in SENTINEL2_BANDS if band != 'B10'),
            missing=(0,),
            by_level=True,
        ),
        Layer(
            'sentinel1',
            'map',
            tuple(f'{orbit}_{p}' for orbit in ('asc', 'desc') for p in ('VV', 'VH', 'HH', 'HV')),
        ),
        Layer('aster', 'map', ('elevation', 'slope'), missing=(-32768,)),
        Layer(
            'era5',
            'vector',
            tuple(
                f'{period}_{what}'
                for period in ('previous_month', 'month', 'year')
                for what in ('mean', 'min', 'max', 'precipitation')
            ),
        ),
        Layer('dynamic_world', 'class_map', ('class',), classes={n + 1: n for n in range(9)}),
        Layer('canopy_height_eth', 'map', ('height', 'std'), missing=(127, 255)),
        Layer('lat', 'vector', ('sin', 'cos')),
        Layer('lon', 'vector', ('sin', 'cos')),
        Layer('biome', 'class', _numbered(14), missing=(255,)),
        Layer('eco_region', 'class', _numbered(846), missing=(65535,)),
        Layer('month', 'vector', ('sin', 'cos')),
        Layer('esa_worldcover', 'class_map', ('class',), classes=_ESA),
    )
}
_PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    'sentinel2': {'legacy2024': {'missing': ()}, 'head': {}},
    'aster': {'legacy2024': {'missing': ()}, 'head': {'missing': ()}},
    'canopy_height_eth': {'legacy2024': {'missing': ()}, 'head': {'missing': ()}},
    'esa_worldcover': {
        'legacy2024': {'classes': {0: 0, **_ESA}},
        'head': {'classes': {raw: new for raw, new in _ESA.items() if new > 0}},
    },
}


def define_layer(name: str, options: Mapping[str, Any]) -> Layer:
    """A layer of a user's own, or a published one with other options.

    Args:
        name: Of the dataset in the file.
        options: Fields of :class:`Layer`; ``kind`` and ``bands`` (names, or how many) are needed
            of a layer that is not published.

    Raises:
        ConfigError: For options that contradict each other.
    """
    values = dict(options)
    if isinstance(values.get('bands'), int):
        values['bands'] = _numbered(values['bands'])
    for key in ('bands', 'used', 'missing'):
        if key in values:
            values[key] = tuple(values[key])
    if 'classes' in values:
        values['classes'] = {int(raw): int(new) for raw, new in dict(values['classes']).items()}
    known = {one.name for one in fields(Layer)} - {'name'}
    if set(values) - known:
        raise ConfigError(
            f'layer {name!r}: unknown options {sorted(set(values) - known)}; known: {sorted(known)}'
        )
    if name in LAYERS:
        return replace(LAYERS[name], **values)
    if values.get('kind') not in KINDS or not values.get('bands'):
        raise ConfigError(
            f'layer {name!r}: give kind, one of {KINDS}, and bands; known without: {list(LAYERS)}'
        )
    if values['kind'] == 'class_map' and not values.get('classes'):
        raise ConfigError(f'layer {name!r}: classes, from the stored number to the class')
    return Layer(name=name, **values)


def convert(
    layer: Layer,
    stored: np.ndarray,
    columns: Sequence[int],
    statistics: Mapping[str, np.ndarray] | None,
) -> np.ndarray:
    """What is stored as what a model is trained on.

    Args:
        layer: As the rules read it (:meth:`Layer.for_rules`).
        stored: (bands, H, W), or (bands,).
        columns: The bands that are wanted; of layers without classes.
        statistics: ``mean`` and ``std`` of these bands, float64; ``None``: not normalised.

    Returns:
        ``'map'``: (C, H, W) float32, NaN where missing; ``'vector'``: (C,) likewise;
        ``'class_map'``: (H, W) int64, -1 where missing; ``'class'``: () int64, -1 where missing.

    Raises:
        BandMismatchError: A band has data, but no statistics.
    """
    if layer.kind == 'class_map':
        return _look_up(stored[0], layer.classes)
    if layer.kind == 'class':
        hot = stored > 0
        for value in layer.missing:
            hot &= stored != value
        return np.array(np.argmax(hot) if hot.any() else -1, np.int64)
    picked = stored if len(columns) == len(stored) and _ordered(columns) else stored[list(columns)]
    missing = None
    if np.issubdtype(stored.dtype, np.floating):
        finite = np.isfinite(picked)
        missing = None if finite.all() else ~finite
    for value in layer.missing:
        found = picked == value
        missing = found if missing is None else missing | found
    values = picked.astype(np.float64)
    if missing is not None:
        values[missing] = np.nan
    if statistics is not None:
        for number in np.flatnonzero(np.isnan(statistics['std'])):
            if np.isfinite(values[number]).any():
                raise BandMismatchError(
                    f'has data, but its statistics in {layer.name} are no numbers, or std is 0',
                    band=layer.bands[columns[number]],
                    hint='Leave the band out, or give statistics=dict(mean=[...], std=[...])',
                )
        shape = (-1,) + (1,) * (stored.ndim - 1)
        values -= statistics['mean'].reshape(shape)
        values /= statistics['std'].reshape(shape)
    return np.ascontiguousarray(values, dtype=np.float32)


def _ordered(columns: Sequence[int]) -> bool:
    return all(number == column for number, column in enumerate(columns))


def _look_up(stored: np.ndarray, classes: Mapping[int, int]) -> np.ndarray:
    low = min(classes)
    table = np.full(max(classes) - low + 2, -1, np.int64)  # the last is for all that is outside
    for raw, new in classes.items():
        table[raw - low] = new
    if np.issubdtype(stored.dtype, np.floating):  # of a raster of one's own
        stored = np.where(np.isfinite(stored), stored, low - 1)
    inside = np.clip(stored.astype(np.int64) - low, -1, len(table) - 1)
    return table[inside]  # -1 is the last, too


def band_statistics(
    layer: Layer, columns: Sequence[int], statistics: Statistics, level: str | None
) -> dict[str, np.ndarray] | None:
    """Mean and standard deviation of some bands.

    Args:
        layer: The layer.
        columns: The bands.
        statistics: Of the data set, by layer (and level).
        level: ``'l1c'`` or ``'l2a'``.

    Returns:
        ``None`` for a layer that is not normalised; ``std`` is NaN where there is none of a band.

    Raises:
        BandMismatchError: There are none of the layer, or not one number for each stored band.
    """
    if layer.kind not in ('map', 'vector') or not layer.normalise:
        return None
    key = f'{layer.name}_{level}' if layer.by_level else layer.name
    row = layer.statistics if layer.statistics is not None else statistics.get(key)
    if row is None:
        raise BandMismatchError(
            f'the data set has no statistics of {key}, only of {sorted(statistics)}',
            hint=f'Give them: modalities=dict({layer.name}=dict(statistics=dict(mean=[...], '
            'std=[...]))), or normalise=False',
        )
    found = {}
    for name in ('mean', 'std'):
        values = np.asarray(row.get(name, ()), np.float64)
        if values.shape != (len(layer.bands),):
            raise BandMismatchError(
                f'the statistics of {key} have {values.size} numbers as {name}, not one for each '
                f'of the stored bands {list(layer.bands)[:16]}',
            )
        found[name] = values[list(columns)]
    good = np.isfinite(found['mean']) & np.isfinite(found['std']) & (found['std'] > 0)
    # Of a band that no tile has (B10 of L2A, HH and HV far from the poles).
    found['std'][~good] = np.nan
    return found
