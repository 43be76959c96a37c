# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The masked views of a batch, and what the data samples bring for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmrsfm.errors import ConfigError
from mmrsfm.models.pretext.scale_crop import enlarge, enlarge_valid


@dataclass(frozen=True)
class MaskedViews:
    """V views of B images, view by view along the first axis.

    Attributes:
        images: Shape (V * B, C, H, W).
        valid: Shape (V * B, C, H, W), bool; ``None``: every pixel is valid.
        ids_keep: Shape (V * B, K), numbers of the visible patches.
        ids_restore: Shape (V * B, L), puts (visible, removed) back in place.
        mask: Shape (V * B, L), 1 for removed patches.
        grid: Rows and columns of patches.
        num_views: V.
    """

    images: Tensor
    valid: Tensor | None
    ids_keep: Tensor
    ids_restore: Tensor
    mask: Tensor
    grid: tuple[int, int]
    num_views: int

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """Splits a tensor (V * B, ...) into its views."""
        return x.chunk(self.num_views)

    def view(self, number: int) -> MaskedViews:
        """One of the views."""
        return MaskedViews(
            images=self.split(self.images)[number],
            valid=None if self.valid is None else self.split(self.valid)[number],
            ids_keep=self.split(self.ids_keep)[number],
            ids_restore=self.split(self.ids_restore)[number],
            mask=self.split(self.mask)[number],
            grid=self.grid,
            num_views=1,
        )


def packed(data_samples: Sequence[Any] | None, name: str) -> list[Any] | None:
    """The field ``name`` of every data sample, or ``None`` where no sample has it.

    Raises:
        ConfigError: If only some samples have it.
    """
    found = [getattr(sample, name, None) for sample in data_samples or ()]
    present = [item is not None for item in found]
    if not any(present):
        return None
    if not all(present):
        raise ConfigError(f'only some data samples of the batch have {name}')
    return found


def stack_valid(data_samples: Sequence[Any] | None, images: Tensor) -> Tensor | None:
    """The validity masks of a batch; a sample without one is valid everywhere.

    Args:
        data_samples: Each may have ``valid_mask``, bool, shape (C, H, W) or (1, H, W).
        images: Shape (B, C, H, W).

    Returns:
        Shape (B, C, H, W), bool; ``None`` if no sample has a mask.

    Raises:
        ConfigError: If a mask has another size than the image.
    """
    masks = [getattr(sample, 'valid_mask', None) for sample in data_samples or ()]
    if all(mask is None for mask in masks):
        return None
    valid = torch.ones_like(images, dtype=torch.bool)
    for number, mask in enumerate(masks):
        if mask is None:
            continue
        if mask.ndim != 3 or mask.shape[1:] != images.shape[2:]:
            raise ConfigError(
                f'valid_mask has shape {tuple(mask.shape)}, the image {tuple(images.shape[1:])}'
            )
        valid[number] = mask.to(images.device, torch.bool)
    return valid


def enlarged_views(
    images: Tensor, valid: Tensor | None, rectangles: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor | None]:
    """Puts the enlarged rectangles behind the images.

    Args:
        images: Shape (B, C, H, W).
        valid: Same shape, bool, or ``None``.
        rectangles: One (top, left, height, width) for all images, or one for each.

    Returns:
        Images and validity, each of shape (2B, C, H, W).
    """
    groups = (
        [slice(None)] if len(rectangles) == 1 else [slice(i, i + 1) for i in range(len(images))]
    )
    pairs = list(zip(groups, rectangles, strict=True))
    crops = [enlarge(images[group], rectangle) for group, rectangle in pairs]
    if valid is None:
        return torch.cat([images, *crops]), None
    crop_valid = [enlarge_valid(valid[group], rectangle) for group, rectangle in pairs]
    return torch.cat([images, *crops]), torch.cat([valid, *crop_valid])
