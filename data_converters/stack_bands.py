# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Stacks bands that come as one file each, at several resolutions, into one GeoTIFF.

Example, for a folder with Sentinel-2 granules::

    python data_converters/stack_bands.py 'GRANULE/IMG_DATA/*_B*.jp2' scene.tif
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import re
from collections.abc import Mapping
from pathlib import Path

import rasterio
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from mmrsfm.errors import BandMismatchError, CorruptImageError
from mmrsfm.utils.conversion import errors_end_command, whole_file
from mmrsfm.utils.progress import progress
from mmrsfm.utils.raster_errors import decoding

# The order of Sentinel-2's product specification: B8A between B08 and B09.
SENTINEL2_BANDS = (
    'B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B10', 'B11', 'B12',
)  # fmt: skip
_BAND_PATTERN = re.compile(r'(?:^|_)(B\d[0-9A])(?=[_.]|$)', re.IGNORECASE)


def find_bands(pattern: str) -> dict[str, Path]:
    """Finds the files of a Sentinel-2 scene and names their bands by ``_Bxx`` in the file names.

    Args:
        pattern: A glob pattern, e.g. ``'scene/*_B*.jp2'``.

    Returns:
        Files by band name, in the sensor's order.

    Raises:
        BandMismatchError: If nothing matches, or a band occurs twice.
    """
    found: dict[str, Path] = {}
    for name in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 (any root)
        match = _BAND_PATTERN.search(Path(name).stem)
        if match is None:
            continue
        band = match.group(1).upper()
        if band in found:
            raise BandMismatchError(
                f'there are two files for it ({found[band].name})',
                path=name,
                band=band,
                hint='Give a pattern that matches one scene at one resolution per band',
            )
        found[band] = Path(name)
    if not found:
        raise BandMismatchError(
            'no file name has a band such as _B02', path=pattern, hint='Check the pattern'
        )
    order = {band: number for number, band in enumerate(SENTINEL2_BANDS)}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[0], 99), item[0])))


def stack_bands(
    bands: Mapping[str, str | Path],
    target: str | Path,
    resolution: float | None = None,
    resampling: str = 'bilinear',
    quiet: bool = False,
) -> Path:
    """Stacks single-band rasters onto one grid: the finest one, over the area that all cover.

    The bands keep their type and no-data value; their names go into the descriptions of the file,
    which appears under its name only when it is complete.

    Args:
        bands: Files by band name, in the order of the output.
        target: The GeoTIFF to write (tiled, deflate).
        resolution: Pixel size in units of the CRS. Defaults to the finest of the inputs.
        resampling: Name of a :class:`rasterio.enums.Resampling` for the coarser bands.
        quiet: No progress line.

    Returns:
        The path of ``target``.

    Raises:
        CorruptImageError: If a file cannot be read.
        BandMismatchError: If CRS, data type or no-data value differ between the bands, or they do
            not overlap.
    """
    target = Path(target)
    with contextlib.ExitStack() as stack:
        sources = {name: stack.enter_context(_open(path, name)) for name, path in bands.items()}
        first = next(iter(sources.values()))
        for name, source in sources.items():
            if source.crs != first.crs or source.dtypes[0] != first.dtypes[0]:
                raise BandMismatchError(
                    f'{source.crs}, {source.dtypes[0]} instead of {first.crs}, {first.dtypes[0]}',
                    path=source.name,
                    band=name,
                    hint='All bands must share one CRS and one data type',
                )
        # By their text: NaN is not equal to itself.
        if len({str(source.nodata) for source in sources.values()}) > 1:
            stated = {name: source.nodata for name, source in sources.items()}
            raise BandMismatchError(
                f'the no-data values differ: {stated}',
                path=first.name,
                hint='One GeoTIFF has one: give all bands the same (gdal_translate -a_nodata)',
            )
        step = resolution or min(source.res[0] for source in sources.values())
        # The origin of the finest band: that one is copied, not resampled.
        anchor = min(sources.values(), key=lambda source: source.res[0])
        left = max(source.bounds.left for source in sources.values())
        top = min(source.bounds.top for source in sources.values())
        right = min(source.bounds.right for source in sources.values())
        bottom = max(source.bounds.bottom for source in sources.values())
        left = anchor.bounds.left + step * -(-(left - anchor.bounds.left) // step)
        top = anchor.bounds.top - step * -(-(anchor.bounds.top - top) // step)
        width, height = int((right - left) / step + 1e-6), int((top - bottom) / step + 1e-6)
        if width <= 0 or height <= 0:
            raise BandMismatchError('the bands do not overlap', path=first.name)
        grid = {
            'crs': first.crs,
            'transform': from_origin(left, top, step, step),
            'width': width,
            'height': height,
        }
        profile = {
            'driver': 'GTiff', 'count': len(sources), 'dtype': first.dtypes[0], 'tiled': True,
            'blockxsize': 256, 'blockysize': 256, 'compress': 'deflate', 'predictor': 2,
            'BIGTIFF': 'IF_SAFER', 'nodata': first.nodata, **grid,
        }  # fmt: skip
        with whole_file(target) as partial, rasterio.open(partial, 'w', **profile) as out:
            names = list(sources)
            out.descriptions = names
            loop = enumerate(names, 1)
            for number, name in loop if quiet else progress(loop, 'stack bands', len(names)):
                source = sources[name]
                with WarpedVRT(source, resampling=Resampling[resampling], **grid) as view:
                    for row in range(0, height, 512):
                        window = Window(0, row, width, min(512, height - row))
                        with decoding(source.name, name):
                            values = view.read(1, window=window)
                        out.write(values, number, window=window)
    return target


def _open(path: str | Path, band: str) -> rasterio.DatasetReader:
    try:
        return rasterio.open(path)
    except RasterioError as error:
        raise CorruptImageError(f'cannot be opened ({error})', path=path, band=band) from error


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('pattern', help="glob pattern of the bands' files, quoted")
    parser.add_argument('target', help='GeoTIFF to write')
    parser.add_argument('--resolution', type=float, help='pixel size (default: the finest)')
    parser.add_argument('--resampling', default='bilinear', choices=[r.name for r in Resampling])
    args = parser.parse_args()
    with errors_end_command():
        bands = find_bands(args.pattern)
        stack_bands(bands, args.target, args.resolution, args.resampling)
    print(f'{args.target}: {len(bands)} bands ({", ".join(bands)})')


if __name__ == '__main__':
    main()
