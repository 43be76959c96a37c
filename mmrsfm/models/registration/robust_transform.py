# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A homography or an affine map from matches, of which many may be wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mmrsfm.errors import ConfigError
from mmrsfm.registry import TASK_UTILS

_NEEDED = {'homography': 4, 'affine': 3, 'similarity': 2}


@dataclass(frozen=True)
class TransformEstimate:
    """What :class:`RobustTransform` finds.

    Attributes:
        homography: float64 (3, 3), from the first image to the second in pixels; ``None``: none
            could be found.
        inliers: Bool (K,): the matches that agree with it.
        failure: Why there is none, for people; empty if there is one.
    """

    homography: np.ndarray | None
    inliers: np.ndarray
    failure: str = ''


@TASK_UTILS.register_module()
class RobustTransform:
    """Estimates a map by OpenCV's USAC with MAGSAC++ scoring; the same input, the same result.

    (Barath et al., "MAGSAC++, a fast, reliable and accurate robust estimator", CVPR 2020, arXiv
    1912.05909.) A similarity is estimated by RANSAC with refinement, which is what OpenCV has.

    Args:
        model: ``'homography'``, ``'affine'`` or ``'similarity'``.
        threshold: Distance in pixels up to which a match agrees with the map.
        min_inliers: Fewer matches, or fewer that agree, are a failure.
        max_iterations: Of the search.
        confidence: Probability with which the best map is to be found.
        max_scale: A map that enlarges or shrinks lengths by more than this (at the centre of the
            matches), or mirrors the image, is a failure.

    Raises:
        ConfigError: For an unknown model or numbers out of range.
    """

    def __init__(
        self,
        model: str = 'homography',
        threshold: float = 3.0,
        min_inliers: int = 8,
        max_iterations: int = 10000,
        confidence: float = 0.9999,
        max_scale: float = 10.0,
    ) -> None:
        if model not in _NEEDED:
            raise ConfigError(f'RobustTransform: model={model!r} is not one of {sorted(_NEEDED)}')
        if min_inliers < _NEEDED[model]:
            raise ConfigError(
                f'RobustTransform: a map of kind {model!r} needs min_inliers of at least '
                f'{_NEEDED[model]}, got {min_inliers}'
            )
        if threshold <= 0 or max_scale <= 1:
            raise ConfigError('RobustTransform: threshold must be above 0, max_scale above 1')
        self.model = model
        self.threshold = threshold
        self.min_inliers = min_inliers
        self.max_iterations = max_iterations
        self.confidence = confidence
        self.max_scale = max_scale

    def __call__(self, source: np.ndarray, target: np.ndarray) -> TransformEstimate:
        """Estimates the map.

        Args:
            source: Points of the first image, (K, 2), x and y in pixels.
            target: Their partners in the second, (K, 2).

        Returns:
            The map, or why there is none.
        """
        count = len(source)
        nobody = np.zeros(count, dtype=bool)
        if count < self.min_inliers:
            return TransformEstimate(
                None, nobody, f'{count} matches, at least {self.min_inliers} are needed'
            )
        first, second = (np.ascontiguousarray(one, np.float64) for one in (source, target))
        matrix, agree = self._search(first, second)
        inliers = nobody if agree is None else agree.ravel().astype(bool)
        if matrix is None or not np.isfinite(matrix).all():
            return TransformEstimate(None, nobody, f'no {self.model} fits the {count} matches')
        found = int(inliers.sum())
        if found < self.min_inliers:
            return TransformEstimate(
                None,
                nobody,
                f'{found} of {count} matches agree, at least {self.min_inliers} are needed',
            )
        homography = np.vstack([matrix, [0, 0, 1]]) if matrix.shape == (2, 3) else matrix
        if abs(homography[2, 2]) < 1e-12 or not self._plausible(homography, first[inliers]):
            return TransformEstimate(None, nobody, f'the {self.model} found is degenerate')
        return TransformEstimate(homography / homography[2, 2], inliers)

    def _search(
        self, first: np.ndarray, second: np.ndarray
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        options: Any = dict(
            ransacReprojThreshold=self.threshold,
            maxIters=self.max_iterations,
            confidence=self.confidence,
        )
        try:
            if self.model == 'homography':
                return cv2.findHomography(first, second, method=cv2.USAC_MAGSAC, **options)
            if self.model == 'affine':
                return cv2.estimateAffine2D(first, second, method=cv2.USAC_MAGSAC, **options)
            return cv2.estimateAffinePartial2D(first, second, method=cv2.RANSAC, **options)
        except cv2.error:  # all points on a line, or in one place
            return None, None

    def _plausible(self, homography: np.ndarray, points: np.ndarray) -> bool:
        x, y = points.mean(axis=0)
        mapped = homography @ [x, y, 1.0]
        if abs(mapped[2]) < 1e-12:
            return False
        # The derivative of the map at that point.
        place = mapped[:2] / mapped[2]
        jacobian = (homography[:2, :2] - np.outer(place, homography[2, :2])) / mapped[2]
        scales = np.linalg.svd(jacobian, compute_uv=False)
        within = scales[0] < self.max_scale and scales[-1] > 1 / self.max_scale
        return bool(np.linalg.det(jacobian) > 0 and within)
