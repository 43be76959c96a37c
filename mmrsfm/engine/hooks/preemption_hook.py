# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A run that is told to end: it finishes its step, saves, and says that it can go on."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, IterBasedTrainLoop, ValLoop

from mmrsfm.engine.hooks.checkpoint_hook import CheckpointHook
from mmrsfm.engine.preemption import SignalWatch, stop_watching
from mmrsfm.errors import PreemptedError
from mmrsfm.registry import HOOKS


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Saves a checkpoint and ends the run after a signal, so that it can be started again.

    Slurm sends SIGTERM to a job whose nodes it wants, and, asked by ``--signal=USR1@120``, SIGUSR1
    two minutes before the job's time is over. Then the run

    * finishes the step in progress;
    * saves ``iter_N.pth`` (see :meth:`mmrsfm.engine.CheckpointHook.save_interim`), from which
      ``--resume auto`` continues to the same numbers; the next regular checkpoint replaces it;
    * ends by :class:`mmrsfm.errors.PreemptedError`, of which our tools make the exit status 75.

    Needs :class:`mmrsfm.engine.CheckpointHook`: without it signals end the run as ever, so that
    nobody who asks for status 75 starts it from its beginning again and again.

    After each step the ranks tell each other whether one of them got a signal: all end at the same
    place, if only one did. A validation is left at once, and made after the resumption, where it
    asks every rank for equally many batches; else it is finished first. A signal before the first
    step, while workers start, say, is acted on after that step.

    Costs one number shared between ranks for each step, and nothing on a single one.

    Args:
        signals: Names of the signals.

    Raises:
        ConfigError: For a name that is no signal.
        PreemptedError: While training, on every rank, after a signal to one of them.
        CheckpointWriteError: If the checkpoint cannot be written.
    """

    priority = 'LOWEST'  # after the checkpoint hook

    def __init__(self, signals: Sequence[str] = ('SIGTERM', 'SIGUSR1')) -> None:
        self._watch = SignalWatch(signals)
        self._asks_in_validation = False

    def before_run(self, runner: Any) -> None:
        """Begins to watch, if this is a training that can be saved."""
        if isinstance(runner._train_loop, BaseLoop):
            if not any(isinstance(one, CheckpointHook) for one in runner.hooks):
                runner.logger.warning(
                    'Signals end this run without a checkpoint: it has no mmrsfm.CheckpointHook.'
                )
                return
            self._watch.start()
            for loop in (runner._train_loop, runner._val_loop):
                loader = getattr(loop, 'dataloader', None)
                if getattr(loader, 'num_workers', 0):
                    self._watch.spare_workers(loader)  # type: ignore[arg-type]

    def after_run(self, runner: Any) -> None:
        """Gives the signals back."""
        self._watch.stop()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Ends the run, if it is time; the last step of an epoch is left to its end."""
        loop = runner.train_loop
        by_epoch = not isinstance(loop, IterBasedTrainLoop)
        if by_epoch and batch_idx + 1 >= len(loop.dataloader):
            return
        if self._told():
            self._end(runner, runner.epoch, runner.iter + 1)

    def after_train_epoch(self, runner: Any) -> None:
        """Ends the run, if it is time."""
        if not isinstance(runner.train_loop, IterBasedTrainLoop) and self._told():
            self._end(runner, runner.epoch + 1, runner.iter)

    def before_val(self, runner: Any) -> None:
        """Finds out whether the ranks can tell each other of signals during the validation."""
        loop = runner._val_loop
        # Another number of batches, and the ranks would meet at different places.
        standard = isinstance(loop, ValLoop) and type(loop).run is ValLoop.run
        lengths = {-1}
        if self._is_training(runner) and standard:
            lengths = set(all_gather_object(len(loop.dataloader)))
        self._asks_in_validation = len(lengths) == 1 and -1 not in lengths

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Leaves the validation, if it is time."""
        if self._asks_in_validation and self._told():
            self._end(runner, runner.epoch, runner.iter)

    def after_val(self, runner: Any) -> None:
        """Ends the run after a validation that could not be left, if it is time."""
        if self._is_training(runner) and not self._asks_in_validation and self._told():
            self._end(runner, runner.epoch, runner.iter)

    def _is_training(self, runner: Any) -> bool:
        return SignalWatch._active is self._watch

    def _told(self) -> int:
        """Number of a signal that any rank got, or 0. A collective."""
        number = torch.tensor(self._watch.received)
        if get_world_size() > 1:
            all_reduce(number, op='max')
        return int(number)

    def _end(self, runner: Any, epoch: int, iteration: int) -> None:
        ranks = [rank for rank, one in enumerate(all_gather_object(self._watch.received)) if one]
        name = signal.Signals(self._told()).name
        hook = next(one for one in runner.hooks if isinstance(one, CheckpointHook))
        path = hook.save_interim(runner, epoch, iteration)
        runner.visualizer.close()
        stop_watching()
        raise PreemptedError(
            f'{name} (to rank {", ".join(map(str, ranks))}): the run ends after step {iteration}; '
            f'its state is in {path}, from which it continues with --resume auto'
        )
