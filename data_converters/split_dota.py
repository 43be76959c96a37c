# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Cuts large images with oriented boxes (DOTA and its like) into overlapping patches.

Same windows, names and annotations as mmrotate's ``img_split.py`` (Apache 2.0), with which test
results are merged again; images are read in strips, so that 30000 x 30000 pixels need no more
memory than a few hundred rows. Examples (the published settings are ``ss`` for DOTA-2.0 and ``ms``
for DOTA-1.0; train and val together are ``trainval``)::

    python data_converters/split_dota.py data/split_ms_dota/trainval --preset ms \
        --images D/train/images D/val/images --labels D/train/labelTxt D/val/labelTxt
    python data_converters/split_dota.py data/split_ms_dota/test --images D/test/images --preset ms

give ``images/<image>__<side>__<left>___<top>.png`` and ``annfiles/`` with the same names. With a
rate of 0.5 the windows are twice as large: pictures are not resized, that is for the pipeline.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from mmrsfm.errors import ConfigError, DatasetNotFoundError
from mmrsfm.utils.conversion import (
    each,
    errors_end_command,
    files_of,
    refuse_source,
    refuse_strays,
    write_json,
    write_lines,
)
from mmrsfm.utils.dota import read_dota_objects
from mmrsfm.utils.rgb import RGBRaster, files_of_images, image_size, write_png

PRESETS = {'ss': {'gap': 200, 'rates': (1.0,)}, 'ms': {'gap': 500, 'rates': (0.5, 1.0, 1.5)}}
TRUNCATED = 2
SETTINGS_FILE = 'split.json'


@dataclass(frozen=True)
class SplitSettings:
    """How images are cut.

    Attributes:
        size: Side of a window in pixels, at rate 1.
        gap: Overlap of neighbouring windows, at rate 1.
        rates: Scales: at rate r, windows and overlaps are 1/r times as large.
        img_rate_thr: A window is kept if more than this share of it lies in the image; if none
            does, those with the largest share are kept.
        iof_thr: An object belongs to a window that holds at least this share of its area.
        padding_value: Colour outside of the image: RGB (mmrotate's settings are BGR), or a number.
    """

    size: int = 1024
    gap: int = 200
    rates: tuple[float, ...] = (1.0,)
    img_rate_thr: float = 0.6
    iof_thr: float = 0.7
    padding_value: tuple[int, ...] = (124, 116, 104)

    def __post_init__(self) -> None:
        if not 0 <= self.gap < self.size or not self.rates or min(self.rates) <= 0:
            raise ConfigError(
                f'a window of {self.size} pixels with an overlap of {self.gap} at rates '
                f'{self.rates} is not possible: 0 <= gap < size and rates > 0 are needed'
            )
        if not 0 <= self.img_rate_thr < 1 or not 0 < self.iof_thr <= 1:
            raise ConfigError('img_rate_thr is in [0, 1) and iof_thr in (0, 1]')
        if len(self.padding_value) not in (1, 3):
            raise ConfigError(f'padding_value is one number or three, got {self.padding_value}')


@dataclass(frozen=True)
class Window:
    """A square of pixels of an image, which it may exceed at the right and the bottom."""

    left: int
    top: int
    side: int

    def name(self, image: str) -> str:
        """Name of the patch, from which a merge finds its place."""
        return f'{image}__{self.side}__{self.left}___{self.top}'


@dataclass(frozen=True)
class Objects:
    """Objects of one image: corners (N, 8) in pixels, class names and difficulties."""

    corners: np.ndarray
    names: tuple[str, ...]
    difficulties: tuple[int, ...]


def read_dota_labels(path: str | Path) -> Objects:
    """Reads a DOTA annotation: eight coordinates, class and (optionally) difficulty in a line.

    Args:
        path: The text file; see :func:`mmrsfm.utils.dota.read_dota_objects`.

    Returns:
        The objects.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DataError: If a line has another form; it is named.
    """
    found = read_dota_objects(path)
    array = np.array([one.corners for one in found], dtype=np.float64).reshape(-1, 8)
    return Objects(array, tuple(one.name for one in found), tuple(one.difficulty for one in found))


def windows_of(width: int, height: int, settings: SplitSettings) -> list[Window]:
    """The windows of an image: rate by rate, column by column.

    Args:
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        settings: How to cut.

    Returns:
        At least one window.
    """

    def starts(length: int, side: int, step: int) -> list[int]:
        if length <= side:
            return [0]
        # The last window ends with the image.
        return [*range(0, length - side, step), length - side]

    windows = []
    for rate in settings.rates:
        side, gap = int(settings.size / rate), int(settings.gap / rate)
        grid = itertools.product(starts(width, side, side - gap), starts(height, side, side - gap))
        windows += [Window(left, top, side) for left, top in grid]
    shares = np.array(
        [
            min(width - window.left, window.side) * min(height - window.top, window.side)
            / window.side**2
            for window in windows
        ]
    )  # fmt: skip
    keep = shares > settings.img_rate_thr
    if not keep.any():
        keep = np.abs(shares - shares.max()) < 0.01
    return [window for window, kept in zip(windows, keep, strict=True) if kept]


def objects_of(
    objects: Objects, windows: Sequence[Window], iof_thr: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Which objects belong to each window, and which of them are cut by its edge.

    Args:
        objects: Objects of the image.
        windows: Windows of the image.
        iof_thr: See :class:`SplitSettings`.

    Returns:
        Numbers of the objects, and whether each is truncated, by window.
    """
    points = objects.corners.reshape(-1, 4, 2)
    # Some annotations cross themselves: their area is that of the parts.
    polygons = shapely.make_valid(shapely.polygons(points))
    areas = shapely.area(polygons)
    low, high = points.min(axis=1), points.max(axis=1)
    start = np.array([[window.left, window.top] for window in windows])
    end = start + np.array([[window.side] for window in windows])
    squares = shapely.box(*start.T, *end.T)
    # Pairs of neighbours only: images have up to 100,000 objects and thousands of windows.
    place, near = shapely.STRtree(polygons).query(squares)
    order = np.lexsort((near, place))
    place, near = place[order], near[order]
    whole = ((low[near] >= start[place]) & (high[near] <= end[place])).all(axis=1)
    inside = areas[near]
    cut = np.flatnonzero(~whole)
    inside[cut] = shapely.area(shapely.intersection(polygons[near[cut]], squares[place[cut]]))
    belongs = inside / np.maximum(areas[near], 1e-6) >= iof_thr
    place, near, whole = place[belongs], near[belongs], whole[belongs]
    borders = np.searchsorted(place, np.arange(1, len(windows)))
    return list(zip(np.split(near, borders), np.split(~whole, borders), strict=True))


def annotation_lines(
    objects: Objects, window: Window, chosen: np.ndarray, truncated: np.ndarray
) -> list[str]:
    """Lines of a patch, in its pixels; truncated objects get the difficulty 2.

    Args:
        objects: Objects of the image.
        window: The window.
        chosen: Numbers of its objects.
        truncated: Whether each of them is cut.

    Returns:
        A line an object.
    """
    offset = np.array([window.left, window.top] * 4)
    lines = []
    for index, cut in zip(chosen, truncated, strict=True):
        # The digits of a float32: 1000.3 less 1000 is 0.3, not 0.2999999999999545.
        values = (objects.corners[index] - offset).astype(np.float32)
        difficulty = TRUNCATED if cut else objects.difficulties[index]
        lines.append(' '.join([*map(str, values), objects.names[index], str(difficulty)]))
    return lines


def split_dota(
    images: Sequence[str | Path],
    target: str | Path,
    labels: Sequence[str | Path] | None = None,
    settings: SplitSettings | None = None,
    workers: int = 1,
    quiet: bool = False,
) -> tuple[int, int]:
    """Cuts the images of some folders into one. A run that was stopped goes on when repeated.

    Args:
        images: Folders of images.
        target: Folder for ``images/`` and, with labels, ``annfiles/``.
        labels: Folders of annotations, one for each of ``images``: a text file an image.
        settings: How to cut.
        workers: Number of threads, each of which holds one strip of an image.
        quiet: No progress line.

    Returns:
        Numbers of images and of patches.

    Raises:
        ConfigError: If folders do not correspond, two images have one name, or ``target`` holds
            patches of another source or of other settings.
        DatasetNotFoundError: If a folder, an image or an annotation is missing.
        DataError: If an annotation or image cannot be used.
    """
    settings = settings or SplitSettings()
    target = Path(target)
    if labels is not None and len(labels) != len(images):
        raise ConfigError(f'{len(images)} folders of images, but {len(labels)} of labels')
    sources: dict[str, tuple[Path, Path | None]] = {}
    for index, folder in enumerate(images):
        for path in files_of_images(folder):
            if path.stem in sources:
                raise ConfigError(f'{path} has the name of {sources[path.stem][0]}; rename one')
            label = None if labels is None else Path(labels[index]) / f'{path.stem}.txt'
            sources[path.stem] = (path, label)
        if labels is not None:
            _refuse_labels_without_image(labels[index], folder, sources)
    windows = {name: windows_of(*image_size(path), settings) for name, (path, _) in sources.items()}
    refuse_source(target / 'images', images)
    ours = json.loads(json.dumps(asdict(settings)))
    _refuse_other_settings(target, ours)
    names = [window.name(image) for image, found in windows.items() for window in found]
    refuse_strays(target / 'images', (f'{name}.png' for name in names))
    refuse_strays(target / 'annfiles', () if labels is None else (f'{name}.txt' for name in names))
    write_json(target / SETTINGS_FILE, ours)

    def cut(image: str) -> None:
        path, label = sources[image]
        objects = None if label is None else read_dota_labels(label)
        todo = [
            window
            for window in windows[image]
            if not (target / 'images' / f'{window.name(image)}.png').exists()
        ]
        if todo:
            with RGBRaster(path) as raster:
                _cut_patches(raster, image, todo, target / 'images', settings)
        # After the patches: an image that cannot be decoded leaves none of its annotations.
        if objects is not None:
            found = objects_of(objects, windows[image], settings.iof_thr)
            for window, chosen in zip(windows[image], found, strict=True):
                lines = annotation_lines(objects, window, *chosen)
                write_lines(target / 'annfiles' / f'{window.name(image)}.txt', lines)

    each(cut, list(sources), 'split images', workers, quiet)
    return len(sources), len(names)


def _refuse_labels_without_image(
    labels: str | Path, images: str | Path, sources: Mapping[str, Any]
) -> None:
    lonely = [path for path in files_of(labels, '.txt') if path.stem not in sources]
    if lonely:
        raise DatasetNotFoundError(
            f'there is no image for {len(lonely)} annotations, the first is this ({images})',
            path=lonely[0],
        )


def _cut_patches(
    raster: RGBRaster, image: str, windows: Sequence[Window], folder: Path, settings: SplitSettings
) -> None:
    for side in sorted({window.side for window in windows}):
        rows: dict[int, list[int]] = {}
        for window in windows:
            if window.side == side:
                rows.setdefault(window.top, []).append(window.left)
        for top, strip in raster.strips(sorted(rows), side):
            for left in rows[top]:
                patch = strip[:, left : left + side]
                if patch.shape[:2] != (side, side):
                    whole = np.empty((side, side, 3), np.uint8)
                    whole[:] = settings.padding_value
                    whole[: patch.shape[0], : patch.shape[1]] = patch
                    patch = whole
                write_png(folder / f'{Window(left, top, side).name(image)}.png', patch)


def _refuse_other_settings(target: Path, ours: dict[str, Any]) -> None:
    """Raises for a target of other settings: patches that are there would be kept."""
    path = target / SETTINGS_FILE
    if path.exists():
        try:
            theirs = json.loads(path.read_text())
        except ValueError:
            theirs = None
        if theirs != ours:
            raise ConfigError(
                f'{target} holds patches that were cut with {theirs}, not with {ours}. Remove the '
                'folder, or name another target.'
            )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('target', help='folder to fill')
    parser.add_argument('--images', nargs='+', required=True, help='folders of images')
    parser.add_argument('--labels', nargs='+', help='folders of annotations, one each')
    parser.add_argument('--preset', choices=list(PRESETS), default='ss', help='one or three scales')
    parser.add_argument('--size', type=int, default=1024, help='side of a window at rate 1')
    parser.add_argument('--gap', type=int, help='overlap at rate 1 (default: of the preset)')
    parser.add_argument('--rates', type=float, nargs='+', help='scales (default: of the preset)')
    parser.add_argument('--img-rate-thr', type=float, default=0.6, help='least share of image')
    parser.add_argument('--iof-thr', type=float, default=0.7, help='least share of an object')
    parser.add_argument(
        '--padding-value',
        type=int,
        nargs='+',
        default=[124, 116, 104],
        help='colour outside of the image, RGB',
    )
    parser.add_argument('--workers', type=int, default=4, help='threads')
    args = parser.parse_args()
    preset = PRESETS[args.preset]
    with errors_end_command():
        settings = SplitSettings(
            args.size, preset['gap'] if args.gap is None else args.gap,
            tuple(args.rates or preset['rates']), args.img_rate_thr, args.iof_thr,
            tuple(args.padding_value),
        )  # fmt: skip
        count, patches = split_dota(args.images, args.target, args.labels, settings, args.workers)
    print(f'{args.target}: {patches} patches of {count} images')


if __name__ == '__main__':
    main()
