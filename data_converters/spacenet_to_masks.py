# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Converts the buildings of SpaceNet (one geojson an image) to masks that a model trains on.

Example, for SpaceNet 1 (Rio; ``3band/3band_<name>.tif`` and ``geojson/Geo_<name>.geojson``)::

    python data_converters/spacenet_to_masks.py D/spacenet data/spacenetv1

gives ``{train,val}/{images,labels}/3band_<name>.png``, labels 0 (background) and 1 (building). The
published split is not known; here it follows from ``--seed``, or from a list for ``--val-list``.

Images of 11 or 16 bits (other SpaceNet sets) need ``--stretch 2 98``; the 3band files have 8 bits.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rasterio.features import rasterize

from mmrsfm.errors import ConfigError, DataError
from mmrsfm.randomness import derive_seed
from mmrsfm.utils.conversion import (
    each,
    errors_end_command,
    files_of,
    read_names,
    refuse_strays,
)
from mmrsfm.utils.rgb import RGBRaster, image_stem, open_raster, write_png
from mmrsfm.utils.vector import read_polygons

SPLITS = ('train', 'val')


def building_mask(geojson: str | Path, image: str | Path) -> np.ndarray:
    """Draws the polygons of a geojson on the grid of an image.

    A pixel is a building if its centre lies in a polygon (GDAL's rule); holes are left out, parts
    outside of the image too. Coordinates are in the system that the geojson names, or else in
    longitude and latitude; they are transformed if the image has another.

    Args:
        geojson: Features with Polygons and MultiPolygons; other and empty ones do not count. A
            file without any text stands for an image without buildings.
        image: A georeferenced raster.

    Returns:
        0 or 1, uint8 (H, W).

    Raises:
        CorruptImageError: If the image cannot be opened.
        DataError: If the geojson is none, or the image has no georeference.
    """
    with open_raster(image) as source:
        shape, transform, crs = source.shape, source.transform, source.crs
    if crs is None and transform.is_identity:
        raise DataError('has no georeference, so that the polygons have no place', path=image)
    polygons = [one.geometry for one in read_polygons(geojson, crs)]
    if not polygons:
        return np.zeros(shape, np.uint8)
    return rasterize(polygons, out_shape=shape, transform=transform, dtype='uint8')


def pair_files(
    images: str | Path, geojsons: str | Path, image_prefix: str, geojson_prefix: str
) -> list[tuple[Path, Path]]:
    """Pairs images and geojsons by the names behind their prefixes; numbers may have gaps.

    Raises:
        DatasetNotFoundError: If a folder is missing or empty.
        ConfigError: If one has no partner.
    """

    def named(paths: Sequence[Path], prefix: str) -> dict[str, Path]:
        return {path.stem.removeprefix(prefix): path for path in paths}

    pictures = named(files_of(images, '.tif', '.tiff'), image_prefix)
    labels = named(files_of(geojsons, '.geojson', '.json'), geojson_prefix)
    alone = sorted(set(pictures) ^ set(labels))
    if alone:
        kind = 'image' if alone[0] in pictures else 'geojson'
        raise ConfigError(
            f'{len(alone)} files have no partner, such as the {kind} of {alone[0]!r}, in {images} '
            f'and {geojsons} (prefixes {image_prefix!r} and {geojson_prefix!r})'
        )
    return [(pictures[name], labels[name]) for name in sorted(pictures)]


def spacenet_to_masks(
    images: str | Path,
    geojsons: str | Path,
    target: str | Path,
    val_fraction: float = 0.2,
    val_names: Sequence[str] | None = None,
    seed: int = 0,
    image_prefix: str = '3band_',
    geojson_prefix: str = 'Geo_',
    stretch: tuple[float, float] | None = None,
    workers: int = 1,
    quiet: bool = False,
) -> dict[str, int]:
    """Writes ``{target}/{train,val}/{images,labels}/<image>.png``.

    Args:
        images: Folder of tif images.
        geojsons: Folder of geojsons.
        target: Folder to fill.
        val_fraction: Share for validation, drawn by a hash of seed and name.
        val_names: Names of images (with or without suffix) for validation, instead of drawing.
        seed: Seed of the split.
        image_prefix: What stands before the common name of an image.
        geojson_prefix: What stands before the common name of a geojson.
        stretch: Percentiles that become 0 and 255, for images of more than 8 bits.
        workers: Number of threads.
        quiet: No progress line, no note on empty files.

    Returns:
        Number of images by split.

    Raises:
        DatasetNotFoundError: If a folder is missing or empty.
        ConfigError: If files have no partner, a name of ``val_names`` no image, or ``target``
            holds files of another conversion.
        DataError: If a file cannot be used.
    """
    pairs = pair_files(images, geojsons, image_prefix, geojson_prefix)
    stems = [image.stem for image, _ in pairs]
    if val_names is None:
        if not 0 <= val_fraction <= 1:
            raise ConfigError(f'val_fraction is a share from 0 to 1, got {val_fraction}')
        order = sorted(stems, key=lambda stem: (derive_seed(seed, stem), stem))
        val_names = order[: round(val_fraction * len(stems))]
    elif unknown := sorted({image_stem(name) for name in val_names} - set(stems)):
        raise ConfigError(f'{len(unknown)} names of the list have no image, such as {unknown[0]}')
    split = dict.fromkeys(stems, 'train') | dict.fromkeys(map(image_stem, val_names), 'val')
    for part in SPLITS:
        planned = [f'{stem}.png' for stem in stems if split[stem] == part]
        for kind in ('images', 'labels'):
            refuse_strays(Path(target) / part / kind, planned)

    blank = [geojson.name for _, geojson in pairs if geojson.stat().st_size == 0]
    if blank and not quiet:
        logging.getLogger('mmrsfm').warning(
            'SpaceNet: %d geojsons are empty files, such as %s: no buildings', len(blank), blank[0]
        )

    def convert(pair: tuple[Path, Path]) -> None:
        image, geojson = pair
        folder = Path(target) / split[image.stem]
        mask = building_mask(geojson, image)
        with RGBRaster(image, stretch) as raster:
            write_png(folder / 'images' / f'{image.stem}.png', raster.read())
        write_png(folder / 'labels' / f'{image.stem}.png', mask)

    each(convert, pairs, 'SpaceNet masks', workers, quiet)
    return {part: sum(value == part for value in split.values()) for part in SPLITS}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('source', help='folder with 3band/ and geojson/')
    parser.add_argument('target', help='folder to fill')
    parser.add_argument('--images', default='3band', help='folder of the images below source')
    parser.add_argument('--geojsons', default='geojson', help='folder of the geojsons below source')
    parser.add_argument('--image-prefix', default='3band_')
    parser.add_argument('--geojson-prefix', default='Geo_')
    parser.add_argument('--val-fraction', type=float, default=0.2, help='share for validation')
    parser.add_argument('--val-list', help='text file with the images for validation instead')
    parser.add_argument('--seed', type=int, default=0, help='seed of the split')
    parser.add_argument('--stretch', type=float, nargs=2, help='percentiles that become 0 and 255')
    parser.add_argument('--workers', type=int, default=4, help='threads')
    args = parser.parse_args()
    source = Path(args.source)
    with errors_end_command():
        val_names = read_names(args.val_list) if args.val_list else None
        counts = spacenet_to_masks(
            source / args.images, source / args.geojsons, args.target, args.val_fraction,
            val_names, args.seed, args.image_prefix, args.geojson_prefix,
            tuple(args.stretch) if args.stretch else None, args.workers,
        )  # fmt: skip
    print(f'{args.target}: ' + ', '.join(f'{part} {count}' for part, count in counts.items()))


if __name__ == '__main__':
    main()
