# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Fuses the feature maps of two dates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule

from mmrsfm.compat.opencd.registry import MODELS
from mmrsfm.errors import ConfigError

POLICIES = ('concat', 'sum', 'diff', 'abs_diff')


@MODELS.register_module()
class FeatureFusionNeck(BaseModule):
    """One map of two, level by level; without parameters.

    Args:
        policy: ``'concat'``: both, the first date first (twice the channels); ``'sum'``;
            ``'diff'``: second minus first date; ``'abs_diff'``: its absolute value, which does not
            know which date is the earlier.
        in_channels: Not used; configs of Open-CD give it.
        channels: Not used; configs of Open-CD give it.
        out_indices: Levels that come out.

    Raises:
        ConfigError: For an unknown policy.
    """

    def __init__(
        self,
        policy: str,
        in_channels: int | Sequence[int] | None = None,
        channels: int | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
    ) -> None:
        if policy not in POLICIES:
            raise ConfigError(
                f'FeatureFusionNeck: policy is one of {", ".join(POLICIES)}, got {policy!r}'
            )
        super().__init__()
        self.policy = policy
        self.in_channels = in_channels
        self.channels = channels
        self.out_indices = tuple(out_indices)

    @staticmethod
    def fusion(x1: torch.Tensor, x2: torch.Tensor, policy: str) -> torch.Tensor:
        """Fuses two maps of one shape.

        Args:
            x1: First date, (B, C, H, W).
            x2: Second date, (B, C, H, W).
            policy: See the class.

        Returns:
            (B, 2C, H, W) for ``'concat'``, else (B, C, H, W).
        """
        if policy == 'concat':
            return torch.cat([x1, x2], dim=1)
        if policy == 'sum':
            return x1 + x2
        difference = x2 - x1
        return difference.abs() if policy == 'abs_diff' else difference

    def forward(
        self, x1: Sequence[torch.Tensor], x2: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        """Fuses the levels that are asked for.

        Args:
            x1: Maps of the first date, each (B, C, H, W).
            x2: Maps of the second date, of the same shapes.

        Returns:
            One map for each of ``out_indices``.

        Raises:
            ConfigError: If there is no such level.
        """
        if max(self.out_indices) >= len(x1):
            raise ConfigError(
                f'FeatureFusionNeck: out_indices={self.out_indices}, but the backbone returns '
                f'{len(x1)} maps'
            )
        return tuple(self.fusion(x1[i], x2[i], self.policy) for i in self.out_indices)
