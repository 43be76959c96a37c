# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Gives every item of a dataset its own randomness, and bad files a policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from mmrsfm.datasets.bit_depth import warn_of_reduced_bits
from mmrsfm.datasets.lonely_labels import warn_of_lonely_labels
from mmrsfm.datasets.reading_errors import as_data_error, is_bad_file, listing_error, no_samples
from mmrsfm.datasets.shared_batches import collate_in_shared_memory
from mmrsfm.errors import ConfigError, DataError, MMRSFMError, TooManyBadSamplesError
from mmrsfm.randomness import SampleAddress, derive_seed, seed_generators, seeded
from mmrsfm.registry import DATASETS

SKIPPED_KEY = 'skipped_samples'
_OWN = ('dataset', 'seed', 'on_error', 'max_skips', 'epoch', 'following', '_rejected')
_COUNTERS = 256  # one per data loader worker, so that they need no lock


@DATASETS.register_module()
class AddressedDataset(Dataset):
    """Draws each item from generators seeded by (seed, epoch, index), whoever reads it.

    The training loops of mmrsfm wrap the dataset of a config in this class. Transforms of every
    OpenMMLab library draw from the global generators of Python, NumPy and torch; these are seeded
    for one item and restored afterwards, so that an item does not depend on the worker, the rank or
    the items before it. The epoch comes with the index (:class:`mmrsfm.randomness.SampleAddress`),
    so that persistent workers see it; a plain index is drawn in :attr:`epoch`.

    A file that cannot be read (a :class:`DataError` or any ``OSError`` from the pipeline, or what
    mmcv's loader raises for an image that OpenCV cannot decode) ends the run with
    ``on_error='raise'``. With ``'skip'`` the next readable sample in the order of the sampler takes
    its place (:attr:`following`; without one, in the order of the dataset). It has a turn of its
    own as well, so that an epoch holds it twice, in two draws: the number of draws, which all ranks
    agree on, stays what it is. The item says so under the key ``'skipped_samples'``: a list of
    ``dict(index, epoch, path, band, reason)``, which :class:`AddressedCollate` carries to the
    batch. Every other error is one of the program: it is raised, with a note that names the sample.

    MMEngine's datasets replace a sample whose pipeline returns ``None`` by a random one. Detection
    pipelines do that on purpose, for a crop without boxes, so it is allowed; the replacement
    follows from the address too, and is counted in :attr:`rejected_draws`. A broken file never
    takes that way: the loading transforms raise.

    Where mmcv's loader reduces 16-bit images to 8 bits, or label maps of mmseg's datasets belong to
    no image, a warning says so.

    All other attributes are those of the wrapped dataset, for reading and for writing.

    Args:
        dataset: A map-style dataset, or its config.
        seed: Seed of the run, the same on all ranks.
        on_error: ``'raise'`` or ``'skip'``.
        max_skips: With ``'skip'``, how many samples in a row may be unreadable. (How many of an
            epoch may be is counted by the training loop, over all workers.)

    Attributes:
        epoch: Epoch of items that are asked for by a plain index.
        following: From the address of a sample to that of the next one in the same epoch
            (:meth:`mmrsfm.engine.EpochSampler.following`); ``None``: the order of the dataset.

    Raises:
        ConfigError: For an iterable-style dataset or an unknown policy.
        DatasetNotFoundError: The dataset is empty, or a file or folder of it is missing.
        DataError: A dataset of another library cannot read its annotation file.
        TooManyBadSamplesError: When an item is read, if too many in a row are unreadable.
    """

    dataset: Any
    epoch: int
    following: Callable[[SampleAddress], SampleAddress] | None

    def __init__(
        self, dataset: Any, seed: int = 0, on_error: str = 'raise', max_skips: int = 100
    ) -> None:
        if isinstance(dataset, Mapping):
            dataset = _built(dataset)
        if isinstance(dataset, IterableDataset):
            raise ConfigError('AddressedDataset needs a dataset with indices, got an iterable one')
        if on_error not in ('raise', 'skip'):
            raise ConfigError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
        if not len(dataset):
            raise no_samples(_innermost(dataset)[0])
        self.dataset = dataset
        self.seed = seed
        self.on_error = on_error
        self.max_skips = max_skips
        self.epoch = 0
        self.following = None
        # Shared memory: workers count, the main process reads.
        self._rejected = torch.zeros(_COUNTERS, dtype=torch.int64).share_memory_()
        for inner in _innermost(dataset):
            warn_of_reduced_bits(inner)
            warn_of_lonely_labels(inner)
            if hasattr(inner, '_rand_another'):
                inner._rand_another = _CountedRedraw(inner, self._rejected)

    def __getattr__(self, name: str) -> Any:
        if name in _OWN or name.startswith('__'):  # not set yet: while unpickling
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # Hooks assign to `dataset.pipeline` and the like: that has to reach the wrapped dataset.
        if name in _OWN:
            super().__setattr__(name, value)
        else:
            setattr(self.dataset, name, value)

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def rejected_draws(self) -> int:
        """How often a pipeline returned ``None`` and MMEngine drew another sample instead."""
        return int(self._rejected.sum())

    def __getitem__(self, index: int) -> Any:
        """Returns the item at ``index`` (a ``SampleAddress`` or a plain int).

        Raises:
            DataError: A file cannot be read and the policy is to raise.
            TooManyBadSamplesError: Too many in a row cannot be read.
        """
        place = int(index)
        if place < 0:
            place += len(self)
        epoch: int = getattr(index, 'epoch', self.epoch)
        wanted = position = SampleAddress(place, epoch, getattr(index, 'visit', 0))
        skipped: list[dict[str, Any]] = []
        while True:
            address: tuple[int | str, ...] = (self.seed, epoch, int(position))
            if position.visit:
                address = (*address, 'visit', position.visit)
            if skipped:
                # Another draw than the sample's own, which comes in this epoch too.
                address = (*address, 'instead of', int(wanted))
            try:
                item = self._draw(int(position), derive_seed(*address))
                break
            except Exception as error:
                if not is_bad_file(error):
                    error.add_note(self._where(position, epoch))
                    raise
                named = self._named(error, position, epoch)
                if self.on_error == 'raise':
                    if named is error:
                        raise
                    raise named from error
                skipped.append(_record(named, position, epoch))
            position = self._next(position)
            back = (position, position.visit) == (wanted, wanted.visit)
            if len(skipped) > self.max_skips or back:
                last = skipped[-1]
                raise TooManyBadSamplesError(
                    f'{len(skipped)} samples in a row cannot be read; the last one: '
                    f'{last["reason"]}',
                    path=last['path'],
                    band=last['band'],
                    hint='Repair the dataset or the config (max_bad_samples ends the search)',
                )
        if skipped:
            if not isinstance(item, MutableMapping):
                raise ConfigError(
                    "on_error='skip' needs a pipeline that returns a dict, got "
                    f'{type(item).__name__}'
                )
            item[SKIPPED_KEY] = skipped
        return item

    def _next(self, position: SampleAddress) -> SampleAddress:
        if self.following is not None:
            return self.following(position)
        return SampleAddress((position + 1) % len(self), position.epoch, position.visit)

    def _draw(self, position: int, seed: int) -> Any:
        if get_worker_info() is not None:
            # Nothing else draws in a worker: saving and restoring would cost 0.2 ms an item.
            seed_generators(seed)
            return self.dataset[position]
        with seeded(seed):
            return self.dataset[position]

    def _named(self, error: Exception, position: int, epoch: int) -> DataError:
        """The error as a :class:`DataError` that names the file and the sample."""
        known = isinstance(error, DataError) and error.path is not None
        error = as_data_error(error, None if known else self._path(position))
        error.add_note(self._where(position, epoch))
        return error

    def _where(self, position: int, epoch: int) -> str:
        path = self._path(position)
        name = type(self.dataset).__name__
        return f'(sample {int(position)} of {name}, epoch {epoch}, {path or "path unknown"})'

    def _path(self, position: int) -> str | None:
        try:
            info = self.dataset.get_data_info(int(position))
            path = info.get('img_path')
        except Exception:  # only for a message: whatever is wrong here is reported elsewhere
            return None
        return str(path[0] if isinstance(path, (list, tuple)) else path) if path else None


def _built(config: Mapping[str, Any]) -> Any:
    """Builds a dataset; what its annotations lack is an error that names the file."""
    try:
        dataset = DATASETS.build(config)
        if hasattr(dataset, '__len__'):
            len(dataset)  # reads the annotations of a dataset that is lazy
        return dataset
    except MMRSFMError:
        raise
    except Exception as error:
        named = listing_error(error)
        if named is None:
            raise
        raise named from error


class AddressedCollate:
    """Wraps a collate function: records of skipped samples reach the batch as one list.

    The batch has the key ``'skipped_samples'`` only if a sample was skipped. A class, not a
    closure, so that it can be sent to workers that are spawned.

    Images travel from workers in shared memory that is used again
    (:mod:`mmrsfm.datasets.shared_batches`).

    Args:
        collate: The collate function of the data loader.
    """

    def __init__(self, collate: Callable[[Sequence[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, items: Sequence[Any]) -> Any:
        """Collates the items."""
        records = [
            record
            for item in items
            if isinstance(item, MutableMapping)
            for record in item.pop(SKIPPED_KEY, ())
        ]
        batch = collate_in_shared_memory(items, self.collate)
        if records:
            batch[SKIPPED_KEY] = records
        return batch


class _CountedRedraw:
    """Stands in for ``BaseDataset._rand_another`` of one dataset."""

    def __init__(self, dataset: Any, counters: torch.Tensor) -> None:
        self.dataset = dataset
        self.counters = counters

    def __call__(self) -> Any:
        worker = get_worker_info()
        self.counters[0 if worker is None else 1 + worker.id % (_COUNTERS - 1)] += 1
        return type(self.dataset)._rand_another(self.dataset)


def _innermost(dataset: Any) -> list[Any]:
    """The datasets below wrappers such as ConcatDataset and RepeatDataset."""
    below = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    found = [one for part in below if part is not None for one in _innermost(part)]
    return found or [dataset]


def _record(error: DataError, index: int, epoch: int) -> dict[str, Any]:
    return {
        'index': int(index),
        'epoch': epoch,
        'path': error.path,
        'band': error.band,
        'reason': error.reason,
    }
