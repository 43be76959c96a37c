# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Images as sequences of patches, and the random choice of the patches that stay visible."""

from __future__ import annotations

import torch
from torch import Tensor

from mmrsfm.errors import ConfigError


def patch_grid(size: tuple[int, int], patch_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of whole patches in an image.

    Args:
        size: Height and width of the image in pixels.
        patch_size: Height and width of a patch in pixels.

    Raises:
        ConfigError: If the image is not made of whole patches.
    """
    if size[0] % patch_size[0] or size[1] % patch_size[1] or min(size) < 1:
        raise ConfigError(
            f'an image of {size[0]}x{size[1]} pixels is not made of whole patches of '
            f'{patch_size[0]}x{patch_size[1]}; crop or resize it to a multiple of the patch'
        )
    return size[0] // patch_size[0], size[1] // patch_size[1]


def patchify(images: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """Cuts images into patches, row by row.

    Args:
        images: Shape (B, C, H, W), H and W multiples of the patch.
        patch_size: Height P and width Q of a patch.

    Returns:
        Shape (B, L, P * Q * C); within a patch the order is pixel row, pixel column, channel.
    """
    batch, channels = images.shape[:2]
    rows, columns = patch_grid((images.shape[2], images.shape[3]), patch_size)
    cells = images.reshape(batch, channels, rows, patch_size[0], columns, patch_size[1])
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1)


def unpatchify(patches: Tensor, grid: tuple[int, int], patch_size: tuple[int, int]) -> Tensor:
    """The inverse of :func:`patchify`.

    Args:
        patches: Shape (B, rows * columns, P * Q * C).
        grid: Rows and columns of patches.
        patch_size: Height P and width Q of a patch.

    Returns:
        Shape (B, C, rows * P, columns * Q).
    """
    batch = patches.shape[0]
    cells = patches.reshape(batch, *grid, *patch_size, -1).permute(0, 5, 1, 3, 2, 4)
    return cells.reshape(batch, -1, grid[0] * patch_size[0], grid[1] * patch_size[1])


def gather_patches(
    images: Tensor, ids: Tensor, patch_size: tuple[int, int], channels_last: bool = False
) -> Tensor:
    """Takes single patches out of images, without cutting up the rest.

    Args:
        images: Shape (B, C, H, W).
        ids: Shape (B, K), row-major numbers of the patches.
        patch_size: Height P and width Q of a patch.
        channels_last: Order within a patch: that of :func:`patchify` instead.

    Returns:
        Shape (B, K, C * P * Q), channel FIRST: the order of the weight of a patch convolution; or,
        with ``channels_last``, (B, K, P * Q * C).
    """
    batch, channels = images.shape[:2]
    rows, columns = patch_grid((images.shape[2], images.shape[3]), patch_size)
    cells = images.reshape(batch, channels, rows, patch_size[0], columns, patch_size[1])
    index = torch.arange(batch, device=images.device)[:, None]
    order = (0, 2, 4, 3, 5, 1) if channels_last else (0, 2, 4, 1, 3, 5)
    chosen = cells.permute(order)[index, ids // columns, ids % columns]
    return chosen.flatten(2)


def mask_from_noise(noise: Tensor, mask_ratio: float) -> tuple[Tensor, Tensor, Tensor]:
    """Chooses the visible patches: those with the smallest noise (MAE, arXiv 2111.06377).

    Args:
        noise: Shape (B, L), uniform in [0, 1).
        mask_ratio: Share of patches that are removed, in [0, 1); ``int(L * (1 - ratio))`` stay.

    Returns:
        ``ids_keep`` (B, K) in the order of the noise; ``ids_restore`` (B, L), which puts the
        sequence (visible, removed) back in place; ``mask`` (B, L) float, 0 visible, 1 removed.
    """
    batch, length = noise.shape
    keep = int(length * (1 - mask_ratio))
    ids_shuffle = noise.argsort(dim=1)
    ids_restore = ids_shuffle.argsort(dim=1)
    ids_keep = ids_shuffle[:, :keep]
    mask = noise.new_ones(batch, length).scatter_(1, ids_keep, 0.0)
    return ids_keep, ids_restore, mask
