# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Splits scene images (one folder a class) into the layouts that the classification configs read.

Examples::

    python data_converters/scene_split_lists.py D/EuroSAT_RGB data/eurosat --layout folders \
        --fractions train=0.6 val=0.2
    python data_converters/scene_split_lists.py D/NWPU-RESISC45 data/resisc45 --layout lists \
        --fractions train=0.2 valid=0.8

``folders`` gives ``{train,val}/<class>/<image>``. ``lists`` gives ``all_img/<image>`` and
``mtp/{train,valid}_labels_28_mtp.txt`` with lines ``<image> <number of the class>``; classes are
numbered in the order of their names.

Every class is split alike (stratified), by a hash of seed, class and image: the same on every
machine. The published lists are not public; EuroSAT has common ones (``eurosat-train.txt`` ...),
which ``--lists train=FILE val=FILE`` takes instead, one image a line.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmrsfm.errors import ConfigError, DatasetNotFoundError
from mmrsfm.randomness import derive_seed
from mmrsfm.utils.conversion import (
    PLACEMENTS,
    each,
    errors_end_command,
    place,
    read_names,
    refuse_source,
    refuse_strays,
    write_lines,
)
from mmrsfm.utils.rgb import files_of_images, image_stem

LAYOUTS = ('folders', 'lists')
LIST_NAME = 'mtp/{split}_labels_28_mtp.txt'


def scan_classes(source: str | Path) -> dict[str, list[Path]]:
    """Images by class, both in the order of their names.

    Args:
        source: Folder with one folder of images a class.

    Raises:
        DatasetNotFoundError: If there is none with images.
    """
    source = Path(source)
    if not source.is_dir():
        raise DatasetNotFoundError('there is no such folder', path=source)
    found = {}
    for folder in sorted(source.iterdir()):
        with contextlib.suppress(DatasetNotFoundError):  # Without images: no class.
            found[folder.name] = files_of_images(folder)
    if not found:
        raise DatasetNotFoundError('holds no folder of images for each class', path=source)
    return found


def draw_split(
    classes: Mapping[str, Sequence[Path]], fractions: Mapping[str, float], seed: int = 0
) -> dict[str, list[tuple[str, Path]]]:
    """Divides every class by the same fractions.

    Args:
        classes: Images by class.
        fractions: Share by split; what is left of 1 is in none.
        seed: Any integer.

    Returns:
        Class and image by split, in the order of the names.

    Raises:
        ConfigError: If the fractions are not shares of 1.
    """
    if not fractions or min(fractions.values()) <= 0 or sum(fractions.values()) > 1 + 1e-9:
        raise ConfigError(f'fractions are positive parts of 1, got {dict(fractions)}')
    result: dict[str, list[tuple[str, Path]]] = {split: [] for split in fractions}
    for name, paths in classes.items():
        # Without suffixes, so that jpg and many-band versions are split alike.
        order = sorted(paths, key=lambda path: (derive_seed(seed, name, path.stem), path.stem))
        share = 0.0
        for split, fraction in fractions.items():
            first, share = round(share * len(paths)), share + fraction
            chosen = order[first : round(share * len(paths))]
            result[split] += [(name, path) for path in sorted(chosen)]
    return result


def take_split(
    classes: Mapping[str, Sequence[Path]], lists: Mapping[str, str | Path]
) -> dict[str, list[tuple[str, Path]]]:
    """Divides by lists of images.

    Args:
        classes: Images by class.
        lists: A text file by split: names of images, with or without folder and suffix.

    Returns:
        Class and image by split, in the order of the names.

    Raises:
        DatasetNotFoundError: If a list or a listed image is missing.
        ConfigError: If a listed image is in two splits, or its name in two classes.
    """
    known: dict[str, tuple[str, Path]] = {}
    for name, paths in classes.items():
        for path in paths:
            if path.stem in known:
                raise ConfigError(f'{path} has the name of {known[path.stem][1]}')
            known[path.stem] = (name, path)
    result, owner = {}, {}
    for split, source in lists.items():
        chosen = []
        for line in read_names(source):
            stem = image_stem(line)
            if stem not in known:
                raise DatasetNotFoundError(f'{line} is no image of any class', path=source)
            if stem in owner:
                raise ConfigError(f'{line} is in the lists of {owner[stem]} and of {split}')
            owner[stem] = split
            chosen.append(known[stem])
        result[split] = sorted(chosen)
    return result


def split_scenes(
    source: str | Path,
    target: str | Path,
    layout: str,
    fractions: Mapping[str, float] | None = None,
    lists: Mapping[str, str | Path] | None = None,
    seed: int = 0,
    how: str = 'copy',
    list_name: str = LIST_NAME,
    workers: int = 1,
    quiet: bool = False,
) -> dict[str, int]:
    """Writes one of the two layouts; see the module.

    Args:
        source: Folder with one folder of images a class.
        target: Folder to fill.
        layout: ``'folders'`` or ``'lists'``.
        fractions: Share by split; this or ``lists``.
        lists: Text file by split.
        seed: Seed of the split by fractions.
        how: ``'copy'``, ``'hardlink'`` or ``'symlink'``.
        list_name: Name of the lists below ``target``, with ``{split}``.
        workers: Number of threads.
        quiet: No progress line.

    Returns:
        Number of images by split.

    Raises:
        DatasetNotFoundError: If the folder has not this form.
        ConfigError: For contradicting arguments, or files of another split in ``target``.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f'layout is one of {LAYOUTS}, got {layout!r}')
    if (fractions is None) == (lists is None):
        raise ConfigError('a split is drawn by fractions or taken from lists: give one of them')
    target, classes = Path(target), scan_classes(source)
    refuse_source(target, [source])  # What is written would be a class of the next run.
    if fractions is not None:
        split = draw_split(classes, fractions, seed)
    else:
        split = take_split(classes, lists or {})
    jobs: list[tuple[Path, Path]] = []
    if layout == 'folders':
        for part, pairs in split.items():
            jobs += [(path, target / part / name / path.name) for name, path in pairs]
            refuse_strays(target / part, classes)
            for name in classes:
                planned = (path.name for owner, path in pairs if owner == name)
                refuse_strays(target / part / name, planned)
    else:
        every = [path for paths in classes.values() for path in paths]
        if len({path.name for path in every}) < len(every):
            raise ConfigError(
                f'images in different classes of {source} have the same name, which one folder '
                "does not hold; use the layout 'folders'"
            )
        jobs = [(path, target / 'all_img' / path.name) for path in every]
        refuse_strays(target / 'all_img', (path.name for path in every))
    each(lambda job: place(*job, how), jobs, 'place images', workers, quiet)
    if layout == 'lists':
        index = {name: position for position, name in enumerate(classes)}
        for part, pairs in split.items():
            lines = (f'{path.name} {index[name]}' for name, path in pairs)
            write_lines(target / list_name.format(split=part), lines)
    return {part: len(pairs) for part, pairs in split.items()}


def _pairs(values: Sequence[str] | None) -> dict[str, str] | None:
    if values is None:
        return None
    pairs = [value.partition('=') for value in values]
    if not all(name and value for name, _, value in pairs):
        raise ConfigError(f'splits are given as name=value, got {list(values)}')
    return {name: value for name, _, value in pairs}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('source', help='folder with one folder of images a class')
    parser.add_argument('target', help='folder to fill')
    parser.add_argument('--layout', choices=LAYOUTS, required=True)
    parser.add_argument('--fractions', nargs='+', metavar='SPLIT=SHARE')
    parser.add_argument('--lists', nargs='+', metavar='SPLIT=FILE')
    parser.add_argument('--seed', type=int, default=0, help='seed of the split by fractions')
    parser.add_argument('--how', choices=PLACEMENTS, default='copy', help='how images are placed')
    parser.add_argument('--list-name', default=LIST_NAME, help='name of the lists below target')
    parser.add_argument('--workers', type=int, default=4, help='threads')
    args = parser.parse_args()
    with errors_end_command():
        fractions = _pairs(args.fractions)
        try:
            shares = fractions and {name: float(value) for name, value in fractions.items()}
        except ValueError:
            raise ConfigError(f'shares are numbers, got {fractions}') from None
        counts = split_scenes(
            args.source, args.target, args.layout, shares, _pairs(args.lists), args.seed,
            args.how, args.list_name, args.workers,
        )  # fmt: skip
    print(f'{args.target}: ' + ', '.join(f'{part} {count}' for part, count in counts.items()))


if __name__ == '__main__':
    main()
