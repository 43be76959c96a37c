# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""DOTA-1.0 and DOTA-2.0: patches as mmrotate's splitter leaves them, and the big images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .drawing import colour, generator, paint, rectangles, save, terrain, write_lines

CLASSES_V1 = (
    'plane', 'baseball-diamond', 'bridge', 'ground-track-field', 'small-vehicle', 'large-vehicle',
    'ship', 'tennis-court', 'basketball-court', 'storage-tank', 'soccer-ball-field', 'roundabout',
    'harbor', 'swimming-pool', 'helicopter',
)  # fmt: skip
CLASSES_V2 = (*CLASSES_V1, 'container-crane', 'airport', 'helipad')


def patches(
    root: Path,
    splits: dict[str, bool],
    names: tuple[str, ...],
    sizes: tuple[int, ...],
    seed: int,
    count: int,
    classes: tuple[str, ...],
) -> Path:
    """Writes splits (name -> with annotations) of patches in the form of mmrotate's splitter."""
    for place, (split, labelled) in enumerate(splits.items()):
        (root / split / 'images').mkdir(parents=True)
        for number in range(count):
            size = sizes[number % len(sizes)]
            rng = generator(seed, 41, place, number)
            picture = terrain(rng, size, size)
            name = names[number % len(names)]
            # Where in the big image it was: steps of window minus overlap.
            x = (size - size // 5) * (number // len(names))
            stem = f'{name}__{size}__{x}___0'
            lines: list[str] = []
            empty = count > 1 and number == count - 1
            for k, polygon in enumerate([] if empty else rectangles(rng, size, size, 4)):
                label = (5 * number + 7 * k) % len(classes)
                picture = paint(picture, polygon, colour(label))
                corners = ' '.join(f'{value:.1f}' for value in polygon.ravel())
                # 0 easy, 1 difficult; the splitter gives 2 to what it cut.
                lines.append(f'{corners} {classes[label]} {k % 2}')
            if lines:
                # One that the window cut: its polygon leaves the patch, by less than 0.3 of its
                # area (the splitter leaves out what is seen by less than 0.7).
                cut = np.array([[-3.0, 2.0], [8.0, 2.0], [8.0, 9.0], [-3.0, 9.0]])
                picture = paint(picture, cut, colour(4))
                corners = ' '.join(f'{value:.1f}' for value in cut.ravel())
                lines.append(f'{corners} {classes[4]} 2')
            save(root / split / 'images' / f'{stem}.png', picture)
            if labelled:
                write_lines(root / split / 'annfiles' / f'{stem}.txt', lines)
    return root


def make_dota1(root: Path, *, seed: int = 0, count: int = 3, size: int = 64) -> Path:
    """DOTA-1.0 as the benchmark reads it: multi-scale patches, ``split_ms_dotav1``.

    ``{trainval,val}/{images,annfiles}`` and ``test/images``; val is a part of trainval
    (mtp_finetune.md 2.1, 4). Images are RGB png ``<image>__<window>__<x>___<y>.png``; the window is
    the size divided by the rates 0.5, 1 and 1.5 and the patch keeps its own pixels, so patches have
    three sizes (2048, 1024 and 682 of 1024). Annotation files have the stem of the image: eight
    coordinates with a decimal, class, difficulty (2: cut by the window), no header; a patch without
    objects has an empty file.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Patches of each split.
        size: Window at rate 1 (real: 1024).
    """
    sizes = (size, 2 * size, int(size / 1.5))
    splits = {'trainval': True, 'val': True, 'test': False}
    return patches(Path(root), splits, ('P0001', 'P0706'), sizes, seed, count, CLASSES_V1)


def make_dota2(root: Path, *, seed: int = 0, count: int = 3, size: int = 64) -> Path:
    """DOTA-2.0 as the benchmark reads it: single-scale patches, ``split_ss_dotav2``.

    As :func:`make_dota1` with windows of one size, 18 classes and image numbers beyond P2806 (Ding
    et al., TPAMI 2021).

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Patches of each split.
        size: Side of a patch (real: 1024).
    """
    splits = {'trainval': True, 'val': True, 'test': False}
    names = ('P0001', 'P2807', 'P11045')
    return patches(Path(root), splits, names, (size,), seed, count, CLASSES_V2)


def make_dota_source(
    root: Path, *, seed: int = 0, count: int = 2, size: int = 200, version: str = 'v1'
) -> Path:
    """DOTA as it is downloaded: ``{train,val}/{images,labelTxt}`` and ``test/images``.

    Big png images (real: 800 to 4000 pixels a side in v1.0, up to 29200 in v2.0), one text file
    each: ``imagesource:GoogleEarth`` and ``gsd:0.26...`` (``gsd:null`` where unknown), then eight
    whole numbers, class and difficulty (0 or 1) a line. Files of v1.0 have CRLF line ends (the true
    labelTxt of P0706 and P1888 have; Xia et al., CVPR 2018), those of ``version='v2'`` LF and
    coordinates with a decimal. Corners may lie outside of the image. An image without objects
    has only the header. A few real images are grey: one of v2 is.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images of each split.
        size: Shorter side of an image.
        version: ``'v1'`` (15 classes) or ``'v2'`` (18 classes).
    """
    root = Path(root)
    classes = CLASSES_V1 if version == 'v1' else CLASSES_V2
    for place, split in enumerate(('train', 'val', 'test')):
        for number in range(count):
            rng = generator(seed, 42, place, number)
            height, width = size + 30 * number, size + 60 * (number + 1)
            picture = terrain(rng, height, width)
            stem = f'P{place * 700 + number:04d}'
            gsd = 'null' if number == 1 else f'{0.255589285596 + number / 100:.12f}'
            lines = ['imagesource:GoogleEarth', f'gsd:{gsd}']
            empty = count > 1 and number == count - 1 and split == 'val'
            found = [] if empty else list(rectangles(rng, height, width, 9))
            if found:
                edge = np.array([[-4, 20], [10, 20], [10, 28], [-4, 28]], float)
                found.append(edge + np.array([0, height / 2 - 20]))
            for k, polygon in enumerate(found):
                label = (3 * number + 4 * k) % len(classes)
                polygon = np.rint(polygon)
                picture = paint(picture, polygon, colour(label))
                form = '{:.0f}' if version == 'v1' else '{:.1f}'
                corners = ' '.join(form.format(value + 0.0) for value in polygon.ravel())
                lines.append(f'{corners} {classes[label]} {int(k % 4 == 3)}')
            mode = 'L' if version == 'v2' and number == 1 else None
            save(root / split / 'images' / f'{stem}.png', picture, mode=mode)
            if split != 'test':
                newline = '\r\n' if version == 'v1' else '\n'
                write_lines(root / split / 'labelTxt' / f'{stem}.txt', lines, newline)
    return root
