# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Reconstruction losses of masked autoencoders, with no-data pixels left out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmpretrain.models.utils import to_2tuple
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.layers.patches import patch_grid, patchify, unpatchify
from mmrsfm.models.losses.ssim import structural_similarity
from mmrsfm.registry import MODELS

# Error of one number, and whether a patch counts as the sum (not the mean) over its numbers.
POINTWISE = {'mse': False, 'l2': True, 'mae': False, 'l1': True, 'bce': False}
STRUCTURAL = ('ssim', 'mse_ssim')
EPS = 1e-6


def min_max_scaled(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Scales to [0, 1] by the smallest and the largest (valid) value of the whole tensor.

    Args:
        x: Any shape.
        valid: Same shape, bool; what is not valid takes no part, and comes out as a number that
            has no meaning.
    """
    if valid is None:
        low, high = x.min(), x.max()
    elif valid.any():
        low, high = x[valid].min(), x[valid].max()
    else:
        return x * 0.0  # still part of the graph: every parameter keeps a gradient
    return (x - low) / (high - low + EPS)


def pointwise_loss(
    pred: Tensor,
    target: Tensor,
    kind: str,
    mask: Tensor | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """Mean or summed error of tokens, averaged over the (masked) tokens.

    With errors e and weights w = mask * valid, the loss is ``sum(w e) / sum(w)`` for the kinds that
    average over a token, and N times that for those that sum. With everything valid this is the
    mean over masked tokens of the mean (sum) over their N numbers. If nothing has weight, it is 0.

    Args:
        pred: Shape (B, L, N); for ``'bce'`` logits.
        target: Shape (B, L, N); for ``'bce'`` it is scaled to [0, 1] by its global range.
        kind: ``'mse'``, ``'l2'`` (sum of squares), ``'mae'``, ``'l1'`` (sum) or ``'bce'``.
        mask: Shape (B, L), 1 for the tokens that count; ``None``: all.
        valid: Shape (B, L, N), bool; ``None``: all.

    Returns:
        A scalar.
    """
    if kind not in POINTWISE:
        raise ConfigError(f'pointwise loss {kind!r} is not one of {sorted(POINTWISE)}')
    pred, target = pred.float(), target.float()
    if kind == 'bce':
        scaled = min_max_scaled(target, valid)
        if valid is not None:
            scaled = scaled.where(valid, scaled.new_zeros(()))
        errors = F.binary_cross_entropy_with_logits(pred, scaled, reduction='none')
    else:
        if valid is not None:
            # Not a product with 0: what is not valid may be NaN.
            target = target.where(valid, pred.detach())
        errors = pred - target
        errors = errors.square() if kind in ('mse', 'l2') else errors.abs()
    factor = errors.shape[-1] if POINTWISE[kind] else 1.0
    if valid is None:
        tokens = errors.mean(-1)
        if mask is None:
            return tokens.mean() * factor
        return (tokens * mask).sum() / mask.sum().clamp(min=1.0) * factor
    weights = valid.float() if mask is None else valid * mask[..., None]
    return (errors * weights).sum() / weights.sum().clamp(min=1.0) * factor


@MODELS.register_module()
class MaskedReconstructionLoss(nn.Module):
    """Compares predicted patches with an image, on the patches that were masked.

    Args:
        kind: ``'mse'``, ``'l2'``, ``'mae'``, ``'l1'``, ``'bce'`` as in :func:`pointwise_loss`;
            ``'ssim'``: 1 - SSIM of the masked pixels, after scaling prediction and target
            separately to [0, 1]; ``'mse_ssim'``: mse + 0.1 times that.
        norm_pix: Whether to normalise every patch of the target by its own mean and (unbiased)
            variance.
        patch_size: Size of a patch in pixels.

    The kinds and their constants are those of Cross-Scale MAE (arXiv 2401.15855), the normalised
    target is that of MAE (arXiv 2111.06377); the treatment of no-data pixels is ours.
    """

    def __init__(
        self,
        kind: str = 'mse',
        norm_pix: bool = False,
        patch_size: int | tuple[int, int] = 16,
    ) -> None:
        super().__init__()
        if kind not in POINTWISE and kind not in STRUCTURAL:
            raise ConfigError(
                f'reconstruction loss {kind!r} is not one of {sorted(POINTWISE)} or {STRUCTURAL}'
            )
        self.kind = kind
        self.norm_pix = norm_pix
        self.patch_size = to_2tuple(patch_size)

    def forward(
        self,
        pred: Tensor,
        images: Tensor,
        mask: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Computes the loss.

        Args:
            pred: Predicted patches, shape (B, L, P * Q * C): pixel row, pixel column, channel.
            images: What should have been predicted, shape (B, C, H, W).
            mask: Shape (B, L), 1 for the patches that count; ``None``: all.
            valid: Shape (B, C, H, W), bool, False for pixels without data; ``None``: all valid.

        Returns:
            A scalar; 0 where no valid pixel was masked.
        """
        pred = pred.float()
        target = patchify(images.float(), self.patch_size)
        ok = None if valid is None else patchify(valid, self.patch_size)
        if self.norm_pix:
            target = normalised_patches(target, ok)
        if self.kind in POINTWISE:
            return pointwise_loss(pred, target, self.kind, mask, ok)
        grid = patch_grid((images.shape[2], images.shape[3]), self.patch_size)
        loss = self._one_minus_ssim(pred, target, mask, ok, grid)
        if self.kind == 'mse_ssim':
            loss = pointwise_loss(pred, target, 'mse', mask, ok) + 0.1 * loss
        return loss

    def _one_minus_ssim(
        self,
        pred: Tensor,
        target: Tensor,
        mask: Tensor | None,
        valid: Tensor | None,
        grid: tuple[int, int],
    ) -> Tensor:
        pred, target = min_max_scaled(pred, valid), min_max_scaled(target, valid)
        if valid is not None:
            pred = pred.where(valid, pred.new_zeros(()))
            target = target.where(valid, target.new_zeros(()))
        if mask is not None:
            pred, target = pred * mask[..., None], target * mask[..., None]
        pred = unpatchify(pred, grid, self.patch_size)
        target = unpatchify(target, grid, self.patch_size)
        return 1 - structural_similarity(pred, target)

    def to_images(
        self,
        pred: Tensor,
        images: Tensor,
        grid: tuple[int, int],
        valid: Tensor | None = None,
    ) -> Tensor:
        """Predicted patches as images, for pictures: in the units of the images.

        What the loss leaves open is taken from the images: mean and variance of each patch with
        ``norm_pix``; the range of values with ``'bce'`` and ``'ssim'``.

        Args:
            pred: As for :meth:`forward`.
            images: As for :meth:`forward`.
            grid: Rows and columns of patches.
            valid: As for :meth:`forward`.

        Returns:
            (B, C, H, W) float32.
        """
        pred = pred.detach().float()
        known = images.float() if valid is None else images.float()[valid]
        if self.kind in ('bce', 'ssim'):
            pred = pred.sigmoid() if self.kind == 'bce' else min_max_scaled(pred)
            if known.numel():
                pred = pred * (known.max() - known.min()) + known.min()
        elif self.norm_pix:
            ok = None if valid is None else patchify(valid, self.patch_size)
            mean, deviation = patch_statistics(patchify(images.float(), self.patch_size), ok)
            pred = pred * deviation + mean
        return unpatchify(pred, grid, self.patch_size)


def normalised_patches(target: Tensor, valid: Tensor | None) -> Tensor:
    """Each patch minus its mean, by the root of its unbiased variance, over its valid pixels."""
    if valid is not None:
        target = target.where(valid, target.new_zeros(()))
    mean, deviation = patch_statistics(target, valid)
    return (target - mean) / deviation


def patch_statistics(patches: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean, and root of the unbiased variance (plus 1e-6), of the valid numbers of each patch.

    Args:
        patches: Shape (B, L, N).
        valid: Same shape, bool; ``None``: all.

    Returns:
        Two tensors of shape (B, L, 1).
    """
    if valid is None:
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    else:
        patches = patches.where(valid, patches.new_zeros(()))
        count = valid.sum(-1, keepdim=True)
        mean = patches.sum(-1, keepdim=True) / count.clamp(min=1)
        squares = ((patches - mean) * valid).square().sum(-1, keepdim=True)
        variance = squares / (count - 1).clamp(min=1)
    return mean, (variance + EPS).sqrt()
