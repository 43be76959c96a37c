# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Randomness with an address: every draw of a sample follows from (seed, epoch, index).

A run is then independent of the number of data loader workers, and a resumed run draws what the
uninterrupted one would have drawn. Transforms of the OpenMMLab libraries draw from the global
generators of Python, NumPy and torch; :func:`seeded` seeds those for the duration of one item.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import torch


class SampleAddress(int):
    """An index into a dataset that also knows the epoch in which it is drawn.

    It is an ``int``, so that every dataset takes it; samplers of mmrsfm yield it, and it keeps its
    epoch on the way through batch samplers and into worker processes.

    Args:
        index: Index into the dataset, >= 0.
        epoch: Epoch in which the sample is drawn, >= 0.
        visit: How often the sample was drawn in this epoch before; each visit is another draw.
    """

    epoch: int
    visit: int

    def __new__(cls, index: int, epoch: int = 0, visit: int = 0) -> SampleAddress:
        """Makes an integer that knows its epoch."""
        self = super().__new__(cls, index)
        self.epoch = epoch
        self.visit = visit
        return self

    def __reduce__(self) -> tuple:
        return SampleAddress, (int(self), self.epoch, self.visit)

    def __repr__(self) -> str:
        visit = f', visit={self.visit}' if self.visit else ''
        return f'SampleAddress({int(self)}, epoch={self.epoch}{visit})'


def derive_seed(*address: int | str) -> int:
    """Mixes the parts of an address into one 63-bit seed.

    A hash, not a sum: neighbouring addresses give unrelated seeds. The value is the same on every
    machine and in every Python process.

    Args:
        *address: For example ``seed, epoch, index``.

    Returns:
        An integer in [0, 2**63).
    """
    digest = blake2b('|'.join(str(part) for part in address).encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1


def seed_generators(seed: int) -> None:
    """Seeds Python's, NumPy's and torch's CPU generators.

    Args:
        seed: A non-negative integer, for example from :func:`derive_seed`.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # Not torch.manual_seed: that would also seed (and initialise) every accelerator.
    torch.default_generator.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds Python's, NumPy's and torch's CPU generators, and restores their states afterwards.

    Args:
        seed: A non-negative integer, for example from :func:`derive_seed`.
    """
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    torch_state = torch.get_rng_state()
    try:
        seed_generators(seed)
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
