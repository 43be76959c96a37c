# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Rotated non-maximum suppression for the many boxes of a whole image, on a CPU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

_BLOCK = 512  # boxes whose neighbours are looked for at once


def nms_rotated_sparse(boxes: Tensor, scores: Tensor, iou_thr: float) -> Tensor:
    """The same boxes as :func:`mmcv.ops.nms_rotated` keeps, in much less time.

    mmcv's operator computes the overlap of every pair of boxes, minutes for the vehicles of one
    large image. Boxes whose enclosing rectangles do not meet have none, and those are nearly all
    pairs of an image: they are left out, and the others go through mmcv's operator for overlaps.

    Args:
        boxes: float32 (N, 5): x, y, width, height, angle in radians.
        scores: float32 (N,).
        iou_thr: Of two boxes that overlap by more, the one with the lower score goes.

    Returns:
        (K, 6): boxes and scores that stay, highest first.
    """
    from mmcv.ops import box_iou_rotated  # compiled: only where it is used

    order = torch.argsort(scores, descending=True, stable=True)
    boxes, scores = boxes[order], scores[order]
    winners, losers = [], []
    for first, second in _meeting(boxes.numpy()):
        # In the order of the scores, as the operator of mmcv takes them.
        high, low = np.minimum(first, second), np.maximum(first, second)
        overlaps = box_iou_rotated(boxes[high], boxes[low], aligned=True).numpy()
        found = overlaps > iou_thr
        winners.append(high[found])
        losers.append(low[found])
    high, low = np.concatenate([*winners, []]), np.concatenate([*losers, []])
    by_winner = np.argsort(high, kind='stable')
    low = low[by_winner].astype(np.int64)
    bounds = np.searchsorted(high[by_winner], np.arange(len(boxes) + 1))
    kept = np.ones(len(boxes), bool)
    for number in range(len(boxes)):
        if kept[number]:
            kept[low[bounds[number] : bounds[number + 1]]] = False
    chosen = torch.from_numpy(kept)
    return torch.cat([boxes[chosen], scores[chosen, None]], dim=1)


def _meeting(boxes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields pairs of boxes, as two arrays of numbers, whose enclosing rectangles meet."""
    cos, sin = np.abs(np.cos(boxes[:, 4])), np.abs(np.sin(boxes[:, 4]))
    width, height = np.abs(boxes[:, 2]), np.abs(boxes[:, 3])
    # A little larger: the rounding of the operator must not matter.
    half = np.stack([width * cos + height * sin, width * sin + height * cos], axis=1) / 2 * 1.001
    low, high = boxes[:, :2] - half - 1e-3, boxes[:, :2] + half + 1e-3
    columns = np.argsort(low[:, 0], kind='stable')
    low, high = low[columns], high[columns]
    ends = np.searchsorted(low[:, 0], high[:, 0], side='right')
    for begin in range(0, len(boxes), _BLOCK):
        rows = np.arange(begin, min(begin + _BLOCK, len(boxes)))
        counts = ends[rows] - rows - 1  # those that begin further right, and before this one ends
        first = np.repeat(rows, counts)
        second = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts) + first + 1
        meet = (low[first, 1] <= high[second, 1]) & (low[second, 1] <= high[first, 1])
        yield columns[first[meet]], columns[second[meet]]
