# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Tells the C library to keep the memory that a training step on a CPU frees, for the next step."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping

# Of <malloc.h>; see mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_NEVER = -1  # see mallopt(3)
_PAD = 64 * 2**20

# Who sets one of these has decided.
_VARIABLES = ('MALLOC_MMAP_MAX_', 'MALLOC_TRIM_THRESHOLD_', 'MALLOC_TOP_PAD_', 'GLIBC_TUNABLES')


def keep_freed_memory(environ: Mapping[str, str] | None = None) -> bool:
    """Keeps freed memory in the process, so that large tensors do not return to the kernel.

    glibc maps every large block anew and hands it back when it is freed; a training step on a CPU
    frees all its activations, and the next one has the kernel clear the same gigabytes page by
    page. ``tools/analysis_tools/benchmark.py --release-memory`` shows what that costs. The peak
    hardly grows; what is freed stays with this process until it ends.

    Call it before the first large allocation. It changes nothing where torch computes on a GPU
    (that has an allocator of its own), so callers ask for it on a CPU only.

    Args:
        environ: The environment; the process's by default. A user who sets ``MALLOC_MMAP_MAX_``,
            ``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_TOP_PAD_`` or ``GLIBC_TUNABLES`` is not overruled.

    Returns:
        Whether it was done: not on other systems or C libraries.
    """
    environ = os.environ if environ is None else environ
    if not sys.platform.startswith('linux') or any(name in environ for name in _VARIABLES):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has none
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _PAD))
    return all(mallopt(name, value) == 1 for name, value in settings)
