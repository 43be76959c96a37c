# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Classification of features by their nearest neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrsfm.errors import ConfigError

METRICS = ('cosine', 'euclidean')
WEIGHTS = ('uniform', 'similarity')


def nearest_neighbors(
    query: Tensor, bank: Tensor, k: int, metric: str = 'cosine', chunk_size: int = 65536
) -> tuple[Tensor, Tensor]:
    """Finds the k nearest features of a bank.

    The bank is compared in chunks, so that memory is Q * (chunk_size + k) numbers.

    Args:
        query: Shape (Q, D), float.
        bank: Shape (N, D), float, on the same device.
        k: Number of neighbours, at most N.
        metric: ``'cosine'`` or ``'euclidean'``.
        chunk_size: Rows of the bank that are compared at a time.

    Returns:
        Similarities (Q, k), the largest first: the cosine, or minus the distance; and the rows of
        the bank, (Q, k) int64.

    Raises:
        ConfigError: For an unknown metric, or fewer than k features in the bank.
    """
    if metric not in METRICS:
        raise ConfigError(f'metric={metric!r} is not one of {METRICS}')
    if not 1 <= k <= len(bank):
        raise ConfigError(f'k={k} neighbours cannot be found among {len(bank)} features')
    if metric == 'cosine':
        query, bank = F.normalize(query, dim=1), F.normalize(bank, dim=1)
    else:
        # Distances do not change, but large common offsets would cost precision.
        centre = bank.mean(0)
        query, bank = query - centre, bank - centre
    values = query.new_full((len(query), 0), 0)
    indices = torch.zeros(len(query), 0, dtype=torch.int64, device=query.device)
    for start in range(0, len(bank), chunk_size):
        chunk = bank[start : start + chunk_size]
        product = query @ chunk.t()
        if metric == 'euclidean':
            squares = query.square().sum(1, keepdim=True) + chunk.square().sum(1) - 2 * product
            product = -squares.clamp_(min=0).sqrt_()
        rows = torch.arange(start, start + len(chunk), device=query.device)
        values = torch.cat([values, product], 1)
        indices = torch.cat([indices, rows.expand(len(query), -1)], 1)
        values, order = values.topk(min(k, values.shape[1]), dim=1)
        indices = indices.gather(1, order)
    return values, indices


def vote(
    similarities: Tensor,
    labels: Tensor,
    num_classes: int,
    weights: str = 'uniform',
    temperature: float = 0.07,
) -> Tensor:
    """Lets neighbours vote.

    Args:
        similarities: Shape (Q, k), the largest first.
        labels: Class indices of the neighbours, (Q, k) int64.
        num_classes: Number of classes.
        weights: ``'uniform'``: one neighbour, one vote; of equally many votes those of the nearer
            neighbours count. ``'similarity'``: exp(similarity / temperature), as in
            Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination",
            CVPR 2018.
        temperature: See ``weights``.

    Returns:
        Share of the votes of each class, (Q, num_classes), in [0, 1].

    Raises:
        ConfigError: For unknown weights.
    """
    if weights == 'similarity':
        share = ((similarities - similarities[:, :1]) / temperature).exp()
    elif weights == 'uniform':
        # Less than one vote in all, and each more than the following together.
        places = torch.arange(similarities.shape[1], device=similarities.device)
        share = (1 + 1e-3 * 0.5 ** places.to(similarities.dtype)).expand_as(similarities)
    else:
        raise ConfigError(f'weights={weights!r} is not one of {WEIGHTS}')
    votes = similarities.new_zeros(len(similarities), num_classes)
    votes.scatter_add_(1, labels, share)
    return votes / votes.sum(1, keepdim=True)
