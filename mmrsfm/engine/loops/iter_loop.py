# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Training by iterations over an endless stream of epochs, resumable anywhere."""

from __future__ import annotations

from typing import Any

from mmengine.runner import IterBasedTrainLoop
from torch import nn
from torch.utils.data import DataLoader

from mmrsfm.engine.loops.resumable import ResumableLoop
from mmrsfm.registry import LOOPS


@LOOPS.register_module()
class IterTrainLoop(ResumableLoop, IterBasedTrainLoop):
    """MMEngine's iteration-based loop with what :class:`EpochTrainLoop` adds to the other one.

    :class:`mmrsfm.engine.EpochSampler` is switched to its infinite mode. MMEngine's InfiniteSampler
    is resumed as well. With a finite sampler of another library the loop runs, and resumes, as
    MMEngine's does: it reads once more what was used.

    Args:
        runner: The runner.
        dataloader: A data loader, or its config.
        max_iters: Number of iterations.
        val_begin: First iteration, from 1, after which to validate.
        val_interval: Iterations between validations.
        dynamic_intervals: Pairs (iteration, interval) that change ``val_interval``.
        on_bad_sample: As in :class:`EpochTrainLoop`.
        max_bad_samples: As in :class:`EpochTrainLoop`; an epoch is one pass over the dataset.

    Raises:
        ConfigError: For an unknown policy.
        TooManyBadSamplesError: While training, if more samples are bad.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader | dict,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
        on_bad_sample: str = 'raise',
        max_bad_samples: int = 100,
    ) -> None:
        dataloader = self._address(runner, dataloader, on_bad_sample, max_bad_samples)
        super().__init__(runner, dataloader, max_iters, val_begin, val_interval, dynamic_intervals)
        self._adopt_dataloader(infinite=True)

    def run(self) -> nn.Module:
        """Trains, and returns the model."""
        with self._surroundings():
            return self._run() if self._knows_position or self._endless else super().run()

    def _run(self) -> nn.Module:
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self._wrap_collate()
        if self._missed_validation():
            self._validate_if_due()
        # Only now: hooks of before_train restore the position, and workers fetch ahead.
        batches = self._batches()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(batches))
            self._validate_if_due()
        self._report_bad_samples(self._cursor['epoch'])
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _validate_if_due(self) -> None:
        self._decide_current_val_interval()
        due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        if self.runner.val_loop is not None and self._iter >= self.val_begin and due:
            self._validate()

    def run_iter(self, data_batch: Any) -> None:
        """Trains on one batch.

        Args:
            data_batch: The batch; records of bad samples are taken out of it.
        """
        self._take(data_batch)
        if self._sampler is not None and self._sampler.epoch != self._cursor['epoch']:
            self._report_bad_samples(self._cursor['epoch'])
            self._cursor.update(epoch=self._sampler.epoch, batch=0)
        super().run_iter(data_batch)
