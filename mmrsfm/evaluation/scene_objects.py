# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""How well objects that were found in a whole scene agree with those that are there.

Average precision is that of Everingham et al., "The Pascal Visual Object Classes Challenge: A
Retrospective", IJCV 2015, from 2010 on (all points), which DOTA uses too; the intersection over
union is that of the polygons, so that it holds for boxes of any kind and for masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from shapely import STRtree

from mmrsfm.errors import ConfigError


@dataclass(frozen=True)
class ObjectScore:
    """The score of one class.

    Attributes:
        average_precision: In [0, 1]; NaN where there is no object.
        objects: How many there are.
        found: How many were found, at any score.
        min_score: The score from which on the following hold: the one asked for, or that of the
            largest F1.
        precision: Share of what was found that is an object, in [0, 1]; NaN if nothing was found.
        recall: Share of the objects that were found, in [0, 1]; NaN where there is none.
        f1: Their harmonic mean.
    """

    average_precision: float
    objects: int
    found: int
    min_score: float
    precision: float
    recall: float
    f1: float


def score_objects(
    found: np.ndarray,
    scores: np.ndarray,
    truth: np.ndarray,
    iou_threshold: float = 0.5,
    min_score: float | None = None,
) -> ObjectScore:
    """Scores the objects of one class in one scene.

    Args:
        found: Shapely polygons of what was found, (N,).
        scores: Their scores, (N,).
        truth: Shapely polygons of what is there, (M,), in the same coordinates.
        iou_threshold: From which intersection over union on an object is found.
        min_score: From which score on precision and recall count; ``None``: where F1 is largest.

    Returns:
        The score. As in Pascal VOC, what was found is compared with the object that it overlaps
        most, and an object is found once.

    Raises:
        ConfigError: If the threshold is not in (0, 1], or there are not as many scores as objects.
    """
    if not 0 < iou_threshold <= 1:
        raise ConfigError(f'the threshold of the overlap lies in (0, 1], not at {iou_threshold}')
    if len(found) != len(scores):
        raise ConfigError(f'{len(found)} objects, but {len(scores)} scores')
    order = np.argsort(-np.asarray(scores, np.float64), kind='stable')
    scores = np.asarray(scores, np.float64)[order]
    right = _hits(np.asarray(found, object)[order], np.asarray(truth, object), iou_threshold)
    hits = np.cumsum(right)
    if not len(truth):
        return ObjectScore(np.nan, 0, len(found), min_score or 0.0, 0.0 if len(found) else np.nan,
                           np.nan, np.nan)  # fmt: skip
    recall = hits / len(truth)
    precision = hits / np.maximum(np.arange(1, len(found) + 1), 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    if min_score is None:
        # Of equal scores all or none are taken.
        changes = np.append(scores[:-1] != scores[1:], True)[: len(scores)]
        ends = np.flatnonzero(changes)
        last = int(ends[np.argmax(f1[ends])]) if len(ends) else -1
        min_score = float(scores[last]) if last >= 0 else 0.0
    else:
        last = int((scores >= min_score).sum()) - 1
    at = (np.nan, 0.0, 0.0) if last < 0 else (precision[last], recall[last], f1[last])
    return ObjectScore(
        _area(precision, recall), len(truth), len(found), min_score, *(float(v) for v in at)
    )


def _hits(found: np.ndarray, truth: np.ndarray, threshold: float) -> np.ndarray:
    """Which of the found ones, the best scored first, are the first of an object."""
    right = np.zeros(len(found), bool)
    if not len(found) or not len(truth):
        return right
    pairs = STRtree(truth).query(found, predicate='intersects')
    shared = shapely.area(shapely.intersection(found[pairs[0]], truth[pairs[1]]))
    union = shapely.area(found[pairs[0]]) + shapely.area(truth[pairs[1]]) - shared
    overlap = shared / np.maximum(union, 1e-12)
    best = np.full(len(found), -1)
    most = np.full(len(found), -1.0)
    for one, other, value in zip(*pairs, overlap, strict=True):
        if value > most[one] or (value == most[one] and other < best[one]):
            best[one], most[one] = other, value
    taken: set[int] = set()
    for number in np.flatnonzero(most >= threshold):
        if int(best[number]) not in taken:
            taken.add(int(best[number]))
            right[number] = True
    return right


def _area(precision: np.ndarray, recall: np.ndarray) -> float:
    """The area below the largest precision from each recall on."""
    if not len(precision):
        return 0.0
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(recall, prepend=0.0)
    return float((envelope * steps).sum())
