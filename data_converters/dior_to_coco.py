# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Converts the horizontal boxes of DIOR (one XML an image) to COCO json files.

Example; the folder is the one that is unpacked, and receives ``DIOR_{trainval,test}_coco.json``::

    python data_converters/dior_to_coco.py data/dior
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmrsfm.class_tables import DIOR
from mmrsfm.errors import DataError
from mmrsfm.utils.conversion import (
    each,
    errors_end_command,
    number,
    read_names,
    read_xml,
    write_json,
    xml_text,
)
from mmrsfm.utils.rgb import image_size

_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def read_boxes(path: str | Path) -> list[tuple[int, list[int | float]]]:
    """Reads one annotation file.

    Args:
        path: The XML.

    Returns:
        Class number and ``[x, y, width, height]`` in pixels of each object. As the publisher gives
        them: neither clipped nor filtered, readers drop boxes without area.

    Raises:
        DataError: For an unknown class, or a box that is missing or not of numbers.
    """
    found = []
    for index, element in enumerate(read_xml(path).findall('object'), start=1):
        where = f'object {index}'
        name = xml_text(element, 'name', path, where).lower()
        if name not in DIOR:
            raise DataError(f'{where}: {name!r} is no class of DIOR', path=path)
        left, top, right, bottom = (
            number(xml_text(element, f'bndbox/{tag}', path, where), path, f'{where}, {tag}')
            for tag in _CORNERS
        )
        found.append((DIOR.index(name), [left, top, right - left, bottom - top]))
    return found


def dior_to_coco(
    root: str | Path,
    target: str | Path | None = None,
    splits: Sequence[str] = ('trainval', 'test'),
    workers: int = 1,
    quiet: bool = False,
) -> dict[str, tuple[int, int]]:
    """Writes ``{target}/DIOR_{split}_coco.json``. All numbers begin at 0; empty images are kept.

    Args:
        root: Folder with ``ImageSets/Main/{split}.txt``, ``JPEGImages-{split}`` and
            ``Annotations/Horizontal Bounding Boxes``.
        target: Folder for the json files. Defaults to ``root``, where the configs look.
        splits: Names of lists and image folders.
        workers: Number of threads.
        quiet: No progress line.

    Returns:
        Numbers of images and of objects by split.

    Raises:
        DatasetNotFoundError: If a list, an image or an annotation is missing.
        DataError: If an annotation cannot be used; file and object are named.
    """
    root = Path(root)
    target = root if target is None else Path(target)
    counts = {}
    for split in splits:

        def read(name: str, split: str = split) -> tuple[dict[str, Any], list]:
            file_name = f'{name}.jpg'
            width, height = image_size(root / f'JPEGImages-{split}' / file_name)
            path = root / 'Annotations' / 'Horizontal Bounding Boxes' / f'{name}.xml'
            return {'file_name': file_name, 'height': height, 'width': width}, read_boxes(path)

        names = _names(root / 'ImageSets' / 'Main', split)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image, boxes in each(read, names, f'DIOR {split}', workers, quiet):
            for category, box in boxes:
                annotations.append(
                    {
                        'image_id': len(images), 'bbox': box, 'category_id': category,
                        'id': len(annotations), 'iscrowd': 0, 'segmentation': [],
                        'area': box[2] * box[3],
                    }
                )  # fmt: skip
            images.append({**image, 'id': len(images)})
        content = {
            'images': images,
            'annotations': annotations,
            'categories': [{'id': index, 'name': name} for index, name in enumerate(DIOR)],
        }
        write_json(target / f'DIOR_{split}_coco.json', content)
        counts[split] = (len(images), len(annotations))
    return counts


def _names(folder: Path, split: str) -> list[str]:
    """Names of a split. Some copies of DIOR have no list of trainval, but of train and of val."""
    lists = [folder / f'{split}.txt']
    if split == 'trainval' and not lists[0].exists():
        lists = [folder / 'train.txt', folder / 'val.txt']
    names = [name for path in lists for name in read_names(path)]
    if not names:
        raise DataError('names no images', path=lists[0])
    return names


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('root', help='folder of DIOR')
    parser.add_argument('target', nargs='?', help='folder for the json files (default: root)')
    parser.add_argument('--splits', nargs='+', default=['trainval', 'test'])
    parser.add_argument('--workers', type=int, default=4, help='threads')
    args = parser.parse_args()
    with errors_end_command():
        counts = dior_to_coco(**vars(args))
    for split, (images, objects) in counts.items():
        print(f'DIOR {split}: {images} images, {objects} objects')


if __name__ == '__main__':
    main()
