# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The Dice loss, for label maps with unlabelled pixels and for binary heads."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mmrsfm.errors import ConfigError
from mmrsfm.registry import MODELS


@MODELS.register_module()
class DiceLoss(nn.Module):
    """One minus the soft Dice coefficient of each class, over all pixels of the batch.

    With p the probability and t in {0, 1} the label of a class, over the labelled pixels::

        loss = 1 - (2 * sum(p * t) + smooth) / (sum(p) + sum(t) + smooth)

    meant over the classes. (Milletari et al., "V-Net", 3DV 2016, arXiv 1606.04797, without the
    squares below the line.) One output is a binary head: p is its sigmoid, t the class 1. Several:
    p is their softmax.

    mmseg's loss of this name is not fit for either: it compares the one output of a binary head
    with the *background*, and lets unlabelled pixels count in ``sum(p)``.

    MaRS fine-tunes with half of it and half of a cross entropy; its smoothing is not known.

    Args:
        smooth: See above; keeps a class that is absent from label and prediction at a loss of 0.
        per_image: Coefficients of each image, meant over them, instead of those of the batch.
        include_background: Whether class 0 counts; only for several outputs.
        loss_weight: A factor.
        loss_name: The name in logs; it starts with ``loss_``.

    Raises:
        ConfigError: If ``smooth`` is not positive.
    """

    def __init__(
        self,
        smooth: float = 1.0,
        per_image: bool = False,
        include_background: bool = True,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_dice',
    ) -> None:
        super().__init__()
        if smooth <= 0:
            raise ConfigError(f'DiceLoss: smooth must be positive, got {smooth}')
        self.smooth = smooth
        self.per_image = per_image
        self.include_background = include_background
        self.loss_weight = loss_weight
        self.loss_name = loss_name

    def forward(
        self,
        pred: torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor | None = None,
        ignore_index: int | None = 255,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The loss of a batch.

        Args:
            pred: Logits (B, K, H, W), K = 1 for a binary head.
            target: Classes (B, H, W).
            weight: Weights of the pixels, (B, H, W), of both sums.
            ignore_index: The label of pixels that do not count.
            **kwargs: Not used; mmseg's heads give more to some losses.

        Returns:
            A scalar.
        """
        counted = torch.ones_like(target, dtype=torch.bool)
        if ignore_index is not None:
            counted = target != ignore_index
        label = torch.where(counted, target, torch.zeros_like(target)).long()
        pred = pred.float()  # sums over a batch of pixels are beyond 16 bits
        if pred.shape[1] == 1:
            share, wanted = pred.sigmoid(), label[:, None]
        else:
            share = pred.softmax(1)
            wanted = F.one_hot(label, pred.shape[1]).permute(0, 3, 1, 2)
            if not self.include_background:
                share, wanted = share[:, 1:], wanted[:, 1:]
        factor = counted[:, None].to(share.dtype)
        if weight is not None:
            factor = factor * weight[:, None]
        dims = (2, 3) if self.per_image else (0, 2, 3)
        both = (share * wanted * factor).sum(dims)
        total = ((share + wanted) * factor).sum(dims)
        dice = (2 * both + self.smooth) / (total + self.smooth)
        return self.loss_weight * (1 - dice).mean()
