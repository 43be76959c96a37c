# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Converts xView (one geojson, large tif images) to tiles of 416 pixels with COCO json files.

Example; the folder holds ``xView_train.geojson`` and ``train_images/*.tif``::

    python data_converters/xview_geojson_to_coco.py D/xview data/xview

gives ``{train,val}/images/<image>_<number>.png`` and ``xview_{train,val}_coco_format.json``.

The published split (700 images for training) was drawn without a seed and is unknown; here it
follows from ``--seed`` on every machine, or from the json file ``--split`` with lists of names by
"train" and "val".
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmrsfm.class_tables import XVIEW, XVIEW_TYPE_IDS
from mmrsfm.errors import ConfigError, DataError, DatasetNotFoundError
from mmrsfm.randomness import derive_seed
from mmrsfm.utils.conversion import (
    each,
    errors_end_command,
    read_text,
    refuse_strays,
    write_json,
)
from mmrsfm.utils.rgb import RGBRaster, files_of_images, image_stem, write_png

PADDING = 128
_CATEGORY = {type_id: index for index, type_id in enumerate(XVIEW_TYPE_IDS)}
_Box = tuple[int, float, float, float, float]


def read_features(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yields the features of a geojson one by one: xView's file is larger than many memories.

    Args:
        path: The file.

    Yields:
        Features.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DataError: If it is no geojson; the number of the feature is named.
    """
    text = read_text(path, 'geojson')
    start = re.search(r'"features"\s*:\s*\[\s*', text)
    if start is None:
        raise DataError('has no list of features', path=path)
    decoder, separator = json.JSONDecoder(), re.compile(r'\s*([,\]])\s*')
    position, index = start.end(), 0
    if text.startswith(']', position):
        return
    while True:
        try:
            feature, position = decoder.raw_decode(text, position)
            sign = separator.match(text, position)
            if sign is None:
                raise ValueError('it is followed by neither "," nor "]"')
        except ValueError as error:
            raise DataError(f'feature {index} cannot be read ({error})', path=path) from error
        yield feature
        if sign.group(1) == ']':
            return
        position, index = sign.end(), index + 1


def read_labels(
    path: str | Path, images: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, list[_Box]], Counter]:
    """Collects the boxes of each image.

    Args:
        path: The geojson.
        images: Width and height by file name; features of other images are left out (the public
            data names one that does not exist, 1395.tif).

    Returns:
        By file name: class number, and centre, width and height as shares of the image, rounded to
        six decimals (as the published labels were; less than 0.01 pixels). And how many features
        were left out, by reason.

    Raises:
        DataError: If a feature lacks its properties.
    """
    labels: dict[str, list[_Box]] = {}
    left_out: Counter = Counter()
    for index, feature in enumerate(read_features(path)):
        try:
            properties = feature['properties']
            bounds, name = properties['bounds_imcoords'], properties['image_id']
            category = _CATEGORY.get(int(properties['type_id']))
            if not isinstance(name, str):
                raise TypeError(f'image_id is {name!r}')
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f'feature {index} lacks bounds_imcoords, image_id or type_id ({error!r})'
            raise DataError(reason, path=path) from error
        if not bounds:
            left_out['no bounds'] += 1
            continue
        if name not in images:
            left_out['no such image'] += 1
            continue
        try:
            left, top, right, bottom = (int(part) for part in bounds.split(','))
        except (AttributeError, ValueError):
            left_out['bounds that are not four integers'] += 1
            continue
        if category is None:
            left_out['type_id of no class'] += 1
            continue
        width, height = images[name]
        left, right = (min(max(x, 0), width) for x in (left, right))
        top, bottom = (min(max(y, 0), height) for y in (top, bottom))
        box = (
            (left + right) / 2 / width, (top + bottom) / 2 / height,
            (right - left) / width, (bottom - top) / height,
        )  # fmt: skip
        labels.setdefault(name, []).append((category, *(round(value, 6) for value in box)))
    return labels, left_out


def window_starts(length: int, size: int) -> list[int]:
    """First pixels of windows that cover a side evenly, and overlap where they must.

    Args:
        length: The side, at least ``size``.
        size: Side of a window.
    """
    count = math.ceil((length - size) / size) + 1
    return [int(start) for start in np.linspace(0, length - size, count)]


def tile_labels(
    boxes: Sequence[_Box], width: int, height: int, size: int
) -> list[tuple[int, int, list[_Box]]]:
    """Distributes boxes over windows: a window gets those whose centres it holds, clipped.

    Args:
        boxes: As of :func:`read_labels`.
        width: Width of the image, without padding.
        height: Height of the image, without padding.
        size: Side of the windows.

    Returns:
        Left, top and boxes (shares of the window, six decimals) of the windows with boxes, row by
        row.
    """
    table = np.array(boxes, dtype=np.float64).reshape(-1, 5)
    scale = np.array([width, height])
    centre, extent = table[:, 1:3] * scale, table[:, 3:5] * scale
    low, high = centre - extent / 2, centre + extent / 2
    found = []
    for top in window_starts(max(height, size), size):
        for left in window_starts(max(width, size), size):
            start = np.array([left, top])
            inside = ((centre >= start) & (centre < start + size)).all(axis=1)
            if not inside.any():
                continue
            first = np.maximum(low[inside], start) - start
            # As published: a box that reaches the edge of the window ends a pixel before it.
            end = start + size
            last = np.where(high[inside] >= end, end - 1, high[inside]) - start
            shares = np.concatenate([(first + last) / 2, last - first], axis=1) / size
            found.append(
                (left, top, [
                    (int(category), *(round(float(value), 6) for value in share))
                    for category, share in zip(table[inside, 0], shares, strict=True)
                ])
            )  # fmt: skip
    return found


def draw_split(names: Sequence[str], train_count: int, seed: int) -> dict[str, list[str]]:
    """Splits names by a hash of seed and name: the same on every machine, in any order.

    Args:
        names: Names of images.
        train_count: How many are for training; the rest is for validation.
        seed: Any integer.

    Raises:
        ConfigError: If none would be left for validation.
    """
    if not 0 < train_count < len(names):
        raise ConfigError(
            f'{train_count} of {len(names)} images with labels for training leave none for one of '
            'the splits; give another train_count (--train-count)'
        )
    order = sorted(names, key=lambda name: (derive_seed(seed, name), name))
    return {'train': sorted(order[:train_count]), 'val': sorted(order[train_count:])}


def read_split(path: str | Path) -> dict[str, list[str]]:
    """Reads a json file with a list of names of images by split."""
    try:
        split = json.loads(read_text(path, 'split'))
    except ValueError as error:
        raise DataError(f'is no json ({error})', path=path) from error
    if not isinstance(split, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names)
        for names in split.values()
    ):
        raise DataError('is not of the form {"train": ["1", ...], "val": [...]}', path=path)
    return split


def xview_to_coco(
    geojson: str | Path,
    images: str | Path,
    target: str | Path,
    split: Mapping[str, Sequence[str]] | None = None,
    train_count: int = 700,
    seed: int = 0,
    size: int = 416,
    workers: int = 1,
    quiet: bool = False,
) -> dict[str, tuple[int, int]]:
    """Writes tiles with objects and ``xview_{split}_coco_format.json``.

    Smaller images are padded at the right and the bottom with 128. (The published script scaled
    the boxes of such images with the padding, which moved them off their objects; here they stay.)

    Args:
        geojson: ``xView_train.geojson``.
        images: Folder of the tif images.
        target: Folder to fill.
        split: Names of images, with or without suffix, by split. Defaults to :func:`draw_split`.
        train_count: Images for training, of those with objects.
        seed: Seed of the split.
        size: Side of a tile in pixels.
        workers: Number of threads.
        quiet: No progress line, no note on what was left out.

    Returns:
        Numbers of tiles and of objects by split.

    Raises:
        DatasetNotFoundError: If the geojson, the folder, or an image of the split is missing.
        DataError: If the geojson cannot be used.
        ConfigError: If the split cannot be drawn, an image is in two, or ``target`` holds tiles of
            another conversion.
    """
    target = Path(target)
    paths = {path.name: path for path in files_of_images(images)}
    sizes = {}
    for name, path in paths.items():
        with RGBRaster(path) as raster:
            sizes[name] = (raster.width, raster.height)
    labels, left_out = read_labels(geojson, sizes)
    if left_out and not quiet:
        note = ', '.join(f'{count} with {reason}' for reason, count in sorted(left_out.items()))
        logging.getLogger('mmrsfm').warning('xView: objects left out: %s', note)
    by_stem = {Path(name).stem: name for name in paths}
    if split is None:
        split = draw_split([Path(name).stem for name in labels], train_count, seed)
    split = {part: [image_stem(name) for name in names] for part, names in split.items()}
    chosen = [stem for names in split.values() for stem in names]
    for stem, count in Counter(chosen).items():
        if stem not in by_stem:
            raise DatasetNotFoundError('the split names it, but there is no image', path=stem)
        if count > 1:
            raise ConfigError(f'the split names {stem} {count} times')
    tiles = {
        stem: tile_labels(labels.get(by_stem[stem], ()), *sizes[by_stem[stem]], size)
        for stem in chosen
    }
    for part, stems in split.items():
        planned = (f'{stem}_{index}.png' for stem in stems for index in range(len(tiles[stem])))
        refuse_strays(target / part / 'images', planned)

    def cut(job: tuple[str, str]) -> None:
        part, stem = job
        with RGBRaster(paths[by_stem[stem]]) as raster:
            whole = raster.read()
        height, width = whole.shape[:2]
        below, right = max(size - height, 0), max(size - width, 0)
        whole = np.pad(whole, ((0, below), (0, right), (0, 0)), constant_values=PADDING)
        for index, (left, top, _) in enumerate(tiles[stem]):
            tile = whole[top : top + size, left : left + size]
            write_png(target / part / 'images' / f'{stem}_{index}.png', tile)

    jobs = [(part, stem) for part, stems in split.items() for stem in stems if tiles[stem]]
    each(cut, jobs, 'xView tiles', workers, quiet)
    counts = {}
    for part, stems in split.items():
        content = _coco({stem: [boxes for *_, boxes in tiles[stem]] for stem in stems}, size)
        write_json(target / f'xview_{part}_coco_format.json', content)
        counts[part] = (len(content['images']), len(content['annotations']))
    return counts


def _coco(tiles: Mapping[str, Sequence[Sequence[_Box]]], size: int) -> dict[str, list]:
    named = {
        f'{stem}_{index}.png': boxes
        for stem, parts in tiles.items()
        for index, boxes in enumerate(parts)
    }
    images: list[dict] = []
    annotations: list[dict] = []
    for name in sorted(named):
        for category, x, y, width, height in named[name]:
            box = [(x - width / 2) * size, (y - height / 2) * size, width * size, height * size]
            annotations.append(
                {
                    'id': len(annotations), 'image_id': len(images), 'category_id': category,
                    'bbox': box, 'area': box[2] * box[3], 'iscrowd': 0,
                }
            )  # fmt: skip
        images.append({'file_name': name, 'id': len(images), 'width': size, 'height': size})
    categories = [{'id': index, 'name': name} for index, name in enumerate(XVIEW)]
    return {'images': images, 'annotations': annotations, 'categories': categories}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('source', help='folder with xView_train.geojson and train_images/')
    parser.add_argument('target', help='folder to fill')
    parser.add_argument('--geojson', help='the geojson, if it lies elsewhere')
    parser.add_argument('--images', help='folder of the tif images, if it lies elsewhere')
    parser.add_argument('--split', help='json file with the names of images of train and val')
    parser.add_argument('--train-count', type=int, default=700, help='images for training')
    parser.add_argument('--seed', type=int, default=0, help='seed of the split')
    parser.add_argument('--size', type=int, default=416, help='side of a tile in pixels')
    parser.add_argument('--workers', type=int, default=4, help='threads')
    args = parser.parse_args()
    source = Path(args.source)
    with errors_end_command():
        split = read_split(args.split) if args.split else None
        counts = xview_to_coco(
            args.geojson or source / 'xView_train.geojson', args.images or source / 'train_images',
            args.target, split, args.train_count, args.seed, args.size, args.workers,
        )  # fmt: skip
    for part, (tiles, objects) in counts.items():
        print(f'xView {part}: {tiles} tiles, {objects} objects')


if __name__ == '__main__':
    main()
