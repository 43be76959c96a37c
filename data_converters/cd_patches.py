# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Cuts the pairs of images and the labels of change detection into patches.

Examples: LEVIR-CD (``{train,val,test}/{A,B,label}`` of 1024 pixels), OSCD after ``oscd_to_rgb.py``,
and WHU-CD (one large pair, whose patches are divided at random, as is usual for it)::

    python data_converters/cd_patches.py folders D/LEVIR-CD data/levir-cd
    python data_converters/cd_patches.py folders D/oscd data/oscd --size 96
    python data_converters/cd_patches.py pair D/before.tif D/after.tif D/label.tif data/whu-cd

give ``{train,val,test}/{A,B,label}/<image>_<row>_<column>.png``, labels 0 and 255.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from mmrsfm.errors import ConfigError, DataError, DatasetNotFoundError, ImageSizeError
from mmrsfm.randomness import derive_seed
from mmrsfm.utils.conversion import each, errors_end_command, refuse_source, refuse_strays
from mmrsfm.utils.progress import progress
from mmrsfm.utils.rgb import (
    RGBRaster,
    files_of_images,
    image_size,
    open_raster,
    read_bands,
    write_png,
)

KINDS = ('A', 'B', 'label')
EDGES = ('pad', 'shift', 'drop')
WHU_SPLIT = {'train': 0.7, 'val': 0.1, 'test': 0.2}
_Triple = tuple[Path, Path, Path]


def change_label(label: np.ndarray, highest: int) -> np.ndarray:
    """Makes 0 (unchanged) and 255 (changed) of a label.

    Args:
        label: (H, W): 0 and 1, or 0 and 255 with what a lossy format makes of them (the middle,
            128, is changed).
        highest: Largest value of the *whole* label: a patch, or an image without changes, does not
            tell which of the two it is.

    Returns:
        uint8 (H, W).
    """
    threshold = 1 if highest <= 1 else 128
    return np.where(label >= threshold, 255, 0).astype(np.uint8)


def patch_starts(length: int, size: int, edge: str) -> list[int]:
    """First pixels of the patches along a side.

    Args:
        length: The side.
        size: Side of a patch.
        edge: What becomes of a rest: ``'pad'`` (a patch filled up with 0), ``'shift'`` (the last
            patch ends with the image and overlaps) or ``'drop'``.
    """
    starts = list(range(0, length - size + 1, size))
    rest = length % size
    if rest == 0 or (edge == 'drop' and starts):
        return starts
    if edge == 'drop':
        return []
    return [*starts, max(length - size, 0) if edge == 'shift' else length - rest]


def plan_patches(width: int, height: int, size: int, edge: str) -> list[tuple[int, int]]:
    """Tops and lefts of the patches of an image, row by row."""
    if edge not in EDGES or size < 1:
        raise ConfigError(f'patches have a size >= 1 and an edge of {EDGES}, got {size}, {edge!r}')
    rows, columns = patch_starts(height, size, edge), patch_starts(width, size, edge)
    return list(itertools.product(rows, columns))


def patch_name(stem: str, top: int, left: int) -> str:
    """Name of a patch: the image, first row and first column."""
    return f'{stem}_{top:04d}_{left:04d}.png'


def find_triples(folder: str | Path) -> list[_Triple]:
    """Images of two dates and their label, by the same names (suffixes may differ).

    Args:
        folder: Has the folders A, B and label (OUT is taken too, as SVCD names it).

    Raises:
        DatasetNotFoundError: If a folder or a partner is missing.
    """
    folder = Path(folder)
    labels = 'OUT' if (folder / 'OUT').is_dir() and not (folder / 'label').is_dir() else 'label'
    found = [
        {path.stem: path for path in files_of_images(folder / kind)} for kind in ('A', 'B', labels)
    ]
    for kind, paths in zip(('A', 'B', labels), found, strict=True):
        if alone := sorted(set().union(*found) - set(paths)):
            raise DatasetNotFoundError(
                f'lacks {len(alone)} images that others have, such as {alone[0]}',
                path=folder / kind,
            )
    return [tuple(paths[stem] for paths in found) for stem in sorted(found[0])]  # type: ignore[misc]


def cut_triple(
    triple: _Triple, size: int, targets: Mapping[tuple[int, int], Path], quiet: bool = True
) -> None:
    """Cuts two images and their label; the files are read in strips of one patch.

    Args:
        triple: Image of the first date, of the second, label.
        size: Side of a patch in pixels.
        targets: Split folder by top and left of each patch.
        quiet: No progress line.

    Raises:
        ImageSizeError: If the three differ in size.
        CorruptImageError: If one cannot be decoded.
        DataError: If the label is neither of 0 and 1 nor of 0 and 255.
    """
    stem = triple[0].stem
    with ExitStack() as stack:
        images = [stack.enter_context(RGBRaster(path)) for path in triple[:2]]
        label = stack.enter_context(_Label(triple[2]))
        for other in (images[1], label):
            if (other.width, other.height) != (images[0].width, images[0].height):
                raise ImageSizeError(
                    f'{other.width} x {other.height} pixels, {triple[0].name} has '
                    f'{images[0].width} x {images[0].height}',
                    path=other.path,
                )
        lefts: dict[int, list[int]] = {}
        for top, left in sorted(targets):
            lefts.setdefault(top, []).append(left)
        strips = zip(*(one.strips(list(lefts), size) for one in (*images, label)), strict=True)
        for rows in strips if quiet else progress(strips, 'cut rows', len(lefts)):
            top = rows[0][0]
            for left in lefts[top]:
                for kind, (_, strip) in zip(KINDS, rows, strict=True):
                    patch = strip[:, left : left + size]
                    below, right = size - patch.shape[0], size - patch.shape[1]
                    if below or right:
                        widths = ((0, below), (0, right), (0, 0))[: patch.ndim]
                        patch = np.pad(patch, widths)
                    write_png(targets[top, left] / kind / patch_name(stem, top, left), patch)


class _Label:
    """A label as 0 and 255, in strips; other than 8-bit ones are labels as well."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = ExitStack()
        self._source = self._stack.enter_context(open_raster(path))
        self.height, self.width = self._source.shape
        self._grey: np.ndarray | None = None
        try:
            if self._source.colorinterp[0] == ColorInterp.palette:
                # The index is not the value.
                self._grey = np.zeros(256, np.uint8)
                for index, colour in self._source.colormap(1).items():
                    self._grey[index] = max(colour[:3])
            self._highest = self._find_highest()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> _Label:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _find_highest(self) -> int:
        stored = self._source.tags(ns='IMAGE_STRUCTURE').get('COMPRESSION', '')
        if 'JPEG' in f'{self._source.driver} {stored}':
            # Lossy: a label without changes may be 1 here and there, or everywhere.
            return 255
        # A block at a time: the label of WHU has half a billion pixels.
        blocks = (self._read(window) for _, window in self._source.block_windows(1))
        highest = max(int(block.max()) for block in blocks)
        if 1 < highest < 128:
            raise DataError(
                f'the label goes up to {highest}: it is neither of 0 and 1 nor of 0 and 255',
                path=self.path,
            )
        return highest

    def _read(self, window: Window) -> np.ndarray:
        values = read_bands(self._source, 1, window)
        return values if self._grey is None else self._grey[values]

    def strips(self, tops: Sequence[int], size: int) -> Iterator[tuple[int, np.ndarray]]:
        for top in tops:
            window = Window(0, top, self.width, min(size, self.height - top))
            yield top, change_label(self._read(window), self._highest)


def cut_folders(
    source: str | Path,
    target: str | Path,
    size: int = 256,
    edge: str = 'pad',
    workers: int = 1,
    quiet: bool = False,
) -> dict[str, int]:
    """Cuts all pairs of a dataset that is split already.

    Args:
        source: Folder with ``{train,val,test}/{A,B,label}``, or some of the splits.
        target: Folder to fill, in the same layout.
        size: Side of a patch in pixels.
        edge: See :func:`patch_starts`.
        workers: Number of threads.
        quiet: No progress line.

    Returns:
        Number of patches by split.

    Raises:
        DatasetNotFoundError: If a folder or a partner is missing.
        ImageSizeError: If images of a triple differ in size.
        ConfigError: If ``target`` holds patches of another cut.
    """
    source, target = Path(source), Path(target)
    refuse_source(target, [source])
    splits = [split for split in ('train', 'val', 'test') if (source / split).is_dir()]
    if not splits:
        raise DatasetNotFoundError('has no folder train, val or test', path=source)
    jobs: list[tuple[_Triple, dict[tuple[int, int], Path]]] = []
    counts = {}
    for split in splits:
        names = []
        for triple in find_triples(source / split):
            plan = plan_patches(*image_size(triple[0]), size, edge)
            jobs.append((triple, dict.fromkeys(plan, target / split)))
            names += [patch_name(triple[0].stem, top, left) for top, left in plan]
        for kind in KINDS:
            refuse_strays(target / split / kind, names)
        counts[split] = len(names)
    each(lambda job: cut_triple(job[0], size, job[1]), jobs, 'cut pairs', workers, quiet)
    return counts


def cut_pair(
    before: str | Path,
    after: str | Path,
    label: str | Path,
    target: str | Path,
    fractions: Mapping[str, float] = WHU_SPLIT,
    seed: int = 0,
    size: int = 256,
    edge: str = 'pad',
    quiet: bool = False,
) -> dict[str, int]:
    """Cuts one large pair, and divides the patches by a hash of seed and place.

    Args:
        before: Image of the first date.
        after: Image of the second date.
        label: What has changed.
        target: Folder to fill.
        fractions: Share by split.
        seed: Seed of the division.
        size: Side of a patch in pixels.
        edge: See :func:`patch_starts`. With ``'shift'``, patches of two splits may overlap.
        quiet: No progress line.

    Returns:
        Number of patches by split.

    Raises:
        ImageSizeError: If the three differ in size.
        ConfigError: If the fractions are not parts of 1, or ``target`` holds patches of another
            cut.
    """
    if not fractions or min(fractions.values()) <= 0 or sum(fractions.values()) > 1 + 1e-9:
        raise ConfigError(f'fractions are positive parts of 1, got {dict(fractions)}')
    triple = (Path(before), Path(after), Path(label))
    plan = plan_patches(*image_size(before), size, edge)
    order = sorted(plan, key=lambda place: derive_seed(seed, *place))
    targets: dict[tuple[int, int], Path] = {}
    counts, share = {}, 0.0
    for split, fraction in fractions.items():
        first, share = round(share * len(order)), share + fraction
        chosen = order[first : round(share * len(order))]
        targets |= dict.fromkeys(chosen, Path(target) / split)
        names = [patch_name(triple[0].stem, *place) for place in chosen]
        for kind in KINDS:
            refuse_strays(Path(target) / split / kind, names)
        counts[split] = len(chosen)
    cut_triple(triple, size, targets, quiet)
    return counts


def _fraction(text: str) -> tuple[str, float]:
    name, _, share = text.partition('=')
    return name, float(share)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    commands = parser.add_subparsers(dest='command', required=True)
    folders = commands.add_parser('folders', help='a dataset that is split already')
    folders.add_argument('source', help='folder with {train,val,test}/{A,B,label}')
    folders.add_argument('target', help='folder to fill')
    folders.add_argument('--workers', type=int, default=4, help='threads')
    pair = commands.add_parser('pair', help='one large pair, whose patches are divided')
    for name in ('before', 'after', 'label', 'target'):
        pair.add_argument(name)
    pair.add_argument(
        '--fractions', nargs='+', metavar='SPLIT=SHARE', type=_fraction,
        default=list(WHU_SPLIT.items()), help='share of the patches by split',
    )  # fmt: skip
    pair.add_argument('--seed', type=int, default=0, help='seed of the division')
    for command in (folders, pair):
        command.add_argument('--size', type=int, default=256, help='side of a patch in pixels')
        command.add_argument('--edge', choices=EDGES, default='pad', help='what becomes of a rest')
    args = parser.parse_args()
    options = {key: value for key, value in vars(args).items() if key != 'command'}
    if 'fractions' in options:
        options['fractions'] = dict(options['fractions'])
    with errors_end_command():
        counts = cut_folders(**options) if args.command == 'folders' else cut_pair(**options)
    print(f'{args.target}: ' + ', '.join(f'{split} {count}' for split, count in counts.items()))


if __name__ == '__main__':
    main()
