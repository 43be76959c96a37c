# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""SEN12-FLOOD as it is downloaded and as pairs; radar images with masks of floods.

Written from the description of the data set (Rambour et al., "Flood Detection in Time Series of
Optical and SAR Images", ISPRS Archives 2020; CC BY 4.0) and from sar_w_mixmae.md 3.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.transform import from_bounds, from_origin
from rasterio.warp import Resampling, reproject, transform_bounds

from .drawing import Array, generator, write_lines
from .modalities import backscatter, draw, save_tif

_CRS = 'EPSG:32736'
_WATER = 0.02  # what a flood leaves of the power


def make_sen12_flood_source(
    root: Path, *, seed: int = 0, count: int = 4, size: int = 128, faults: bool = True
) -> Path:
    """SEN12-FLOOD as it is unpacked: a folder a sequence, ``S1list.json`` and ``S2list.json``.

    ``<folder>/<filename>_corrected_{VH,VV}.tif``: float32, linear power, longitude and latitude, a
    little more ground than the optical chip; 0 outside of the swath.
    ``<folder>/S2_<date>_B04.tif`` ...: uint16, UTM, 10 m, ``size`` x ``size``. The JSON has, by
    number of the sequence, ``folder``, ``count``, ``geo``, and the images by number: ``date``,
    ``FLOODING``, ``FULL-DATA-COVERAGE``, ``filename``, and ``orbit`` for radar. Once a place is
    flooded it stays so. ``sen12_train.csv`` and ``sen12_test.csv`` hold names of folders, one a
    line.

    The sequences have four dates, the last two flooded; the second sequence none.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Sequences; the last is in the list of tests.
        size: Side of an optical chip in pixels (real: 512).
        faults: Adds what the set holds: an image that is half empty, a sequence without optical
            images, an entry whose files are missing.
    """
    root = Path(root)
    radar_list: dict[str, Any] = {}
    optical_list: dict[str, Any] = {}
    folders = [f'{13 * number + 1:04d}' for number in range(count)]
    for number, folder in enumerate(folders):
        flooded_from = 4 if number == 1 else 2
        transform = from_origin(500_000.0 + 20_000.0 * number, 7_800_000.0, 10.0, 10.0)
        common = {'folder': folder, 'geo': {'type': 'Polygon', 'coordinates': []}}
        radar, optical = dict(common), dict(common)
        for date in range(4):
            half = faults and number == 0 and date == 3
            day = f'2019-03-{3 + 6 * date:02d}'
            name = (
                f'S1A_IW_GRDH_1SDV_{day.replace("-", "")}T030951_{day.replace("-", "")}T031016_'
                f'{26000 + 175 * date:06d}_{number:06X}_{date:04X}'
            )
            pair = _power(seed, number, size, flooded=date >= flooded_from, date=date)
            if half:
                pair[:, :, size // 2 :] = 0
            _save_on_degrees(root / folder, name, pair, transform)
            radar[str(date + 1)] = {
                'date': day, 'FLOODING': date >= flooded_from, 'FULL-DATA-COVERAGE': not half,
                'filename': name, 'orbit': ('ASCENDING', 'DESCENDING')[date % 2],
            }  # fmt: skip
            if date < 2 and not (faults and number == 2):
                _save_optical(root / folder, day, seed, number, size, transform)
                optical[str(date + 1)] = {
                    'date': day, 'FLOODING': False, 'FULL-DATA-COVERAGE': True,
                    'filename': f'S2_{day}',
                }  # fmt: skip
        if faults and number == 0:
            radar['5'] = {**radar['4'], 'date': '2019-04-30', 'filename': 'S1A_IW_GRDH_1SDV_absent'}
        for entries in (radar, optical):
            entries['count'] = len(entries) - 2
        radar_list[str(number)], optical_list[str(number)] = radar, optical
    (root / 'S1list.json').write_text(json.dumps(radar_list))
    (root / 'S2list.json').write_text(json.dumps(optical_list))
    write_lines(root / 'sen12_train.csv', folders[:-1])
    write_lines(root / 'sen12_test.csv', folders[-1:])
    return root


def make_sen12_flood(root: Path, *, seed: int = 0, count: int = 3, size: int = 128) -> Path:
    """Pairs of SEN12-FLOOD as they were prepared for SAR-W-MixMAE.

    ``{train,test}/<folder>__<before>__<after>__<label>.npy``: (2, 2, size, size) float32: before
    and after; VH and VV; linear power. The label is 1 if the place is flooded in the second.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Sequences of each split, each with a pair with and a pair without a flood.
        size: Side of an image in pixels (real: 512).
    """
    root = Path(root)
    for place, split in enumerate(('train', 'test')):
        (root / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            sequence = 100 * place + number
            first = _power(seed, sequence, size, flooded=False, date=0)
            for label in (0, 1):
                second = _power(seed, sequence, size, flooded=bool(label), date=1 + label)
                second[:, :4, :4] = 0
                names = (f'S1A_IW_GRDH_1SDV_2019030{date}T030951' for date in (1, 7 + label))
                name = '__'.join((f'{sequence:04d}', *names, str(label)))
                np.save(root / split / f'{name}.npy', np.stack([first, second]))
    return root


def make_flood_masks(root: Path, *, seed: int = 0, count: int = 3, size: int = 128) -> Path:
    """Radar images with masks of water: ``{train,val,test}/{images,masks}/<name>.tif``.

    Images float32, two bands (VH, VV) in dB, NaN outside of the swath; masks uint8, 0 dry, 1
    flooded, 255 unknown (where there is no image).

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images of each split; the last has a swath edge.
        size: Side of an image in pixels (real: 512).
    """
    root = Path(root)
    for place, split in enumerate(('train', 'val', 'test')):
        for number in range(count):
            pair, water = _flooded(seed, 1000 + 100 * place + number, size, date=0)
            decibels = (10 * np.log10(pair)).transpose(1, 2, 0)
            mask = water.astype(np.uint8)
            if number == count - 1:
                decibels[:, -size // 6 :] = np.nan
                mask[:, -size // 6 :] = 255
            grid = {'transform': from_origin(500_000.0, 7_800_000.0, 10.0, 10.0), 'crs': _CRS}
            name = f'{split}_{number:04d}.tif'
            save_tif(root / split / 'images' / name, decibels, **grid)
            save_tif(root / split / 'masks' / name, mask, **grid)
    return root


def _flooded(seed: int, sequence: int, size: int, date: int) -> tuple[Array, Array]:
    """(2, H, W) power of a flooded place, and (H, W) bool: where the water is."""
    rng = generator(seed, 103, sequence)
    scene = draw(rng, size, size)
    rows, columns = np.mgrid[:size, :size] / size
    water = np.hypot(rows - rng.uniform(0.3, 0.7), columns - rng.uniform(0.3, 0.7)) < 0.3
    power = backscatter(generator(seed, 104, sequence, date), scene)
    power[water] *= _WATER
    return np.stack([0.02 * power, 0.1 * power]).astype(np.float32), water


def _power(seed: int, sequence: int, size: int, *, flooded: bool, date: int) -> Array:
    """(2, H, W) float32 linear power of a date of a sequence: VH and VV."""
    pair, water = _flooded(seed, sequence, size, date)
    if not flooded:
        pair[:, water] /= _WATER
    return pair


def _save_on_degrees(folder: Path, name: str, pair: Array, transform: Any) -> None:
    """Resamples to longitude and latitude, with a margin, and writes each polarisation."""
    size = pair.shape[-1]
    left, top, metres = transform.c, transform.f, transform.a * size
    bounds = transform_bounds(_CRS, 'EPSG:4326', left, top - metres, left + metres, top)
    margin = 0.02 * (bounds[2] - bounds[0])
    bounds = (bounds[0] - margin, bounds[1] - margin, bounds[2] + margin, bounds[3] + margin)
    side = int(size * 1.06)
    target = from_bounds(*bounds, side, side)
    for polarisation, values in zip(('VH', 'VV'), pair, strict=True):
        image = np.zeros((side, side), np.float32)
        reproject(
            values, image, src_transform=transform, src_crs=_CRS, dst_transform=target,
            dst_crs='EPSG:4326', resampling=Resampling.nearest,
        )  # fmt: skip
        save_tif(
            folder / f'{name}_corrected_{polarisation}.tif', image,
            transform=target, crs='EPSG:4326',
        )  # fmt: skip


def _save_optical(
    folder: Path, day: str, seed: int, number: int, size: int, transform: Any
) -> None:
    scene = draw(generator(seed, 103, number), size, size)
    for band, channel in (('B02', 2), ('B03', 1), ('B04', 0)):
        image = scene.rgb[..., channel].astype(np.uint16) * 10
        save_tif(folder / f'S2_{day}_{band}.tif', image, transform=transform, crs=_CRS)
