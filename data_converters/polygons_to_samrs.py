# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Converts polygons or boxes over images to the three kinds of label of SAMRS.

Polygons become masks, boxes become filled boxes; from each follow the class of the pixels, an
instance, and the rectangle of least area around it. One run writes one part (list) of a data set;
classes keep their order, so that further runs add parts. A scene is cut into tiles; parts of one
scene are windows of it (column, row, width, height), best with a gap between them.

Example, a georeferenced scene with building footprints; then images with one file of boxes each::

    python data_converters/polygons_to_samrs.py scene.tif buildings.geojson data/town --name town \
        --classes building --part train --window 384 0 516 900 --size 192 --stretch 1 99
    python data_converters/polygons_to_samrs.py D/images D/boxes data/trees --name trees \
        --classes tree --part train --names OSBS_029 SOAP_061 --size 200

Labels are GeoJSON files, GeoPackages or Shapefiles, XML files of Pascal VOC, or CSV tables with
``image_path, xmin, ymin, xmax, ymax, label``: one file for all images, or a folder with one for
each, named alike. ``mmrsfm.SAMRSDataset`` reads the result (docs/datasets.md).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask
from rasterio.features import rasterize
from rasterio.windows import Window
from shapely import STRtree, affinity
from shapely.geometry import Polygon, box

from mmrsfm.errors import ConfigError, DatasetNotFoundError
from mmrsfm.utils.conversion import (
    each,
    errors_end_command,
    read_names,
    refuse_source,
    refuse_strays,
    write_json,
    write_lines,
)
from mmrsfm.utils.image_objects import Thing, read_things
from mmrsfm.utils.rgb import RGBRaster, files_of_images, image_stem, open_raster, write_png
from mmrsfm.utils.rle import encode_window
from mmrsfm.utils.samrs import BACKGROUND, Layout, annotation_file
from mmrsfm.utils.vector import GEOJSON_SUFFIXES

LAYOUT = Layout()


class Tile(NamedTuple):
    """A window of an image, in pixels, and the stem of the files that it becomes."""

    name: str
    left: int
    top: int
    width: int
    height: int


def make_tiles(
    stem: str,
    area: tuple[int, int, int, int],
    size: int | None,
    stride: Sequence[int] | None = None,
) -> list[Tile]:
    """Cuts a rectangle into tiles, row by row.

    Args:
        stem: Of the image.
        area: First column, first row, width and height.
        size: Side of the tiles; shorter sides of the area stay. ``None``: the area is one tile.
        stride: Steps in rows and columns; what is left at the ends is not used. ``None``: the tiles
            cover the area evenly, and overlap where they must.
    """
    left, top, width, height = area
    if size is None:
        return [Tile(stem, left, top, width, height)]

    def starts(length: int, step: int | None) -> list[int]:
        side = min(size, length)
        if step is not None:
            return list(range(0, length - side + 1, step))
        count = -(-length // side)
        return [round(k * (length - side) / max(count - 1, 1)) for k in range(count)]

    rows, columns = (None, None) if stride is None else stride
    return [
        Tile(f'{stem}__{size}__{left + x}___{top + y}', left + x, top + y, w, h)
        for w, h in [(min(size, width), min(size, height))]
        for y in starts(height, rows)
        for x in starts(width, columns)
    ]


class TileLabels(NamedTuple):
    """The three kinds of label of a tile.

    Attributes:
        classes: uint8 (H, W): number of the class, 255 where there is no object.
        instances: ``label``, mask and ``corners`` (4, 2) of each, in pixels; the mask as first row,
            first column, and uint8 (h, w) from there on.
    """

    classes: np.ndarray
    instances: list[tuple[int, tuple[int, int, np.ndarray], np.ndarray]]


def label_tile(things: Sequence[Thing], tile: Tile, keep: float = 0.4) -> TileLabels:
    """Draws the objects of a tile.

    A pixel belongs to an object if its centre lies in it; where objects overlap, the class is that
    of the smaller one. An object is an instance, and has a rotated box around what is inside, if
    the tile holds at least a share of it; of the others there are the classes of their pixels.

    Args:
        things: Objects of the image.
        tile: The tile.
        keep: The share, in [0, 1].
    """
    window = box(tile.left, tile.top, tile.left + tile.width, tile.top + tile.height)
    size = (tile.height, tile.width)
    classes = np.full(size, BACKGROUND, np.uint8)
    drawn = []
    for thing in things:
        if not thing.polygon.intersects(window):
            continue
        inside = thing.polygon.intersection(window)
        if inside.area <= 0:
            continue
        moved = affinity.translate(inside, -tile.left, -tile.top)
        # As large as the object: a scene that is not cut has thousands of them.
        left, top = (max(int(least), 0) for least in moved.bounds[:2])
        right, bottom = (
            min(math.ceil(most), side)
            for most, side in zip(moved.bounds[2:], (tile.width, tile.height), strict=True)
        )
        mask = rasterize(
            [(affinity.translate(moved, -left, -top), 1)], (bottom - top, right - left),
            dtype='uint8',
        )  # fmt: skip
        if mask.any():
            kept = inside.area / thing.polygon.area >= keep
            drawn.append((thing, kept, moved, (top, left, mask)))
    for thing, _, _, (top, left, mask) in sorted(drawn, key=lambda one: -one[0].polygon.area):
        classes[top : top + mask.shape[0], left : left + mask.shape[1]][mask > 0] = thing.label
    instances = []
    for thing, kept, moved, found in drawn:
        rectangle = moved.minimum_rotated_rectangle
        if kept and isinstance(rectangle, Polygon):
            corners = np.asarray(rectangle.exterior.coords[:4])
            instances.append((thing.label, found, corners))
    return TileLabels(classes, instances)


def polygons_to_samrs(
    images: str | Path,
    labels: str | Path,
    target: str | Path,
    name: str,
    classes: Sequence[str],
    part: str = 'train',
    names: Sequence[str] | None = None,
    field: str | None = None,
    pixels: bool = False,
    window: Sequence[int] | None = None,
    size: int | None = None,
    stride: Sequence[int] | None = None,
    keep: float = 0.4,
    skip_empty: bool = False,
    stretch: tuple[float, float] | None = None,
    workers: int = 1,
    quiet: bool = False,
) -> tuple[int, int]:
    """Writes one part of a data set in the form of SAMRS.

    ``{part}.txt``, ``{name}_rbb_{part}_ins_segmentation.json``, and below ``trainval``:
    ``images/<tile>.png``, ``rhbox_segs_init/gray/<tile>.png`` and ``rbbtxts/<tile>.txt``.

    Args:
        images: A scene, or a folder of images.
        labels: A file, or a folder with a file for each image, named alike.
        target: Folder of the data set; parts that are there stay.
        name: Of the data set.
        classes: Names of the classes, in the order of their numbers; no blanks.
        part: Name of the list, e.g. ``'train'`` or ``'valid'``.
        names: Images of a folder, with or without suffix; all by default.
        field: See :func:`read_things`.
        pixels: See :func:`read_things`.
        window: First column, first row, width and height of what is used of each image.
        size: See :func:`make_tiles`.
        stride: See :func:`make_tiles`.
        keep: See :func:`label_tile`.
        skip_empty: Leave out tiles without an instance.
        stretch: Percentiles that become 0 and 255, for images of more than 8 bits.
        workers: Number of threads.
        quiet: No progress line.

    Returns:
        Numbers of tiles and of instances.

    Raises:
        DatasetNotFoundError: If a file or folder is missing.
        DataError: If a file cannot be used.
        ConfigError: If a class has a blank in its name, a window does not lie in its image, a tile
            is in another part already, or ``target`` holds files of another conversion.
    """
    target = Path(target)
    classes = list(classes)
    if not classes or any(not one or len(one.split()) != 1 for one in classes):
        raise ConfigError(f'classes are names without blanks, got {classes}')
    if len(classes) > 253 or len(set(classes)) < len(classes):
        raise ConfigError('classes are at most 253 names, each of them once')
    if not 0 <= keep <= 1:
        raise ConfigError(f'keep is a share from 0 to 1, got {keep}')
    refuse_source(target / LAYOUT.images, [Path(images) if Path(images).is_dir() else target])
    tiles = {
        path: make_tiles(path.stem, _area(path, window), size, stride)
        for path in _chosen(Path(images), names)
    }
    stems = [tile.name for found in tiles.values() for tile in found]
    others = _other_parts(target, part)
    if shared := sorted(set(stems) & set(others)):
        raise ConfigError(
            f'{len(shared)} tiles are in the part {others[shared[0]]!r} already, such as '
            f'{shared[0]}: a part needs other images, or another window'
        )
    _refuse_other_classes(target, name, part, classes)
    for folder, suffix in (
        (LAYOUT.images, '.png'), (LAYOUT.classes, '.png'), (LAYOUT.rotated, '.txt'),
    ):  # fmt: skip
        refuse_strays(target / folder, (f'{one}{suffix}' for one in (*stems, *others)))

    def convert(path: Path) -> list[tuple[Tile, list[dict[str, Any]]]]:
        things = read_things(_label_file(Path(labels), path), path, classes, field, pixels)
        tree = STRtree([thing.polygon for thing in things])
        done = []
        with RGBRaster(path, stretch) as raster:
            for tile in tiles[path]:
                right, bottom = tile.left + tile.width, tile.top + tile.height
                near = sorted(tree.query(box(tile.left, tile.top, right, bottom)))
                found = label_tile([things[number] for number in near], tile, keep)
                if found.instances or not skip_empty:
                    window = Window(tile.left, tile.top, tile.width, tile.height)
                    _write_tile(target, tile, raster.read(window), found, classes)
                    size_of = (tile.height, tile.width)
                    done.append((tile, [_annotation(*one[:2], size_of) for one in found.instances]))
        return done

    by_image = each(convert, list(tiles), f'{name} {part}', workers, quiet)
    results = [one for found in by_image for one in found]
    flat: list[dict[str, Any]] = []
    pictures = []
    for image_id, (tile, found) in enumerate(results):
        pictures.append(
            {
                'file_name': f'{tile.name}.png', 'height': tile.height, 'width': tile.width,
                'id': image_id,
            }
        )  # fmt: skip
        for one in found:
            flat.append({**one, 'image_id': image_id, 'id': len(flat)})
    categories = [{'id': label, 'name': one} for label, one in enumerate(classes)]
    content = {'images': pictures, 'categories': categories, 'annotations': flat}
    write_json(target / annotation_file(name, part), content)
    # Last: the list says that the part is whole.
    write_lines(target / f'{part}.txt', [tile.name for tile, _ in results])
    return len(results), len(flat)


def _write_tile(
    target: Path, tile: Tile, picture: np.ndarray, labels: TileLabels, classes: Sequence[str]
) -> None:
    write_png(target / LAYOUT.images / f'{tile.name}.png', picture)
    write_png(target / LAYOUT.classes / f'{tile.name}.png', labels.classes)
    write_lines(
        target / LAYOUT.rotated / f'{tile.name}.txt',
        [
            ' '.join(f'{value:.2f}' for value in corners.ravel()) + f' {classes[label]} 0'
            for label, _, corners in labels.instances
        ],
    )


def _annotation(
    label: int, window: tuple[int, int, np.ndarray], size: tuple[int, int]
) -> dict[str, Any]:
    rle = encode_window(*window, size)
    return {
        'iscrowd': 0,
        'category_id': label,
        'bbox': coco_mask.toBbox(rle).tolist(),
        'area': int(coco_mask.area(rle)),
        'segmentation': rle,
    }


def _chosen(images: Path, names: Sequence[str] | None) -> list[Path]:
    if images.is_file():
        return [images]
    paths = {path.stem: path for path in files_of_images(images)}
    if names is None:
        return list(paths.values())
    stems = [image_stem(one) for one in names]
    if absent := [stem for stem in stems if stem not in paths]:
        raise DatasetNotFoundError('there is no such image', path=images / absent[0])
    return [paths[stem] for stem in stems]


def _area(path: Path, window: Sequence[int] | None) -> tuple[int, int, int, int]:
    with open_raster(path) as source:
        height, width = source.shape
    if window is None:
        return 0, 0, width, height
    left, top, columns, rows = window
    fits = left >= 0 and top >= 0 and left + columns <= width and top + rows <= height
    if not fits or columns < 1 or rows < 1:
        raise ConfigError(
            f'the window {tuple(window)} (column, row, width, height) does not lie in {path}, '
            f'which is {width} x {height}'
        )
    return left, top, columns, rows


def _other_parts(target: Path, part: str) -> dict[str, str]:
    lists = [path for path in sorted(target.glob('*.txt')) if path.stem != part]
    return {stem: path.stem for path in lists for stem in read_names(path)}


def _refuse_other_classes(target: Path, name: str, part: str, classes: list[str]) -> None:
    for path in sorted(target.glob(annotation_file(name, '*'))):
        if path.name == annotation_file(name, part):
            continue
        found = [one['name'] for one in json.loads(path.read_text())['categories']]
        if found != classes:
            raise ConfigError(f'{path} has the classes {found}, in this order, not {classes}')


def _label_file(labels: Path, image: Path) -> Path:
    if not labels.is_dir():
        return labels
    for suffix in (*GEOJSON_SUFFIXES, '.xml', '.csv', '.gpkg', '.shp'):
        path = labels / f'{image.stem}{suffix}'
        if path.is_file():
            return path
    raise DatasetNotFoundError('there is no file of labels', path=labels / f'{image.stem}.*')


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('images', help='a scene, or a folder of images')
    parser.add_argument('labels', help='a file, or a folder with a file for each image')
    parser.add_argument('target', help='folder of the data set')
    parser.add_argument('--name', required=True, help='of the data set')
    parser.add_argument('--classes', required=True, nargs='+', help='in the order of their numbers')
    parser.add_argument('--part', default='train', help='name of the list, e.g. train or valid')
    parser.add_argument('--names', nargs='+', help='images of the folder (default: all)')
    parser.add_argument('--field', help='property or column with the class')
    parser.add_argument('--pixels', action='store_true', help='vector files are in pixels')
    parser.add_argument('--window', type=int, nargs=4, help='column, row, width, height')
    parser.add_argument('--size', type=int, help='side of the tiles in pixels')
    parser.add_argument('--stride', type=int, nargs=2, help='steps in rows and columns')
    parser.add_argument('--keep', type=float, default=0.4, help='least share of an instance')
    parser.add_argument('--skip-empty', action='store_true', help='no tiles without instances')
    parser.add_argument('--stretch', type=float, nargs=2, help='percentiles that become 0 and 255')
    parser.add_argument('--workers', type=int, default=4, help='threads')
    args = vars(parser.parse_args())
    args['stretch'] = tuple(args['stretch']) if args['stretch'] else None
    with errors_end_command():
        tiles, instances = polygons_to_samrs(**args)
    print(f'{args["target"]} {args["part"]}: {tiles} tiles, {instances} instances')


if __name__ == '__main__':
    main()
