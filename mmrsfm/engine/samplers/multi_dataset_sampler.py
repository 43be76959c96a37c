# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Batches of several datasets in chosen proportions, none of which is cut short."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from mmengine.logging import print_log

from mmrsfm.engine.samplers.epoch_sampler import EpochSampler
from mmrsfm.errors import CheckpointError, ConfigError, DatasetNotFoundError
from mmrsfm.randomness import SampleAddress
from mmrsfm.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class MultiDatasetSampler(EpochSampler):
    """Draws from the parts of a :class:`mmrsfm.datasets.MultiDataset` by ratios, exactly resumable.

    An epoch is as long as it takes to draw every sample of every part at least once: the part that
    takes longest is passed once, the others go round, each time in another order and with other
    augmentation (:attr:`mmrsfm.randomness.SampleAddress.visit`). MTP (arXiv 2403.13430) zips one
    loader per dataset instead, which ends with the smallest, and leaves out what the larger ones
    still have; ``'avg'`` and ``'ratio'`` are its two proportions.

    With ``composition='fixed'`` each batch of each rank has the same number of samples of a part,
    so that every step trains every last layer, as published. With ``'drawn'`` the proportions hold
    exactly over an epoch and the samples of all parts are shuffled together; ``'ratio'`` is then
    the plain shuffled concatenation, and batches may be smaller than the number of parts.

    What is drawn follows from (seed, epoch, part). A resumed run goes on with the next sample of
    each part, also on another number of ranks, and in the fixed composition with another batch.

    Args:
        dataset: Has ``datasets``, the parts, in the order of their indices, and may have ``names``.
        ratios: ``'avg'``: equal numbers of each part; ``'ratio'``: as the parts are large; or
            positive weights, a list or by name.
        composition: ``'fixed'`` or ``'drawn'``.
        batch_size: Samples of one batch of one rank, for the fixed composition. The training loops
            of mmrsfm fill in that of the data loader.
        shuffle: Whether to permute each part; otherwise in its order (and, drawn, part by part).
        seed: See :class:`EpochSampler`.
        infinite: See :class:`EpochSampler`; set by the iteration-based loop.

    Attributes:
        shares: In the fixed composition, samples of each part in a batch; else ``None``.
        draws: In the drawn composition, samples of each part in an epoch; else ``None``.

    Raises:
        ConfigError: If the dataset has no parts, or the ratios do not fit parts or batch.
        DatasetNotFoundError: If a part is empty.
    """

    def __init__(
        self,
        dataset: Any,
        ratios: str | Sequence[float] | Mapping[str, float] = 'avg',
        composition: str = 'fixed',
        batch_size: int | None = None,
        shuffle: bool = True,
        seed: int | None = None,
        infinite: bool = False,
    ) -> None:
        parts = getattr(dataset, 'datasets', None)
        if not parts:
            raise ConfigError(
                f'MultiDatasetSampler needs a dataset of several, as mmrsfm.MultiDataset; got '
                f'{type(dataset).__name__}'
            )
        if composition not in ('fixed', 'drawn'):
            raise ConfigError(f"composition must be 'fixed' or 'drawn', got {composition!r}")
        super().__init__(dataset, shuffle=shuffle, seed=seed, infinite=infinite)
        self.names: list[str] = [
            str(name) for name in getattr(dataset, 'names', None) or range(len(parts))
        ]
        self.sizes: list[int] = [len(part) for part in parts]
        if 0 in self.sizes:
            raise DatasetNotFoundError(
                f'part {self.names[self.sizes.index(0)]!r} of the training set is empty',
                hint='Check its data_root, annotation file and filters, or leave it out',
            )
        self.composition = composition
        self.batch_size = batch_size
        self._first = [0, *accumulate(self.sizes)]
        self._used = [0] * len(parts)  # of this epoch, by all ranks; fixed composition
        self._partial: dict[int, tuple[int, list[int]]] = {}  # of the epoch asked for last
        self.shares: list[int] | None = None
        self.draws: list[int] | None = None
        weights = self._weights(ratios)
        if composition == 'fixed':
            self.shares = self._divide_batch(weights, ratios)
            steps = self._steps(self._used)
            drawn = [steps * share * self.world_size for share in self.shares]
        else:
            longest = max(size / w for size, w in zip(self.sizes, weights, strict=True))
            drawn = self.draws = [
                # Less a little, so that 3.0000000004 is 3.
                max(size, math.ceil(longest * weight * (1 - 1e-12)))
                for size, weight in zip(self.sizes, weights, strict=True)
            ]
            self.size = sum(drawn)
        self._ends = list(accumulate(drawn))
        passes = ', '.join(
            f'{name} {count / size:.2f} times'
            for name, count, size in zip(self.names, drawn, self.sizes, strict=True)
        )
        batch = '' if self.shares is None else f' ({self.shares} of each in a batch of one rank)'
        print_log(f'An epoch draws {sum(drawn)} samples{batch}: {passes}', logger='current')

    @property
    def epoch(self) -> int:
        """The epoch of the next sample, from 0."""
        return super().epoch if self.shares is None else self._epoch

    def set_epoch(self, epoch: int) -> None:
        """See :meth:`EpochSampler.set_epoch`."""
        if not self.infinite and epoch != self._epoch:
            self._used = [0] * len(self.sizes)
        super().set_epoch(epoch)

    def advance(self, num_samples: int) -> None:
        """Records that ``num_samples`` more samples, of all ranks together, were used.

        Raises:
            ConfigError: In the fixed composition, if these are no whole batches: the data loader
                has another batch size than the sampler.
        """
        if self.shares is None:
            super().advance(num_samples)
            return
        step = sum(self.shares) * self.world_size
        if num_samples % step:
            raise ConfigError(
                f'the data loader made a step of {num_samples} samples, but the sampler fills '
                f'batches of {sum(self.shares)} on {self.world_size} ranks: leave batch_size of '
                'MultiDatasetSampler out, or give both the same'
            )
        for part, share in enumerate(self.shares):
            self._used[part] += num_samples // step * share * self.world_size
        if self.infinite and self._steps(self._used) == 0:
            self._epoch += 1
            self._used = [0] * len(self.sizes)
        self.position = sum(self._used)

    def following(self, address: SampleAddress) -> SampleAddress:
        """As of :class:`EpochSampler`, of the same part: the proportions stay what they are."""
        epoch, visit = address.epoch, address.visit
        part = bisect_right(self._first, address) - 1
        place = address - self._first[part]
        if self.draws is None:
            order = self._order_of(part, epoch, visit)
            place = order[(order.index(place) + 1) % self.sizes[part]]
            return SampleAddress(self._first[part] + place, epoch, visit)
        last, rest = divmod(self.draws[part], self.sizes[part])
        if rest and visit == last:
            place = self._order_of(part, epoch, visit).index(place)
        first, end = self._ends[part] - self.draws[part], self._ends[part]
        order = self._order(epoch)
        number = order.index(first + visit * self.sizes[part] + place)
        behind = (*order[number + 1 :], *order[: number + 1])
        return self._address(next(entry for entry in behind if first <= entry < end), epoch)

    def __iter__(self) -> Iterator[SampleAddress]:
        return super().__iter__() if self.shares is None else self._batches(self.shares)

    def __len__(self) -> int:
        """Samples of this rank in a whole epoch, wherever the sampler is now."""
        if self.shares is None:
            return super().__len__()
        return self._steps([0] * len(self.sizes)) * sum(self.shares)

    def state_dict(self) -> dict[str, Any]:
        """Returns what :meth:`load_state_dict` needs: plain values, the same on every rank."""
        return {
            **super().state_dict(),
            'composition': self.composition,
            'sizes': dict(zip(self.names, self.sizes, strict=True)),
            'draws': self.draws,
            'used': list(self._used),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where another sampler was; see :meth:`EpochSampler.load_state_dict`.

        Raises:
            CheckpointError: If parts, their sizes, the composition or, where samples are drawn, the
                ratios changed: the position would mean other samples.
        """
        sizes = dict(zip(self.names, self.sizes, strict=True))
        for key, now in (('composition', self.composition), ('sizes', sizes)):
            if state.get(key) != now or (key == 'sizes' and list(state[key]) != self.names):
                raise CheckpointError(
                    f'cannot resume: the {key} of the training set were {state.get(key)} when the '
                    f'checkpoint was written, and are {now} now. Restore them, or start a new run '
                    'with load_from.'
                )
        if state['draws'] != self.draws:
            raise CheckpointError(
                f'cannot resume: the ratios changed: an epoch drew {state["draws"]} samples of '
                f'{self.names}, now {self.draws}. Restore them, or start a new run with load_from.'
            )
        super().load_state_dict(state)
        self._used = [int(count) for count in state['used']]

    def _weights(self, ratios: Any) -> list[float]:
        if ratios == 'avg':
            return [1.0] * len(self.sizes)
        if ratios == 'ratio':
            return [float(size) for size in self.sizes]
        if isinstance(ratios, Mapping):
            if set(ratios) != set(self.names):
                raise ConfigError(f'ratios are of {sorted(ratios)}, the parts are {self.names}')
            ratios = [ratios[name] for name in self.names]
        numbers = isinstance(ratios, Sequence) and all(
            isinstance(one, (int, float)) and math.isfinite(one) and one > 0 for one in ratios
        )
        if not numbers or len(ratios) != len(self.sizes):
            raise ConfigError(
                f"ratios must be 'avg', 'ratio', or a positive number for each of {self.names}, "
                f'got {ratios!r}'
            )
        return [float(one) for one in ratios]

    def _divide_batch(self, weights: Sequence[float], ratios: Any) -> list[int]:
        """Samples of each part in a batch, by largest remainders, at least one of each."""
        count, batch = len(weights), self.batch_size
        if batch is None:
            raise ConfigError(
                'MultiDatasetSampler: a fixed composition needs batch_size, that of the data '
                'loader (the training loops of mmrsfm fill it in)'
            )
        if batch < count or (ratios == 'avg' and batch % count):
            raise ConfigError(
                f'a batch of {batch} cannot hold {"equal numbers" if ratios == "avg" else "one"} '
                f'of each of {count} datasets ({", ".join(self.names)}): take another batch size, '
                "or composition='drawn'"
            )
        total = sum(weights)
        shares = [max(1, math.floor(batch * weight / total + 1e-9)) for weight in weights]
        # Too many after the rise to one: from the largest. Too few: to the largest remainders.
        while sum(shares) > batch:
            shares[shares.index(max(shares))] -= 1
        rests = [batch * w / total - share for w, share in zip(weights, shares, strict=True)]
        while sum(shares) < batch:
            part = rests.index(max(rests))
            shares[part] += 1
            rests[part] -= 1
        return shares

    def _steps(self, used: Sequence[int]) -> int:
        """Batches of each rank until every sample of every part was drawn in this epoch."""
        assert self.shares is not None
        return max(
            0,
            *(
                math.ceil((size - count) / (share * self.world_size))
                for size, count, share in zip(self.sizes, used, self.shares, strict=True)
            ),
        )

    def _batches(self, shares: Sequence[int]) -> Iterator[SampleAddress]:
        """The fixed composition from where the sampler is, part after part in each batch."""
        epoch, used = self._epoch, list(self._used)
        world = self.world_size
        while True:
            orders: dict[int, tuple[int, list[int]]] = {}
            for _ in range(self._steps(used)):
                for part, share in enumerate(shares):
                    for number in range(share):
                        draw = used[part] + number * world + self.rank
                        visit, place = divmod(draw, self.sizes[part])
                        if orders.get(part, (-1,))[0] != visit:
                            orders[part] = (visit, self._order_of(part, epoch, visit))
                        index = self._first[part] + orders[part][1][place]
                        yield SampleAddress(index, epoch, visit)
                    used[part] += share * world
            if not self.infinite:
                return
            epoch, used = epoch + 1, [0] * len(self.sizes)

    def _order_of(self, part: int, epoch: int, visit: int) -> list[int]:
        return self._permutation(self.sizes[part], 'order', epoch, part, visit)

    def _order(self, epoch: int) -> list[int]:
        """The drawn composition: numbers of draws, part by part, shuffled together."""
        return self._permutation(self.size, 'draws', epoch)

    def _address(self, entry: int, epoch: int) -> SampleAddress:
        """Draw ``entry`` of the epoch: which part, which visit, which sample."""
        assert self.draws is not None
        part = bisect_right(self._ends, entry)
        draw = entry - (self._ends[part - 1] if part else 0)
        visit, place = divmod(draw, self.sizes[part])
        last, rest = divmod(self.draws[part], self.sizes[part])
        if rest and visit == last:
            # An incomplete pass takes other samples in each epoch.
            if self._partial.get(part, (-1,))[0] != epoch:
                self._partial[part] = (epoch, self._order_of(part, epoch, visit))
            place = self._partial[part][1][place]
        return SampleAddress(self._first[part] + place, epoch, visit)
