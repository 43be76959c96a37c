# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Training by epochs, resumable within an epoch."""

from __future__ import annotations

from typing import Any

from mmengine.dist import get_world_size
from mmengine.runner import EpochBasedTrainLoop
from torch import nn
from torch.utils.data import DataLoader

from mmrsfm.engine.loops.resumable import ResumableLoop
from mmrsfm.errors import ConfigError
from mmrsfm.registry import LOOPS


@LOOPS.register_module()
class EpochTrainLoop(ResumableLoop, EpochBasedTrainLoop):
    """MMEngine's epoch-based loop with addressed data, a policy for bad samples, and a state.

    The dataset of the config is wrapped in :class:`mmrsfm.datasets.AddressedDataset`: what is drawn
    for a sample follows from (seed, epoch, index). With :class:`mmrsfm.engine.EpochSampler` and
    :class:`mmrsfm.engine.CheckpointHook` a run that is resumed in the middle of an epoch continues
    with the next sample, without reading those before it. A validation does not move the random
    generators of the training.

    Args:
        runner: The runner.
        dataloader: A data loader, or its config.
        max_epochs: Number of epochs.
        val_begin: First epoch, from 1, after which to validate.
        val_interval: Epochs between validations.
        dynamic_intervals: Pairs (epoch, interval) that change ``val_interval``.
        on_bad_sample: ``'raise'`` ends the run at the first sample that cannot be read; ``'skip'``
            takes the next readable sample in the order of the sampler instead (which comes in its
            own turn too), and reports the bad ones at the epoch's end. With a sampler of another
            library: in the order of the dataset.
        max_bad_samples: With ``'skip'``, how many samples of one epoch may be bad, on each rank.

    Raises:
        ConfigError: For an unknown policy, or if the data do not fill one batch.
        TooManyBadSamplesError: While training, if more samples are bad.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader | dict,
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
        dynamic_intervals: list[tuple[int, int]] | None = None,
        on_bad_sample: str = 'raise',
        max_bad_samples: int = 100,
    ) -> None:
        dataloader = self._address(runner, dataloader, on_bad_sample, max_bad_samples)
        super().__init__(runner, dataloader, max_epochs, val_begin, val_interval, dynamic_intervals)
        self._adopt_dataloader(infinite=False)
        if len(self.dataloader) == 0:
            batch_size = getattr(self.dataloader, 'batch_size', None)
            raise ConfigError(
                f'train_dataloader: an epoch has no batch: the dataset has '
                f'{len(self.dataloader.dataset)} samples on {get_world_size()} ranks, '  # type: ignore[arg-type]
                f'batch_size={batch_size}, drop_last={self.dataloader.drop_last}. Use a smaller '
                'batch size, or drop_last=False'
            )

    def run(self) -> nn.Module:
        """Trains, and returns the model."""
        with self._surroundings():
            return self._run()

    def _run(self) -> nn.Module:
        self.runner.call_hook('before_train')
        if self._missed_validation() and self._cursor['batch'] == 0:
            self._validate_if_due()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._validate_if_due()
        self.runner.call_hook('after_train')
        return self.runner.model

    def _validate_if_due(self) -> None:
        self._decide_current_val_interval()
        due = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        if self.runner.val_loop is not None and self._epoch >= self.val_begin and due:
            self._validate()

    def run_epoch(self) -> None:
        """Trains for one epoch, or for the rest of it."""
        self._enter_epoch(self._epoch)
        self.runner.call_hook('before_train_epoch')
        self._wrap_collate()
        self.runner.model.train()
        for idx, data_batch in enumerate(self._batches(), start=self._cursor['batch']):
            self.run_iter(idx, data_batch)
        self._report_bad_samples(self._epoch)
        self._cursor.update(epoch=self._epoch + 1, batch=0)
        self._enter_epoch(self._epoch + 1)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Trains on one batch.

        Args:
            idx: Number of the batch in its epoch.
            data_batch: The batch; records of bad samples are taken out of it.
        """
        self._take(data_batch)
        super().run_iter(idx, data_batch)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where another run was; see :meth:`ResumableLoop.load_state_dict`."""
        super().load_state_dict(state)
        self._epoch = self._cursor['epoch']
