# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What this process takes of the machine: memory, and time of an accelerator."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch


def peak_memory(device: torch.device | str = 'cpu') -> int:
    """The largest memory so far, in bytes: of this process (CPU), or allocated by torch (CUDA).

    Args:
        device: Of which the memory is.
    """
    if torch.device(device).type == 'cuda':
        return int(torch.cuda.max_memory_allocated(device))
    try:
        # Not ru_maxrss: a child inherits its parent's there.
        found = re.search(r'VmHWM:\s+(\d+) kB', Path('/proc/self/status').read_text())
        if found:
            return int(found[1]) * 1024
    except OSError:
        pass
    import resource

    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def gpu_use() -> float | None:
    """How busy this process's GPU was, in percent, over the last moment (up to a second).

    ``None`` without a GPU, or where nothing can be asked (``pip install nvidia-ml-py``).
    """
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return None
    try:
        return float(torch.cuda.utilization())
    except Exception:  # of the driver's library, which has errors of its own
        return None
