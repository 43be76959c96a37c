# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Times of a step, and what a speed is counted from."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.hooks import IterTimerHook as BaseIterTimerHook
from mmengine.runner import Runner

from mmrsfm.registry import HOOKS
from mmrsfm.utils.resource_use import gpu_use

_SECONDS = 1.0  # between two looks at the GPU: its driver averages over about as much


@HOOKS.register_module()
class IterTimerHook(BaseIterTimerHook):
    """MMEngine's timer, which also counts images and looks at the GPU.

    :class:`mmrsfm.LogProcessor` makes images/s, the share of waiting for data and the use of the
    GPU of it. MMEngine's ``data_time`` runs from the end of a step to the next batch, with all that
    hooks do in between: writing a checkpoint looks like slow data. With the loops of mmrsfm it is
    the time in which the loop stood still for the data loader.
    """

    def __init__(self) -> None:
        super().__init__()
        self._looked = 0.0

    def _before_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, mode: str = 'train'
    ) -> None:
        loop = runner._train_loop if mode == 'train' else None
        waited = getattr(loop, 'waited_for_data', None)
        if waited is None:
            super()._before_iter(runner, batch_idx, data_batch, mode)
        else:
            runner.message_hub.update_scalar(f'{mode}/data_time', waited)
        if mode == 'train':
            runner.message_hub.update_scalar('train/images', count_images(data_batch))

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
        mode: str = 'train',
    ) -> None:
        super()._after_iter(runner, batch_idx, data_batch, outputs, mode)
        now = time.monotonic()
        if mode == 'train' and now - self._looked >= _SECONDS:
            self._looked = now
            found = gpu_use()
            if found is not None:
                runner.message_hub.update_scalar('train/gpu_use', found)


def count_images(batch: Any) -> int:
    """The number of samples in a batch of any data loader; a pair of dates is one sample.

    Args:
        batch: Usually a dict with ``inputs``: a tensor (B, ...), a list of B images, or a list of
            such batches, one for each date. Where several data sets are read at once, a list of
            such dicts, or a dict of them.

    Returns:
        0 where it cannot be told.
    """
    if isinstance(batch, Mapping):
        if 'inputs' not in batch:
            return sum(count_images(part) for part in batch.values() if isinstance(part, Mapping))
        samples = batch.get('data_samples')
        if isinstance(samples, Sequence) and not isinstance(samples, str) and len(samples):
            return len(samples)
        inputs = batch['inputs']
        if isinstance(inputs, Sequence) and len(inputs) and not _is_image(inputs[0]):
            inputs = inputs[0]
        return len(inputs) if hasattr(inputs, '__len__') else 0
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        if batch and isinstance(batch[0], Mapping):
            return sum(count_images(part) for part in batch)
        return len(batch[0]) if batch and hasattr(batch[0], '__len__') else 0
    return len(batch) if isinstance(batch, torch.Tensor) and batch.ndim else 0


def _is_image(value: Any) -> bool:
    """Whether an entry of ``inputs`` is one sample, not a batch of them."""
    return isinstance(value, torch.Tensor) and value.ndim < 4
