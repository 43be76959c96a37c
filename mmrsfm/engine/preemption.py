# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Signals that announce the end of a job: noted, so that a run can end in order.

Slurm sends SIGTERM when it takes a job's nodes away, and, where ``--signal`` asks for it, another
signal some time before the limit of the job. It sends them to every process of a step, those that
read data among them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from mmengine.logging import print_log
from torch.utils.data import DataLoader

from mmrsfm.errors import ConfigError

# EX_TEMPFAIL of sysexits.h: nothing is wrong, try again. tools/slurm_job.sh knows it, too.
EXIT_REQUEUE = 75


class SignalWatch:
    """Notes signals of some kinds, instead of ending the process.

    Only in the process that made it: what was forked from there is ended by them as ever, except
    for the workers of data loaders given to :meth:`spare_workers`.

    Args:
        names: Names of the signals, e.g. ``('SIGTERM',)``.

    Attributes:
        received: Number of the first signal that came, or 0.

    Raises:
        ConfigError: For a name that is no signal.
    """

    _active: SignalWatch | None = None

    def __init__(self, names: Sequence[str]) -> None:
        unknown = [name for name in names if not hasattr(signal, name)]
        if unknown or isinstance(names, str):
            raise ConfigError(f"signals: {names!r} are not names of signals, as ('SIGTERM',)")
        self.numbers = tuple(signal.Signals[name] for name in names)
        self.received = 0
        self._pid = 0
        self._former: dict[signal.Signals, Any] = {}

    def start(self) -> None:
        """Begins to note signals; one that is watching already ends."""
        stop_watching()
        if threading.current_thread() is not threading.main_thread():
            print_log('Signals are not watched: this run is not in the main thread.', 'current', 30)
            return
        self._pid = os.getpid()
        for number in self.numbers:
            self._former[number] = signal.signal(number, self._note)
        SignalWatch._active = self

    def stop(self) -> None:
        """Gives the signals back to those who handled them before."""
        if os.getpid() == self._pid:
            for number, former in self._former.items():
                with contextlib.suppress(TypeError, ValueError):  # a handler that is not Python's
                    signal.signal(number, former)
        self._former.clear()
        if SignalWatch._active is self:
            SignalWatch._active = None

    def spare_workers(self, loader: DataLoader) -> None:
        """Lets the workers of a data loader read on; call before it is iterated.

        They would be killed by a signal to all processes of a job, and the step in progress with
        them. Their own process still ends them.

        Args:
            loader: The data loader.
        """
        former = loader.worker_init_fn
        if not isinstance(former, _SparedWorker):
            loader.worker_init_fn = _SparedWorker(former, self.numbers)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not self.received:
            self.received = number
            # Not by the logger: a handler may run while the logger writes.
            text = f'{signal.Signals(number).name}: this run saves after its step, and ends.\n'
            with contextlib.suppress(OSError):
                os.write(2, text.encode())


class _SparedWorker:
    """What a worker does first: see :meth:`SignalWatch.spare_workers`."""

    def __init__(self, former: Callable[[int], None] | None, numbers: Sequence[int]) -> None:
        self.former = former
        self.numbers = tuple(numbers)

    def __call__(self, worker_id: int) -> None:
        # Blocked here, and so in threads that are started later; one thread of its own takes them,
        # also while this one waits for a disk.
        signal.pthread_sigmask(signal.SIG_BLOCK, self.numbers)
        arguments = (self.numbers, os.getppid())
        threading.Thread(target=_take_signals, args=arguments, daemon=True).start()
        if self.former is not None:
            self.former(worker_id)


def _take_signals(numbers: Sequence[int], parent: int) -> None:
    while True:
        info = signal.sigwaitinfo(numbers)
        if info.si_pid == parent or os.getppid() != parent:
            os._exit(0)


def stop_watching() -> None:
    """Ends the watch of this process, if there is one."""
    if SignalWatch._active is not None:
        SignalWatch._active.stop()


def ignore_signals() -> None:
    """Lets a process that is about to end, and has saved, do so with the status that it wants."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
