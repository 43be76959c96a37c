# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Continuous position bias of Swin Transformer V2, made as often as its network changes.

Liu et al., "Swin Transformer V2: Scaling Up Capacity and Resolution", CVPR 2022, arXiv 2111.09883,
section 3.3: the bias of a pair of tokens is what a small network makes of the logarithm of their
distance. Written anew from the published maths.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from functools import lru_cache

import torch
from torch import Tensor, nn

Pair = tuple[int, int]


class ContinuousPositionBias:
    """The bias of one block for the window at hand: ``16 * sigmoid(network(coordinates))``.

    The network sees each distance once, ``(2h - 1)(2w - 1)`` rows, before they are spread over
    all pairs. Where a gradient is wanted this is done once in each forward pass; in evaluation
    without gradients the spread table is kept until the network changes: in-place updates are
    seen by the version counters of its parameters, everything else (``.data`` writes, moves) by
    :meth:`clear`, which the owner calls when it is loaded, moved or switched between modes.

    It is computed in float32 (or the type of the parameters) also under autocast: half precision
    has steps of 1/128 near the largest bias, 16.

    Args:
        pretrained_window: Height and width of the windows that the network was trained with;
            0: the coordinates are divided by the extent of the window at hand.
        max_entries: Number of windows that are remembered; the one not used for longest is dropped.
    """

    def __init__(self, pretrained_window: Pair = (0, 0), max_entries: int = 8) -> None:
        self.pretrained_window = pretrained_window
        self.max_entries = max_entries
        self._entries: OrderedDict[tuple, Tensor] = OrderedDict()

    def table(self, network: nn.Module, window: Pair) -> Tensor:
        """What the network makes of every distance in a window.

        Args:
            network: Maps (T, 2) coordinates to (T, heads).
            window: Height h and width w of the window.

        Returns:
            Shape (T, heads), T = (2h - 1)(2w - 1), values in (0, 16).
        """
        weight = next(network.parameters())
        coordinates = log_coordinates(window, self.pretrained_window, weight.device)
        with torch.autocast(weight.device.type, enabled=False):
            return 16 * network(coordinates.to(weight.dtype)).sigmoid()

    def kept(self, network: nn.Module, window: Pair) -> Tensor:
        """The bias of every pair of tokens, from memory where the network has not changed.

        Only for use without gradients.

        Args:
            network: As for :meth:`table`.
            window: As for :meth:`table`.

        Returns:
            Shape (heads, N, N), N = h * w.
        """
        if torch.compiler.is_exporting():  # what the last pass before it made, as a constant
            for known in reversed(self._entries):
                if known[0] == window:
                    return self._entries[known]
            return spread(self.table(network, window), window)
        key: tuple = (window,)
        for parameter in network.parameters():
            # A tensor made in inference mode has no version counter.
            version = None if parameter.is_inference() else parameter._version
            key += (parameter.data_ptr(), parameter.device, parameter.dtype, version)
        if key not in self._entries:
            # Not an inference tensor, even if this is inference: the entry may be used elsewhere.
            with torch.inference_mode(False), torch.no_grad():
                self._entries[key] = spread(self.table(network, window), window)
            while len(self._entries) > self.max_entries:
                self._entries.popitem(last=False)
        self._entries.move_to_end(key)
        return self._entries[key]

    def clear(self) -> None:
        """Forgets every table."""
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def __deepcopy__(self, memo: dict) -> ContinuousPositionBias:
        return ContinuousPositionBias(self.pretrained_window, self.max_entries)

    def __getstate__(self) -> dict:
        return {
            'pretrained_window': self.pretrained_window,
            'max_entries': self.max_entries,
            '_entries': OrderedDict(),
        }


def spread(table: Tensor, window: Pair) -> Tensor:
    """Gives every pair of tokens the row of its distance.

    Args:
        table: Shape (T, heads), as of :meth:`ContinuousPositionBias.table`.
        window: Height h and width w of the window.

    Returns:
        Shape (heads, N, N), N = h * w, contiguous.
    """
    count = window[0] * window[1]
    return table.t().index_select(1, pair_index(window, table.device)).view(-1, count, count)


@lru_cache(maxsize=64)
def log_coordinates(window: Pair, pretrained_window: Pair, device: torch.device) -> Tensor:
    """Signed logarithms of all distances in a window (equation 4 of the paper, scaled as coded).

    ``sign(x) log2(|x| + 1) / 3`` of x = 8 d / (extent - 1), d from -(h - 1) to h - 1.

    Args:
        window: Height h and width w.
        pretrained_window: Extents to divide by; 0: those of ``window``.
        device: Where to make it.

    Returns:
        Shape ((2h - 1)(2w - 1), 2), float32; rows vary more slowly than columns.
    """
    with torch.inference_mode(False):
        axes = []
        for size, pretrained in zip(window, pretrained_window, strict=True):
            extent = max((pretrained or size) - 1, 1)
            x = torch.arange(1 - size, size, dtype=torch.float32, device=device) * (8 / extent)
            axes.append(x.sign() * (x.abs() + 1).log2() / math.log2(8))
        return torch.cartesian_prod(*axes)


@lru_cache(maxsize=64)
def pair_index(window: Pair, device: torch.device) -> Tensor:
    """Row of :func:`log_coordinates` for each pair of tokens: (query, key), flattened."""
    height, width = window
    with torch.inference_mode(False):
        rows = torch.arange(height, device=device).repeat_interleave(width)
        columns = torch.arange(width, device=device).repeat(height)
        down = rows[:, None] - rows[None, :] + height - 1
        right = columns[:, None] - columns[None, :] + width - 1
        return (down * (2 * width - 1) + right).flatten()


@lru_cache(maxsize=64)
def shift_masks(window: Pair, shift: Pair, device: torch.device) -> Tensor:
    """What keeps tokens apart that rolling has brought into one window.

    Only the windows of the last row and of the last column hold pixels from both ends.

    Args:
        window: Height and width.
        shift: Rows and columns that the image was rolled by; 0: not rolled on that axis.
        device: Where to make it.

    Returns:
        Shape (4, N, N), float32, 0 or -100 (as published, not minus infinity): for windows inside,
        in the last row, in the last column, and in both.
    """
    height, width = window
    with torch.inference_mode(False):
        rows = torch.arange(height, device=device).repeat_interleave(width)
        columns = torch.arange(width, device=device).repeat(height)
        below, beside = rows >= height - shift[0], columns >= width - shift[1]
        last_row = below[:, None] != below[None, :]
        last_column = beside[:, None] != beside[None, :]
        apart = torch.stack(
            [torch.zeros_like(last_row), last_row, last_column, last_row | last_column]
        )
        return apart.float() * -100.0
