# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Losses of modalities of which parts may be missing: a value, and whether anything was known.

Each function returns two scalars: the loss, float32, finite whatever is missing, 0 (with gradients
of 0) where nothing is known; and a bool tensor, whether anything counted. With
``missing='as_published'`` the numbers are those of the published MP-MAE (MMEarth, ECCV 2024, arXiv
2405.02771), which regresses missing pixels of maps to 0, the mean of their band, instead of leaving
them out; missing classes and vectors are left out either way.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrsfm.errors import ConfigError
from mmrsfm.models.losses.masked_reconstruction_loss import normalised_patches

MISSING = ('ignored', 'as_published')
REGRESSIONS = ('mse', 'mae')


def patch_loss(
    pred: Tensor,
    target: Tensor,
    kind: str = 'mse',
    norm_pix: bool = False,
    missing: str = 'ignored',
) -> tuple[Tensor, Tensor]:
    """Regression of patches of a map: the mean over all numbers that are known.

    Args:
        pred: Shape (B, K, N), the patches that count.
        target: Same shape, not finite where missing.
        kind: ``'mse'`` or ``'mae'``.
        norm_pix: Whether each patch of the target is normalised by its own mean and unbiased
            variance, of all its numbers (known ones, unless ``'as_published'``) together.
        missing: ``'ignored'``, or ``'as_published'``: missing numbers are 0, and the mean is over
            the patches whose loss is not 0.

    Returns:
        See the module.

    Raises:
        ConfigError: For an unknown kind or treatment.
    """
    known = torch.isfinite(target)
    target = torch.where(known, target.float(), 0.0)
    if missing == 'as_published':
        if norm_pix:
            target = normalised_patches(target, None)
        patches = _errors(pred, target, kind).mean(-1)
        count = (patches != 0).sum()
        return patches.sum() / count.clamp(min=1), count > 0
    if missing != 'ignored':
        raise ConfigError(f'missing is one of {MISSING}, got {missing!r}')
    if norm_pix:
        target = normalised_patches(target, known)
    count = known.sum()
    errors = torch.where(known, _errors(pred, target, kind), 0.0)
    return errors.sum() / count.clamp(min=1), count > 0


def vector_loss(pred: Tensor, target: Tensor, kind: str = 'mse') -> tuple[Tensor, Tensor]:
    """Regression of vectors: the mean over all numbers that are known.

    Args:
        pred: Shape (B, C).
        target: Same shape, not finite where missing.
        kind: ``'mse'`` or ``'mae'``.

    Returns:
        See the module.
    """
    return patch_loss(pred[:, None], target[:, None], kind)


def class_loss(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy over all places of which the class is known.

    Args:
        logits: Shape (..., classes).
        target: Shape (...), int64; negative where missing.

    Returns:
        See the module.
    """
    known = target >= 0
    count = known.sum()
    total = F.cross_entropy(
        logits.float().flatten(0, -2),
        target.where(known, -1).flatten(),
        ignore_index=-1,
        reduction='sum',
    )
    return total / count.clamp(min=1), count > 0


def _errors(pred: Tensor, target: Tensor, kind: str) -> Tensor:
    if kind not in REGRESSIONS:
        raise ConfigError(f'the loss of a modality is one of {REGRESSIONS}, got {kind!r}')
    errors = pred.float() - target
    return errors.square() if kind == 'mse' else errors.abs()
