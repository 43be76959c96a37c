# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What backbones of several stages check of their arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmrsfm.errors import ConfigError


def stage_settings(
    arch: str | Mapping[str, Any],
    known: Mapping[str, Mapping[str, Any]],
    by_stage: Sequence[str],
    others: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> dict[str, Any]:
    """The settings of an architecture, by name or as they are given.

    Args:
        arch: A name, of any case, or settings.
        known: Settings by name.
        by_stage: Settings with one number for each stage.
        others: Further ones that there must be.
        optional: Those that there may be.

    Raises:
        ConfigError: If the name is unknown, or settings are missing, unknown, or do not agree about
            the number of stages.
    """
    if isinstance(arch, str):
        if arch.lower() not in known:
            raise ConfigError(f'arch {arch!r} is not one of {sorted(known)}')
        return dict(known[arch.lower()])
    needed = {*by_stage, *others}
    unknown = set(arch) - needed - set(optional)
    if unknown or needed - set(arch):
        raise ConfigError(
            f'arch lacks {sorted(needed - set(arch))} and has unknown {sorted(unknown)}'
        )
    counts = {len(arch[name]) for name in by_stage}
    if len(counts) != 1 or 0 in counts:
        raise ConfigError(f'arch: {" and ".join(by_stage)} need one number for each stage')
    return dict(arch)


def check_heads(embed_dims: int, num_heads: Sequence[int]) -> None:
    """Raises a ConfigError where channels, doubled at each stage, do not divide into heads."""
    for stage, heads in enumerate(num_heads):
        if embed_dims * 2**stage % heads:
            raise ConfigError(
                f'arch: the {embed_dims * 2**stage} channels of stage {stage} do not divide into '
                f'{heads} heads'
            )


def check_out_indices(indices: Sequence[int], count: int) -> None:
    """Raises a ConfigError unless they are stages of ``count``, rising, each once."""
    rising = list(indices) == sorted(set(indices))
    if not indices or not rising or not 0 <= indices[0] <= indices[-1] < count:
        raise ConfigError(
            f'out_indices {indices} must be in rising order, each once, from 0 to {count - 1}'
        )


def check_frozen_stages(frozen_stages: int, count: int) -> None:
    """Raises a ConfigError unless it is -1 or the number of one of ``count`` stages."""
    if not -1 <= frozen_stages < count:
        raise ConfigError(f'frozen_stages={frozen_stages} is not from -1 to {count - 1}')


def numbers_by_stage(name: str, given: int | Sequence[int], count: int) -> list[int]:
    """One number for each stage, of one for all or of ``count``.

    Raises:
        ConfigError: If there are others than ``count``; ``name`` is that of the argument.
    """
    values = [given] * count if isinstance(given, int) else list(given)
    if len(values) != count:
        raise ConfigError(f'{name}={given!r}: {count} stages need one number, or {count}')
    return values
