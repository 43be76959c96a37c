# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Converts FAIR1M (one XML an image, tif images) to DOTA text files and png images.

Example, for the two parts of FAIR1M-2.0 that are trained on; both number their images from 0, so
that the second gets a prefix::

    python data_converters/fair1m_to_dota.py D/train/labelXml D/whole/train \
        --images D/train/part1/images D/train/part2/images
    python data_converters/fair1m_to_dota.py D/validation/labelXml D/whole/val \
        --images D/validation/images --prefix val_

gives ``annfiles/*.txt`` and ``images/*.png``, which ``split_dota.py`` cuts into patches of 800.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from mmrsfm.class_tables import FAIR1M
from mmrsfm.errors import ConfigError, DataError, DatasetNotFoundError
from mmrsfm.utils.conversion import (
    each,
    errors_end_command,
    files_of,
    number,
    read_xml,
    refuse_source,
    refuse_strays,
    write_lines,
    xml_text,
)
from mmrsfm.utils.rgb import RGBRaster, files_of_images, write_png


def _key(name: str) -> str:
    return re.sub(r'[\s_-]+', '-', name.strip()).lower()


# The publisher writes 'Small Car' but 'other-airplane', and other tools 'Small_Car' or 'Small-Car':
# no rule for blanks and dashes gives all 37, a table does.
_CLASSES = {_key(name): name for name in FAIR1M}


def class_name(name: str) -> str:
    """The name of a class in the table of 37, from any spelling with blanks, dashes, underscores.

    Args:
        name: A name such as ``'Small Car'``.

    Returns:
        The name in :data:`mmrsfm.class_tables.FAIR1M`, e.g. ``'Small-Car'``.

    Raises:
        KeyError: If there is none.
    """
    return _CLASSES[_key(name)]


def dota_lines(path: str | Path) -> list[str]:
    """Reads one annotation file.

    Args:
        path: The XML; an object has a polygon of four points, or five of which the last is the
            first.

    Returns:
        A line an object: eight coordinates, class, difficulty 0.

    Raises:
        DataError: For an unknown class or another polygon; the object is named.
    """
    lines = []
    for index, element in enumerate(read_xml(path).iter('object'), start=1):
        where = f'object {index}'
        name = xml_text(element, 'possibleresult/name', path, where)
        if _key(name) not in _CLASSES:
            raise DataError(f'{where}: {name!r} is no class of FAIR1M', path=path)
        points = []
        for point in element.findall('points/point'):
            parts = (point.text or '').split(',')
            if len(parts) != 2:
                raise DataError(f'{where}: the point {point.text!r} is not "x,y"', path=path)
            points.append([number(part, path, f'{where}, point') for part in parts])
        if len(points) == 5 and points[0] == points[4]:
            points.pop()
        if len(points) != 4:
            raise DataError(f'{where}: a polygon of {len(points)} points, not of four', path=path)
        corners = (str(value) for point in points for value in point)
        lines.append(' '.join([*corners, class_name(name), '0']))
    return lines


def fair1m_to_dota(
    annotations: str | Path | None,
    target: str | Path,
    images: Sequence[str | Path] = (),
    prefix: str = '',
    stretch: tuple[float, float] | None = None,
    workers: int = 1,
    quiet: bool = False,
) -> tuple[int, int]:
    """Writes ``{target}/annfiles/*.txt`` and, for images, ``{target}/images/*.png``.

    Args:
        annotations: Folder of XML files; ``None`` for test images.
        target: Folder to fill.
        images: Folders of images; none if only the annotations are wanted.
        prefix: Stands before each name that is written.
        stretch: Percentiles that become 0 and 255, for images of more than 8 bits.
        workers: Number of threads.
        quiet: No progress line.

    Returns:
        Numbers of files with the same name, and of objects.

    Raises:
        DatasetNotFoundError: If a folder is missing or empty, or an image or annotation has no
            partner.
        DataError: If an annotation cannot be used; file and object are named.
        ConfigError: If two images have one name, or ``target`` holds other files or the images.
    """
    target = Path(target)
    pictures: dict[str, Path] = {}
    for folder in images:
        for path in files_of_images(folder):
            if path.stem in pictures:
                raise ConfigError(f'{path} has the name of {pictures[path.stem]}; use a prefix')
            pictures[path.stem] = path
    labels = {} if annotations is None else {p.stem: p for p in files_of(annotations, '.xml')}
    if labels and pictures and (alone := sorted(set(labels) ^ set(pictures))):
        raise DatasetNotFoundError(
            f'{len(alone)} images or annotations have no partner, such as {alone[0]}',
            path=annotations,
        )
    refuse_source(target / 'images', images)
    refuse_strays(target / 'annfiles', (f'{prefix}{name}.txt' for name in labels))
    refuse_strays(target / 'images', (f'{prefix}{name}.png' for name in pictures))

    def convert(name: str) -> int:
        count = 0
        if name in labels:
            lines = dota_lines(labels[name])
            write_lines(target / 'annfiles' / f'{prefix}{name}.txt', lines)
            count = len(lines)
        if name in pictures:
            with RGBRaster(pictures[name], stretch) as raster:
                write_png(target / 'images' / f'{prefix}{name}.png', raster.read())
        return count

    counts = each(convert, sorted(labels or pictures), 'FAIR1M', workers, quiet)
    return len(counts), sum(counts)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('annotations', help="folder of the XML files, or '-' for test images")
    parser.add_argument('target', help='folder to fill')
    parser.add_argument('--images', nargs='+', default=[], help='folders of images')
    parser.add_argument('--prefix', default='', help='stands before each name that is written')
    parser.add_argument('--stretch', type=float, nargs=2, help='percentiles that become 0 and 255')
    parser.add_argument('--workers', type=int, default=4, help='threads')
    args = parser.parse_args()
    with errors_end_command():
        files, objects = fair1m_to_dota(
            None if args.annotations == '-' else args.annotations, args.target, args.images,
            args.prefix, tuple(args.stretch) if args.stretch else None, args.workers,
        )  # fmt: skip
    print(f'{args.target}: {files} images, {objects} objects')


if __name__ == '__main__':
    main()
