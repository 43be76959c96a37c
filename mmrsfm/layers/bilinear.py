# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Bilinear sampling of tokens at positions that are learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmrsfm.layers.weighted_rows import weighted_rows


def sample_tokens(values: Tensor, positions: Tensor, parts: Sequence[int]) -> Tensor:
    """Samples a grid of tokens between its points; outside of the grid there are zeros.

    The same numbers as :func:`torch.nn.functional.grid_sample` (bilinear, zero padding), for
    tokens with their channels last. On a CPU the channels of one head are gathered as a whole.

    Args:
        values: Shape (B, H, W, S, G, D), contiguous: S tensors in G groups, such as query, key and
            value with their heads.
        positions: Shape (B, G, P, 2), x and y in units of tokens: (0, 0) is the first token,
            (W - 1, H - 1) the last. float32 or float64, any values.
        parts: Which of the S to sample.

    Returns:
        Shape (len(parts), B, G, P, D), in the dtype of ``values``.
    """
    if values.device.type == 'cpu':
        return _gather(values, positions, parts)
    return _grid_sample(values, positions, parts)


def _gather(values: Tensor, positions: Tensor, parts: Sequence[int]) -> Tensor:
    batch, height, width, count, groups, channels = values.shape
    corner = positions.detach().floor()
    fraction = positions - corner
    corner = corner.clamp(-2, max(height, width)).long()  # far away is outside all the same
    weights, indices = [], []
    for axis, size in ((1, height), (0, width)):
        near = corner[..., axis]
        both = torch.stack([near, near + 1], -1)
        share = fraction[..., axis]
        inside = (both >= 0) & (both < size)
        weights.append(torch.stack([1 - share, share], -1) * inside)
        indices.append(both.clamp(0, size - 1))
    weight = (weights[0][..., :, None] * weights[1][..., None, :]).flatten(3)
    index = (indices[0][..., :, None] * width + indices[1][..., None, :]).flatten(3)
    # The table has a row for each image, token, part and group.
    image = torch.arange(batch, device=index.device).view(-1, 1, 1, 1) * (height * width)
    group = torch.arange(groups, device=index.device).view(-1, 1, 1)
    index = (index + image) * (count * groups) + group
    index = torch.stack([index + part * groups for part in parts])
    weight = weight.to(values.dtype).expand(index.shape)
    sampled = weighted_rows(values.view(-1, channels), index.view(-1, 4), weight.reshape(-1, 4))
    return sampled.view(len(parts), batch, groups, -1, channels)


def _grid_sample(values: Tensor, positions: Tensor, parts: Sequence[int]) -> Tensor:
    batch, height, width, _, groups, channels = values.shape
    chosen = torch.stack([values[:, :, :, part] for part in parts])
    images = chosen.permute(1, 4, 0, 5, 2, 3).reshape(batch * groups, -1, height, width)
    # align_corners=False: -1 and 1 are the outer edges of the first and the last token.
    size = positions.new_tensor([width, height])
    grid = ((2 * positions + 1) / size - 1).view(batch * groups, 1, -1, 2)
    # In the dtype of the positions: bfloat16 has not even the right token on a grid of 64 x 64.
    images = images.to(positions.dtype)
    sampled = F.grid_sample(images, grid, 'bilinear', 'zeros', align_corners=False)
    sampled = sampled.view(batch, groups, len(parts), channels, -1)
    return sampled.permute(2, 0, 1, 4, 3).to(values.dtype)
