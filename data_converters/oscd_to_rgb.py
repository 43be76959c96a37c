# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Makes 8-bit RGB pairs of OSCD (Sentinel-2 bands, one tif each), for ``cd_patches.py``.

Example, for the three archives of the publisher, unpacked side by side::

    python data_converters/oscd_to_rgb.py 'D/Onera Satellite Change Detection dataset - Images' \
        D/oscd \
        --train-labels 'D/Onera Satellite Change Detection dataset - Train Labels' \
        --test-labels 'D/Onera Satellite Change Detection dataset - Test Labels'

gives ``{train,test}/{A,B,label}/<city>.png``. A and B are the bands B04, B03, B02 of
``imgs_1_rect`` and ``imgs_2_rect`` (registered, at 10 m). How the published pictures were stretched
is not known; here the percentiles 2 and 98 of each band over *both* dates become 0 and 255, so that
what has not changed keeps its colour.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmrsfm.errors import CorruptImageError, DataError, DatasetNotFoundError, ImageSizeError
from mmrsfm.utils import rgb
from mmrsfm.utils.conversion import each, errors_end_command, read_text, refuse_strays
from mmrsfm.utils.rgb import open_raster, percentiles, scale_to_bytes, write_png

BANDS = ('B04', 'B03', 'B02')


def read_cities(path: str | Path) -> list[str]:
    """Names of cities in ``train.txt`` or ``test.txt``: separated by commas, blanks or lines."""
    names = [name for name in re.split(r'[,\s]+', read_text(path, 'list of cities')) if name]
    if not names:
        raise DataError('names no cities', path=path)
    return names


def read_bands(folder: str | Path, bands: Sequence[str] = BANDS) -> np.ndarray:
    """Reads some bands of one date.

    Args:
        folder: With a file for each band, ``B04.tif`` or ``<anything>_B04.tif``.
        bands: Their names.

    Returns:
        (C, H, W), in the type of the files.

    Raises:
        DatasetNotFoundError: If a band is missing, or there are two files for it.
        CorruptImageError: If one cannot be decoded.
        ImageSizeError: If they differ in size.
    """
    folder, arrays = Path(folder), []
    for band in bands:
        pattern = re.compile(rf'(?:.*_)?{band}\.tiff?', re.IGNORECASE)
        files = folder.iterdir() if folder.is_dir() else ()
        found = sorted(path for path in files if pattern.fullmatch(path.name))
        if len(found) != 1:
            raise DatasetNotFoundError(
                f'{len(found)} files for the band {band}, not one', path=folder
            )
        with open_raster(found[0]) as source:
            arrays.append(rgb.read_bands(source))
        if np.issubdtype(arrays[-1].dtype, np.floating) and not np.isfinite(arrays[-1]).any():
            raise CorruptImageError('holds nothing but NaN or infinities', found[0], band)
        if arrays[-1].shape != arrays[0].shape:
            raise ImageSizeError(
                f'{arrays[-1].shape} pixels, {bands[0]} has {arrays[0].shape}', path=found[0]
            )
    return np.stack(arrays)


def read_label(folder: str | Path, city: str) -> np.ndarray:
    """Reads the change map of a city.

    Args:
        folder: With ``<city>/cm/<city>-cm.tif`` (1 unchanged, 2 changed) or ``<city>/cm/cm.png``
            (0 unchanged, 255 changed).
        city: Its name.

    Returns:
        0 and 255, uint8 (H, W).

    Raises:
        DatasetNotFoundError: If there is neither.
        DataError: If the tif has other values.
    """
    tif, png = Path(folder) / city / 'cm' / f'{city}-cm.tif', Path(folder) / city / 'cm' / 'cm.png'
    path = tif if tif.is_file() else png
    if not path.is_file():
        raise DatasetNotFoundError('there is neither this change map nor a tif', path=png)
    with open_raster(path) as source:
        label = rgb.read_bands(source)
    if path == png:
        return np.where(label >= 128, 255, 0).astype(np.uint8)
    if not set(np.unique(label)) <= {1, 2}:
        raise DataError(f'holds {np.unique(label)[:5]}, not only 1 and 2', path=path)
    return np.where(label == 2, 255, 0).astype(np.uint8)


def oscd_to_rgb(
    images: str | Path,
    target: str | Path,
    train_labels: str | Path,
    test_labels: str | Path | None = None,
    stretch: tuple[float, float] = (2.0, 98.0),
    workers: int = 1,
    quiet: bool = False,
) -> dict[str, int]:
    """Writes ``{target}/{train,test}/{A,B,label}/<city>.png``.

    Args:
        images: Folder with ``train.txt``, ``test.txt`` and ``<city>/imgs_{1,2}_rect``.
        target: Folder to fill.
        train_labels: Folder with ``<city>/cm`` of the training cities.
        test_labels: The same of the test cities; without it only training is written.
        stretch: Percentiles that become 0 and 255, by band over both dates.
        workers: Number of threads.
        quiet: No progress line.

    Returns:
        Number of cities by split.

    Raises:
        DatasetNotFoundError: If a list, a band or a label is missing.
        ImageSizeError: If images and label of a city differ in size.
        ConfigError: If ``target`` holds other files.
    """
    images, target = Path(images), Path(target)
    labels = {'train': Path(train_labels)}
    if test_labels is not None:
        labels['test'] = Path(test_labels)
    jobs = [(split, city) for split in labels for city in read_cities(images / f'{split}.txt')]
    for split in labels:
        planned = [f'{city}.png' for part, city in jobs if part == split]
        for kind in ('A', 'B', 'label'):
            refuse_strays(target / split / kind, planned)

    def convert(job: tuple[str, str]) -> None:
        split, city = job
        dates = [read_bands(images / city / f'imgs_{date}_rect') for date in (1, 2)]
        label = read_label(labels[split], city)
        for array in (dates[1][0], label):
            if array.shape != dates[0].shape[1:]:
                raise ImageSizeError(
                    f'images of {dates[0].shape[1:]} and {dates[1].shape[1:]} pixels and a label '
                    f'of {label.shape}',
                    path=images / city,
                )
        low, high = percentiles(np.stack(dates, axis=1), stretch)
        for kind, bands in zip('AB', dates, strict=True):
            picture = scale_to_bytes(bands, low, high).transpose(1, 2, 0)
            write_png(target / split / kind / f'{city}.png', picture)
        write_png(target / split / 'label' / f'{city}.png', label)

    each(convert, jobs, 'OSCD', workers, quiet)
    return {split: sum(part == split for part, _ in jobs) for split in labels}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('images', help='folder with train.txt, test.txt and a folder a city')
    parser.add_argument('target', help='folder to fill')
    parser.add_argument('--train-labels', required=True, help='labels of the training cities')
    parser.add_argument('--test-labels', help='labels of the test cities')
    parser.add_argument('--stretch', type=float, nargs=2, default=(2.0, 98.0))
    parser.add_argument('--workers', type=int, default=2, help='threads')
    args = parser.parse_args()
    with errors_end_command():
        counts = oscd_to_rgb(**{**vars(args), 'stretch': tuple(args.stretch)})
    print(f'{args.target}: ' + ', '.join(f'{split} {count}' for split, count in counts.items()))


if __name__ == '__main__':
    main()
