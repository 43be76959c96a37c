# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Merges the folders of LoveDA (Train, Val and Test; Rural and Urban) into flat ones.

Example, for the unpacked archives::

    python data_converters/loveda_merge.py D/LoveDA data/loveda

gives ``trainval/{images,labels}`` and ``test/images``, as the benchmark's server is trained and
tested for; with ``--separate``, ``train`` and ``val`` instead of ``trainval``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmrsfm.errors import ConfigError, DatasetNotFoundError
from mmrsfm.utils.conversion import (
    PLACEMENTS,
    each,
    errors_end_command,
    files_of,
    place,
    refuse_strays,
)

AREAS = ('Rural', 'Urban')
KINDS = {'images_png': 'images', 'masks_png': 'labels'}


def loveda_merge(
    source: str | Path,
    target: str | Path,
    separate: bool = False,
    how: str = 'copy',
    workers: int = 1,
    quiet: bool = False,
) -> dict[str, int]:
    """Places the images and masks; the masks keep their values (0 no data, 1 to 7).

    Args:
        source: Folder with ``{Train,Val,Test}/{Rural,Urban}/{images_png,masks_png}``. A split that
            is missing is left out, unless it is Train.
        target: Folder to fill.
        separate: ``train`` and ``val`` apart.
        how: ``'copy'``, ``'hardlink'`` or ``'symlink'``.
        workers: Number of threads.
        quiet: No progress line.

    Returns:
        Number of images by split of ``target``.

    Raises:
        DatasetNotFoundError: If a folder is missing or empty, or an image has no mask.
        ConfigError: If two images would get one name, or ``target`` holds other files.
    """
    source, target = Path(source), Path(target)
    if not (source / 'Train').is_dir():
        raise DatasetNotFoundError('there is no folder Train', path=source)
    placed: dict[Path, Path] = {}
    for split in ('Train', 'Val', 'Test'):
        if not (source / split).is_dir():
            continue
        part = split.lower() if separate or split == 'Test' else 'trainval'
        for area in AREAS:
            folder = source / split / area
            names = {path.name for path in files_of(folder / 'images_png', '.png')}
            for kind, place_name in KINDS.items():
                if split == 'Test' and kind == 'masks_png':
                    continue
                paths = files_of(folder / kind, '.png')
                if alone := sorted(names ^ {path.name for path in paths}):
                    raise DatasetNotFoundError(
                        f'images and masks do not correspond: {len(alone)} without a partner, '
                        f'such as {alone[0]}',
                        path=folder,
                    )
                for path in paths:
                    wanted = target / part / place_name / path.name
                    if wanted in placed:
                        raise ConfigError(f'{path} and {placed[wanted]} have the same name')
                    placed[wanted] = path
    for folder in {path.parent for path in placed}:
        refuse_strays(folder, (path.name for path in placed if path.parent == folder))
    jobs = list(placed.items())
    each(lambda job: place(job[1], job[0], how), jobs, 'place images', workers, quiet)
    counts: dict[str, int] = {}
    for path in placed:
        if path.parent.name == 'images':
            counts[path.parts[-3]] = counts.get(path.parts[-3], 0) + 1
    return counts


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('source', help='folder with Train/, Val/ and Test/')
    parser.add_argument('target', help='folder to fill')
    parser.add_argument('--separate', action='store_true', help='train and val apart')
    parser.add_argument('--how', choices=PLACEMENTS, default='copy', help='how files are placed')
    parser.add_argument('--workers', type=int, default=4, help='threads')
    args = parser.parse_args()
    with errors_end_command():
        counts = loveda_merge(**vars(args))
    print(f'{args.target}: ' + ', '.join(f'{part} {count}' for part, count in counts.items()))


if __name__ == '__main__':
    main()
