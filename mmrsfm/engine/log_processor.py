# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Log lines in the unit of the training loop, with the speed of the run."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner import LogProcessor as BaseLogProcessor

from mmrsfm.registry import LOG_PROCESSORS
from mmrsfm.utils.resource_use import peak_memory

_COUNTED = ('images', 'gpu_use')  # of mmrsfm.IterTimerHook: shown as what follows from them


@LOG_PROCESSORS.register_module()
class LogProcessor(BaseLogProcessor):
    """MMEngine's log processor, in the unit of the training loop, and with the speed of the run.

    It counts epochs or iterations as the loop does, so that one ``default_runtime.py`` serves
    epoch-based and iteration-based schedules. While training it adds, to the line and to the
    numbers for TensorBoard and the JSON log, each over the last ``window_size`` steps:

    * ``images_per_second``: of all ranks together;
    * ``data_wait``: the share of the time, 0 to 1, in which this rank stood still for its data
      loader (both need :class:`mmrsfm.IterTimerHook`);
    * ``host_memory``: the largest memory of this process so far, in MiB, without its workers (that
      of the GPU, ``memory``, is MMEngine's);
    * ``gpu_use``: how busy the GPU of this rank was, in percent, where its driver can be asked.

    Args:
        by_epoch: As in MMEngine; by default the unit of the training loop.
        **kwargs: The other arguments of :class:`mmengine.runner.LogProcessor`.
    """

    def __init__(self, by_epoch: bool | None = None, **kwargs: Any) -> None:
        self._follows_loop = by_epoch is None
        super().__init__(by_epoch=True if by_epoch is None else by_epoch, **kwargs)

    def get_log_after_iter(self, runner: Any, batch_idx: int, mode: str) -> tuple[dict, str]:
        """Formats the log of a step; see the base class."""
        self._follow(runner)
        tag, line = super().get_log_after_iter(runner, batch_idx, mode)
        if mode != 'train':
            return tag, line
        speed = self._speed(runner.message_hub.log_scalars)
        prefix = f'{mode}/' if self.log_with_hierarchy else ''
        tag.update({prefix + key: value for key, value in speed.items()})
        return tag, '  '.join([line, *_shown(speed)])

    def get_log_after_epoch(
        self, runner: Any, batch_idx: int, mode: str, with_non_scalar: bool = False
    ) -> tuple[dict, str]:
        """Formats the log of an epoch, a validation or a test; see the base class."""
        self._follow(runner)
        return super().get_log_after_epoch(runner, batch_idx, mode, with_non_scalar)

    def _collect_scalars(
        self, custom_cfg: list[dict], runner: Any, mode: str, reserve_prefix: bool = False
    ) -> dict:
        found = super()._collect_scalars(custom_cfg, runner, mode, reserve_prefix)
        for name in _COUNTED:
            found.pop(f'{mode}/{name}' if reserve_prefix else name, None)
        return found

    def _speed(self, scalars: Any) -> dict[str, float]:
        means = {
            name: float(scalars[f'train/{name}'].mean(self.window_size))
            for name in ('time', 'data_time', *_COUNTED)
            if f'train/{name}' in scalars
        }
        speed: dict[str, float] = {}
        seconds = means.get('time', 0.0)
        if seconds > 0 and means.get('images'):
            speed['images_per_second'] = means['images'] * get_world_size() / seconds
        if seconds > 0 and 'data_time' in means:
            speed['data_wait'] = min(means['data_time'] / seconds, 1.0)
        speed['host_memory'] = round(peak_memory() / 2**20)
        if 'gpu_use' in means:
            speed['gpu_use'] = means['gpu_use']
        return speed

    def _follow(self, runner: Any) -> None:
        if self._follows_loop:
            # The attribute, not the property: that would build the loop during a test.
            self.by_epoch = not isinstance(runner._train_loop, IterBasedTrainLoop)


def _shown(speed: dict[str, float]) -> list[str]:
    """The speed as parts of a line."""
    parts = []
    if 'images_per_second' in speed:
        parts.append(f'images/s: {speed["images_per_second"]:.4g}')
    if 'data_wait' in speed:
        parts.append(f'data_wait: {speed["data_wait"]:.1%}')
    parts.append(f'host_memory: {speed["host_memory"]:.0f}')
    if 'gpu_use' in speed:
        parts.append(f'gpu_use: {speed["gpu_use"]:.0f}%')
    elif torch.cuda.is_available():
        parts.append('gpu_use: unknown (pip install nvidia-ml-py)')
    return parts
