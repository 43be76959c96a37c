# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Workers of a data loader that do not outlive a run that was killed.

PyTorch's workers look every five seconds whether their process is still there, and end then; but
one that has more to send than a pipe holds (64 KB) waits for ever to send it, with the memory and
the files that it has. Linux ends a process together with its parent, if it asks for that.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

from torch.utils.data import DataLoader

_PR_SET_PDEATHSIG = 1  # prctl(2)


def end_workers_with_parent(loader: DataLoader) -> None:
    """Has the kernel end the workers when their process ends, however it does. Idempotent.

    On Linux; elsewhere, and under a start method by which another process is their parent, nothing
    changes.

    Args:
        loader: The data loader; call before it is iterated.
    """
    former = loader.worker_init_fn
    if sys.platform == 'linux' and not isinstance(former, _EndWithParent):
        loader.worker_init_fn = _EndWithParent(former)


class _EndWithParent:
    """What a worker does first; a class, so that it can be sent to one that is spawned."""

    def __init__(self, former: Callable[[int], None] | None) -> None:
        self.former = former
        self.parent = os.getpid()

    def __call__(self, worker_id: int) -> None:
        if os.getppid() == self.parent:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if self.former is not None:
            self.former(worker_id)
