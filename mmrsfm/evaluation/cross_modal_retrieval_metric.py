# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Whether the image of a place is found among others by the image of another modality."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from mmrsfm.errors import ConfigError
from mmrsfm.registry import METRICS


@METRICS.register_module()
class CrossModalRetrievalMetric(BaseMetric):
    """Recall and median rank of retrieval between modalities, beside those of chance.

    Each sample brings one vector a modality; the query of a place is compared with all places of
    the other modality by the cosine. The rank of the right one is 1 + the number of those that are
    nearer + half of those that are equally near, so that a model which gives every image the same
    vector has the rank of chance, not the first.

    For each ordered pair of modalities, named ``<query>_to_<found>/``: ``recall@<k>`` in percent,
    ``median_rank`` and ``mean_rank``, from 1; and once, ``chance/...``, which are those of a random
    order, and ``places``. Samples that lack one of the modalities are left out, as query and as
    answer, so that all numbers are of the same places.

    Args:
        modalities: Names of two or more; ``None``: those of the first sample.
        topk: The k of the recalls.
        centre: Subtract the mean vector of each modality first: encoders of two modalities put all
            of their images into two distant cones (Liang et al., "Mind the Gap", arXiv 2203.02053),
            which says nothing of the places. Uses no pairs.
        field: Field of the samples with the vectors, by modality.
        chunk_size: Queries that are compared at a time.
        collect_device: See MMEngine.
        prefix: Before the names of the numbers.

    Raises:
        ConfigError: When samples are read, without vectors; or fewer than two places.
    """

    default_prefix = 'retrieval'

    def __init__(
        self,
        modalities: Sequence[str] | None = None,
        topk: Sequence[int] = (1, 5),
        centre: bool = True,
        field: str = 'features',
        chunk_size: int = 4096,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix)
        if modalities is not None and len(set(modalities)) < 2:
            raise ConfigError(f'CrossModalRetrievalMetric: two modalities or more, {modalities}')
        if not topk or min(topk) < 1:
            raise ConfigError(f'CrossModalRetrievalMetric: topk are at least 1, got {topk}')
        self.modalities = None if modalities is None else tuple(modalities)
        self.topk = tuple(topk)
        self.centre = centre
        self.field = field
        self.chunk_size = chunk_size

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keeps the vectors of a batch."""
        for sample in data_samples:
            vectors = sample.get(self.field)
            if not vectors:
                raise ConfigError(
                    f'CrossModalRetrievalMetric: the samples have no {self.field}; the model must '
                    'give a vector for each modality, as mmrsfm.MaRS does'
                )
            names = self.modalities or tuple(vectors)
            if len(names) < 2 or set(names) - set(vectors):
                raise ConfigError(
                    f'CrossModalRetrievalMetric: asked for {list(names)}, the samples have '
                    f'{list(vectors)}'
                )
            self.results.append(
                {name: vectors[name].detach().float().reshape(-1).cpu() for name in names}
            )

    def compute_metrics(self, results: list[dict[str, Tensor]]) -> dict[str, float]:
        """The numbers; see the class."""
        names = list(results[0])
        vectors = {name: torch.stack([one[name] for one in results]) for name in names}
        known = torch.stack([torch.isfinite(one).all(1) for one in vectors.values()]).all(0)
        places = int(known.sum())
        if places < 2:
            raise ConfigError(
                f'CrossModalRetrievalMetric: {places} of {len(results)} samples have '
                f'{" and ".join(names)}; at least two are needed'
            )
        if places < len(results):
            left = len(results) - places
            print_log(f'retrieval: {left} samples lack a modality, left out', logger='current')
        metrics: dict[str, float] = {}
        for query, found in permutations(names, 2):
            ranks = self.ranks(vectors[query][known], vectors[found][known])
            name = f'{query}_to_{found}'
            for k in self.topk:
                metrics[f'{name}/recall@{k}'] = float((ranks <= k).double().mean()) * 100
            # Not torch's median, which is the lower one of an even number.
            metrics[f'{name}/median_rank'] = float(ranks.quantile(0.5))
            metrics[f'{name}/mean_rank'] = float(ranks.mean())
        for k in self.topk:
            metrics[f'chance/recall@{k}'] = min(k / places, 1.0) * 100
        metrics['chance/median_rank'] = metrics['chance/mean_rank'] = (places + 1) / 2
        metrics['places'] = float(places)
        return metrics

    def ranks(self, query: Tensor, gallery: Tensor) -> Tensor:
        """Rank of row i of the gallery for row i of the query, from 1.

        Args:
            query: Shape (N, D).
            gallery: Shape (N, D).

        Returns:
            Shape (N,), float64; halves where vectors are equally near.
        """
        query, gallery = query.double(), gallery.double()
        if self.centre:
            query, gallery = query - query.mean(0), gallery - gallery.mean(0)
        query, gallery = F.normalize(query, dim=1), F.normalize(gallery, dim=1)
        parts = []
        for start in range(0, len(query), self.chunk_size):
            similarity = query[start : start + self.chunk_size] @ gallery.t()
            rows = torch.arange(len(similarity))
            right = similarity[rows, rows + start][:, None]
            # Products of equal vectors differ in the last digits.
            equal = (similarity - right).abs() <= 1e-12
            nearer = (similarity > right) & ~equal
            parts.append(1 + nearer.sum(1).double() + (equal.sum(1).double() - 1) / 2)
        return torch.cat(parts)
