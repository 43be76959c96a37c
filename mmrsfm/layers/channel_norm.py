# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Normalisation between maps whose channels stand first and maps whose channels stand last."""

from __future__ import annotations

from torch import Tensor, nn

from mmrsfm.errors import ConfigError

NORM_TYPES = ('LN', 'BN')


class ChannelsLast(nn.Module):
    """(N, C, H, W) to (N, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Moves the channels; no numbers are copied."""
        return x.permute(0, 2, 3, 1)


class ChannelsFirst(nn.Module):
    """(N, H, W, C) to (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Moves the channels; no numbers are copied."""
        return x.permute(0, 3, 1, 2)


def channel_norm(
    channels: int, norm_type: str = 'LN', source: str = 'last', target: str = 'last'
) -> nn.Sequential:
    """A normalisation over the channels, with the permutations that it needs around it.

    The position of the normalisation in the ``Sequential`` is part of the names of released
    weights: a LayerNorm works on channels that stand last, a BatchNorm on those that stand first,
    so that e.g. the one after a convolution is ``norm.1`` for a LayerNorm, ``norm.0`` for a
    BatchNorm.

    Args:
        channels: Number of channels.
        norm_type: ``'LN'`` (eps 1e-6) or ``'BN'``.
        source: Where the channels of the input stand: ``'first'`` or ``'last'``.
        target: The same for the output.

    Returns:
        Permutations and one normalisation.

    Raises:
        ConfigError: If ``norm_type`` is neither.
    """
    if norm_type not in NORM_TYPES:
        raise ConfigError(f'norm_type {norm_type!r} is not one of {NORM_TYPES}')
    inner = 'last' if norm_type == 'LN' else 'first'
    norm: nn.Module
    norm = nn.LayerNorm(channels, eps=1e-6) if norm_type == 'LN' else nn.BatchNorm2d(channels)
    steps: list[nn.Module] = []
    if source != inner:
        steps.append(ChannelsLast() if inner == 'last' else ChannelsFirst())
    steps.append(norm)
    if target != inner:
        steps.append(ChannelsLast() if target == 'last' else ChannelsFirst())
    return nn.Sequential(*steps)
