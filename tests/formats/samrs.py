# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""SAMRS: classes of all pixels, instance masks by SAM, and rotated boxes, over three benchmarks."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from . import dior, fair1m
from .drawing import bounds, colour, generator, paint, rectangles, save, terrain, write_lines

SOTA = (
    'large-vehicle', 'swimming-pool', 'helicopter', 'bridge', 'plane', 'ship',
    'soccer-ball-field', 'basketball-court', 'ground-track-field', 'small-vehicle',
    'baseball-diamond', 'tennis-court', 'roundabout', 'storage-tank', 'harbor', 'container-crane',
    'airport', 'helipad',
)  # fmt: skip
CLASSES = {'sota': SOTA, 'sior': dior.CLASSES, 'fast': fair1m.CLASSES}
# Of each part: images, their suffix, labels by SAM, rotated boxes of the benchmark.
FOLDERS = {
    'sota': ('trainval/images', '.png', 'trainval/rhbox_segs_init', 'trainval/rbbtxts'),
    'sior': (
        'JPEGImages-trainval', '.jpg', 'hbox_segs_trainvaltest_init',
        'Annotations/Oriented Bounding Boxes',
    ),
    'fast': ('trainval/images', '.png', 'trainval/rhbox_segs_init', 'trainval/rbbtxts'),
}  # fmt: skip
SPLITS = ('train', 'valid')


def make_samrs_source(
    root: Path, *, seed: int = 0, count: int = 2, size: int = 64, part: str = 'sota'
) -> Path:
    """A part of SAMRS before conversion: lists, images, one pickle of instances an image.

    ``{train,valid}.txt`` (stems); of SOTA and FAST ``trainval/images/<stem>.png`` and below
    ``trainval/rhbox_segs_init``: ``ins/<stem>.pkl`` (a list of dicts ``mask`` = COCO RLE with
    ``size`` and ``counts`` as text, ``bbox`` (x1, y1, x2, y2), ``category`` name, ``size`` pixels,
    ``label`` 0-based) and ``gray/<stem>.png`` (classes 0-based, 255 background); boxes of the data
    set itself are ``trainval/rbbtxts/<stem>.txt`` in DOTA's form. SIOR has
    ``JPEGImages-trainval/<number>.jpg``, ``hbox_segs_trainvaltest_init/{ins,gray}`` and DIOR's XML
    in ``Annotations/Oriented Bounding Boxes`` (corners are whole numbers, two names have capitals).
    An image without instances has an empty list (mtp_pretrain.md 4.1; mtp_finetune.md 3.1; Wang et
    al., NeurIPS 2023 Datasets). Numbers in the pickles are plain or of NumPy, as tools leave them:
    ``bbox`` is an array here. The first image of a list has a rotated box of no width, which SAM
    gave no mask.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images of each list; the last of several has no objects.
        size: Shorter side of an image.
        part: ``'sota'``, ``'sior'`` or ``'fast'``.
    """
    root = Path(root)
    images, suffix, segments, rotated = FOLDERS[part]
    names = CLASSES[part]
    instances_folder = root / segments / 'ins'
    instances_folder.mkdir(parents=True, exist_ok=True)
    address = 91 + 7 * list(FOLDERS).index(part)
    for place, split in enumerate(SPLITS):
        stems = []
        for number in range(count):
            rng = generator(seed, address, place, number)
            height, width = size, size + 8 * number
            picture = terrain(rng, height, width)
            classes = np.full((height, width), 255, np.uint8)
            stem = _stem(part, place, number)
            stems.append(stem)
            instances: list[dict[str, Any]] = []
            quads: list[tuple[int, np.ndarray]] = []
            empty = count > 1 and number == count - 1
            for k, polygon in enumerate([] if empty else rectangles(rng, height, width, 4)):
                label = (5 * number + 7 * k) % len(names)
                polygon = np.rint(polygon) if part == 'sior' else np.round(polygon, 1)
                picture = paint(picture, polygon, colour(label))
                classes = paint(classes, polygon, label)
                one = paint(np.zeros((height, width), np.uint8), polygon, 1)
                rle = coco_mask.encode(np.asfortranarray(one))
                instances.append(
                    {
                        'mask': {'size': list(rle['size']), 'counts': rle['counts'].decode()},
                        'bbox': np.array(bounds(polygon), np.float32),
                        'category': names[label],
                        'size': int(one.sum()),
                        'label': label,
                    }
                )
                quads.append((label, polygon))
            if number == 0:
                line = np.array([[4, 4], [4, 4], [4, 12], [4, 12]], float)
                quads.append((len(names) - 1, line))
            save(root / images / f'{stem}{suffix}', picture)
            save(root / segments / 'gray' / f'{stem}.png', classes)
            (instances_folder / f'{stem}.pkl').write_bytes(pickle.dumps(instances))
            _write_rotated(root / rotated, stem, part, quads, (width, height))
        write_lines(root / f'{split}.txt', stems)
    return root


def _stem(part: str, place: int, number: int) -> str:
    if part == 'sior':
        return f'{place * 700 + number + 1:05d}'
    letter = 'P' if part == 'sota' else ''
    return f'{letter}{place * 700 + number:04d}__1024__{824 * number}___0'


def _write_rotated(
    folder: Path,
    stem: str,
    part: str,
    quads: list[tuple[int, np.ndarray]],
    size: tuple[int, int],
) -> None:
    if part == 'sior':
        objects = [dior._Object(label, polygon.astype(int)) for label, polygon in quads]
        text = dior._oriented_xml(stem, size[1], objects)
        text = text.replace(f'<width>{size[1]}</width>', f'<width>{size[0]}</width>')
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f'{stem}.xml').write_text(text)
        return
    write_lines(
        folder / f'{stem}.txt',
        [
            ' '.join(f'{value:.1f}' for value in polygon.ravel()) + f' {CLASSES[part][label]} 0'
            for label, polygon in quads
        ],
    )


def make_samrs(
    root: Path, *, seed: int = 0, count: int = 2, size: int = 64, part: str = 'sota'
) -> Path:
    """A part of SAMRS as MTP's pretraining reads it: as published, and a COCO json a list.

    ``{part}_rbb_{train,valid}_ins_segmentation.json``, written here from the pickles and not by the
    converter: images numbered from 0 in the order of the list (``file_name``, ``height``,
    ``width``, ``segm_file``, ``id``), categories from 0, boxes (x, y, w, h) and areas of the masks
    (mtp_pretrain.md 4.1; parity/converters/convert_pkl_json/expected).

    Args:
        root: Folder to make; returned.
        seed: See :func:`make_samrs_source`, and the other arguments too.
        count: Images of each list.
        size: Shorter side of an image.
        part: ``'sota'``, ``'sior'`` or ``'fast'``.
    """
    root = make_samrs_source(root, seed=seed, count=count, size=size, part=part)
    suffix, segments = FOLDERS[part][1:3]
    for split in SPLITS:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, stem in enumerate((root / f'{split}.txt').read_text().split()):
            found = pickle.loads((root / segments / 'ins' / f'{stem}.pkl').read_bytes())
            for one in found:
                annotations.append(
                    {
                        'iscrowd': 0,
                        'category_id': one['label'],
                        'bbox': coco_mask.toBbox(one['mask']).tolist(),
                        'area': int(coco_mask.area(one['mask'])),
                        'segmentation': one['mask'],
                        'image_id': number,
                        'id': len(annotations),
                    }
                )
            images.append(
                {
                    'file_name': f'{stem}{suffix}', 'height': size, 'width': size + 8 * number,
                    'segm_file': f'{stem}.pkl', 'id': number,
                }
            )  # fmt: skip
        content = {
            'images': images,
            'categories': [{'id': k, 'name': name} for k, name in enumerate(CLASSES[part])],
            'annotations': annotations,
        }
        (root / f'{part}_rbb_{split}_ins_segmentation.json').write_text(json.dumps(content))
    return root


def make_samrs_sota(root: Path, *, seed: int = 0, count: int = 2, size: int = 64) -> Path:
    """SOTA-RBB of SAMRS, over DOTA-2.0; see :func:`make_samrs`."""
    return make_samrs(root, seed=seed, count=count, size=size, part='sota')


def make_samrs_sior(root: Path, *, seed: int = 0, count: int = 2, size: int = 64) -> Path:
    """SIOR of SAMRS, over DIOR; see :func:`make_samrs`."""
    return make_samrs(root, seed=seed, count=count, size=size, part='sior')


def make_samrs_fast(root: Path, *, seed: int = 0, count: int = 2, size: int = 64) -> Path:
    """FAST of SAMRS, over FAIR1M-2.0; see :func:`make_samrs`."""
    return make_samrs(root, seed=seed, count=count, size=size, part='fast')
