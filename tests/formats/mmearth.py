# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""MMEarth as it is downloaded: one HDF5 file of tiles in up to fifteen layers, three JSON files.

Written from mp_mae.md 1.7 and 3, and from the three tiles of the fixture ``mmearth_mini``.
(Nedungadi et al., "MMEarth: Exploring Multi-Modal Pretext Tasks for Geospatial Representation
Learning", ECCV 2024; data CC BY 4.0.)
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .drawing import Array, generator
from .modalities import backscatter, draw

BANDS = ['B1', 'B2', 'B3', 'B4', 'B5', 'B6', 'B7', 'B8A', 'B8', 'B9', 'B10', 'B11', 'B12']
# Channels and number type of each layer, in the order of the file.
LAYERS = {
    'sentinel2': (13, 'uint16'),
    'sentinel2_cloudmask': (1, 'uint16'),
    'sentinel2_cloudprod': (1, 'uint16'),
    'sentinel2_scl': (1, 'uint8'),
    'sentinel1': (8, 'float32'),
    'aster': (2, 'int16'),
    'era5': (12, 'float32'),
    'dynamic_world': (1, 'uint8'),
    'canopy_height_eth': (2, 'int8'),
    'lat': (2, 'float32'),
    'lon': (2, 'float32'),
    'biome': (14, 'uint8'),
    'eco_region': (846, 'uint16'),
    'month': (2, 'float32'),
    'esa_worldcover': (1, 'uint8'),
}
VECTORS = ('era5', 'lat', 'lon', 'biome', 'eco_region', 'month')
METADATA = np.dtype([('tile_id', 'S100'), ('S2_type', 'S10')])


def make_mmearth(
    root: Path,
    *,
    seed: int = 0,
    count: int = 5,
    size: int = 64,
    faults: bool = True,
    types: bool = True,
) -> Path:
    """MMEarth: a folder with ``<name>.h5`` and ``<name>_{splits,tile_info,band_stats}.json``.

    The name is that of the folder; the published ones are ``data_1M_v001``, ``data_1M_v001_64`` and
    ``data_100k_v001``. A layer is one dataset, (tiles, channels, size, size) or (tiles, channels),
    compressed, one tile a chunk. Every other tile is L2A, without B10. As in the published sets all
    tiles are for training; the list names them in another order than the file.

    What is drawn belongs together: radar, land cover, height and reflectance show the same objects.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Tiles.
        size: Side of a tile in pixels (real: 64 or 128).
        faults: Adds what is missing in real tiles: in tile 0 a corner without reflectance, radar of
            one orbit alone, no height model; in tile 1 no height of trees, no ERA5 of one month, no
            land cover in parts; in tile 2 no radar at all.
        types: Whether ``metadata`` has the field ``S2_type`` (older and merged files have not).
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    tiles = [_tile(seed, number, size) for number in range(count)]
    if faults:
        for number, tile in enumerate(tiles):
            _spoil(number, tile, size)
    information = {_name(number): _information(seed, number) for number in range(count)}
    with h5py.File(root / f'{root.name}.h5', 'w') as file:
        for layer, (channels, dtype) in LAYERS.items():
            stack = np.stack([tile[layer] for tile in tiles]).astype(dtype)
            assert stack.shape[1] == channels
            file.create_dataset(layer, data=stack, chunks=(1, *stack.shape[1:]), compression='gzip')
        rows = np.zeros(count, METADATA if types else METADATA['tile_id'])
        names = [name.encode() for name in information]
        if types:
            rows['tile_id'] = names
            rows['S2_type'] = [one['S2_type'].encode() for one in information.values()]
        else:
            rows[:] = names
        file.create_dataset('metadata', data=rows)
    order = [int(number) for number in generator(seed, 110).permutation(count)]
    for suffix, content in (
        ('splits', {'train': order, 'val': [], 'test': []}),
        ('tile_info', information),
        ('band_stats', _statistics(tiles)),
    ):
        (root / f'{root.name}_{suffix}.json').write_text(json.dumps(content))
    return root


def make_mmearth_sets(root: Path, *, seed: int = 0, count: int = 3, size: int = 32) -> Path:
    """The folder of all sets, with one of them: ``data_1M_v001_64``; see :func:`make_mmearth`.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Tiles.
        size: Side of a tile in pixels (real: 64).
    """
    make_mmearth(Path(root) / 'data_1M_v001_64', seed=seed, count=count, size=size)
    return Path(root)


def _name(number: int) -> str:
    return f'tile_{number:07d}'


def _level(number: int) -> str:
    return 'l1c' if number % 2 == 0 else 'l2a'


def _place(seed: int, number: int) -> tuple[float, float, int]:
    rng = generator(seed, 111, number)
    return float(rng.uniform(-60, 75)), float(rng.uniform(-179, 179)), int(rng.integers(1, 13))


def _information(seed: int, number: int) -> dict[str, Any]:
    lat, lon, month = _place(seed, number)
    rng = generator(seed, 112, number)
    level = _level(number)
    bands = [band for band in BANDS if level == 'l1c' or band != 'B10']
    return {
        'S2_DATE': f'2019-{month:02d}-11', 'S2_type': level, 'CRS': 'EPSG:32721', 'lat': lat,
        'lon': lon, 'biome': int(rng.integers(14)), 'eco_region': int(rng.integers(846)),
        'NO_DATA': {}, 'era5': {},
        'BANDS': {
            'sentinel2': [*bands, 'QA60'], 'sentinel1_asc': ['VV', 'VH'],
            'sentinel1_desc': ['VV', 'VH'], 'aster': ['b1', 'slope'], 'dynamic_world': ['label'],
            'canopy_height_eth': ['b1', 'b1_1'], 'esa_worldcover': ['Map'],
        },
    }  # fmt: skip


def _tile(seed: int, number: int, size: int) -> dict[str, Array]:
    """All layers of a tile, complete, as float64."""
    rng = generator(seed, 113, number)
    scene = draw(rng, size, size, classes=(1, 2))
    lat, lon, month = _place(seed, number)
    info = _information(seed, number)
    stands = scene.label > 0
    gain = np.linspace(6, 18, 13)[:, None, None]
    reflectance = gain * (scene.rgb.mean(-1) + 30) + rng.normal(0, 20, (13, size, size))
    if info['S2_type'] == 'l2a':
        reflectance = 0.8 * reflectance
        reflectance[BANDS.index('B10')] = 0
    radar = 10 * np.log10(backscatter(rng, scene))
    radar = radar - np.array([8, 15, 20, 20, 8, 15, 20, 20])[:, None, None]
    radar[[2, 3, 6, 7]] = -np.inf  # what land is seen with is VV and VH
    rows, columns = np.mgrid[:size, :size]
    era5 = rng.uniform(260, 300, 12)
    era5[3::4] = rng.uniform(0, 1.5, 3)
    return {
        'sentinel2': reflectance.clip(0, 10_000),
        'sentinel2_cloudmask': np.zeros((1, size, size)),
        'sentinel2_cloudprod': np.full((1, size, size), 3.0),
        'sentinel2_scl': np.full((1, size, size), 4.0),
        'sentinel1': radar,
        'aster': np.stack([400 + rows + 2 * columns, np.full((size, size), 12)]).astype(float),
        'era5': era5,
        'dynamic_world': np.choose(scene.label, [5, 2, 7])[None].astype(float),
        'canopy_height_eth': np.stack([np.where(stands, scene.height, 1), 3 + 5 * stands]),
        'lat': _circle(math.radians(lat)),
        'lon': _circle(math.radians(lon)),
        'biome': np.eye(14)[info['biome']],
        'eco_region': np.eye(846)[info['eco_region']],
        'month': _circle(2 * math.pi * month / 12),
        'esa_worldcover': np.choose(scene.label, [40, 10, 50])[None].astype(float),
    }


def _circle(angle: float) -> Array:
    return np.array([math.sin(angle), math.cos(angle)])


def _spoil(number: int, tile: dict[str, Array], size: int) -> None:
    """What is missing, as the files say it."""
    corner = np.s_[:, : size // 4, : size // 4]
    if number == 0:
        tile['sentinel2'][corner] = 0
        tile['sentinel1'][4:] = -np.inf
        tile['aster'][:] = -32768  # what int16 makes of -inf
        tile['esa_worldcover'][corner] = 255
    if number == 1:
        tile['canopy_height_eth'][:] = 127  # what int8 makes of 255
        tile['era5'][4:8] = np.nan
        tile['dynamic_world'][corner] = 0
        tile['esa_worldcover'][corner] = 0
    if number == 2:
        tile['sentinel1'][:] = -np.inf


def _statistics(tiles: list[dict[str, Array]]) -> dict[str, Any]:
    """Mean, standard deviation, least and largest value of each band, without what is missing."""
    result = {}
    missing = {'aster': -32768, 'canopy_height_eth': 127}
    for layer in ('aster', 'canopy_height_eth', 'era5', 'lat', 'lon', 'month', 'sentinel1'):
        empty = missing.get(layer)
        result[layer] = _rows([tile[layer] for tile in tiles], empty)
    for layer, empty in (('sentinel2', 0), ('sentinel2_cloudmask', 65535),
                         ('sentinel2_cloudprod', 65535)):  # fmt: skip
        for level in ('l1c', 'l2a'):
            chosen = [tile[layer] for number, tile in enumerate(tiles) if _level(number) == level]
            result[f'{layer}_{level}'] = _rows(chosen, empty)
    return result


def _rows(stack: list[Array], empty: float | None) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {'mean': [], 'std': [], 'min': [], 'max': []}
    for channel in range(len(stack[0])):
        values = np.concatenate([np.ravel(one[channel]) for one in stack])
        values = values[np.isfinite(values) & (values != empty)]
        for key in found:
            # The published files have NaN where there is nothing (B10 of L2A).
            found[key].append(float(getattr(np, key)(values)) if values.size else math.nan)
        if values.size and found['std'][-1] == 0:
            found['std'][-1] = 1.0
    return found
