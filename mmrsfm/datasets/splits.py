# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Splits of data sets whose publisher gives none (or keeps the labels): by name, without a file."""

from __future__ import annotations

import hashlib

from mmrsfm.errors import ConfigError

SPLITS = ('train', 'val')


def is_in_split(name: str, split: str | None, val_fraction: float) -> bool:
    """Whether a sample belongs to a part of its data set.

    The decision follows from the name alone, on every machine and in every order::

        val  if  int(sha256(name)[:8 hexadecimal digits], 16) / 2^32 < val_fraction

    so that a file more or less moves no other sample, and the parts never overlap. Their sizes are
    therefore near the fraction, not exact.

    Args:
        name: Name of the sample, without folder and suffix.
        split: ``'train'``, ``'val'``, or ``None`` for all.
        val_fraction: The share of ``'val'``, in [0, 1].

    Raises:
        ConfigError: For another split or fraction.
    """
    if split is None:
        return True
    if split not in SPLITS:
        raise ConfigError(f'split is one of {SPLITS} or None, got {split!r}')
    if not 0 <= val_fraction <= 1:
        raise ConfigError(f'val_fraction is in [0, 1], got {val_fraction}')
    place = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32
    return (place < val_fraction) == (split == 'val')
