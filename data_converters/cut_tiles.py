# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Cuts a scene, and its label map if there is one, into georeferenced tiles in separate strips.

Neighbouring pixels resemble each other, so tiles drawn at random would put near-copies of the
training data into the test set. The scene is therefore cut into horizontal strips, one for each
split, with a gap between them.

Example::

    python data_converters/cut_tiles.py scene.tif data/my_scene --labels labels.tif --size 128

gives ``data/my_scene/{images,labels}/{train,val,test}/<row>_<column>.tif`` and
``data/my_scene/strips/<split>{,_labels}.tif``. Several scenes go into one folder under names of
their own: ``--prefix east`` gives ``east_<row>_<column>.tif``.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window

from mmrsfm.errors import ConfigError, CorruptImageError, ImageSizeError
from mmrsfm.utils.conversion import errors_end_command, whole_file
from mmrsfm.utils.progress import progress
from mmrsfm.utils.raster_errors import decoding
from mmrsfm.utils.strips import DEFAULT_SPLITS, make_strips


def cut_tiles(
    scene: str | Path,
    target: str | Path,
    labels: str | Path | None = None,
    size: int = 128,
    stride: int | None = None,
    gap: int = 64,
    splits: Mapping[str, float] = DEFAULT_SPLITS,
    compress: str | None = None,
    quiet: bool = False,
    prefix: str = '',
) -> dict[str, int]:
    """Cuts tiles and whole strips. Tiles that exist already are kept, so a stopped run goes on.

    Args:
        scene: A raster with any number of bands.
        target: The folder to fill.
        labels: A single-band raster on the same grid.
        size: Tile height and width in pixels.
        stride: Step between tiles. Defaults to ``size``: no overlap.
        gap: Rows between strips that belong to no split.
        splits: Share of the rows by split.
        compress: GDAL compression of the tiles; none reads fastest.
        quiet: No progress line.
        prefix: Begins the names of tiles and strips, so that ``target`` may hold several scenes.

    Returns:
        Number of tiles by split, of all scenes in ``target``.

    Raises:
        CorruptImageError: If a file cannot be opened.
        ImageSizeError: If the label map has another size than the scene.
        ConfigError: If the scene is too small, ``target`` holds tiles of another cut, or
            of another scene under the same names.
    """
    target, stride = Path(target), stride or size
    height, width = _shape(scene)
    inputs = {'images': Path(scene)}
    if labels is not None:
        inputs['labels'] = Path(labels)
        shape = _shape(labels)
        if shape != (height, width):
            raise ImageSizeError(f'is {shape}, the scene {(height, width)} pixels', path=labels)
    if width < size:
        raise ConfigError(f'the scene is {width} pixels wide, less than a tile of {size}')
    strips = make_strips(height, size, gap, splits)
    begin = f'{prefix}_' if prefix else ''
    jobs = []
    for strip in strips:
        for kind in inputs:
            name = begin + strip.name + ('' if kind == 'images' else f'_{kind}')
            window = Window(0, strip.top, width, strip.bottom - strip.top)
            jobs.append((kind, target / 'strips' / f'{name}.tif', window, 'deflate'))
        for row in range(strip.top, strip.bottom - size + 1, stride):
            for column in range(0, width - size + 1, stride):
                for kind in inputs:
                    path = target / kind / strip.name / f'{begin}{row:05d}_{column:05d}.tif'
                    jobs.append((kind, path, Window(column, row, size, size), compress))
    _refuse_other_cut(target, jobs, size, prefix)
    sources = {kind: rasterio.open(path) for kind, path in inputs.items()}
    try:
        _refuse_other_scene(sources, jobs)
        jobs = [job for job in jobs if not job[1].exists()]
        loop = jobs if quiet or not jobs else progress(jobs, 'cut tiles')
        for kind, path, window, compression in loop:
            _write_window(sources[kind], path, window, compression)
    finally:
        for source in sources.values():
            source.close()
    return {
        strip.name: len(list((target / 'images' / strip.name).glob('*.tif'))) for strip in strips
    }


def _shape(path: str | Path) -> tuple[int, int]:
    try:
        with rasterio.open(path) as source:
            return source.shape
    except RasterioError as error:
        raise CorruptImageError(f'cannot be opened ({error})', path=path) from error


def _refuse_other_cut(target: Path, jobs: Sequence[tuple], size: int, prefix: str) -> None:
    """Raises for tiles of another size or grid, which would be taken for tiles of this cut.

    With a prefix, tiles of another one are those of another scene.
    """
    planned = {path for _, path, _, _ in jobs}
    there = sorted((target / 'images').glob('*/*.tif'))
    other = re.compile(rf'(?!{re.escape(prefix)}_\d+_\d+$).+_\d+_\d+' if prefix else '(?!)')
    strange = (path not in planned and not other.fullmatch(path.stem) for path in there)
    if any(strange) or (there and _shape(there[0]) != (size, size)):
        raise ConfigError(
            f'{target} holds {len(there)} tiles, some of them of another size, stride, gap or '
            'scene. Remove the folder, or name another one; several scenes, cut alike, are kept '
            'apart by --prefix.'
        )


def _refuse_other_scene(
    sources: Mapping[str, rasterio.DatasetReader], jobs: Sequence[tuple]
) -> None:
    """Raises where the first and last tiles that are there are not those of this scene.

    They would be kept, and the scene left out without a word.
    """
    for kind, source in sources.items():
        tiles = [job for job in jobs if job[0] == kind and job[1].parent.name != 'strips']
        there = [job for job in tiles if job[1].exists()]
        for _, path, window, _ in {job[1]: job for job in there[:1] + there[-1:]}.values():
            with rasterio.open(path) as tile:
                same = (tile.crs, tile.count) == (source.crs, source.count)
                same &= tile.transform.almost_equals(source.window_transform(window))
                with decoding(source.name):
                    values = source.read(window=window)
                with decoding(str(path)):
                    same = same and np.array_equal(tile.read(), values, equal_nan=True)
            if not same:
                raise ConfigError(
                    f'{path} is not of {source.name}. Name another folder, or give each scene a '
                    'name of its own by --prefix.'
                )


def _write_window(
    source: rasterio.DatasetReader, path: Path, window: Window, compress: str | None
) -> None:
    floating = np.issubdtype(source.dtypes[0], np.floating)
    # A tile beside the swath of a radar is without data; the readers want to be told so.
    nodata = math.nan if floating and source.nodata is None else source.nodata
    profile = {
        'driver': 'GTiff', 'count': source.count, 'dtype': source.dtypes[0], 'crs': source.crs,
        'transform': source.window_transform(window), 'width': window.width,
        'height': window.height, 'nodata': nodata, 'interleave': 'pixel',
    }  # fmt: skip
    if compress:
        profile.update(compress=compress, tiled=True, blockxsize=256, blockysize=256)
    with decoding(source.name):
        values = source.read(window=window)
    # Strips come first: a tile may be without data, a whole part of the scene may not.
    whole = path.parent.name == 'strips'
    if floating and whole and not np.isfinite(values).any():
        raise CorruptImageError(
            f'holds nothing but NaN in rows {window.row_off} to '
            f'{window.row_off + window.height - 1} ({path.stem})',
            path=source.name,
        )
    with whole_file(path) as partial, rasterio.open(partial, 'w', **profile) as out:
        out.write(values)
        out.descriptions = source.descriptions
        if source.count == 1 and 'palette' in str(source.colorinterp[0]):
            out.write_colormap(1, source.colormap(1))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('scene', help='raster to cut')
    parser.add_argument('target', help='folder to fill')
    parser.add_argument('--labels', help='label raster on the same grid')
    parser.add_argument('--size', type=int, default=128, help='tile size in pixels')
    parser.add_argument('--stride', type=int, help='step between tiles (default: the size)')
    parser.add_argument('--gap', type=int, default=64, help='rows between strips')
    parser.add_argument('--compress', help='GDAL compression of the tiles, e.g. deflate')
    parser.add_argument(
        '--prefix', default='', help='begins the names of tiles: several scenes in one folder'
    )
    args = parser.parse_args()
    with errors_end_command():
        counts = cut_tiles(
            args.scene, args.target, args.labels, args.size, args.stride, args.gap,
            compress=args.compress, prefix=args.prefix,
        )  # fmt: skip
    print(f'{args.target}: ' + ', '.join(f'{name} {count}' for name, count in counts.items()))


if __name__ == '__main__':
    main()
