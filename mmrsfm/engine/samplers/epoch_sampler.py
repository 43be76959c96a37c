# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A sampler that knows where it is, and that gives every sample its epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized
from typing import Any

import torch
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from mmrsfm.errors import CheckpointError, DatasetNotFoundError
from mmrsfm.randomness import SampleAddress, derive_seed
from mmrsfm.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class EpochSampler(Sampler):
    """Yields :class:`~mmrsfm.randomness.SampleAddress`, on any number of ranks, from any position.

    The order of an epoch is a permutation that follows from (seed, epoch) alone. Rank ``r`` of
    ``W`` takes the positions ``position + r``, ``position + r + W``, ... of it, so that after every
    rank has taken ``n`` samples exactly the first ``position + n * W`` of the permutation are used:
    a run can continue from there on another number of ranks.

    Padding: with ``round_up`` an epoch whose rest does not divide by ``W`` is filled up with the
    first samples of the same permutation, so that every rank takes equally many. Without it the
    last ranks take one sample less, which suits evaluation, not training.

    In the infinite mode the permutations of epochs 0, 1, 2, ... follow one another without a seam
    and without padding; the position counts from the beginning of epoch 0. The iteration-based loop
    switches it on itself, so that one dataset config serves both loops.

    Iterating does not move :attr:`position`: data loader workers fetch ahead of what is trained on.
    The training loop reports what was used through :meth:`advance`.

    Args:
        dataset: The dataset; of it only the length is used here.
        shuffle: Whether to permute; otherwise in the order of the dataset.
        seed: Seed of the permutations, the same on every rank. ``None`` draws one and shares it.
        round_up: Whether to pad an epoch to equal shares, see above.
        infinite: Whether epochs follow one another within one iteration.

    Attributes:
        dataset: The dataset, for batch samplers that look at the images (mmdet's by aspect ratio).
        epoch: The epoch of the next sample.
        position: Number of samples, of all ranks together, that were used: of this epoch, or of the
            whole stream in the infinite mode.

    Raises:
        DatasetNotFoundError: If the dataset is empty.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int | None = None,
        round_up: bool = True,
        infinite: bool = False,
    ) -> None:
        self.dataset = dataset
        self.size = len(dataset)
        if self.size == 0:
            raise DatasetNotFoundError(
                f'the dataset ({type(dataset).__name__}) is empty',
                hint='Check data_root, the annotation file and the filters of the config',
            )
        self.shuffle = shuffle
        self.seed = int(sync_random_seed() if seed is None else seed)
        self.round_up = round_up
        self.infinite = infinite
        self.rank, self.world_size = get_dist_info()
        self.position = 0
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """The epoch of the next sample, from 0."""
        return self.position // self.size if self.infinite else self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Goes to the beginning of an epoch; nothing changes if the sampler is in it already.

        In the infinite mode epochs follow from the position, and this does nothing.

        Args:
            epoch: From 0.
        """
        if not self.infinite and epoch != self._epoch:
            self._epoch = epoch
            self.position = 0

    def advance(self, num_samples: int) -> None:
        """Records that ``num_samples`` more samples, of all ranks together, were used."""
        self.position += num_samples

    def last_taken(self, count: int, step: int) -> list[SampleAddress]:
        """The samples of the step that was reported last, as far as this rank took them.

        Args:
            count: How many this rank took.
            step: What was reported through :meth:`advance`.

        Returns:
            Their addresses, in order.
        """
        places = [self.position - step + self.rank + i * self.world_size for i in range(count)]
        epochs = [place // self.size if self.infinite else self._epoch for place in places]
        orders = {epoch: self._order(epoch) for epoch in set(epochs)}
        return [
            self._address(orders[epoch][place % self.size], epoch)
            for place, epoch in zip(places, epochs, strict=True)
        ]

    def following(self, address: SampleAddress) -> SampleAddress:
        """The sample behind another one in the order of its epoch; behind the last, the first.

        It does not depend on the position, the number of ranks or the worker that asks.

        Args:
            address: Of a sample that this sampler yields.
        """
        order = self._order(address.epoch)
        return self._address(order[(order.index(address) + 1) % self.size], address.epoch)

    def __iter__(self) -> Iterator[SampleAddress]:
        return self._stream() if self.infinite else self._one_epoch()

    def __len__(self) -> int:
        """Samples of this rank in a whole epoch, wherever the sampler is now."""
        if self.round_up or self.infinite:
            return math.ceil(self.size / self.world_size)
        return len(range(self.rank, self.size, self.world_size))

    def state_dict(self) -> dict[str, Any]:
        """Returns seed, size, mode, epoch and position: the same on every rank."""
        return {
            'seed': self.seed,
            'size': self.size,
            'infinite': self.infinite,
            'epoch': self.epoch,
            'position': self.position,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where another sampler was, which may have run on another number of ranks.

        Args:
            state: From :meth:`state_dict`.

        Raises:
            CheckpointError: If the dataset has another size, or the loop is of the other kind: the
                position would mean other samples.
        """
        if state['size'] != self.size:
            raise CheckpointError(
                f'cannot resume: the checkpoint was written with {state["size"]} training samples, '
                f'the dataset has {self.size} now. Restore the dataset, or start a new run with '
                'load_from.'
            )
        if bool(state['infinite']) != self.infinite:
            raise CheckpointError(
                'cannot resume: the checkpoint was written by '
                f'{"an iteration" if state["infinite"] else "an epoch"}-based loop, this run is of '
                'the other kind. Use the same train_cfg, or start a new run with load_from.'
            )
        self.seed = int(state['seed'])
        self._epoch = int(state['epoch'])
        self.position = int(state['position'])

    def _order(self, epoch: int) -> list[int]:
        return self._permutation(self.size, 'order', epoch)

    def _permutation(self, size: int, *address: int | str) -> list[int]:
        """The numbers below ``size`` in an order that follows from the seed and an address."""
        if not self.shuffle:
            return list(range(size))
        generator = torch.Generator()
        generator.manual_seed(derive_seed(self.seed, *address))
        return torch.randperm(size, generator=generator).tolist()

    def _address(self, entry: int, epoch: int) -> SampleAddress:
        """What is yielded for an entry of :meth:`_order`."""
        return SampleAddress(entry, epoch)

    def _one_epoch(self) -> Iterator[SampleAddress]:
        epoch, start = self._epoch, min(self.position, self.size)
        order = self._order(epoch)
        stop = self.size
        if self.round_up:
            stop = start + math.ceil((self.size - start) / self.world_size) * self.world_size
        for place in range(start + self.rank, stop, self.world_size):
            yield self._address(order[place % self.size], epoch)

    def _stream(self) -> Iterator[SampleAddress]:
        place = self.position + self.rank
        epoch, order = -1, []
        while True:
            if place // self.size != epoch:
                epoch = place // self.size
                order = self._order(epoch)
            yield self._address(order[place % self.size], epoch)
            place += self.world_size
