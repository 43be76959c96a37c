# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What both training loops share: addressed data, bad samples, and knowing where they are."""

from __future__ import annotations

import time
from collections.abc import Mapping, MutableMapping
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import all_gather_object, get_rank, get_world_size
from torch.utils.data import BatchSampler, DataLoader

from mmrsfm.engine.random_state import capture_random_state, preserved_random_state
from mmrsfm.engine.samplers import AddressedIndices, EpochSampler, SkippingBatchSampler
from mmrsfm.engine.worker_lifetime import workers_end_with_parent
from mmrsfm.errors import CheckpointError, ConfigError, TooManyBadSamplesError
from mmrsfm.randomness import SampleAddress, derive_seed

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN = 20  # bad samples that a report names


class ResumableLoop:
    """Mixin of the training loops; see :class:`mmrsfm.engine.EpochTrainLoop` for its arguments.

    The *cursor* of a loop says what comes next: ``epoch`` and ``batch`` within it, and ``iter``,
    the number of steps made. It moves when a batch is taken, and goes to the next epoch before the
    hooks of the epoch's end run, so that :meth:`state_dict` is right in whichever hook calls it.

    Attributes:
        waited_for_data: Seconds for which the loop stood still for the current batch; ``None``: it
            did not measure that.
    """

    waited_for_data: float | None = None
    runner: Any
    dataloader: DataLoader
    _epoch: int
    _iter: int

    def _address(
        self,
        runner: Any,
        dataloader: DataLoader | dict,
        on_bad_sample: str,
        max_bad_samples: int,
    ) -> DataLoader | dict:
        """Wraps the dataset of a data loader config; call before the base class is initialised."""
        if on_bad_sample not in ('raise', 'skip'):
            raise ConfigError(
                f"train_cfg: on_bad_sample must be 'raise' or 'skip', got {on_bad_sample!r}"
            )
        if max_bad_samples < 0:
            raise ConfigError(f'train_cfg: max_bad_samples must be >= 0, got {max_bad_samples}')
        self.on_bad_sample = on_bad_sample
        self.max_bad_samples = max_bad_samples
        self._bad_samples: list[Mapping[str, Any]] = []
        self._rejected_before = 0
        self._cursor = {'epoch': 0, 'batch': 0, 'iter': 0}
        self._train_random_state: dict[str, Any] | None = None
        self._validated = -1  # the step after which the last validation was
        self._resumed = False
        # Under diff_rank_seed MMEngine adds the rank; order and augmentation must not know it.
        ranked = runner._randomness_cfg.get('diff_rank_seed', False)
        self._seed: int = runner.seed - (get_rank() if ranked else 0)
        if isinstance(dataloader, DataLoader):
            if on_bad_sample == 'skip':
                raise ConfigError(
                    "train_cfg: on_bad_sample='skip' needs a train_dataloader given as a config"
                )
            return dataloader
        from mmrsfm.datasets.addressed import AddressedDataset

        cfg = deepcopy(dataloader)
        cfg['dataset'] = dict(
            type=AddressedDataset,
            dataset=cfg['dataset'],
            seed=self._seed,
            on_error=on_bad_sample,
            max_skips=max_bad_samples,
        )
        sampler = cfg.get('sampler')
        if isinstance(sampler, MutableMapping):
            kind = str(sampler.get('type'))
            if kind.endswith(('EpochSampler', 'MultiDatasetSampler')):
                sampler.setdefault('seed', self._seed)
            if kind.endswith('MultiDatasetSampler') and 'batch_size' in cfg:
                sampler.setdefault('batch_size', cfg['batch_size'])
        if isinstance(cfg.get('batch_sampler'), MutableMapping):
            cfg['batch_sampler'] = dict(
                type=SkippingBatchSampler, batch_sampler=cfg['batch_sampler']
            )
        return cfg

    def _adopt_dataloader(self, infinite: bool) -> None:
        """Takes over the data loader that the base class built."""
        loader = self.dataloader
        self._infinite = infinite
        self._wrap_collate()
        # A data loader draws a number each time it is iterated. From a generator of its own: the
        # global one belongs to the model, and a resumed run iterates at other times.
        generator = torch.Generator()
        generator.manual_seed(derive_seed(self._seed, 'workers'))
        loader.generator = generator
        batch_sampler: Any = loader.batch_sampler
        self._skipping: SkippingBatchSampler | None = None
        if isinstance(batch_sampler, SkippingBatchSampler):
            self._skipping, batch_sampler = batch_sampler, batch_sampler.batch_sampler
        sampler = getattr(batch_sampler, 'sampler', loader.sampler)
        self._sampler: EpochSampler | None = None
        self._indices: AddressedIndices | None = None
        if isinstance(sampler, EpochSampler):
            sampler.infinite = infinite
            self._sampler = sampler
            if self.on_bad_sample == 'skip':
                dataset: Any = loader.dataset
                # num_batch_per_epoch has put a slice around it.
                vars(dataset).get('_dataset', dataset).following = sampler.following
        elif hasattr(batch_sampler, 'sampler'):
            self._indices = AddressedIndices(sampler)
            batch_sampler.sampler = self._indices
        batch_size = getattr(batch_sampler, 'batch_size', None) or 1
        # Batch samplers of other libraries take indices from the sampler in ways of their own. That
        # of mmdet keeps their order where a batch is one image: there is nothing to group.
        in_order = type(batch_sampler) is BatchSampler or (
            type(batch_sampler).__name__ == 'AspectRatioBatchSampler' and batch_size == 1
        )
        self._knows_position = self._sampler is not None and in_order
        self._samples_per_step = int(batch_size) * get_world_size()
        # Otherwise what was used is drawn once more, and left out. A finite sampler in a loop of
        # iterations starts again and again, in a way that is MMEngine's.
        self._endless = infinite and isinstance(sampler, (EpochSampler, InfiniteSampler))
        self._skips = self._endless or not infinite
        if self._skipping is None:
            self._skips &= self._indices is not None and type(batch_sampler) is BatchSampler

    def _wrap_collate(self) -> None:
        """Makes the collate function pass records of bad samples on; hooks may have changed it."""
        from mmrsfm.datasets.addressed import AddressedCollate

        collate: Any = self.dataloader.collate_fn
        if not isinstance(collate, AddressedCollate):
            self.dataloader.collate_fn = AddressedCollate(collate)

    def _batches(self) -> Iterator[Any]:
        """Yields the batches of the data loader, and measures how long each was waited for."""
        start = time.perf_counter()
        batches = iter(self.dataloader)
        while True:
            try:
                held = [next(batches)]
            except StopIteration:
                return
            self.waited_for_data = time.perf_counter() - start
            yield held.pop()  # not kept here: two batches in memory
            start = time.perf_counter()

    def _enter_epoch(self, epoch: int) -> None:
        """Tells the sampler which epoch is to be drawn."""
        if self._sampler is not None:
            self._sampler.set_epoch(epoch)
        if self._indices is not None:
            self._indices.epoch = epoch

    def _take(self, data_batch: Any) -> None:
        """Moves the cursor past a batch, and takes the records of bad samples out of it."""
        self._cursor['batch'] += 1
        self._cursor['iter'] = self._iter + 1
        if self._knows_position:
            assert self._sampler is not None
            self._sampler.advance(self._samples_per_step)
        records = ()
        if isinstance(data_batch, MutableMapping):
            records = data_batch.pop('skipped_samples', None) or ()
        self._bad_samples.extend(records)
        if len(self._bad_samples) > self.max_bad_samples and self.on_bad_sample == 'skip':
            raise TooManyBadSamplesError(
                f'{len(self._bad_samples)} samples of epoch {self._cursor["epoch"] + 1} could not '
                f'be read, max_bad_samples={self.max_bad_samples}. The last ones:\n'
                + _listing(self._bad_samples[-_SHOWN:])
            )

    def _report_bad_samples(self, epoch: int) -> None:
        """Logs the bad samples of an epoch, from all ranks, and forgets them. A collective."""
        self._report_rejected_draws(epoch)
        if self.on_bad_sample != 'skip':
            return
        records = [item for part in all_gather_object(self._bad_samples) for item in part]
        self._bad_samples = []
        if not records:
            return
        hub = self.runner.message_hub
        total = hub.runtime_info.get('bad_samples', 0) + len(records)
        hub.update_info('bad_samples', total)
        self.runner.logger.warning(
            f'Epoch {epoch + 1}: {len(records)} samples could not be read and were replaced by the '
            f'next ones ({total} in this run):\n{_listing(records)}'
        )

    def _report_rejected_draws(self, epoch: int) -> None:
        """Logs how often MMEngine drew another sample because a pipeline returned ``None``.

        Legitimate for a crop without boxes, but nothing that should happen unseen.
        """
        count = getattr(self.dataloader.dataset, 'rejected_draws', 0)
        rejected, self._rejected_before = count - self._rejected_before, count
        if rejected:
            self.runner.logger.info(
                f'Epoch {epoch + 1}: the pipeline rejected {rejected} draws (it returned None), '
                'other samples took their places (this rank)'
            )

    @contextmanager
    def _validating(self) -> Iterator[None]:
        """Keeps a validation from moving the random generators of the training."""
        with preserved_random_state() as state:
            self._train_random_state = state
            try:
                yield
            finally:
                self._train_random_state = None

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        """What holds while the loop runs: settings, and persistent workers that end with it.

        Under ``randomness=dict(deterministic=True)`` MMEngine makes every operation an error that
        has no deterministic kernel, as grid sampling and the pooling of regions on a GPU. Here it
        is a warning: such a model is resumed to 1e-3 there, not to the last bit.

        Runner and loops refer to one another, so that they are freed by the garbage collector; a
        data loader that it frees waits five seconds for each worker, as their queues are closed
        first.
        """
        if self.runner.deterministic:
            torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            with workers_end_with_parent(self.dataloader):
                yield
        finally:
            validation = self.runner._val_loop
            for loader in (self.dataloader, getattr(validation, 'dataloader', None)):
                if getattr(loader, '_iterator', None) is not None:
                    loader._iterator = None  # type: ignore[union-attr]

    def _validate(self) -> None:
        """Runs the validation that is due now."""
        loop = self.runner.val_loop
        with self._validating(), workers_end_with_parent(getattr(loop, 'dataloader', None)):
            loop.run()
        self._validated = self._iter

    def _missed_validation(self) -> bool:
        """Whether the run was stopped between a checkpoint and the validation that followed it.

        What comes of a validation is in no checkpoint of the same step: which one is the best, what
        stops early, and a learning rate that waits for a plateau.
        """
        return self._resumed and self._iter > 0 and self._validated != self._iter

    def random_state(self) -> dict[str, Any]:
        """Returns the generator states with which training goes on, also during a validation."""
        return self._train_random_state or capture_random_state()

    def batch_addresses(self, count: int) -> list[SampleAddress] | None:
        """Returns which samples the current batch of this rank holds, where that is known.

        Args:
            count: Number of samples in the batch.
        """
        # A subclass of the sampler has an order of its own.
        if not self._knows_position or type(self._sampler) is not EpochSampler:
            return None
        return self._sampler.last_taken(count, self._samples_per_step)

    def state_dict(self) -> dict[str, Any]:
        """Returns where the loop is: ``epoch``, ``batch``, ``iter``, the state of the sampler."""
        return {
            **self._cursor,
            'validated': self._validated,
            'samples_per_step': self._samples_per_step,
            'sampler': self._sampler.state_dict() if self._knows_position else None,  # type: ignore[union-attr]
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where another run was; call before the first batch.

        With another number of ranks or another batch size the loop continues at the right sample;
        the number of steps is taken over as it is.

        Args:
            state: From :meth:`state_dict`.

        Raises:
            CheckpointError: If the data changed so that the position means other samples.
        """
        cursor = {key: int(state[key]) for key in ('epoch', 'batch', 'iter')}
        if state['sampler'] is not None and self._knows_position:
            assert self._sampler is not None
            self._sampler.load_state_dict(state['sampler'])
            self._seed = self._sampler.seed
            dataset: Any = self.dataloader.dataset
            dataset = getattr(dataset, '_dataset', dataset)  # below num_batch_per_epoch's slice
            if hasattr(dataset, 'seed'):
                dataset.seed = self._seed
            if state['samples_per_step'] != self._samples_per_step:
                cursor['batch'] = self._sampler.position // self._samples_per_step
                self.runner.logger.warning(
                    f'The checkpoint was written with {state["samples_per_step"]} samples per '
                    f'step, this run has {self._samples_per_step}: it continues at the '
                    'same sample; the schedule counts steps and is not converted.'
                )
        elif cursor['batch']:
            cursor['batch'] = self._skip(cursor['batch'] * int(state['samples_per_step']))
        if cursor['iter'] < 0 or cursor['epoch'] < 0:
            raise CheckpointError(f'the state of the training loop is damaged: {cursor}')
        self._cursor = cursor
        self._iter = cursor['iter']
        self._validated = int(state.get('validated', -1))
        self._resumed = True

    def continue_without_state(self) -> None:
        """Continues from a checkpoint that has no state of a loop: MMEngine's own, or the best one.

        As there: a loop of epochs begins with the epoch that was not finished, one of iterations
        leaves out as many batches as there were steps.
        """
        self._enter_epoch(self._epoch)
        batch = 0
        if self._infinite and self._knows_position:
            assert self._sampler is not None
            for _ in range(self._iter):
                self._sampler.advance(self._samples_per_step)
        elif self._infinite:
            batch = self._skip(self._iter * self._samples_per_step)
        epoch = self._sampler.epoch if self._infinite and self._sampler else self._epoch
        self._cursor = {'epoch': epoch, 'batch': batch, 'iter': self._iter}

    def _skip(self, num_samples: int) -> int:
        """Leaves out what was used of a sampler that has no position; returns batches left out."""
        count = num_samples // self._samples_per_step
        if not self._skips:
            if self._sampler is None and hasattr(self, 'dataloader_iterator'):
                return count  # MMEngine reads them once more
            self.runner.logger.warning(
                'The position within the epoch is not restored: it needs mmrsfm.EpochSampler, or a '
                'sampler and a batch_sampler given as configs.'
            )
            return 0
        if self._skipping is not None:
            self._skipping.skip = count
        else:
            assert self._indices is not None
            self._indices.left_out = num_samples // get_world_size()
        return count


def _listing(records: list[Mapping[str, Any]]) -> str:
    lines = []
    for record in records[:_SHOWN]:
        band = record.get('band')
        where = f'{record.get("path")}' + ('' if band is None else f', band {band}')
        lines.append(f'  {where}: {record.get("reason")} (index {record.get("index")})')
    if len(records) > _SHOWN:
        lines.append(f'  ... and {len(records) - _SHOWN} more')
    return '\n'.join(lines)
