# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""DOTA's text files of oriented boxes: one reader for datasets, evaluation and converters.

Format: Xia et al., "DOTA: A Large-Scale Dataset for Object Detection in Aerial Images", CVPR 2018,
arXiv 1711.10398.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mmrsfm.errors import DataError
from mmrsfm.utils.conversion import read_text

# The two lines with which the published files begin; patches do not have them.
_HEADERS = ('imagesource', 'gsd')


class DOTAObject(NamedTuple):
    """One line of a file.

    Attributes:
        corners: ``x1, y1, ..., x4, y4`` in pixels.
        name: Its class.
        difficulty: 0 where the line has none.
        line: Number of the line, from 1.
    """

    corners: list[float]
    name: str
    difficulty: int
    line: int


def read_dota_objects(path: str | Path) -> list[DOTAObject]:
    """Reads lines of ``x1 y1 x2 y2 x3 y3 x4 y4 class [difficulty]``.

    Args:
        path: The text file; blank lines and DOTA's header (``imagesource:``, ``gsd:``) are passed
            over.

    Returns:
        The objects, in the order of the lines.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DataError: If a line has another form, or a coordinate that is not finite.
    """
    found = []
    for number, line in enumerate(read_text(path, 'annotation file').splitlines(), start=1):
        words = line.split()
        if not words or words[0].lower().split(':')[0] in _HEADERS:
            continue
        try:
            corners = [float(word) for word in words[:8]]
            difficulty = int(words[9]) if len(words) == 10 else 0
            if len(words) not in (9, 10) or not all(map(math.isfinite, corners)):
                raise ValueError
        except ValueError:
            raise DataError(
                f'line {number} is not "x1 y1 x2 y2 x3 y3 x4 y4 class difficulty": '
                f'{line.strip()!r}',
                path,
            ) from None
        found.append(DOTAObject(corners, words[8], difficulty, number))
    return found


def label_of(found: DOTAObject, labels: Mapping[str, int], path: str | Path) -> int:
    """The number of an object's class.

    Args:
        found: The object.
        labels: Number of each class.
        path: The file of the object, for the message.

    Raises:
        DataError: If the class is not one of them.
    """
    if found.name not in labels:
        raise DataError(
            f'line {found.line} names the class {found.name!r}, which is not one of the '
            f'{len(labels)} classes',
            path,
            hint=f'They are {", ".join(labels)}: correct the file, or metainfo=dict(classes=...)',
        )
    return labels[found.name]
