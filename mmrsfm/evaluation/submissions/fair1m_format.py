# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The XML files that FAIR1M's server takes, one an image, in a zip file under ``test/``.

The schema is that of FAIR1M's annotations (Sun et al., ISPRS 2022, arXiv 2103.05569) with a
probability for each object.
"""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from mmrsfm.errors import CorruptImageError, ImageNotFoundError

# The official names that keep the dash; every other dash of FAIR1M stands for a space.
DASHED = ('other-airplane', 'other-ship', 'other-vehicle')


@dataclass(frozen=True)
class Research:
    """Who sends a submission and with what; the server shows it.

    Attributes:
        provider: The institution.
        author: The name of the team.
        pluginname: What ``research/pluginname`` holds.
        version: What ``research/version`` holds.
        time: Year and month, ``2024-02``; ``None``: those of today.
        origin: What ``source/origin`` holds.
    """

    provider: str = ''
    author: str = ''
    pluginname: str = 'FAIR1M'
    version: str = '2.0'
    time: str | None = None
    origin: str = 'GF2/GF3'

    @property
    def missing(self) -> list[str]:
        """What the team should have stated and has not."""
        return [name for name in ('provider', 'author') if not getattr(self, name)]


class FAIR1MObject(NamedTuple):
    """One detection.

    Attributes:
        name: The class, in FAIR1M's or in DOTA's spelling.
        score: Its probability as text.
        corners: x1, y1, ..., x4, y4 in pixels.
    """

    name: str
    score: str
    corners: Sequence[float]


def official_name(name: str) -> str:
    """The class as FAIR1M spells it: ``Small-Car`` is ``Small Car``, ``other-ship`` keeps its dash.

    Args:
        name: A class of a DOTA-like dataset, where names hold no spaces.
    """
    return name if name in DASHED else name.replace('-', ' ')


def fair1m_xml(
    filename: str,
    size: tuple[int, int, int],
    objects: Iterable[FAIR1MObject],
    research: Research,
) -> str:
    """The text of one file, indented with tabs.

    Args:
        filename: Name of the test image, with suffix.
        size: Width, height and number of channels of the image.
        objects: Its detections; none is fine.
        research: Who sends it.
    """
    time = research.time or datetime.datetime.now(datetime.UTC).strftime('%Y-%m')
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        '<annotation>',
        '\t<source>',
        _leaf(2, 'filename', filename),
        _leaf(2, 'origin', research.origin),
        '\t</source>',
        '\t<research>',
        _leaf(2, 'version', research.version),
        _leaf(2, 'provider', research.provider),
        _leaf(2, 'author', research.author),
        _leaf(2, 'pluginname', research.pluginname),
        _leaf(2, 'pluginclass', 'object detection'),
        _leaf(2, 'time', time),
        '\t</research>',
        '\t<size>',
        _leaf(2, 'width', str(size[0])),
        _leaf(2, 'height', str(size[1])),
        _leaf(2, 'depth', str(size[2])),
        '\t</size>',
    ]
    found: list[str] = []
    for item in objects:
        points = list(zip(item.corners[::2], item.corners[1::2], strict=True))
        found += [
            '\t\t<object>',
            _leaf(3, 'coordinate', 'pixel'),
            _leaf(3, 'type', 'rectangle'),
            _leaf(3, 'description', 'None'),
            '\t\t\t<possibleresult>',
            _leaf(4, 'name', official_name(item.name)),
            _leaf(4, 'probability', item.score),
            '\t\t\t</possibleresult>',
            '\t\t\t<points>',
            # Closed: the first corner again.
            *(_leaf(4, 'point', f'{x:.6f},{y:.6f}') for x, y in [*points, points[0]]),
            '\t\t\t</points>',
            '\t\t</object>',
        ]
    lines += ['\t<objects>', *found, '\t</objects>'] if found else ['\t<objects/>']
    return '\n'.join([*lines, '</annotation>', ''])


def _leaf(depth: int, name: str, text: str) -> str:
    indent = '\t' * depth
    return f'{indent}<{name}>{escape(text)}</{name}>' if text else f'{indent}<{name}/>'


def image_size(path: str | Path) -> tuple[int, int, int]:
    """Width, height and number of channels, from the header of an image of any format.

    Raises:
        ImageNotFoundError: If there is no such file.
        CorruptImageError: If it is not an image.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    if not Path(path).is_file():
        raise ImageNotFoundError('does not exist', path=path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', NotGeoreferencedWarning)
            with rasterio.open(path) as image:
                return image.width, image.height, image.count
    except RasterioError as error:
        raise CorruptImageError(f'cannot be opened ({error})', path=path) from error
