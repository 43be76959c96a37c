# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""FAIR1M-2.0: rotated boxes of 37 fine classes, as DOTA-like patches and as it is downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .dota import patches
from .drawing import colour, generator, paint, rectangles, save, terrain

CLASSES = (
    'A220', 'A321', 'A330', 'A350', 'ARJ21', 'Baseball-Field', 'Basketball-Court', 'Boeing737',
    'Boeing747', 'Boeing777', 'Boeing787', 'Bridge', 'Bus', 'C919', 'Cargo-Truck',
    'Dry-Cargo-Ship', 'Dump-Truck', 'Engineering-Ship', 'Excavator', 'Fishing-Boat',
    'Football-Field', 'Intersection', 'Liquid-Cargo-Ship', 'Motorboat', 'other-airplane',
    'other-ship', 'other-vehicle', 'Passenger-Ship', 'Roundabout', 'Small-Car', 'Tennis-Court',
    'Tractor', 'Trailer', 'Truck-Tractor', 'Tugboat', 'Van', 'Warship',
)  # fmt: skip
# In the xml files words are parted by blanks, and the three 'other-' classes keep their dash.
XML_NAMES = tuple(name if name.startswith('other-') else name.replace('-', ' ') for name in CLASSES)


def make_fair1m(root: Path, *, seed: int = 0, count: int = 2, size: int = 64) -> Path:
    """FAIR1M-2.0 as the benchmark reads it: patches of 800 in DOTA's form, ``fair1m20_clip``.

    ``trainval/{images,annfiles}`` and ``test/images`` with png patches
    ``<image>__<window>__<x>___<y>.png`` and text files as in :func:`tests.formats.dota.make_dota1`;
    image names are plain numbers; class names have dashes (mtp_finetune.md 2.1 to 2.3).

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Patches of each split.
        size: Side of a patch (real: 800).
    """
    splits = {'trainval': True, 'test': False}
    root = patches(Path(root), splits, ('0', '10235'), (size,), seed, count, CLASSES)
    # A polygon whose neighbouring corners coincide, as a few of the converted ones have.
    first = min((root / 'trainval' / 'annfiles').iterdir())
    line = '20.0 30.0 20.0 30.0 20.0 41.0 20.0 41.0 Small-Car 0\n'
    first.write_text(first.read_text() + line)
    return root


def make_fair1m_source(root: Path, *, seed: int = 0, count: int = 2, size: int = 120) -> Path:
    """FAIR1M-2.0 as it is downloaded: ``{train,validation}/{images,labelXml}``, ``test/images``.

    Images are ``<n>.tif`` (uint8 RGB, 600 to 10000 pixels a side, not square), labels ``<n>.xml``:
    ``annotation > objects > object`` with ``coordinate`` pixel, ``type`` rectangle,
    ``possibleresult > name`` (blanks between words: "Small Car"; but "other-ship") and five
    ``points > point`` "x,y" with six decimals, the fifth the first again (Sun et al., ISPRS 2022;
    mtp_finetune.md 3.4; the official submission form). Some images have no object.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images of each split.
        size: Shorter side of an image.
    """
    root = Path(root)
    for place, split in enumerate(('train', 'validation', 'test')):
        for number in range(count):
            rng = generator(seed, 51, place, number)
            height, width = size + 11 * number, size + 37 * (number + 1)
            picture = terrain(rng, height, width)
            objects: list[str] = []
            empty = count > 1 and number == count - 1 and split == 'validation'
            for k, polygon in enumerate([] if empty else rectangles(rng, height, width, 7)):
                # The classes around the 'other-' ones in every image.
                label = (24 + 13 * number + k) % len(CLASSES)
                picture = paint(picture, polygon, colour(label))
                objects.append(_object(XML_NAMES[label], polygon))
            save(root / split / 'images' / f'{number}.tif', picture)
            if split == 'test':
                continue
            folder = root / split / 'labelXml'
            folder.mkdir(exist_ok=True)
            text = _HEAD.format(stem=number, width=width, height=height)
            (folder / f'{number}.xml').write_text(text + ''.join(objects) + _TAIL)
    return root


_HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotation>
\t<source>
\t\t<filename>{stem}.tif</filename>
\t\t<origin>GF2/GF3</origin>
\t</source>
\t<research>
\t\t<version>1.0</version>
\t\t<provider>FAIR1M</provider>
\t\t<author>Cyber</author>
\t\t<pluginname>FAIR1M</pluginname>
\t\t<pluginclass>object detection</pluginclass>
\t\t<time>2021-07-21</time>
\t</research>
\t<size>
\t\t<width>{width}</width>
\t\t<height>{height}</height>
\t\t<depth>3</depth>
\t</size>
\t<objects>
"""
_TAIL = '\t</objects>\n</annotation>\n'


def _object(name: str, polygon: np.ndarray) -> str:
    points = [*polygon, polygon[0]]
    lines = [
        '\t\t<object>',
        '\t\t\t<coordinate>pixel</coordinate>',
        '\t\t\t<type>rectangle</type>',
        '\t\t\t<description>None</description>',
        '\t\t\t<possibleresult>',
        f'\t\t\t\t<name>{name}</name>',
        '\t\t\t</possibleresult>',
        '\t\t\t<points>',
        *(f'\t\t\t\t<point>{x:.6f},{y:.6f}</point>' for x, y in points),
        '\t\t\t</points>',
        '\t\t</object>',
    ]
    return '\n'.join(lines) + '\n'
