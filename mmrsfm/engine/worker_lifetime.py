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
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_PR_SET_PDEATHSIG = 1  # prctl(2)


@contextmanager
def workers_end_with_parent(loader: Any) -> Iterator[None]:
    """Has the kernel end workers that a block starts when their process ends, however it does.

    On Linux, in the main thread; elsewhere, and under a start method by which another process is
    their parent, nothing changes. "Parent" means the thread to Linux: workers that another thread
    started would end with it, in the middle of what they do for the others. After the block the
    loader is as it was, as it may then be used by any thread.

    Args:
        loader: The data loader, or ``None``. Its workers must not be used after the thread's end.
    """
    former = getattr(loader, 'worker_init_fn', None)
    applies = (
        hasattr(loader, 'worker_init_fn')
        and sys.platform == 'linux'
        and threading.current_thread() is threading.main_thread()
    )
    if applies:
        loader.worker_init_fn = _EndWithParent(former)
    try:
        yield
    finally:
        if applies:
            loader.worker_init_fn = former


class _EndWithParent:
    """What a worker does first; a class, so that it can be sent to one that is spawned."""

    def __init__(self, former: Callable[[int], None] | None) -> None:
        self.former = former
        self.parent = os.getpid()

    def __call__(self, worker_id: int) -> None:
        if os.getppid() == self.parent:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != self.parent:  # it ended in between
                os._exit(1)
        if self.former is not None:
            self.former(worker_id)
