# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""DIOR-R's XML files of oriented boxes, for converters and for SAMRS.

Format: Cheng et al., "Anchor-Free Oriented Proposal Generator for Object Detection", TGRS 2022,
arXiv 2110.01931.
"""

from __future__ import annotations

from pathlib import Path

from mmrsfm.utils.conversion import number, read_xml, xml_text
from mmrsfm.utils.dota import DOTAObject

_CORNERS = tuple(
    f'robndbox/{axis}_{corner}'
    for corner in ('left_top', 'right_top', 'right_bottom', 'left_bottom')
    for axis in 'xy'
)


def read_dior_objects(path: str | Path) -> list[DOTAObject]:
    """Reads one annotation file.

    Args:
        path: The XML.

    Returns:
        The objects in the order of the file: corners clockwise from the upper left one (``int``
        where the file has whole numbers), the class in small letters, the difficulty (0 where the
        file has none), and the number of the object, from 1, in place of a line.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DataError: If it is not XML, or corners are missing or not numbers.
    """
    found = []
    for index, element in enumerate(read_xml(path).findall('object'), start=1):
        where = f'object {index}'
        name = xml_text(element, 'name', path, where).lower()
        corners: list[float] = [
            number(xml_text(element, tag, path, where), path, f'{where}, {tag}') for tag in _CORNERS
        ]
        difficult = element.findtext('difficult') or '0'
        difficulty = int(number(difficult.strip() or '0', path, f'{where}, difficult'))
        found.append(DOTAObject(corners, name, difficulty, index))
    return found
