# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Loss of maps of numbers, of which some are missing."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mmrsfm.errors import ConfigError
from mmrsfm.registry import MODELS

_KINDS = {'l1': F.l1_loss, 'l2': F.mse_loss, 'smooth_l1': F.smooth_l1_loss}


@MODELS.register_module()
class RegressionLoss(nn.Module):
    """The mean error of the pixels whose target is finite.

    Args:
        kind: ``'l1'`` (what MaRS fine-tunes height estimation with), ``'l2'`` or ``'smooth_l1'``
            (quadratic below 1, in the units of the target).
        loss_weight: A factor.
        loss_name: The name in logs; it starts with ``loss_``.

    Raises:
        ConfigError: For an unknown kind.
    """

    def __init__(
        self, kind: str = 'l1', loss_weight: float = 1.0, loss_name: str | None = None
    ) -> None:
        super().__init__()
        if kind not in _KINDS:
            raise ConfigError(f'RegressionLoss: kind is one of {tuple(_KINDS)}, got {kind!r}')
        self.kind = kind
        self.loss_weight = loss_weight
        self.loss_name = f'loss_{kind}' if loss_name is None else loss_name

    def forward(self, pred: torch.Tensor, target: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The loss of a batch.

        Args:
            pred: Any shape.
            target: The same shape; NaN and infinities do not count.
            **kwargs: Not used.

        Returns:
            A scalar; 0, with a gradient of 0, if no target is finite.
        """
        valid = torch.isfinite(target)
        filled = torch.where(valid, target, torch.zeros_like(target)).float()
        error = _KINDS[self.kind](pred.float(), filled, reduction='none') * valid
        return self.loss_weight * error.sum() / valid.sum().clamp(min=1)
