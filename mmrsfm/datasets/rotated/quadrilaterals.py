# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Quadrilaterals with four corners, as the datasets of oriented boxes read them."""

from __future__ import annotations

from collections.abc import Sequence


def is_degenerate(corners: Sequence[float]) -> bool:
    """Whether two neighbouring corners coincide, so that there is no oriented box.

    Compared exactly, as the published fine-tunings did: boxes that are only very thin stay.

    Args:
        corners: ``x1, y1, ..., x4, y4`` in pixels.
    """
    points = [(corners[i], corners[i + 1]) for i in range(0, 8, 2)]
    return any(points[i] == points[i - 1] for i in range(4))
