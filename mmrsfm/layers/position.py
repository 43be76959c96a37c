# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Position tables of vision transformers: sine-cosine values, and resizing with a cache."""

from __future__ import annotations

from collections import OrderedDict

import torch
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor

from mmrsfm.errors import ConfigError


def sincos_position_table(
    grid: tuple[int, int], embed_dims: int, num_extra_tokens: int = 1
) -> Tensor:
    """The fixed two-dimensional sine-cosine table of MAE, SatMAE and Cross-Scale MAE.

    With frequencies ``w_k = 10000**(-k / (D/4))``, the D channels are the blocks
    ``[sin(x w), cos(x w), sin(y w), cos(y w)]``, where x is the COLUMN and y the ROW of the patch.
    (The function of the same purpose in mmpretrain has rows and columns exchanged.)

    Args:
        grid: Rows and columns of patches.
        embed_dims: Number of channels D, a multiple of 4.
        num_extra_tokens: Rows of zeros before the patches, 1 for a class token.

    Returns:
        A float32 tensor of shape (1, num_extra_tokens + rows * columns, D), values in [-1, 1].

    Raises:
        ConfigError: If D is not a multiple of 4.
    """
    if embed_dims % 4:
        raise ConfigError(
            f'a two-dimensional sine-cosine table needs a multiple of 4 channels, got {embed_dims}'
        )
    rows, columns = grid
    quarter = embed_dims // 4
    omega = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    x = torch.arange(columns, dtype=torch.float64)[:, None] * omega
    y = torch.arange(rows, dtype=torch.float64)[:, None] * omega
    x = torch.cat([x.sin(), x.cos()], dim=1).expand(rows, columns, -1)
    y = torch.cat([y.sin(), y.cos()], dim=1)[:, None].expand(rows, columns, -1)
    patches = torch.cat([x, y], dim=2).reshape(rows * columns, embed_dims)
    extra = patches.new_zeros(num_extra_tokens, embed_dims)
    return torch.cat([extra, patches])[None].float()


class PositionTableResizer:
    """Resizes a position table to the grid at hand, and remembers the results.

    A table that gets a gradient is resized in every forward pass, so that the gradient reaches it.
    Otherwise the result is kept until the table changes: in-place updates are seen by the version
    counter of the tensor, everything else (``.data`` writes, moves) by :meth:`clear`, which the
    owner calls when it is loaded, moved, or switched between training and evaluation.

    Args:
        mode: Interpolation of :func:`torch.nn.functional.interpolate`.
        max_entries: Number of grids that are remembered; the one not used for longest is dropped.
    """

    def __init__(self, mode: str = 'bicubic', max_entries: int = 16) -> None:
        self.mode = mode
        self.max_entries = max_entries
        self._entries: OrderedDict[tuple, Tensor] = OrderedDict()

    def __call__(
        self,
        table: Tensor,
        source: tuple[int, int],
        grid: tuple[int, int],
        num_extra_tokens: int = 1,
    ) -> Tensor:
        """Returns the table for ``grid``.

        Args:
            table: Shape (1, num_extra_tokens + source rows * source columns, D).
            source: Rows and columns that the table was made for.
            grid: Rows and columns that are wanted.
            num_extra_tokens: Leading rows that are passed through.

        Returns:
            Shape (1, num_extra_tokens + grid rows * grid columns, D); ``table`` itself where the
            grids agree.
        """
        if tuple(source) == tuple(grid):
            return table
        if torch.compiler.is_exporting():
            return self._constant(table, source, grid, num_extra_tokens)
        if table.requires_grad and torch.is_grad_enabled():
            return resize_pos_embed(table, source, grid, self.mode, num_extra_tokens)
        # A tensor made in inference mode has no version counter, and cannot change under us.
        version = None if table.is_inference() else table._version
        key = (tuple(grid), table.data_ptr(), table.device, table.dtype, version)
        if key not in self._entries:
            # Not an inference tensor, even if this is inference: the entry may serve training too.
            with torch.inference_mode(False), torch.no_grad():
                source_table = table.detach().clone() if table.is_inference() else table.detach()
                self._entries[key] = resize_pos_embed(
                    source_table, source, grid, self.mode, num_extra_tokens
                )
            while len(self._entries) > self.max_entries:
                self._entries.popitem(last=False)
        self._entries.move_to_end(key)
        return self._entries[key]

    def _constant(
        self, table: Tensor, source: tuple[int, int], grid: tuple[int, int], num_extra_tokens: int
    ) -> Tensor:
        """What the last pass before the export made for this grid; else the graph resizes."""
        if not any(isinstance(side, torch.SymInt) for side in grid):
            for key in reversed(self._entries):
                if key[0] == tuple(grid):
                    return self._entries[key]
        return resize_pos_embed(table, source, grid, self.mode, num_extra_tokens)

    def clear(self) -> None:
        """Forgets every table."""
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def __deepcopy__(self, memo: dict) -> PositionTableResizer:
        return PositionTableResizer(self.mode, self.max_entries)

    def __getstate__(self) -> dict:
        return {'mode': self.mode, 'max_entries': self.max_entries, '_entries': OrderedDict()}
