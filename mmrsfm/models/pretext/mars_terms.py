# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The terms of MaRS' loss that are no contrast: reconstruction, and distillation of a teacher."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mmrsfm.errors import ConfigError

TEACHER_AXES = ('token', 'channel')
EPS = 1e-5


def masked_pixel_loss(pred: Tensor, image: Tensor, counts: Tensor) -> Tensor:
    """Mean absolute error of the pixels that count, of the whole batch.

    ``sum(|image - pred| * counts) / (sum(counts) + 1e-5) / C``, as in SimMIM (arXiv 2111.09886) and
    MaRS.

    Args:
        pred: Shape (B, C, H, W).
        image: What should have been predicted, finite, same shape.
        counts: Shape (B, 1, H, W), bool: the pixels that count.

    Returns:
        A scalar, float32; 0 with gradients of 0 where no pixel counts.
    """
    errors = (image.float() - pred.float()).abs().sum(1, keepdim=True)
    weights = counts.float()
    return (errors * weights).sum() / (weights.sum() + EPS) / image.shape[1]


def teacher_loss(student: Tensor, teacher: Tensor, valid: Tensor | None, axis: str) -> Tensor:
    """Negative mean cosine between what two encoders made of the same images.

    Args:
        student: Tokens, shape (B, S, C).
        teacher: Tokens, same shape.
        valid: Shape (B, S), bool: the tokens that count; ``None``: all.
        axis: ``'token'``: one cosine for each channel of an image, over its tokens;
            ``'channel'``: one for each token, over its channels.

    Returns:
        A scalar in [-1, 1], float32; 0 with gradients of 0 where no token counts.

    Raises:
        ConfigError: For another axis.
    """
    if axis not in TEACHER_AXES:
        raise ConfigError(f'teacher_axis is one of {TEACHER_AXES}, got {axis!r}')
    student, teacher = student.float(), teacher.float()
    over = 1 if axis == 'token' else 2
    if valid is None:
        return -F.cosine_similarity(student, teacher, dim=over).mean()
    counts = valid[..., None]
    student, teacher = student.where(counts, 0.0), teacher.where(counts, 0.0)
    cosines = F.cosine_similarity(student, teacher, dim=over)
    # (B, C) or (B, S): the images, or the tokens, that have any.
    weights = (valid.any(1, keepdim=True) if over == 1 else valid).to(cosines.dtype)
    weights = weights.expand_as(cosines)
    return -(cosines * weights).sum() / weights.sum().clamp(min=1.0)
