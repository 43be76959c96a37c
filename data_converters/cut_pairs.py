# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Cuts optical and SAR scenes of one place into pairs of georeferenced tiles, named alike.

The SAR image is brought to the optical grid by its georeference, window by window, so that scenes
of any size fit into memory; on one grid already, it is copied as it is. Number types and bands are
kept.

Example::

    python data_converters/cut_pairs.py optical/ sar/ data/mars-16m --sensor umbra --size 512

takes the scenes of the same name from both folders (or two files) and gives
``data/mars-16m/Umbra_patches/{rgb,sar}/<scene>_<row>_<column>.tif``.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from mmrsfm.errors import (
    BandMismatchError,
    ConfigError,
    CorruptImageError,
    DataError,
    DatasetNotFoundError,
    ImageSizeError,
)
from mmrsfm.utils.conversion import each, errors_end_command, files_of, refuse_source, whole_file
from mmrsfm.utils.grids import largest_shift, outer_bounds, overlap
from mmrsfm.utils.progress import progress

SENSORS = {'umbra': 'Umbra_patches', 'capella': 'Capella_patches'}
SUFFIXES = ('.tif', '.tiff', '.jp2', '.vrt')
# What a tile was cut with stands in its file, so that a run goes on with tiles of its own alone.
_TAG = 'MMRSFM_CUT'
# Two grids are one if their corners are closer than this, in pixels of the optical one.
_ONE_GRID = 0.05


@dataclass
class Cut:
    """How scenes are cut; see :func:`cut_pairs`."""

    size: int = 512
    stride: int | None = None
    min_valid: float = 0.7
    min_valid_optical: float | None = None
    resampling: str = 'bilinear'
    same_grid: bool = False
    optical_bands: Sequence[int] | None = None
    sar_bands: Sequence[int] | None = None
    sar_nodata: float | None = None
    amplitude: bool = False
    compress: str | None = 'deflate'

    def check(self) -> None:
        """Raises a ConfigError for what cannot be."""
        fractions = (self.min_valid, self.min_valid_optical or 0.0)
        if self.size < 1 or (self.stride or 1) < 1 or not all(0 <= f <= 1 for f in fractions):
            raise ConfigError(
                f'size and stride must be at least 1 and the valid parts in [0, 1], got {self}'
            )
        if self.resampling not in Resampling.__members__:
            raise ConfigError(f'resampling is one of {list(Resampling.__members__)}')

    def record(self, sar: str | Path) -> dict[str, Any]:
        """What decides on the content of a tile, and on whether it is kept."""
        listed = {
            name: None if bands is None else list(bands)
            for name, bands in (('optical', self.optical_bands), ('sar', self.sar_bands))
        }
        return {
            'sar scene': Path(sar).name, 'size': self.size, 'optical_bands': listed['optical'],
            'sar_bands': listed['sar'], 'sar_nodata': str(self.sar_nodata),
            'amplitude': self.amplitude, 'resampling': self.resampling,
            'min_valid': self.min_valid, 'min_valid_optical': self.min_valid_optical,
        }  # fmt: skip


@dataclass(frozen=True)
class PairCounts:
    """What became of the windows of a scene: ``kept`` (new or there before) and ``skipped``."""

    kept: int
    skipped: int


def cut_pairs(
    optical: str | Path,
    sar: str | Path,
    target: str | Path,
    cut: Cut | None = None,
    quiet: bool = False,
    **options: Any,
) -> PairCounts:
    """Cuts one optical and one SAR scene.

    Tiles are named after the optical scene and the row and column of their upper left pixel in it;
    those in the last row and column are moved back to end at the border. Pairs that are there
    already are kept, so that a stopped run goes on. A tile is kept if enough of it has data: of the
    SAR image what is neither its no-data value (0 for integers and complex numbers without one) nor
    NaN, of the optical one what is not no-data and not 0 in all bands. (The published tiles are 0.7
    non-zero in the SAR image; nothing is said about the optical one.) What counted as no data in
    the SAR image is declared in its tiles, so that loaders take it for that too.

    Args:
        optical: Raster of any bands.
        sar: Raster of any bands, at any resolution.
        target: The folder that gets ``rgb/`` and ``sar/``.
        cut: How to cut.
        quiet: No progress line.
        **options: Or the fields of :class:`Cut`: ``size`` and ``stride`` in pixels of the optical
            scene, ``min_valid`` (part of the SAR tile with data), ``min_valid_optical`` (the same
            by default), ``resampling`` of the SAR image, ``same_grid`` (take two images of one size
            without georeference for aligned), ``optical_bands`` and ``sar_bands`` (counted from 1),
            ``sar_nodata``, ``amplitude`` (of complex SAR images), ``compress``.

    Raises:
        ConfigError: For options that contradict each other, or if the target holds tiles of that
            scene that were cut with others, or from another SAR scene.
        DataError: One of its subclasses with the path: no image, too small, complex values, no
            georeference, no common ground.
    """
    cut = cut or Cut(**options)
    cut.check()
    target = Path(target)
    name = Path(optical).stem
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        image = stack.enter_context(_open(optical))
        radar = stack.enter_context(_open(sar))
        if min(image.shape) < cut.size:
            raise ImageSizeError(
                f'{image.height} x {image.width} pixels (H x W) are less than a tile of {cut.size}',
                path=optical,
            )
        radar, nodata = _aligned(stack, image, radar, cut, str(sar))
        windows = [
            Window(column, row, cut.size, cut.size)
            for row in _starts(image.height, cut.size, cut.stride or cut.size)
            for column in _starts(image.width, cut.size, cut.stride or cut.size)
        ]
        named = {f'{name}_{w.row_off:05d}_{w.col_off:05d}.tif': w for w in windows}
        record = cut.record(sar)
        _refuse_other_cut(target, name, named, record)
        kept = 0
        tiles = named.items()
        for tile, window in tiles if quiet else progress(tiles, f'{name}: tiles', len(named)):
            kept += _cut_one(target, tile, window, (image, radar), nodata, cut, record)
    return PairCounts(kept, len(named) - kept)


def cut_folders(
    optical: str | Path,
    sar: str | Path,
    target: str | Path,
    workers: int = 1,
    quiet: bool = False,
    **options: Any,
) -> dict[str, PairCounts]:
    """Cuts the scenes of two folders that are named alike.

    Args:
        optical: Folder of optical scenes.
        sar: Folder of SAR scenes; suffixes may differ.
        target: See :func:`cut_pairs`.
        workers: Number of scenes at the same time.
        quiet: No progress line.
        **options: See :func:`cut_pairs`.

    Returns:
        The counts of each scene.

    Raises:
        DatasetNotFoundError: A folder is missing or empty, or a scene has no partner.
        DataError: As of :func:`cut_pairs`.
    """
    scenes, partners = _by_name(optical), _by_name(sar)
    alone = sorted(set(scenes) ^ set(partners))
    if alone:
        path = scenes.get(alone[0]) or partners[alone[0]]
        raise DatasetNotFoundError(
            f'has no scene of the same name in the other folder ({len(alone)} have none)', path=path
        )
    cut = Cut(**options)

    def one(name: str) -> PairCounts:
        return cut_pairs(scenes[name], partners[name], target, cut, quiet=True)

    names = list(scenes)
    return dict(zip(names, each(one, names, 'scenes', workers, quiet), strict=True))


def _by_name(folder: str | Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in files_of(folder, *SUFFIXES):
        if path.stem in found:
            raise ConfigError(f'{path} and {found[path.stem].name} would give tiles of one name')
        found[path.stem] = path
    return found


def _open(path: str | Path) -> Any:
    try:
        return rasterio.open(path)
    except RasterioError as error:
        raise CorruptImageError(f'cannot be opened as an image ({error})', path=path) from error


def _starts(length: int, size: int, stride: int) -> list[int]:
    starts = list(range(0, length - size + 1, stride))
    if starts[-1] + size < length:
        starts.append(length - size)
    return starts


def _aligned(stack: ExitStack, image: Any, radar: Any, cut: Cut, path: str) -> tuple[Any, float]:
    """The SAR image on the optical grid, and the value that stands for no data in it."""
    dtype = radar.dtypes[0]  # may be one that NumPy does not know: complex_int16
    waves = dtype.startswith('complex')
    if waves and not cut.amplitude:
        raise BandMismatchError(
            f'complex values ({dtype}) are not imagery that a model can take',
            path=path,
            hint='amplitude=True (--amplitude) takes their absolute value',
        )
    nodata = cut.sar_nodata if cut.sar_nodata is not None else radar.nodata
    if nodata is None:
        nodata = 0.0 if waves or np.issubdtype(dtype, np.integer) else math.nan
    if _on_one_grid(image, radar, cut, path):
        return radar, nodata
    if waves:
        raise DataError(
            'complex values cannot be resampled to the optical grid without losing amplitude',
            path=path,
            hint='Detect (take the amplitude) and geocode it first',
        )
    theirs = rasterio.warp.transform_bounds(radar.crs, image.crs, *outer_bounds(radar))
    if not overlap(theirs, outer_bounds(image)):
        raise DataError(f'covers none of the ground of {image.name}', path=path)
    warped = WarpedVRT(
        radar, crs=image.crs, transform=image.transform, width=image.width, height=image.height,
        resampling=Resampling[cut.resampling], src_nodata=nodata, nodata=nodata,
    )  # fmt: skip
    return stack.enter_context(warped), nodata


def _on_one_grid(image: Any, radar: Any, cut: Cut, path: str) -> bool:
    if image.crs is None or radar.crs is None:
        if cut.same_grid and image.shape == radar.shape:
            return True
        source, which = (radar, path) if radar.crs is None else (image, image.name)
        hint = 'If both lie on the same grid, say same_grid=True (--same-grid)'
        if source.gcps[0]:  # e.g. a Sentinel-1 product in the geometry of the sensor
            hint = 'It has ground control points alone: geocode it first, with a height model'
        raise DataError(
            'has no coordinate reference system, by which the two images could be aligned'
            + (f' (and is {radar.shape}, not {image.shape} pixels)' if cut.same_grid else ''),
            path=which,
            hint=hint,
        )
    if image.shape != radar.shape or image.crs != radar.crs:
        return False
    return largest_shift(image, radar) < _ONE_GRID


def _refuse_other_cut(
    target: Path, scene: str, named: dict[str, Window], record: dict[str, Any]
) -> None:
    """Raises for tiles of the same scene of another size or grid, or cut with other options."""
    pattern = re.compile(re.escape(scene) + r'_\d{5,}_\d{5,}\.tif')
    there = [
        path
        for kind in ('rgb', 'sar')
        for path in sorted((target / kind).glob(f'{glob_safe(scene)}_*.tif'))
        if pattern.fullmatch(path.name)
    ]
    if not there:
        return
    mend = 'Remove the tiles of that scene, or name another target.'
    stray = next((path for path in there if path.name not in named), None)
    if stray is not None:
        raise ConfigError(f'{stray} is a tile of {scene} of another size, stride or scene. {mend}')
    with _open(there[0]) as tile:
        stored = json.loads(tile.tags().get(_TAG, '{}'))
    other = [name for name, value in record.items() if stored.get(name, '?') != value]
    if other:
        was = ', '.join(f'{name}={stored.get(name, "unknown")}' for name in other)
        raise ConfigError(f'{there[0]} was cut with other options ({was}). {mend}')


def glob_safe(text: str) -> str:
    """A text that stands for itself in a glob pattern."""
    return re.sub(r'([*?[])', r'[\1]', text)


def _cut_one(
    target: Path,
    tile: str,
    window: Window,
    sources: tuple[Any, Any],
    nodata: float,
    cut: Cut,
    record: dict[str, Any],
) -> bool:
    """Writes one pair; returns whether it is kept."""
    image, radar = sources
    paths = {kind: target / kind / tile for kind in ('rgb', 'sar')}
    if all(path.exists() for path in paths.values()):
        return True
    sar = _read(radar, cut.sar_bands, window)
    if cut.amplitude and np.iscomplexobj(sar):
        sar = np.abs(sar).astype(np.float32)
    known = np.isfinite(sar) & (sar != nodata)
    if known.all(axis=0).mean() < cut.min_valid:
        return False
    optical = _read(image, cut.optical_bands, window)
    seen = np.isfinite(optical) & (optical != (math.nan if image.nodata is None else image.nodata))
    least = cut.min_valid if cut.min_valid_optical is None else cut.min_valid_optical
    if (seen.all(axis=0) & (optical != 0).any(axis=0)).mean() < least:
        return False
    transform = image.window_transform(window)
    # A tile that is NaN everywhere is an error to whoever reads it, unless it says that it may be.
    floating = np.issubdtype(sar.dtype, np.floating)
    declared = radar.nodata if math.isnan(nodata) and not floating else nodata
    grid = {'crs': image.crs, 'transform': transform}
    for kind, array, source, value, bands in (
        ('rgb', optical, image, image.nodata, cut.optical_bands),
        ('sar', sar, radar, declared, cut.sar_bands),
    ):
        chosen = range(1, source.count + 1) if bands is None else bands
        names = tuple(source.descriptions[band - 1] for band in chosen)
        _write(paths[kind], array, names, record, cut.compress, nodata=value, **grid)
    return True


def _read(source: Any, bands: Sequence[int] | None, window: Window) -> np.ndarray:
    try:
        return source.read(None if bands is None else list(bands), window=window)
    except (RasterioError, IndexError) as error:
        raise CorruptImageError(f'cannot be read ({error})', path=source.name) from error


def _write(
    path: Path,
    array: np.ndarray,
    names: tuple[str | None, ...],
    record: dict[str, Any],
    compress: str | None,
    **profile: Any,
) -> None:
    """Writes a tile under another name and renames it."""
    profile |= {
        'driver': 'GTiff', 'count': len(array), 'dtype': array.dtype, 'height': array.shape[1],
        'width': array.shape[2], 'interleave': 'pixel',
    }  # fmt: skip
    if compress:
        profile['compress'] = compress
    if len(array) == 3 and array.dtype == np.uint8:
        profile['photometric'] = 'RGB'
    with whole_file(path) as partial, rasterio.open(partial, 'w', **profile) as out:
        out.write(array)
        out.descriptions = names
        out.update_tags(**{_TAG: json.dumps(record)})


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('optical', type=Path, help='optical scene, or folder of scenes')
    parser.add_argument('sar', type=Path, help='SAR scene, or folder of scenes named alike')
    parser.add_argument('target', type=Path, help='folder to fill')
    parser.add_argument(
        '--sensor', choices=sorted(SENSORS), help='write the folder of this sensor in MaRS-16M'
    )
    parser.add_argument('--size', type=int, default=512, help='tile size in pixels [512]')
    parser.add_argument('--stride', type=int, help='step between tiles [the size]')
    parser.add_argument(
        '--min-valid', type=float, default=0.7, help='least part of a SAR tile with data [0.7]'
    )
    parser.add_argument('--min-valid-optical', type=float, help='of an optical tile [the same]')
    parser.add_argument('--optical-bands', type=int, nargs='+', help='counted from 1 [all]')
    parser.add_argument('--sar-bands', type=int, nargs='+', help='counted from 1 [all]')
    parser.add_argument('--sar-nodata', type=float, help="[the file's; else 0, but for float]")
    parser.add_argument('--amplitude', action='store_true', help='of complex SAR images')
    parser.add_argument(
        '--same-grid', action='store_true', help='images without georeference are aligned'
    )
    parser.add_argument('--resampling', default='bilinear', help='of the SAR image [bilinear]')
    parser.add_argument('--compress', default='deflate', help='GDAL compression, or none [deflate]')
    parser.add_argument('--workers', type=int, default=1, help='scenes at the same time [1]')
    args = vars(parser.parse_args())
    optical, sar, target, sensor, workers = (
        args.pop(key) for key in ('optical', 'sar', 'target', 'sensor', 'workers')
    )
    args['compress'] = None if args['compress'] == 'none' else args['compress']
    target = target / SENSORS[sensor] if sensor else target
    with errors_end_command():
        for folder in (target, target / 'rgb', target / 'sar'):
            refuse_source(folder, [optical.parent, sar.parent])
            refuse_source(folder, [optical, sar])
        if optical.is_dir():
            counts = list(cut_folders(optical, sar, target, workers, **args).values())
        else:
            counts = [cut_pairs(optical, sar, target, **args)]
    kept, skipped = (sum(getattr(one, key) for one in counts) for key in ('kept', 'skipped'))
    print(f'{target}: {kept} pairs, {skipped} with too little data left out')


if __name__ == '__main__':
    main()
