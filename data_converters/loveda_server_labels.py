# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Subtracts 1 from label maps: from what mmseg's LoveDA writer gives (1 to 7) to the server's.

``mmrsfm.LoveDASubmission`` writes the server's numbers itself; this is for maps that exist.
Example::

    python data_converters/loveda_server_labels.py work_dirs/loveda/results work_dirs/loveda/server
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmrsfm.errors import CorruptImageError, ImageSizeError
from mmrsfm.utils.conversion import each, errors_end_command, files_of, refuse_source
from mmrsfm.utils.rgb import write_png


def shift_labels(labels: np.ndarray) -> np.ndarray:
    """Subtracts 1 modulo 256, so that 0 (no label) becomes 255.

    Args:
        labels: uint8, any shape.

    Returns:
        uint8 of the same shape.
    """
    return labels.astype(np.uint8) - np.uint8(1)


def loveda_server_labels(
    source: str | Path, target: str | Path, workers: int = 1, quiet: bool = False
) -> int:
    """Converts every png of a folder.

    Args:
        source: Folder of single-channel png files.
        target: Another folder, to fill: run twice in place, it would subtract 2.
        workers: Number of threads.
        quiet: No progress line.

    Returns:
        Number of files.

    Raises:
        ConfigError: If the two folders are one.
        DatasetNotFoundError: If there are no png files.
        CorruptImageError: If a file cannot be decoded.
        ImageSizeError: If a file has several channels.
    """
    source, target = Path(source), Path(target)
    refuse_source(target, [source])

    def convert(path: Path) -> None:
        try:
            labels = np.asarray(Image.open(path))
        except (OSError, UnidentifiedImageError) as error:
            raise CorruptImageError(f'cannot be decoded ({error})', path=path) from error
        if labels.ndim != 2:
            raise ImageSizeError(f'{labels.shape[2]} channels, not one', path=path)
        write_png(target / path.name, shift_labels(labels))

    return len(each(convert, files_of(source, '.png'), 'shift labels', workers, quiet))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('source', help='folder of png label maps')
    parser.add_argument('target', help='folder to fill, another one')
    parser.add_argument('--workers', type=int, default=4, help='threads')
    args = parser.parse_args()
    with errors_end_command():
        count = loveda_server_labels(**vars(args))
    print(f'{args.target}: {count} label maps')


if __name__ == '__main__':
    main()
