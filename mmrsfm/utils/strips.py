# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Strips of a scene, one for each split, with gaps between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmrsfm.errors import ConfigError

DEFAULT_SPLITS = {'train': 0.60, 'val': 0.15, 'test': 0.25}


@dataclass(frozen=True)
class Strip:
    """Rows ``top`` to ``bottom`` (exclusive) of a scene, for one split."""

    name: str
    top: int
    bottom: int


def make_strips(height: int, size: int, gap: int, splits: Mapping[str, float]) -> list[Strip]:
    """Divides the rows of a scene.

    Args:
        height: Rows of the scene.
        size: Tile size; every strip is a whole number of tiles high.
        gap: Rows left out between two strips.
        splits: Share of the rows by split, top to bottom; the shares are normalised.

    Returns:
        One strip a split.

    Raises:
        ConfigError: If the scene is too low for one tile in each split.
    """
    usable = height - gap * (len(splits) - 1)
    if usable < size * len(splits):
        raise ConfigError(
            f'{height} rows are too few for {len(splits)} strips of at least one tile of {size} '
            f'pixels with gaps of {gap}; take smaller tiles or fewer splits'
        )
    total = sum(splits.values())
    rows = {name: max(1, int(usable * share / total) // size) for name, share in splits.items()}
    while sum(rows.values()) * size > usable:
        rows[max(rows, key=lambda name: rows[name])] -= 1
    strips, top = [], 0
    for name, count in rows.items():
        strips.append(Strip(name, top, top + count * size))
        top += count * size + gap
    return strips
