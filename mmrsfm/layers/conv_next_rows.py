# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The steps of ConvNeXtV2 on rows of active positions; the parameters are mmpretrain's modules.

Woo et al., "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders", CVPR 2023,
arXiv 2301.00808. Written anew from the published maths.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrsfm.layers.active_sites import ActiveSites


def row_norm(norm: nn.LayerNorm, rows: Tensor) -> Tensor:
    """A LayerNorm over the channels of rows (..., C)."""
    return F.layer_norm(rows, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def global_response(rows: Tensor, grn: Any, sites: ActiveSites, statistics: str) -> Tensor:
    """Global response normalisation, ``gamma * x * n + beta + x``.

    ``n`` are the L2 norms of the channels over the active positions, divided by their mean over
    the channels.

    Args:
        rows: Of the sites.
        grn: With ``gamma`` and ``beta`` (C,) and ``eps``.
        sites: Which positions count.
        statistics: ``'sample'`` or ``'batch'``, see :meth:`ActiveSites.norms`.
    """
    norms = sites.norms(rows, statistics)
    share = norms / (norms.mean(-1, keepdim=True) + grn.eps)
    return sites.scaled(rows, (grn.gamma * share + 1).to(rows.dtype)) + grn.beta.to(rows.dtype)


def run_block(block: Any, rows: Tensor, sites: ActiveSites, statistics: str, last: bool) -> Tensor:
    """One block of ConvNeXtV2.

    Args:
        block: mmpretrain's ``ConvNeXtBlock`` with linear pointwise layers and without layer scale.
        rows: Of the sites.
        sites: Where the block acts.
        statistics: See :func:`global_response`.
        last: Whether the depthwise convolution gets the channels last in memory.

    Returns:
        The new rows.
    """
    maps = sites.maps(rows)
    y = sites.rows(block.depthwise_conv(maps if last else maps.contiguous()))
    y = block.act(block.pointwise_conv1(row_norm(block.norm, y)))
    y = block.pointwise_conv2(global_response(y, block.grn, sites, statistics))
    rate = getattr(block.drop_path, 'drop_prob', 0.0)
    if rate > 0 and block.training:
        kept = torch.rand(sites.shape[0], 1, device=y.device, dtype=y.dtype) >= rate
        y = sites.scaled(y, kept.to(y.dtype) / (1 - rate))
    return rows + y


def strided_rows(conv: nn.Conv2d, maps: Tensor, sites: ActiveSites) -> Tensor:
    """A convolution whose stride is its kernel, as a matrix product on the active positions.

    Maps are padded with zeros, or cut, to what the sites cover.

    Args:
        conv: The convolution.
        maps: (N, C, H, W), 0 where not active.
        sites: Those of the output.
    """
    side = conv.kernel_size[0]
    _, height, width = sites.shape
    missing = (side * height - maps.shape[2], side * width - maps.shape[3])
    if any(missing):
        maps = F.pad(maps, (0, missing[1], 0, missing[0]))
    windows = maps.unflatten(3, (width, side)).unflatten(2, (height, side))
    # To (N, C * side * side, H, W), where channels stand as (row, column, channel).
    windows = windows.permute(0, 2, 4, 3, 5, 1).flatten(3).permute(0, 3, 1, 2)
    weight = conv.weight.permute(0, 2, 3, 1).flatten(1)
    return F.linear(sites.rows(windows), weight, conv.bias)


def depthwise_rows(conv: nn.Conv2d, rows: Tensor) -> Tensor:
    """A depthwise convolution of kernel and stride 1, which scales and shifts every channel."""
    scaled = rows * conv.weight.flatten().to(rows.dtype)
    return scaled if conv.bias is None else scaled + conv.bias.to(rows.dtype)
