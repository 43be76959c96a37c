# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Writes a Sentinel-2 scene, and whatever else is known of the place, in the form of MMEarth.

The scene is a GeoTIFF with the 13 (L2A: 12) bands on one grid and their names as descriptions, as
``stack_bands.py`` makes it. What cannot be known (here: climate, biome, ...) is stored as missing,
and the pretraining leaves it out::

    python data_converters/scene_to_mmearth.py scene.tif data/mmearth/my_scene --date 2019-07-02 \
        --layer aster=dem.tif dynamic_world=land_cover.tif sentinel1=radar.tif lights=viirs.tif

gives ``data/mmearth/my_scene/my_scene.h5`` with its three JSON files, for ``mmrsfm.MMEarth``.
Rasters of layers are resampled to the grid of the scene: classes, and whole numbers of your own,
take the nearest pixel. Their numbers are those of MMEarth (Dynamic World: 0 missing, 1 water, 2
trees, ...; ESA WorldCover: 10, 20, ...; Sentinel-1: dB); ``aster`` is an elevation in metres, whose
slope is computed here; a name that MMEarth does not know is a layer of your own. Training,
validation and test tiles are strips of the scene, one below the other.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as transform_points
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from mmrsfm.datasets.mmearth_layers import LEVELS, SENTINEL2_BANDS
from mmrsfm.datasets.mmearth_writer import STORED, MMEarthWriter, StoredLayer
from mmrsfm.errors import BandMismatchError, ConfigError, CorruptImageError
from mmrsfm.utils.conversion import errors_end_command
from mmrsfm.utils.grids import outer_bounds, overlap
from mmrsfm.utils.progress import progress
from mmrsfm.utils.strips import DEFAULT_SPLITS, make_strips

# Layers whose numbers stand for something.
_CODES = ('sentinel2_cloudmask', 'sentinel2_scl', 'dynamic_world', 'esa_worldcover')


def scene_to_mmearth(
    scene: str | Path,
    target: str | Path,
    level: str = 'l1c',
    date: str | None = None,
    layers: Mapping[str, str | Path] | None = None,
    biome: int | None = None,
    eco_region: int | None = None,
    offset: int = 0,
    size: int = 64,
    stride: int | None = None,
    gap: int = 64,
    splits: Mapping[str, float] = DEFAULT_SPLITS,
    min_valid: float = 0.5,
    quiet: bool = False,
) -> dict[str, int]:
    """Cuts a scene, and rasters of the same place, into tiles in the form of MMEarth.

    Args:
        scene: GeoTIFF, reflectance times 10,000, 0 where there is none; its descriptions name the
            bands (``B01`` or ``B1``), as ``stack_bands.py`` writes them.
        target: The folder to make; its last part names the files.
        level: ``'l1c'`` or ``'l2a'`` (without B10).
        date: ``'YYYY-MM-DD'`` of the scene; ``None``: the month is missing.
        layers: From names of layers to rasters; see the module.
        biome: Number of the biome (0 to 13); ``None``: missing.
        eco_region: Number of the eco region (0 to 845); ``None``: missing.
        offset: What is added to reflectance: -1000 for processing baseline 04.00 and later, so that
            it is as before (MMEarth is of harmonised images).
        size: Side of a tile in pixels.
        stride: Step between tiles; ``None``: the size.
        gap: Rows between the strips of two splits.
        splits: Share of the rows by split, top to bottom.
        min_valid: Least share of pixels with reflectance in a tile.
        quiet: No progress line.

    Returns:
        Number of tiles by split.

    Raises:
        ConfigError: The folder has such a file already, an argument is wrong, or no tile is left.
        BandMismatchError: The scene lacks a band or is not in these units, or a raster has another
            number of bands, or shows another place.
        CorruptImageError: A file cannot be opened, or has no georeference.
    """
    target = Path(target).expanduser().absolute()
    stride = size if stride is None else stride
    file = target / f'{target.name}.h5'
    if min(size, stride) < 1 or gap < 0:
        raise ConfigError(f'size and stride are at least 1, the gap 0; got {size}, {stride}, {gap}')
    if level not in LEVELS:
        raise ConfigError(f'level is one of {LEVELS}, got {level!r}')
    if file.exists():
        raise ConfigError(f'{file} exists; remove the folder, or name another one')
    for name, number in (('biome', biome), ('eco_region', eco_region)):
        if number is not None and not 0 <= number < STORED[name].bands:
            raise ConfigError(f'{name} is 0 to {STORED[name].bands - 1}, got {number}')
    fixed = {
        'month': _circle(2 * math.pi * _month(date) / 12) if date else None,
        'biome': None if biome is None else np.eye(14)[biome],
        'eco_region': None if eco_region is None else np.eye(846)[eco_region],
    }
    with ExitStack() as stack:
        source = stack.enter_context(_opened(scene))
        _georeferenced(source)
        columns = _band_columns(source, scene, level)
        rasters = {
            name: stack.enter_context(_on_grid(name, path, source))
            for name, path in (layers or {}).items()
        }
        readers = {name: _Reader(name, raster) for name, raster in rasters.items()}
        windows = [
            (strip.name, Window(column, row, size, size))
            for strip in make_strips(source.height, size, gap, splits)
            for row in range(strip.top, strip.bottom - size + 1, stride)
            for column in range(0, source.width - size + 1, stride)
        ]
        target.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix('.partial')
        try:
            own = {name: reader.stored for name, reader in readers.items()}
            with MMEarthWriter(partial, size, own) as writer:
                for split, window in windows if quiet else progress(windows, 'cut tiles'):
                    image = _reflectance(source, window, columns, offset)
                    if (image > 0).any(0).mean() < min_valid:
                        continue
                    tile = {'sentinel2': image, **{k: v for k, v in fixed.items() if v is not None}}
                    lat, lon = _centre(source, window)
                    tile['lat'] = _circle(math.radians(lat))
                    tile['lon'] = _circle(math.radians(lon))
                    for name, reader in readers.items():
                        tile[name] = reader.read(window)
                    place = f'{window.row_off:05d}_{window.col_off:05d}'
                    information = {
                        'S2_DATE': date, 'S2_type': level, 'CRS': str(source.crs), 'lat': lat,
                        'lon': lon, 'biome': biome, 'eco_region': eco_region,
                    }  # fmt: skip
                    writer.write(f'{Path(scene).stem}_{place}', split, level, tile, information)
                writer.finish(target)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    return {name: len(writer.rows.get(name, ())) for name in splits}


class _Reader:
    """One raster on the grid of the scene, as the layer stores it."""

    def __init__(self, name: str, raster: WarpedVRT) -> None:
        self.name, self.raster = name, raster
        self.stored = STORED.get(name) or _own(raster)
        wanted = {'aster': (1, 2), 'sentinel1': (2, 8), 'canopy_height_eth': (1, 2)}
        allowed = wanted.get(name, (self.stored.bands,))
        if raster.count not in allowed or not self.stored.is_map:
            raise BandMismatchError(
                f'{raster.count} band(s) for {name}, which takes {" or ".join(map(str, allowed))}'
                if self.stored.is_map
                else f'{name} is no map',
                path=raster.name,
            )

    def read(self, window: Window) -> np.ndarray:
        """(bands, H, W), with the layer's own number for what is missing."""
        values = self.raster.read(window=window, masked=True).astype(np.float64).filled(np.nan)
        if self.name == 'aster' and len(values) == 1:
            values = np.concatenate([values, self._slope(window)[None]])
        image = np.full((self.stored.bands, *values.shape[1:]), np.nan)
        image[: len(values)] = values  # radar: VV and VH of the first orbit
        missing = ~np.isfinite(image)
        dtype = np.dtype(self.stored.dtype)
        if np.issubdtype(dtype, np.integer):
            limits = np.iinfo(dtype)
            image = np.clip(np.rint(np.where(missing, 0, image)), limits.min, limits.max)
        image[missing] = self.stored.missing
        return image.astype(dtype)

    def _slope(self, window: Window) -> np.ndarray:
        """Degrees (H, W), by central differences; a pixel of the neighbours is read too.

        At the border of the scene, where there is one neighbour less, the difference is to the
        pixel itself.
        """
        top, left = int(window.row_off), int(window.col_off)
        rows = np.clip(np.arange(top - 1, top + window.height + 1), 0, self.raster.height - 1)
        columns = np.clip(np.arange(left - 1, left + window.width + 1), 0, self.raster.width - 1)
        wide = Window(columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)
        height = self.raster.read(1, window=wide, masked=True).astype(np.float64).filled(np.nan)
        height = height[np.ix_(rows - rows[0], columns - columns[0])]
        by_row = height[2:, 1:-1] - height[:-2, 1:-1]
        by_row /= (rows[2:] - rows[:-2])[:, None]
        by_column = height[1:-1, 2:] - height[1:-1, :-2]
        by_column /= columns[2:] - columns[:-2]
        down, right = _pixel_metres(self.raster, window)
        by_row, by_column = by_row / down, by_column / right
        return np.degrees(np.arctan(np.hypot(by_row, by_column)))


def _opened(path: str | Path) -> Any:
    try:
        return rasterio.open(path)
    except RasterioError as error:
        raise CorruptImageError(f'cannot be opened ({error})', path=path) from error


def _georeferenced(raster: Any) -> None:
    if raster.crs is None:
        raise CorruptImageError(
            'has no georeference', path=raster.name, hint='gdal_edit.py -a_srs ... gives it one'
        )


def _on_grid(name: str, path: str | Path, scene: rasterio.DatasetReader) -> WarpedVRT:
    """A raster resampled to the grid of the scene, NaN where it has nothing."""
    raster = _opened(path)
    _georeferenced(raster)
    bounds = transform_bounds(raster.crs, scene.crs, *outer_bounds(raster))
    if not overlap(bounds, outer_bounds(scene)):
        raise BandMismatchError(
            f'the raster of {name} shows another place than the scene',
            path=path,
            hint='Or its georeference is wrong',
        )
    whole = all(np.issubdtype(np.dtype(dtype), np.integer) for dtype in raster.dtypes)
    nearest = name in _CODES or (whole and name not in STORED)
    # Floats, as whole numbers without a declared no-data value would be 0 beside the raster, and
    # interpolated elevations steps of a metre.
    return WarpedVRT(
        raster, crs=scene.crs, transform=scene.transform, width=scene.width, height=scene.height,
        resampling=Resampling.nearest if nearest else Resampling.bilinear,
        dtype='float64', nodata=math.nan,
    )  # fmt: skip


def _pixel_metres(raster: Any, window: Window) -> tuple[float, float]:
    """Steps of a row and of a column, in metres, in the middle of a window."""
    a, b, _, d, e, _ = raster.transform[:6]
    if raster.crs.is_geographic:
        lat = _centre(raster, window)[0]
        north = 111_320.0
        east = north * math.cos(math.radians(lat))
    else:
        north = east = float(raster.crs.linear_units_factor[1])
    return math.hypot(b * east, e * north), math.hypot(a * east, d * north)


def _own(raster: WarpedVRT) -> StoredLayer:
    """How a layer that MMEarth does not know is stored: as numbers, NaN where missing."""
    return StoredLayer(raster.count, 'float32', math.nan)


def _band_columns(source: rasterio.DatasetReader, path: str | Path, level: str) -> dict[str, int]:
    """Number of each band in the scene, from 1."""
    names = [_long(name) for name in source.descriptions]
    columns = {band: names.index(band) + 1 for band in SENTINEL2_BANDS if band in names}
    lacking = [band for band in SENTINEL2_BANDS if band not in columns]
    if lacking and not (level == 'l2a' and lacking == ['B10']):
        raise BandMismatchError(
            f'lacks {lacking}, it has {names}',
            path=path,
            hint='The descriptions of the bands name them, data_converters/stack_bands.py them; '
            'L2A (--level l2a) has no B10',
        )
    return columns


def _long(name: str | None) -> str:
    """``B1`` as ``B01``."""
    name = (name or '').strip().upper()
    return f'B0{name[1]}' if len(name) == 2 and name[0] == 'B' else name


def _reflectance(
    source: rasterio.DatasetReader, window: Window, columns: Mapping[str, int], offset: int
) -> np.ndarray:
    """(13, H, W) uint16; 0 where there is no data, and in bands that the product lacks."""
    found = source.read(list(columns.values()), window=window)
    nodata = 0 if source.nodata is None else source.nodata
    known = np.isfinite(found) & (found != nodata) & (found != 0)
    if np.issubdtype(found.dtype, np.floating) and known.any() and found[known].max() < 3:
        raise BandMismatchError(
            f'reflectance is stored times 10,000, here it is at most {found[known].max():.4g}',
            path=source.name,
            hint='Multiply the bands by 10,000 first',
        )
    # What the offset brings to 0 or below is dark, not missing.
    shifted = np.clip(np.rint(found.astype(np.float64) + offset), 1, 65535)
    image = np.zeros((len(SENTINEL2_BANDS), *found.shape[1:]), np.uint16)
    for number, band in enumerate(columns):
        image[SENTINEL2_BANDS.index(band)] = np.where(known[number], shifted[number], 0)
    return image


def _centre(source: Any, window: Window) -> tuple[float, float]:
    """Latitude and longitude in degrees."""
    a, b, c, d, e, f = source.transform[:6]
    column, row = window.col_off + window.width / 2, window.row_off + window.height / 2
    x, y = a * column + b * row + c, d * column + e * row + f
    (lon,), (lat,) = transform_points(source.crs, 'EPSG:4326', [x], [y])[:2]
    return float(lat), float(lon)


def _circle(angle: float) -> np.ndarray:
    return np.array([math.sin(angle), math.cos(angle)])


def _month(date: str) -> int:
    try:
        year, month, day = (int(part) for part in date.split('-'))
        if year > 1000 and 1 <= month <= 12 and 1 <= day <= 31:
            return month
    except ValueError:
        pass
    raise ConfigError(f'the date is YYYY-MM-DD, got {date!r}')


def parse_layers(words: Sequence[str]) -> dict[str, str]:
    """``name=file`` pairs of the command line.

    Raises:
        ConfigError: If a word is none, or a name comes twice.
    """
    pairs = [word.partition('=') for word in words]
    wrong = [''.join(pair) for pair in pairs if not pair[0] or not pair[2]]
    if wrong:
        raise ConfigError(f'--layer takes NAME=FILE, got {wrong}')
    names = [name for name, _, _ in pairs]
    if len(set(names)) < len(names):
        raise ConfigError(f'--layer takes one file for each name, got {names}')
    return {name: path for name, _, path in pairs}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('scene', help='GeoTIFF with the bands of Sentinel-2 by name')
    parser.add_argument('target', help='folder to make, e.g. data/mmearth/my_scene')
    parser.add_argument('--level', choices=LEVELS, default='l1c', help='product [l1c]')
    parser.add_argument('--date', help='YYYY-MM-DD')
    parser.add_argument(
        '--layer', nargs='+', action='extend', default=[], metavar='NAME=FILE', help='other layers'
    )
    parser.add_argument('--biome', type=int, help='0 to 13')
    parser.add_argument('--eco-region', type=int, help='0 to 845')
    parser.add_argument('--offset', type=int, default=0, help='-1000 from baseline 04.00 on')
    parser.add_argument('--size', type=int, default=64, help='side of a tile in pixels [64]')
    parser.add_argument('--stride', type=int, help='step between tiles [the size]')
    parser.add_argument('--gap', type=int, default=64, help='rows between splits [64]')
    parser.add_argument('--min-valid', type=float, default=0.5, help='share with data [0.5]')
    args = parser.parse_args()
    with errors_end_command():
        counts = scene_to_mmearth(
            args.scene, args.target, args.level, args.date, parse_layers(args.layer), args.biome,
            args.eco_region, args.offset, args.size, args.stride, args.gap,
            min_valid=args.min_valid,
        )  # fmt: skip
    print(f'{args.target}: ' + ', '.join(f'{name} {count}' for name, count in counts.items()))


if __name__ == '__main__':
    main()
