# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Batch samplers of other libraries that a resumed run continues where they were."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from mmengine.registry import DATA_SAMPLERS


class SkippingBatchSampler:
    """Wraps a batch sampler; once, the first batches are drawn and not given.

    A sampler that groups images, as mmdet's ``AspectRatioBatchSampler``, takes indices in an order
    of its own: where it was follows from how many batches it gave, and no file is read to find out.
    Every attribute but ``batch_sampler`` and ``skip`` is the wrapped one's.

    Args:
        batch_sampler: Its config.
        sampler: Gives the indices.
        batch_size: Samples of a batch.

    Attributes:
        batch_sampler: What was built.
        skip: Batches that the next iteration leaves out.
    """

    def __init__(self, batch_sampler: dict[str, Any], sampler: Any, batch_size: int) -> None:
        self.skip = 0
        self.batch_sampler = DATA_SAMPLERS.build(
            batch_sampler, default_args=dict(sampler=sampler, batch_size=batch_size)
        )

    def __getattr__(self, name: str) -> Any:
        if name in ('batch_sampler', 'skip'):
            raise AttributeError(name)
        return getattr(self.batch_sampler, name)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Any]:
        # When the first batch is asked for: a data loader with workers makes two iterators.
        skip, self.skip = self.skip, 0
        yield from islice(self.batch_sampler, skip, None)
