# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Weights of SAR pixels by their backscatter: the weaker the echo, the heavier the pixel.

"SAR-W-MixMAE", IGARSS 2025, arXiv 2503.01181 (github.com/acaglayan/SAR-W-MixMAE). Written anew from
a description of the published code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmrsfm.errors import ConfigError
from mmrsfm.utils.decibels import db_to_linear

WEIGHT_MODES = ('per_channel', 'shared_avg', 'mean_of_weights', 'none')
EPS = 1e-6


def backscatter_weights(
    decibels: Tensor, mode: str = 'per_channel', scale: float = 1.0, valid: Tensor | None = None
) -> Tensor:
    """Weights of the pixels of SAR images, computed on their device in single precision.

    The power ``p = 10 ** (dB / 10)`` is scaled to [0, 1] by its smallest and largest value in the
    image, ``q = (p - min) / (max - min + 1e-6)``; the weight is ``exp(scale * (1 - q))``, between 1
    (the strongest echo) and ``exp(scale)``. Nothing makes their mean 1.

    * ``'per_channel'``: each polarisation by itself; the default of the published code;
    * ``'shared_avg'``: of the mean power of the polarisations, one weight for all of them;
    * ``'mean_of_weights'``: the mean of the weights of ``'per_channel'``, one for all: the formula
      of the published README, which its code does not compute;
    * ``'none'``: 1.

    A channel of one value weighs ``exp(scale)`` everywhere; -infinity dB is a power of 0. NaN,
    +infinity and what is not ``valid`` weigh 0 and do not touch the other pixels; with a weight for
    all polarisations, the mean is that of those which are there. (In the published code a single
    NaN makes its whole channel NaN.)

    Args:
        decibels: Shape (B, C, H, W), dB (or any other logarithm of the power, such as standardised
            dB, which the published code uses; see :class:`mmrsfm.SARWeightedReconstructionLoss`).
        mode: See above.
        scale: Of the exponent, 0 or more; published: 1.
        valid: Shape (B, C, H, W), bool, False for pixels without data; ``None``: all valid.

    Returns:
        float32, shape (B, C, H, W), without a gradient; 0 where there are no data.

    Raises:
        ConfigError: If ``mode`` is unknown.
    """
    check_weights(mode, scale)
    decibels = decibels.detach().float()
    known = decibels < torch.inf  # neither NaN nor +infinity
    if valid is not None:
        known = known & valid
    if mode == 'none':
        return known.float()
    # With autocast off: its half precision ends at 48 dB.
    with torch.autocast(decibels.device.type, enabled=False):
        power = db_to_linear(decibels).masked_fill(~known, 0.0)
        if mode == 'shared_avg':
            power = _mean_over_channels(power, known)
            weights = _weights(power, known.any(dim=1, keepdim=True), scale)
        else:
            weights = _weights(power, known, scale)
            if mode == 'mean_of_weights':
                weights = _mean_over_channels(weights.masked_fill(~known, 0.0), known)
    return weights.expand_as(decibels).masked_fill(~known, 0.0)


def check_weights(mode: str, scale: float) -> None:
    """Raises a ConfigError unless mode and scale are known to :func:`backscatter_weights`."""
    if mode not in WEIGHT_MODES:
        raise ConfigError(f'the weights of SAR pixels are one of {WEIGHT_MODES}, got {mode!r}')
    if not 0 <= scale < torch.inf:
        raise ConfigError(f'the scale of the weights of SAR pixels is 0 or more, got {scale}')


def _weights(power: Tensor, known: Tensor, scale: float) -> Tensor:
    low = power.masked_fill(~known, torch.inf).amin(dim=(2, 3), keepdim=True)
    high = power.masked_fill(~known, -torch.inf).amax(dim=(2, 3), keepdim=True)
    # Where nothing is known the limits are infinite: the caller hides what comes of them.
    return torch.exp(scale * (1.0 - (power - low) / (high - low + EPS)))


def _mean_over_channels(values: Tensor, known: Tensor) -> Tensor:
    """(B, 1, H, W), of the known channels; values of the others must be 0."""
    return values.sum(dim=1, keepdim=True) / known.sum(dim=1, keepdim=True).clamp(min=1)
