# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""COCO's run-length encoding of masks, read and written in the window that the object fills.

pycocotools decodes to arrays of the size of the image: a patch of DOTA with 500 cars would be 500
times a million bytes. It does not check the text either, and reads beyond its end. Format:
T.-Y. Lin et al., "Microsoft COCO", ECCV 2014, arXiv 1405.0312, and its public API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

# Runs in groups of five bits, 48 added, where bit 5 says that the run goes on.
_RUNS = re.compile(r'(?:[P-o]{0,6}[0-O])*')


def read_runs(rle: Any, size: tuple[int, int]) -> np.ndarray:
    """The lengths of the runs of a mask, column by column, beginning with background.

    Args:
        rle: ``size`` (H, W) and ``counts``: a list of lengths, or COCO's compressed text (str or
            bytes).
        size: (H, W) that the mask must have.

    Returns:
        int64 (R,), none below 0; their sum is H * W.

    Raises:
        ValueError: If it is no run-length encoding of an image of this size.
    """
    if not isinstance(rle, Mapping) or not {'size', 'counts'} <= set(rle):
        raise ValueError('the mask is no run-length encoding')
    if not isinstance(rle['size'], (list, tuple)) or tuple(rle['size']) != tuple(size):
        raise ValueError(f'a mask of {rle["size"]} in an image of {tuple(size)}')
    counts = rle['counts']
    if isinstance(counts, bytes):
        counts = counts.decode('ascii', errors='replace')
    if isinstance(counts, list):
        if not all(type(run) is int for run in counts):
            raise ValueError(f'the counts of the mask do not fill {tuple(size)}')
        runs = np.asarray(counts, np.int64)
    elif isinstance(counts, str) and _RUNS.fullmatch(counts):
        runs = _uncompress(counts)
    else:
        raise ValueError('the counts of the mask are no text of runs')
    if (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise ValueError(f'the counts of the mask do not fill {tuple(size)}')
    return runs


def _uncompress(text: str) -> np.ndarray:
    if not text:
        return np.zeros(0, np.int64)
    codes = np.frombuffer(text.encode('ascii'), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero((codes & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(codes.size) - np.repeat(first, last - first + 1)
    runs = np.add.reduceat((codes & 31) << (5 * place), first)
    # The highest bit is the sign; from the fourth run on, the difference to the last but one.
    runs -= np.where(codes[last] & 16, np.int64(1) << (5 * (last - first + 1)), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def decode_window(rle: Any, size: tuple[int, int]) -> tuple[int, int, np.ndarray]:
    """Decodes a mask where it is not empty.

    Args:
        rle: See :func:`read_runs`.
        size: (H, W) of the image.

    Returns:
        First row, first column, and the mask from there on: uint8 (h, w) of 0 and 1, as small as
        the object (0 x 0 of one without a pixel).

    Raises:
        ValueError: If it is no run-length encoding of an image of this size.
    """
    ends = np.cumsum(read_runs(rle, size))
    starts, stops = ends[0::2][: ends.size // 2], ends[1::2]
    filled = stops > starts
    starts, stops = starts[filled], stops[filled]
    if not starts.size:
        return 0, 0, np.zeros((0, 0), np.uint8)
    height = size[0]
    left, right = int(starts[0]) // height, (int(stops[-1]) - 1) // height + 1
    # +1 where a run begins and -1 where it ends: the sum along the columns is the mask.
    edges = np.zeros((right - left) * height + 1, np.int8)
    origin = left * height
    np.add.at(edges, starts - origin, 1)
    np.add.at(edges, stops - origin, -1)
    columns = np.cumsum(edges[:-1], dtype=np.int8).view(np.uint8).reshape(right - left, height)
    rows = np.flatnonzero(columns.any(axis=0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return top, left, np.ascontiguousarray(columns[:, top:bottom].T)


def encode_window(top: int, left: int, mask: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    """Encodes a mask of which a window is known: the inverse of :func:`decode_window`.

    Args:
        top: First row of the window, which lies in the image.
        left: Its first column.
        mask: uint8 (h, w) of 0 and 1.
        size: (H, W) of the image.

    Returns:
        ``size`` [H, W], and ``counts`` as COCO's compressed text.
    """
    height, total = size[0], size[0] * size[1]
    columns = np.zeros((mask.shape[1], height), np.uint8)
    columns[:, top : top + mask.shape[0]] = mask.T
    changes = np.flatnonzero(np.diff(columns.ravel(), prepend=0, append=0)) + left * height
    ends = [0, *changes.tolist()]
    if ends[-1] < total or total == 0:
        ends.append(total)
    rle = {'size': list(size), 'counts': np.diff(ends).tolist()}
    packed = coco_mask.frPyObjects(rle, *size)
    return {'size': list(size), 'counts': packed['counts'].decode('ascii')}
