# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""BigEarthNet: version 2 (GeoTIFF folders), version 1 (GeoTIFF folders and Zarr).

Written from the published descriptions (Sumbul et al. 2019, 2021, arXiv 2105.07921; Clasen et al.
2024, arXiv 2407.03653) and from sar_w_mixmae.md 3.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.transform import from_origin

from .drawing import Array, generator, write_lines
from .modalities import backscatter, draw, save_tif

# Some of the 43 names of CORINE with the one of the 19 that each became; a few became none.
OLD_TO_NEW = {
    'Discontinuous urban fabric': 'Urban fabric',
    'Industrial or commercial units': 'Industrial or commercial units',
    'Non-irrigated arable land': 'Arable land',
    'Vineyards': 'Permanent crops',
    'Pastures': 'Pastures',
    'Land principally occupied by agriculture, with significant areas of natural vegetation': (
        'Land principally occupied by agriculture, with significant areas of natural vegetation'
    ),
    'Coniferous forest': 'Coniferous forest',
    'Transitional woodland/shrub': 'Transitional woodland, shrub',
    'Water bodies': 'Inland waters',
    'Sea and ocean': 'Marine waters',
    'Airports': None,
}
# Bands of Sentinel-2 and their pixels in metres; level 2A has no B10.
S2_METRES = {
    'B01': 60, 'B02': 10, 'B03': 10, 'B04': 10, 'B05': 20, 'B06': 20, 'B07': 20, 'B08': 10,
    'B8A': 20, 'B09': 60, 'B11': 20, 'B12': 20,
}  # fmt: skip
# Places: country, tile of Sentinel-2, date of Sentinel-2 and of Sentinel-1.
_PLACES = (
    ('Austria', '33UUP', '20170613T101031', '20170612T165809'),
    ('Finland', '35VNK', '20180205T094151', '20180203T043612'),
    ('Portugal', '29SND', '20171121T112351', '20171119T064219'),
)
_SIDE = 120  # pixels of 10 m, of every patch


def make_bigearthnet_v2(
    root: Path,
    *,
    seed: int = 0,
    count: int = 2,
    optical: bool = True,
    parquet: bool | None = None,
) -> Path:
    """Version 2 as it is unpacked, with the metadata as CSV (and Parquet, with pyarrow).

    ``BigEarthNet-S1/<first five fields of s1_name>/<s1_name>/<s1_name>_{VH,VV}.tif``: float32, dB,
    120 x 120, one band. ``BigEarthNet-S2/<patch_id without row and column>/<patch_id>/`` with
    ``<patch_id>_B02.tif`` ...: uint16, of 120, 60 or 20 pixels a side. ``metadata.csv`` has the
    columns of the official ``metadata.parquet``, lists of labels as NumPy prints them (quotes, no
    commas, a line break in long ones); ``benv2_{train,val,test,train_val}.csv`` has the first five
    columns alone, as they were split for SAR-W-MixMAE.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Patches of each split (train, validation, test).
        optical: Whether there is Sentinel-2, too.
        parquet: Whether to write ``metadata.parquet``. ``None``: if pyarrow is installed.
    """
    root = Path(root)
    rows = []
    for place, split in enumerate(('train', 'validation', 'test')):
        for number in range(count):
            rng = generator(seed, 101, place, number)
            country, tile, optical_time, radar_time = _PLACES[number % len(_PLACES)]
            end = f'{10 * place + number:02d}_{40 + number:02d}'
            patch = f'S2A_MSIL2A_{optical_time}_N9999_R022_T{tile}_{end}'
            radar = f'S1B_IW_GRDH_1SDV_{radar_time}_{tile}_{end}'
            labels = sorted(new for new in _labels(rng, number).values() if new)
            scene = draw(rng, _SIDE, _SIDE, count=1 + number % 3)
            grid = _grid(tile, number)
            folder = root / 'BigEarthNet-S1' / radar.rsplit('_', 3)[0] / radar
            _save_radar(folder, radar, _decibels(rng, scene, labels), grid)
            if optical:
                folder = root / 'BigEarthNet-S2' / patch.rsplit('_', 2)[0] / patch
                _save_optical(folder, patch, rng, scene.rgb, grid)
            rows.append({
                'patch_id': patch, 'labels': labels, 'split': split, 'country': country,
                's1_name': radar, 's2v1_name': f'S2A_MSIL2A_{optical_time}_{end}',
                'contains_seasonal_snow': False, 'contains_cloud_or_shadow': False,
            })  # fmt: skip
    _write_table(root / 'metadata.csv', rows)
    first = ('patch_id', 'labels', 'split', 'country', 's1_name')
    short = [{name: row[name] for name in first} for row in rows]
    for name, splits in {
        'train': ('train',), 'val': ('validation',), 'test': ('test',),
        'train_val': ('train', 'validation'),
    }.items():  # fmt: skip
        _write_table(root / f'benv2_{name}.csv', [row for row in short if row['split'] in splits])
    if parquet or (parquet is None and _has('pyarrow')):
        table = importlib.import_module('pyarrow').Table.from_pylist(rows)
        importlib.import_module('pyarrow.parquet').write_table(table, root / 'metadata.parquet')
    return root


def make_bigearthnet_v1(root: Path, *, seed: int = 0, count: int = 2, optical: bool = True) -> Path:
    """Version 1 as it is unpacked: a folder a patch, with its labels in JSON.

    ``BigEarthNet-S1-v1.0/<s1_name>/<s1_name>_{VH,VV}.tif`` (float32, dB) and
    ``BigEarthNet-v1.0/<patch>/<patch>_B02.tif`` ... (uint16), each with
    ``<name>_labels_metadata.json``; ``{train,val,test}.csv``: Sentinel-2 name, Sentinel-1 name, no
    header. The last patch of a split has a label that became none of the 19.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Patches of each split.
        optical: Whether there is Sentinel-2, too.
    """
    root = Path(root)
    for patch, radar, decibels, rgb, labels, grid, rng in _first_version(root, seed, count):
        bounds = {
            'ulx': grid['transform'].c, 'uly': grid['transform'].f,
            'lrx': grid['transform'].c + 1200.0, 'lry': grid['transform'].f - 1200.0,
        }  # fmt: skip
        common = {'labels': labels, 'coordinates': bounds, 'projection': grid['crs']}
        folder = root / 'BigEarthNet-S1-v1.0' / radar
        _save_radar(folder, radar, decibels, grid)
        content: dict[str, Any] = {
            **common, 'corresponding_s2_patch': patch,
            'scene_source': f'{radar.rsplit("_", 3)[0]}_20170612T165834_005999_00A87F_ABCD',
            'acquisition_time': '2017-06-12T16:58:09',
        }  # fmt: skip
        (folder / f'{radar}_labels_metadata.json').write_text(json.dumps(content))
        if optical:
            folder = root / 'BigEarthNet-v1.0' / patch
            _save_optical(folder, patch, rng, rgb, grid)
            content = {
                **common, 'tile_source': f'{patch.rsplit("_", 2)[0]}_N0205_R022_T33UUP.SAFE',
                'acquisition_date': '2017-06-13 10:10:31',
            }  # fmt: skip
            (folder / f'{patch}_labels_metadata.json').write_text(json.dumps(content))
    return root


def make_bigearthnet_v1_zarr(
    root: Path, *, seed: int = 0, count: int = 2, zarr_format: int = 2
) -> Path:
    """Version 1 as SAR-W-MixMAE reads it: ``benv1.zarr``, group ``sentinel1/<s1_name>``.

    A group holds the arrays ``VH`` and ``VV`` (120 x 120 float32, dB) and the attribute ``labels``
    (of the 43). The lists are those of :func:`make_bigearthnet_v1`.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Patches of each split.
        zarr_format: 2 or 3.
    """
    zarr = importlib.import_module('zarr')
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    store = zarr.open_group(str(root / 'benv1.zarr'), mode='w', zarr_format=zarr_format)
    group = store.create_group('sentinel1')
    for _, radar, decibels, _, labels, _, _ in _first_version(root, seed, count):
        one = group.create_group(radar)
        for name, band in zip(('VH', 'VV'), decibels, strict=True):
            one.create_array(name, data=band, chunks=band.shape)
        one.attrs['labels'] = labels
    return root


def _first_version(root: Path, seed: int, count: int) -> Any:
    for place, split in enumerate(('train', 'val', 'test')):
        lines = []
        for number in range(count):
            rng = generator(seed, 102, place, number)
            _, tile, optical_time, radar_time = _PLACES[number % len(_PLACES)]
            end = f'{10 * place + number}_{40 + number}'
            patch = f'S2A_MSIL2A_{optical_time}_{end}'
            radar = f'S1B_IW_GRDH_1SDV_{radar_time}_{tile}_{end}'
            labels = sorted(_labels(rng, number))
            if number == count - 1:
                labels = sorted({*labels, 'Airports'})
            scene = draw(rng, _SIDE, _SIDE, count=1 + number % 3)
            new = [OLD_TO_NEW[name] or '' for name in labels]
            lines.append(f'{patch},{radar}')
            yield (
                patch,
                radar,
                _decibels(rng, scene, new),
                scene.rgb,
                labels,
                _grid(tile, number),
                rng,
            )
        write_lines(root / f'{split}.csv', lines)


def _labels(rng: np.random.Generator, number: int) -> dict[str, str | None]:
    """One to three of the classes: the old name, and the new."""
    names = [name for name, new in OLD_TO_NEW.items() if new]
    chosen = rng.choice(len(names), size=1 + number % 3, replace=False)
    return {names[index]: OLD_TO_NEW[names[index]] for index in chosen}


def _decibels(rng: np.random.Generator, scene: Any, labels: Sequence[str]) -> Array:
    """(2, H, W) float32: VH and VV in dB; water is dark, towns are bright."""
    power = backscatter(rng, scene)
    shift = 0.0
    shift -= 8.0 * any('waters' in name for name in labels)
    shift += 6.0 * ('Urban fabric' in labels)
    decibels = 10 * np.log10(power) + shift
    noise = rng.normal(0, 1, power.shape)
    return np.stack([decibels - 19.2 + noise, decibels - 12.5]).astype(np.float32)


def _grid(tile: str, number: int) -> dict[str, Any]:
    corner = from_origin(300_000.0 + 1200.0 * number, 5_400_000.0, 10.0, 10.0)
    return {'transform': corner, 'crs': f'EPSG:326{tile[:2]}'}


def _save_radar(folder: Path, name: str, decibels: Array, grid: dict[str, Any]) -> None:
    for band, values in zip(('VH', 'VV'), decibels, strict=True):
        save_tif(folder / f'{name}_{band}.tif', values, **grid)


def _save_optical(
    folder: Path, name: str, rng: np.random.Generator, rgb: Array, grid: dict[str, Any]
) -> None:
    for position, (band, metres) in enumerate(S2_METRES.items()):
        step = metres // 10
        image = rgb[::step, ::step, position % 3].astype(np.float32) * (10 + position)
        image += rng.integers(0, 50, image.shape)
        a, b, c, d, e, f = grid['transform'][:6]
        transform = type(grid['transform'])(a * step, b, c, d, e * step, f)
        save_tif(
            folder / f'{name}_{band}.tif', image.astype(np.uint16),
            transform=transform, crs=grid['crs'],
        )  # fmt: skip


def _write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, 'labels': _as_numpy_prints(row['labels'])})


def _as_numpy_prints(names: Sequence[str]) -> str:
    """Quotes, no commas, and a line break in long lists."""
    return str(np.array(names, dtype=object))


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
