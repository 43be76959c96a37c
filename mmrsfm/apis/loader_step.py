# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""One batch out of the training data loader of any config, that can be timed."""

from __future__ import annotations

import time
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mmrsfm.apis.training_step import Clock, real_batches
from mmrsfm.engine import run_config
from mmrsfm.errors import ConfigError

_SECONDS = 1 / 3


class LoaderStep:
    """The training data loader of a config alone, with its workers, without a model.

    It has the interface of :class:`mmrsfm.apis.training_step.TrainingStep`. Nothing else is done
    between batches, so that the time is that of reading. Workers go on reading between two
    measurements, until their queues are full: those batches are taken first, and not timed. And
    they fill them while another loader is measured: with workers a measurement takes as many
    batches as come in a third of a second, beside which that is little.

    Args:
        cfg: A config with ``train_dataloader``; nothing else of it is used.
        batch_size: Images in a batch; default: that of the loader.

    Raises:
        ConfigError: If there is no loader, or less than one batch of data.
        DataError: If the data cannot be read.
    """

    data = 'real'
    note = ''
    device = torch.device('cpu')

    def __init__(self, cfg: Config, batch_size: int | None = None) -> None:
        loader: Any = cfg.get('train_dataloader')
        if not loader:
            raise ConfigError('the config has no train_dataloader')
        scope = cfg.get('default_scope') or 'mmpretrain'
        run_config.register_scope(scope)
        run_config.set_dataloader_defaults(cfg)
        self.model = nn.Identity()
        self._ahead = loader.get('num_workers', 0) * (loader.get('prefetch_factor') or 2)
        self.batch_size = int(batch_size or loader.get('batch_size', 1))
        with DefaultScope.overwrite_default_scope(scope):
            self._batches = real_batches(loader, self.batch_size)

    def run(self) -> dict[str, float]:
        """Takes batches: one, or with workers at least as many as they read ahead.

        Returns:
            Seconds of one batch: ``data_wait`` and ``step``, the same.
        """
        for _ in range(self._ahead):
            next(self._batches)
        clock, start, count = Clock(self.device), time.perf_counter(), 0
        while count < max(self._ahead, 1) or (
            self._ahead and time.perf_counter() - start < _SECONDS
        ):
            next(self._batches)
            count += 1
        seconds = clock.lap() / count
        return {'data_wait': seconds, 'step': seconds}
