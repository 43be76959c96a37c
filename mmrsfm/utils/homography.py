# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Plane projective maps between two images: 3 x 3 matrices that act on pixel coordinates.

Everywhere in mmrsfm, as in OpenCV, a point is (x, y) in pixels with (0, 0) the **centre** of the
first pixel, and a homography is only given up to its scale; here the last number is 1.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmrsfm.errors import DataError

_HORIZON = 1e-8  # of the third coordinate, relative to its size at the origin


def warp_points(points: Tensor, homography: Tensor) -> Tensor:
    """Maps points.

    Args:
        points: Shape (..., 2), x and y in pixels.
        homography: Shape (3, 3).

    Returns:
        Shape (..., 2); NaN for a point on the horizon or behind it, which no picture shows.
    """
    matrix = homography.to(points)
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    depth = mapped[..., 2:]
    return torch.where(depth > _HORIZON, mapped[..., :2] / depth, torch.nan)


def as_homography(matrix: object, path: str | None = None) -> np.ndarray:
    """Checks a homography, and divides it by its last number.

    Args:
        matrix: 3 x 3, or 2 x 3 for an affine map; anything that NumPy makes numbers of.
        path: Where it was read from, for the message.

    Returns:
        float64, (3, 3).

    Raises:
        DataError: Another shape, numbers that are not finite, or a map that cannot be inverted.
    """
    if isinstance(matrix, Tensor):
        matrix = matrix.detach().cpu().numpy()
    try:
        found = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f'this is no matrix of numbers ({error})', path=path) from error
    if found.shape == (2, 3):
        found = np.vstack([found, [0.0, 0.0, 1.0]])
    if found.shape != (3, 3):
        raise DataError(
            f'a homography has 3 x 3 numbers (an affine map 2 x 3), got shape {found.shape}', path
        )
    usable = np.isfinite(found).all() and abs(found[2, 2]) > 1e-12
    if usable:
        found = found / found[2, 2]
        usable = abs(np.linalg.det(found)) > 1e-12
    if not usable:
        raise DataError(f'this homography cannot be inverted: {found.tolist()}', path)
    return found


def control_points(size: tuple[int, int], count: int) -> Tensor:
    """A regular grid of points over an image, its corners among them.

    Args:
        size: Height and width of the image in pixels.
        count: Points along each edge, at least 2.

    Returns:
        float64, (count * count, 2), x and y, row by row.
    """
    ys, xs = (torch.linspace(0, edge - 1, count, dtype=torch.float64) for edge in size)
    return torch.stack(torch.meshgrid(xs, ys, indexing='xy'), dim=-1).reshape(-1, 2)


def inside(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Which points (..., 2) lie between the centres of the outer pixels of an image (H, W)."""
    x, y = points[..., 0], points[..., 1]
    return (x >= 0) & (y >= 0) & (x <= size[1] - 1) & (y <= size[0] - 1)
