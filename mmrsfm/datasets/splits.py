# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Splits of data sets whose publisher gives none (or keeps the labels): by name, without a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from mmrsfm.errors import ConfigError

SPLITS = ('train', 'val')


def names_in_split(names: Iterable[str], split: str | None, val_fraction: float) -> set[str]:
    """The names of the samples that belong to a part of their data set.

    The names are put into the order of the SHA-256 of their text (UTF-8, hexadecimal); the first
    ``round(val_fraction * number of names)`` are ``'val'``, the others ``'train'``. So the parts
    are the same on every machine, look random, never overlap and have exact sizes; a file more or
    less moves one other sample at most.

    Args:
        names: Of all samples, without folder and suffix.
        split: ``'train'``, ``'val'``, or ``None`` for all.
        val_fraction: The share of ``'val'``, in [0, 1].

    Raises:
        ConfigError: For another split or fraction.
    """
    if split is not None and split not in SPLITS:
        raise ConfigError(f'split is one of {SPLITS} or None, got {split!r}')
    if not 0 <= val_fraction <= 1:
        raise ConfigError(f'val_fraction is in [0, 1], got {val_fraction}')
    ordered = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    if split is None:
        return set(ordered)
    count = round(val_fraction * len(ordered))
    return set(ordered[:count] if split == 'val' else ordered[count:])
