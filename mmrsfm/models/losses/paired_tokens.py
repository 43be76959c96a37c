# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Tokens of two modalities that speak of the same places, of this rank and of all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from mmrsfm.errors import ConfigError
from mmrsfm.layers.pair_logsumexp import pair_logsumexp


@dataclass(frozen=True)
class PairedTokens:
    """Features of B images, each with N of them for either modality; N is 1 for whole images.

    Attributes:
        first: Shape (B, N, C).
        second: Shape (B, N, C).
        valid: Shape (B, N), bool: the pairs that count; ``None``: all.
        ranks: Number of ranks whose features are compared with each other.
    """

    first: Tensor
    second: Tensor
    valid: Tensor | None
    ranks: int = 1

    @classmethod
    def normalized(
        cls,
        first: Tensor,
        second: Tensor,
        valid: Tensor | None,
        drop_first_token: bool = False,
        gather: bool = False,
    ) -> PairedTokens:
        """Makes pairs of tokens of unit length, in float32 (or float64 where they are).

        Args:
            first: Shape (B, N, C).
            second: Shape (B, N, C).
            valid: Shape (B, N), bool, or ``None``.
            drop_first_token: Whether the first token of each image is left out.
            gather: Whether other ranks' features are to be compared with.

        Raises:
            ConfigError: If the shapes do not fit.
        """
        if first.ndim != 3 or first.shape != second.shape:
            raise ConfigError(
                'a contrastive loss over tokens needs two tensors (B, N, C) of one shape, got '
                f'{tuple(first.shape)} and {tuple(second.shape)}'
            )
        if valid is not None and valid.shape != first.shape[:2]:
            raise ConfigError(
                f'valid has shape {tuple(valid.shape)}, the tokens {tuple(first.shape)}: one '
                'answer for each token is needed'
            )
        if drop_first_token:
            first, second = first[:, 1:], second[:, 1:]
            valid = None if valid is None else valid[:, 1:]
        ranks = 1
        if gather and dist.is_available() and dist.is_initialized():
            ranks = dist.get_world_size()
        if ranks > 1 and valid is None:
            # Another rank may have a mask, and all must exchange the same things.
            valid = torch.ones(first.shape[:2], dtype=torch.bool, device=first.device)
        first, second = (
            F.normalize(x if x.dtype == torch.float64 else x.float(), dim=-1)
            for x in (first, second)
        )
        return cls(first, second, valid, ranks)

    def swapped(self) -> PairedTokens:
        """The same with the modalities exchanged."""
        return PairedTokens(self.second, self.first, self.valid, self.ranks)

    def means(self) -> PairedTokens:
        """The means over the pairs of each image that count, N = 1, not normalised again."""
        if self.valid is None:
            first, second = (x.mean(1, keepdim=True) for x in (self.first, self.second))
            return PairedTokens(first, second, None, self.ranks)
        weights = self.valid[..., None].to(self.first.dtype)
        total = weights.sum(1, keepdim=True)
        first, second = (
            (x * weights).sum(1, keepdim=True) / total.clamp(min=1)
            for x in (self.first, self.second)
        )
        return PairedTokens(first, second, self.valid.any(1, keepdim=True), self.ranks)

    def everything(self, x: Tensor) -> Tensor:
        """The features of all ranks, (B * ranks, N, C), with gradients to where they came from."""
        if self.ranks == 1:
            return x
        from torch.distributed.nn.functional import all_gather

        return torch.cat(all_gather(x.contiguous()))

    def all_valid(self) -> Tensor | None:
        """``valid`` of all ranks, flat."""
        if self.valid is None or self.ranks == 1:
            return None if self.valid is None else self.valid.flatten()
        found = [torch.empty_like(self.valid, dtype=torch.uint8) for _ in range(self.ranks)]
        dist.all_gather(found, self.valid.to(torch.uint8))
        return torch.cat(found).bool().flatten()

    def mean(self, x: Tensor) -> Tensor:
        """The mean over the pairs that count, of all ranks.

        Summed over this rank's pairs and divided by the number that a rank has on average, so that
        the mean over the ranks, which DistributedDataParallel takes, is that of the whole batch.

        Args:
            x: Shape (B * N,).

        Returns:
            A scalar, 0 (with gradients of 0) where nothing counts.
        """
        if self.valid is None:
            return x.mean()
        valid = self.valid.flatten()
        count = valid.sum().to(x.dtype)
        if self.ranks > 1:
            dist.all_reduce(count)
            count = count / self.ranks
        # At least one of the pairs of all ranks.
        return (x * valid).sum() / count.clamp(min=1.0 / self.ranks)


def info_nce(pairs: PairedTokens, scale: float | Tensor, max_elements: int) -> Tensor:
    """Symmetric cross entropy of each feature with its partner among all of the other modality.

    With logits ``scale * first . second``: half of the mean over the rows plus half of that over
    the columns (CLIP, arXiv 2103.00020), without the matrix, see
    :func:`mmrsfm.layers.pair_logsumexp.pair_logsumexp`.

    Args:
        pairs: Features of this rank.
        scale: One over the temperature.
        max_elements: Most logits at a time.

    Returns:
        A scalar.
    """
    first, second = pairs.first.flatten(0, 1) * scale, pairs.second.flatten(0, 1)
    own, whole = pairs.valid, pairs.all_valid()
    own = None if own is None else own.flatten()
    if pairs.ranks == 1:
        rows, columns = pair_logsumexp(first, second, own, own, max_elements)
    else:
        others = pairs.everything(pairs.second).flatten(0, 1)
        rows, columns = pair_logsumexp(first, others, own, whole, max_elements, columns=False)
    if columns is None:  # of several ranks: this one's rows in the other direction
        others = pairs.everything(pairs.first).flatten(0, 1)
        columns, _ = pair_logsumexp(second * scale, others, own, whole, max_elements, columns=False)
    attraction = (first * second).sum(-1)
    return pairs.mean((rows + columns) / 2 - attraction)
