# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Samplers of other libraries, whose indices learn the epoch in which they are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.dist import get_world_size

from mmrsfm.randomness import SampleAddress


class AddressedIndices:
    """Turns the plain indices of a sampler into :class:`~mmrsfm.randomness.SampleAddress`.

    Without it a persistent worker would draw the same augmentation in every epoch. Every attribute
    but ``epoch`` and ``left_out`` is the wrapped sampler's.

    Args:
        sampler: Any sampler. One that never ends passes into the next epoch after as many indices
            as the dataset has.

    Attributes:
        epoch: The epoch of the next iteration; each iteration moves it on by one.
        left_out: Indices that the next iteration leaves out: those that a resumed run has used.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.epoch = 0
        self.left_out = 0

    def __getattr__(self, name: str) -> Any:
        if name in ('sampler', 'epoch', 'left_out'):
            raise AttributeError(name)
        return getattr(self.sampler, name)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[SampleAddress]:
        first = self.epoch
        self.epoch = first + 1
        left_out, self.left_out = self.left_out, 0
        share = max(1, len(self.sampler))
        # MMEngine's infinite sampler gives the length of the dataset, not of its own share.
        if getattr(self.sampler, 'size', None) == share:
            share = max(1, share // getattr(self.sampler, 'world_size', get_world_size()))
        for count, index in enumerate(self.sampler):
            if count >= left_out:
                yield SampleAddress(int(index), first + count // share)
