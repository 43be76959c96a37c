# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The contrastive loss of Cross-Scale MAE (arXiv 2401.15855)."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.registry import MODELS


@MODELS.register_module()
class NTXentLoss(nn.Module):
    """Normalised temperature-scaled cross entropy, without the positive in the denominator.

    With the 2B L2-normalised features z of two views, ``s_ab = exp(z_a . z_b / t)``::

        loss = mean_a -log( s_{a,p(a)} / (sum of s_ab over b except a and p(a)  +  eps) )

    where p(a) is the other view of the same image. SimCLR's (arXiv 2002.05709) denominator has the
    positive as well; this one can be negative. It is one matrix product, and is computed with
    logarithms, so that no temperature overflows.

    A batch of one image has no negatives: the loss is then ``log(eps) - z_1 . z_2 / t``, about
    -18.4 - 2 cos for the defaults: finite, and it still pulls the two views together.

    Args:
        temperature: The temperature t > 0.
        eps: Added to the denominator.
        gather: Whether the negatives come from all ranks, with gradients. Every rank then needs
            the same number of images. Default, as published: those of this rank only.
    """

    def __init__(self, temperature: float = 0.5, eps: float = 1e-8, gather: bool = False) -> None:
        super().__init__()
        if temperature <= 0 or eps <= 0:
            raise ConfigError(f'temperature and eps must be > 0, got {temperature} and {eps}')
        self.temperature = temperature
        self.eps = eps
        self.gather = gather

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Computes the loss of this rank's images.

        Args:
            first: Features of one view, shape (B, D).
            second: Features of the other view of the same images, shape (B, D).

        Returns:
            A scalar, float32 under automatic mixed precision too.
        """
        with torch.autocast(first.device.type, enabled=False):
            anchors = F.normalize(torch.stack([first.float(), second.float()]), dim=-1)
            batch = anchors.shape[1]
            everything, rank, world = anchors, 0, 1
            if self.gather and dist.is_available() and dist.is_initialized():
                rank, world = dist.get_rank(), dist.get_world_size()
            if world > 1:
                from torch.distributed.nn.functional import all_gather

                everything = torch.cat(all_gather(anchors), dim=1)
            total = everything.shape[1]
            own = torch.arange(batch, device=first.device) + rank * batch
            # Numbers, among all features, of each anchor itself and of its positive.
            itself = torch.cat([own, own + total])[:, None]
            positive = torch.cat([own + total, own])[:, None]
            logits = anchors.flatten(0, 1) @ everything.flatten(0, 1).T / self.temperature
            attraction = logits.gather(1, positive)
            # The place of the positive holds eps, so that one logsumexp is the whole denominator.
            logits = logits.scatter(1, itself, -math.inf).scatter(1, positive, math.log(self.eps))
            return (logits.logsumexp(1) - attraction[:, 0]).mean()
