# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The states of the global random generators of a process, as plain values and tensors.

Only what a safe checkpoint reader accepts goes in: no NumPy arrays, no classes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def capture_random_state() -> dict[str, Any]:
    """Returns the states of Python's, NumPy's, torch's and, if used, this device's generator."""
    version, internal, gauss = random.getstate()
    numpy_state: Any = np.random.get_state()
    kind, keys, position, has_gauss, cached = numpy_state
    state: dict[str, Any] = {
        'python': [version, list(internal), gauss],
        'numpy': [kind, torch.tensor(keys.astype(np.int64)), position, has_gauss, cached],
        'torch': torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Sets the generators to states from :func:`capture_random_state`.

    Args:
        state: The states. Tensors may lie on any device: a checkpoint may have been read to one.
    """
    version, internal, gauss = state['python']
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state['numpy']
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


@contextmanager
def preserved_random_state() -> Iterator[dict[str, Any]]:
    """Leaves the generators as they were, whatever the block draws; yields the states."""
    state = capture_random_state()
    try:
        yield state
    finally:
        restore_random_state(state)
