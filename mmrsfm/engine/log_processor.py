# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Log lines in the unit of the training loop."""

from __future__ import annotations

from typing import Any

from mmengine.runner import IterBasedTrainLoop
from mmengine.runner import LogProcessor as BaseLogProcessor

from mmrsfm.registry import LOG_PROCESSORS


@LOG_PROCESSORS.register_module()
class LogProcessor(BaseLogProcessor):
    """MMEngine's log processor, which counts epochs or iterations as the training loop does.

    So that one ``default_runtime.py`` serves epoch-based and iteration-based schedules.

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
        return super().get_log_after_iter(runner, batch_idx, mode)

    def get_log_after_epoch(
        self, runner: Any, batch_idx: int, mode: str, with_non_scalar: bool = False
    ) -> tuple[dict, str]:
        """Formats the log of an epoch, a validation or a test; see the base class."""
        self._follow(runner)
        return super().get_log_after_epoch(runner, batch_idx, mode, with_non_scalar)

    def _follow(self, runner: Any) -> None:
        if self._follows_loop:
            # The attribute, not the property: that would build the loop during a test.
            self.by_epoch = not isinstance(runner._train_loop, IterBasedTrainLoop)
