# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""DIOR and DIOR-R: 800x800 JPEGs, Pascal-VOC-like xml with horizontal and with oriented boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import numpy as np

from .drawing import bounds, colour, generator, paint, rectangles, save, terrain, write_lines

# As in the xml files: two names have capitals (and not the same ones).
XML_NAMES = (
    'airplane', 'airport', 'baseballfield', 'basketballcourt', 'bridge', 'chimney',
    'Expressway-Service-area', 'Expressway-toll-station', 'dam', 'golffield', 'groundtrackfield',
    'harbor', 'overpass', 'ship', 'stadium', 'storagetank', 'tenniscourt', 'trainstation',
    'vehicle', 'windmill',
)  # fmt: skip
# As in the COCO json, and in the class tables of the benchmark.
CLASSES = tuple(name.lower() for name in XML_NAMES)


class _Object(NamedTuple):
    label: int
    polygon: np.ndarray  # (4, 2) whole pixels; left-top, right-top, right-bottom, left-bottom
    difficult: int = 0

    @property
    def box(self) -> tuple[int, int, int, int]:
        return bounds(self.polygon)


def _image(seed: int, number: int, size: int, empty: bool) -> tuple[np.ndarray, list[_Object]]:
    """The picture with a number (from 1 over all splits) and its objects."""
    rng = generator(seed, 31, number)
    picture = terrain(rng, size, size)
    objects: list[_Object] = []
    for k, polygon in enumerate([] if empty else rectangles(rng, size, size, 4)):
        label = (4 * number + 5 * k + 2) % len(CLASSES)
        polygon = np.rint(polygon).astype(int)
        if label in (CLASSES.index('golffield'), CLASSES.index('airport')):
            left, top, right, bottom = bounds(polygon)  # many real ones are not turned
            polygon = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        picture = paint(picture, polygon, colour(label))
        objects.append(_Object(label, polygon, int(k == 3)))
    return picture, objects


def _horizontal_xml(stem: str, size: int, objects: list[_Object]) -> str:
    lines = [
        '<annotation>',
        f'\t<filename>{stem}.jpg</filename>',
        '\t<source>',
        '\t\t<database>DIOR</database>',
        '\t</source>',
        '\t<size>',
        f'\t\t<width>{size}</width>',
        f'\t\t<height>{size}</height>',
        '\t\t<depth>3</depth>',
        '\t</size>',
        '\t<segmented>0</segmented>',
    ]
    for thing in objects:
        values = dict(zip(('xmin', 'ymin', 'xmax', 'ymax'), thing.box, strict=True))
        lines += ['\t<object>', f'\t\t<name>{escape(XML_NAMES[thing.label])}</name>']
        lines += ['\t\t<pose>Unspecified</pose>', '\t\t<bndbox>']
        lines += [f'\t\t\t<{key}>{value}</{key}>' for key, value in values.items()]
        lines += ['\t\t</bndbox>', '\t</object>']
    return '\n'.join([*lines, '</annotation>', ''])


def _oriented_xml(stem: str, size: int, objects: list[_Object]) -> str:
    folder = '/JPEGImages-trainval.zip/JPEGImages-trainval/JPEGImages-trainval'
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<annotation>',
        f'    <folder>{folder}</folder>',
        f'    <filename>{stem}.jpg</filename>',
        f'    <path>{folder}</path>',
        '    <source>',
        '        <database>Unknown</database>',
        '    </source>',
        '    <size>',
        f'        <width>{size}</width>',
        f'        <height>{size}</height>',
        '        <depth>3</depth>',
        '    </size>',
        '    <segmented>0</segmented>',
    ]
    corners = ('left_top', 'right_top', 'right_bottom', 'left_bottom')
    for thing in objects:
        lines += [
            '    <object>',
            '        <type>robndbox</type>',
            f'        <name>{escape(XML_NAMES[thing.label])}</name>',
            '        <pose>Unspecified</pose>',
            '        <truncated>0</truncated>',
            f'        <difficult>{thing.difficult}</difficult>',
            '        <robndbox>',
        ]
        for corner, (x, y) in zip(corners, thing.polygon.tolist(), strict=True):
            lines += [f'            <x_{corner}>{x}</x_{corner}>']
            lines += [f'            <y_{corner}>{y}</y_{corner}>']
        lines += ['        </robndbox>', '        <angle>0</angle>', '    </object>']
    return '\n'.join([*lines, '</annotation>', ''])


def _degenerate(objects: list[_Object], size: int) -> list[_Object]:
    """What some real files hold: polygons whose neighbouring corners coincide."""
    middle = size // 2
    line = np.array([[middle, 4], [middle, 4], [middle, 12], [middle, 12]])
    return [*objects, _Object(CLASSES.index('vehicle'), line)]


def _files(seed: int, count: int, size: int) -> dict[str, dict[str, Any]]:
    """Splits train, val (numbers from 00001) and test (from 11726, as in the real set)."""
    splits: dict[str, dict[str, Any]] = {}
    first = {'train': 1, 'val': 1 + count, 'test': 11726}
    for split, start in first.items():
        splits[split] = {}
        for number in range(start, start + count):
            empty = count > 1 and number == start + count - 1 and split != 'val'
            splits[split][f'{number:05d}'] = _image(seed, number, size, empty)
    return splits


def _common(root: Path, splits: dict[str, dict[str, Any]]) -> None:
    """Images and the list files that both annotations share."""
    for split, entries in splits.items():
        write_lines(root / 'ImageSets' / 'Main' / f'{split}.txt', list(entries))
        folder = 'JPEGImages-test' if split == 'test' else 'JPEGImages-trainval'
        for stem, (picture, _) in entries.items():
            save(root / folder / f'{stem}.jpg', picture)
    both = sorted([*splits['train'], *splits['val']])
    write_lines(root / 'ImageSets' / 'Main' / 'trainval.txt', both)


def make_dior(root: Path, *, seed: int = 0, count: int = 2, size: int = 96) -> Path:
    """DIOR as the benchmark reads it: two folders of JPEGs, and a COCO json each, in the root.

    ``JPEGImages-trainval``, ``JPEGImages-test``, ``DIOR_{trainval,test}_coco.json``
    (mtp_finetune.md 2.1, 3.3; parity/converters/dior_h_2_coco/expected): ids from 0 in each file,
    20 categories with lower-case names in the order of the class table, whole numbers, an empty
    ``segmentation``, images without objects, and the faults that the conversion keeps: a box that
    begins left of the image, one of no width.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images of each of train, val and test (train and val are one json).
        size: Side of an image in pixels (real: 800).
    """
    root = Path(root)
    splits = _files(seed, count, size)
    _common(root, splits)
    for name, entries in {
        'trainval': {**splits['train'], **splits['val']},
        'test': splits['test'],
    }.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for stem, (picture, objects) in entries.items():
            image = {'file_name': f'{stem}.jpg', 'height': size, 'width': size, 'id': len(images)}
            boxes = [(thing.label, *thing.box) for thing in objects]
            if stem == next(iter(entries)):
                boxes += [(CLASSES.index('ship'), 10, 12, 10, 20)]
                boxes += [(CLASSES.index('harbor'), -2, size - 9, 8, size)]
                corner = np.array([[0, size - 9], [8, size - 9], [8, size], [0, size]])
                picture = paint(picture, corner, colour(CLASSES.index('harbor')))
                folder = 'JPEGImages-test' if name == 'test' else 'JPEGImages-trainval'
                save(root / folder / f'{stem}.jpg', picture)
            for label, left, top, right, bottom in boxes:
                width, height = right - left, bottom - top
                annotations.append(
                    {
                        'image_id': image['id'],
                        'bbox': [left, top, width, height],
                        'category_id': label,
                        'id': len(annotations),
                        'iscrowd': 0,
                        'segmentation': [],
                        'area': width * height,
                    }
                )
            images.append(image)
        content = {
            'images': images,
            'annotations': annotations,
            'categories': [{'id': label, 'name': name} for label, name in enumerate(CLASSES)],
        }
        (root / f'DIOR_{name}_coco.json').write_text(json.dumps(content))
    return root


def make_dior_r(root: Path, *, seed: int = 0, count: int = 2, size: int = 96) -> Path:
    """DIOR-R as the benchmark reads it: the images of DIOR, and an xml with oriented boxes each.

    ``ImageSets/Main/{train,val,test}.txt`` (one id a line), ``JPEGImages-trainval``,
    ``JPEGImages-test``, ``Annotations/Oriented Bounding Boxes/<id>.xml``. The xml is written as the
    real 00001.xml (declaration, four blanks of indent, ``robndbox`` with whole-numbered corners
    ``x_left_top`` ... ``y_left_bottom``, ``angle`` after it); class names have the capitals of the
    real files; some objects are ``difficult``; some polygons have coinciding corners; some images
    have no object (mtp_finetune.md 2.1, 2.2; mmrotate's test data; Cheng et al., TGRS 2022).

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images of each of train, val and test.
        size: Side of an image in pixels (real: 800).
    """
    root = Path(root)
    splits = _files(seed, count, size)
    _common(root, splits)
    folder = root / 'Annotations' / 'Oriented Bounding Boxes'
    folder.mkdir(parents=True)
    for entries in splits.values():
        for place, (stem, (_, objects)) in enumerate(entries.items()):
            objects = _degenerate(objects, size) if place == 0 else objects
            (folder / f'{stem}.xml').write_text(_oriented_xml(stem, size, objects))
    return root


def make_dior_source(root: Path, *, seed: int = 0, count: int = 2, size: int = 96) -> Path:
    """DIOR and DIOR-R as they are downloaded: both kinds of xml, no json.

    Beside what :func:`make_dior_r` writes: ``Annotations/Horizontal Bounding Boxes/<id>.xml``
    (tabs, no declaration, ``bndbox`` of whole numbers; Li et al., ISPRS 2020, and
    parity/converters/dior_h_2_coco/input) and ``ImageSets/Main/trainval.txt``.
    """
    root = make_dior_r(root, seed=seed, count=count, size=size)
    folder = root / 'Annotations' / 'Horizontal Bounding Boxes'
    folder.mkdir(parents=True)
    for entries in _files(seed, count, size).values():
        for stem, (_, objects) in entries.items():
            (folder / f'{stem}.xml').write_text(_horizontal_xml(stem, size, objects))
    return root
