# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""SAMRS: instance masks by SAM over DOTA-2.0, DIOR and FAIR1M, before they are COCO json."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from .drawing import bounds, colour, generator, paint, rectangles, save, terrain, write_lines

SOTA = (
    'large-vehicle', 'swimming-pool', 'helicopter', 'bridge', 'plane', 'ship',
    'soccer-ball-field', 'basketball-court', 'ground-track-field', 'small-vehicle',
    'baseball-diamond', 'tennis-court', 'roundabout', 'storage-tank', 'harbor', 'container-crane',
    'airport', 'helipad',
)  # fmt: skip


def make_samrs_source(root: Path, *, seed: int = 0, count: int = 2, size: int = 64) -> Path:
    """SAMRS (the SOTA part) before conversion: lists, images, one pickle of instances an image.

    ``{train,valid}.txt`` (stems), ``trainval/images/<stem>.png``, and below
    ``trainval/rhbox_segs_init``: ``ins/<stem>.pkl`` (a list of dicts ``mask`` = COCO RLE with
    ``size`` and ``counts`` as text, ``bbox`` (x1, y1, x2, y2), ``category`` name, ``size`` pixels,
    ``label`` 0-based) and ``gray/<stem>.png`` (classes 0-based, 255 background). Boxes of the data
    set itself are ``trainval/rbbtxts/<stem>.txt`` in DOTA's form. An image without instances has an
    empty list (mtp_pretrain.md 4.1; mtp_finetune.md 3.1; Wang et al., NeurIPS 2023 Datasets).
    Numbers in the pickles are plain or of NumPy, as tools leave them: ``bbox`` is an array here.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images of each list.
        size: Shorter side of an image.
    """
    root = Path(root)
    base = root / 'trainval'
    instances_folder = base / 'rhbox_segs_init' / 'ins'
    instances_folder.mkdir(parents=True, exist_ok=True)
    for place, split in enumerate(('train', 'valid')):
        stems = []
        for number in range(count):
            rng = generator(seed, 91, place, number)
            height, width = size, size + 8 * number
            picture = terrain(rng, height, width)
            classes = np.full((height, width), 255, np.uint8)
            stem = f'P{place * 700 + number:04d}__1024__{824 * number}___0'
            stems.append(stem)
            instances: list[dict[str, Any]] = []
            lines: list[str] = []
            empty = count > 1 and number == count - 1
            for k, polygon in enumerate([] if empty else rectangles(rng, height, width, 4)):
                label = (5 * number + 7 * k) % len(SOTA)
                picture = paint(picture, polygon, colour(label))
                classes = paint(classes, polygon, label)
                one = paint(np.zeros((height, width), np.uint8), polygon, 1)
                rle = coco_mask.encode(np.asfortranarray(one))
                instances.append(
                    {
                        'mask': {'size': list(rle['size']), 'counts': rle['counts'].decode()},
                        'bbox': np.array(bounds(polygon), np.float32),
                        'category': SOTA[label],
                        'size': int(one.sum()),
                        'label': label,
                    }
                )
                corners = ' '.join(f'{value:.1f}' for value in polygon.ravel())
                lines.append(f'{corners} {SOTA[label]} 0')
            save(base / 'images' / f'{stem}.png', picture)
            save(base / 'rhbox_segs_init' / 'gray' / f'{stem}.png', classes)
            write_lines(base / 'rbbtxts' / f'{stem}.txt', lines)
            (instances_folder / f'{stem}.pkl').write_bytes(pickle.dumps(instances))
        write_lines(root / f'{split}.txt', stems)
    return root
