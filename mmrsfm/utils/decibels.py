# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Radar backscatter in decibels and as power.

``dB = 10 log10(power)``, the convention of calibrated backscatter (sigma nought, gamma nought).
Images of amplitudes are in decibels after ``20 log10``; see :class:`mmrsfm.ScaleSAR`.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Array = TypeVar('Array', np.ndarray, Tensor)


def db_to_linear(decibels: Array) -> Array:
    """Power of what is given in decibels, ``10 ** (dB / 10)``.

    Args:
        decibels: Any shape, floating point; -infinity is a power of 0, NaN stays NaN.

    Returns:
        An array or tensor of the same shape and type, values of 0 and above. Single precision, in
        which it should be computed, goes up to 385 dB; half precision only to 48 dB.
    """
    if isinstance(decibels, Tensor):
        return torch.pow(10.0, decibels / 10.0)
    ten = np.asarray(10.0, dtype=decibels.dtype)
    return np.power(ten, decibels / ten)


def linear_to_db(power: Array, zero: float = 1e-6) -> Array:
    """Decibels of powers, ``10 log10(power)``.

    Args:
        power: Any shape, floating point. Powers below 0, which the subtraction of noise leaves
            behind, have no decibels: NaN, which loaders of this library take for missing.
        zero: What a power of exactly 0 counts as, since it has no decibels either. The default
            gives -60 dB, far below the noise of any spaceborne sensor, as the data preparation of
            SAR-W-MixMAE (arXiv 2503.01181) does; 0 gives -infinity.

    Returns:
        An array or tensor of the same shape and type.
    """
    if isinstance(power, Tensor):
        return 10.0 * torch.log10(torch.where(power == 0, zero, power))
    with np.errstate(divide='ignore', invalid='ignore'):
        filled = np.where(power == 0, np.asarray(zero, dtype=power.dtype), power)
        return np.asarray(10.0, dtype=power.dtype) * np.log10(filled)
