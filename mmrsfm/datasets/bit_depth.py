# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Says when mmcv's image loader reduces a dataset to eight bits, which it does in silence.

OpenCV, asked for a colour image, divides 16-bit numbers by 256: a Sentinel-2 image, or one of 11
bits, becomes almost black, and whoever normalises with statistics of the files trains on nothing.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmengine.logging import print_log

_PNG_DEPTH = 24  # the byte of the header that holds the number of bits


def warn_of_reduced_bits(dataset: Any) -> None:
    """Looks at the first image of a dataset whose pipeline loads it with mmcv; logs a warning.

    Args:
        dataset: One of MMEngine's kind, with ``pipeline`` and ``get_data_info``; of any other, and
            of a file that cannot be read, nothing is said here.
    """
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    reducing = [
        one
        for one in steps
        if isinstance(one, LoadImageFromFile)
        and type(one).transform is LoadImageFromFile.transform
        and one.color_type not in ('unchanged', 'anydepth')
    ]
    if not reducing:
        return
    try:
        path = str(dataset.get_data_info(0)['img_path'])
        kind = _stored_type(path)
    except Exception:  # whatever is wrong is an error when the sample is read
        return
    if kind not in (None, 'uint8'):
        print_log(
            f'{type(dataset).__name__}: {path} holds numbers of {kind}, which LoadImageFromFile '
            'reduces to 8 bits (16 bits: divided by 256). Load the images with '
            'mmrsfm.LoadMultiBandImage, which keeps them, and normalise with their statistics; or '
            'convert them to 8 bits',
            logger='current',
            level=logging.WARNING,
        )


def _stored_type(path: str) -> str | None:
    """The type of the numbers in a PNG, TIFF or JPEG 2000 file; others are not looked at."""
    suffix = Path(path).suffix.lower()
    if suffix == '.png':
        with Path(path).open('rb') as file:
            header = file.read(_PNG_DEPTH + 1)
        return 'uint16' if header[_PNG_DEPTH] == 16 else 'uint8'
    if suffix in ('.tif', '.tiff', '.jp2'):
        import rasterio

        with rasterio.open(path) as source:
            return source.dtypes[0]
    return None
