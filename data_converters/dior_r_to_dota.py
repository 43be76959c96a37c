# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Converts the oriented boxes of DIOR-R (one XML an image) to DOTA text files.

``mmrsfm.DIORRDataset`` reads the XML as it is; this is for tools that want DOTA's form. Example::

    python data_converters/dior_r_to_dota.py data/dior data/dior/annfiles

gives ``<image>.txt`` with lines of eight coordinates, class and difficulty. With ``--splits train``
only the images of ``ImageSets/Main/train.txt``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmrsfm.class_tables import DIOR
from mmrsfm.errors import DataError
from mmrsfm.utils.conversion import (
    each,
    errors_end_command,
    files_of,
    read_names,
    refuse_strays,
    write_lines,
)
from mmrsfm.utils.dior import read_dior_objects

ANNOTATIONS = 'Annotations/Oriented Bounding Boxes'


def dota_lines(path: str | Path) -> list[str]:
    """Reads one annotation file.

    Args:
        path: The XML.

    Returns:
        A line an object: corners clockwise from the upper left one, class in small letters,
        difficulty (0 where the file has none).

    Raises:
        DataError: For an unknown class, or corners that are missing or not numbers.
    """
    lines = []
    for one in read_dior_objects(path):
        if one.name not in DIOR:
            raise DataError(f'object {one.line}: {one.name!r} is no class of DIOR', path=path)
        lines.append(' '.join([*map(str, one.corners), one.name, str(one.difficulty)]))
    return lines


def dior_r_to_dota(
    root: str | Path,
    target: str | Path,
    splits: Sequence[str] | None = None,
    workers: int = 1,
    quiet: bool = False,
) -> tuple[int, int]:
    """Writes ``{target}/{image}.txt``; an image without objects gives an empty file.

    Args:
        root: Folder with ``Annotations/Oriented Bounding Boxes`` (and ``ImageSets/Main``).
        target: Folder to fill.
        splits: Lists whose images are converted. Defaults to all annotations.
        workers: Number of threads.
        quiet: No progress line.

    Returns:
        Numbers of images and of objects.

    Raises:
        DatasetNotFoundError: If a list, the folder or an annotation is missing.
        DataError: If an annotation cannot be used; file and object are named.
        ConfigError: If ``target`` holds other files.
    """
    root, target = Path(root), Path(target)
    if splits is None:
        names = [path.stem for path in files_of(root / ANNOTATIONS, '.xml')]
    else:
        lists = (read_names(root / 'ImageSets' / 'Main' / f'{split}.txt') for split in splits)
        names = list(dict.fromkeys(name for names in lists for name in names))
    refuse_strays(target, (f'{name}.txt' for name in names))

    def convert(name: str) -> int:
        lines = dota_lines(root / ANNOTATIONS / f'{name}.xml')
        write_lines(target / f'{name}.txt', lines)
        return len(lines)

    counts = each(convert, names, 'DIOR-R', workers, quiet)
    return len(counts), sum(counts)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('root', help='folder of DIOR')
    parser.add_argument('target', help='folder to fill')
    parser.add_argument('--splits', nargs='+', help='lists to convert (default: all annotations)')
    parser.add_argument('--workers', type=int, default=4, help='threads')
    args = parser.parse_args()
    with errors_end_command():
        images, objects = dior_r_to_dota(**vars(args))
    print(f'{args.target}: {images} images, {objects} objects')


if __name__ == '__main__':
    main()
