# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Resizing learned position tables to the grid of the module that gets them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrsfm.errors import IncompleteLoadError
from mmrsfm.layers.relative_position import resize_relative_table

_TABLES = ('pos_embed', 'decoder_pos_embed', 'absolute_pos_embed')
# Tables with a row for every distance between two patches of a column or of a row.
_DISTANCE_TABLES = ('full_attn_rel_pos_h', 'full_attn_rel_pos_w')
Grid = tuple[int, int]


def is_position_table(name: str, tensor: Tensor) -> bool:
    """Whether an entry of a state dict is a table of shape (1, tokens, channels)."""
    return name.rsplit('.', 1)[-1] in _TABLES and tensor.ndim == 3 and tensor.shape[0] == 1


def is_distance_table(name: str, tensor: Tensor) -> bool:
    """Whether an entry is a table of relative positions along one axis, (2 L - 1, channels)."""
    return name.rsplit('.', 1)[-1] in _DISTANCE_TABLES and tensor.ndim == 2


def fit_distance_table(name: str, table: Tensor, wanted: Tensor) -> tuple[Tensor, str | None]:
    """Makes a table of relative positions of a checkpoint fit that of a module.

    Args:
        name: For messages.
        table: The checkpoint's, shape (2 L - 1, D) for L patches along the axis.
        wanted: The module's.

    Returns:
        The table, stretched as :func:`mmrsfm.layers.relative_position.resize_relative_table` does,
        and what was done to it (``None``: nothing).

    Raises:
        IncompleteLoadError: If the channels differ.
    """
    if table.shape[1] != wanted.shape[1]:
        raise IncompleteLoadError(
            f'{name} has {table.shape[1]} channels in the checkpoint, {wanted.shape[1]} in the '
            'module: the two are models of different size'
        )
    if table.shape[0] == wanted.shape[0]:
        return table, None
    done = f'{table.shape[0]} -> {wanted.shape[0]} distances, bicubic'
    return resize_relative_table(table, wanted.shape[0]), done


def is_bias_table(name: str, tensor: Tensor) -> bool:
    """Whether an entry has a row for every distance between two tokens of a window."""
    return name.rsplit('.', 1)[-1] == 'relative_position_bias_table' and tensor.ndim == 2


def fit_bias_table(
    name: str, table: Tensor, wanted: Tensor, module: nn.Module
) -> tuple[Tensor, str | None]:
    """Makes the position biases of a checkpoint fit the window of a module.

    Only for modules that state their ``window``, as
    :class:`mmrsfm.layers.table_attention.TableWindowAttention` does; others get what there is.

    Args:
        name: The table's name in ``module``.
        table: The checkpoint's, shape ((2h - 1)(2w - 1), heads), of a square window if it does not
            fit as it is.
        wanted: The module's.
        module: What is loaded into.

    Returns:
        The table, bicubic without corner alignment, and what was done to it (``None``: nothing).

    Raises:
        IncompleteLoadError: If the window of the checkpoint is not square.
    """
    window = getattr(module.get_submodule(name.rpartition('.')[0]), 'window', None)
    same = table.shape[0] == wanted.shape[0] or table.shape[1] != wanted.shape[1]
    if window is None or same:
        return table, None
    side = math.isqrt(table.shape[0])
    if side * side != table.shape[0]:
        raise IncompleteLoadError(
            f'{name} has {table.shape[0]} distances in the checkpoint, {wanted.shape[0]} in the '
            'module, and its windows are not square: build the module for the size of images that '
            'the checkpoint was trained with (img_size)'
        )
    target = (2 * window[0] - 1, 2 * window[1] - 1)
    resized = resize_table(table[None], (side, side), target, 0)[0]
    return resized, f'{side}x{side} -> {target[0]}x{target[1]} distances, bicubic'


def stated_grid(module: nn.Module, name: str) -> Grid | None:
    """Rows and columns that the owner of a table states.

    mmpretrain's backbones and ours state ``patch_resolution``, our decoder ``grid``. A decoder that
    states nothing has the grid of the backbone beside it.
    """
    owner: nn.Module | None = module
    for part in name.split('.')[:-1]:
        owner = getattr(owner, part, None)
    for candidate in (owner, getattr(module, 'backbone', None)):
        for attribute in ('patch_resolution', 'grid'):
            value = getattr(candidate, attribute, None)
            if value is not None and len(value) == 2:
                return int(value[0]), int(value[1])
    return None


def grid_of_distances(offered: Mapping[str, Tensor], name: str) -> Grid | None:
    """The grid of a position table, as the tables of relative positions beside it tell.

    A table of RVSA has a row for each token and does not say in which order; the tables of
    distances of the same backbone have ``2 rows - 1`` and ``2 columns - 1``, or, as published, both
    ``2 rows - 1``.

    Args:
        offered: The entries of the checkpoint.
        name: The position table's.

    Returns:
        Rows and columns; ``None`` where they don't.
    """
    tokens = offered[name].shape[1]
    owner = name.rpartition('.')[0]
    sides = [
        next(
            (
                (table.shape[0] + 1) // 2
                for other, table in offered.items()
                if other.startswith(owner)
                and other.endswith(suffix)
                and is_distance_table(other, table)
            ),
            None,
        )
        for suffix in _DISTANCE_TABLES
    ]
    rows, columns = sides
    if rows is None or columns is None:
        return None
    if rows * columns == tokens:
        return rows, columns
    return (rows, tokens // rows) if rows == columns and tokens % rows == 0 else None


def resize_table(table: Tensor, source: Grid, target: Grid, extra: int = 1) -> Tensor:
    """Bicubic interpolation of the patches' rows; the others (class token) are kept.

    The same as mmpretrain's and MAE's: ``align_corners=False``, no anti-aliasing, in float32.

    Args:
        table: Shape (1, extra + rows * columns, D).
        source: Rows and columns of the table.
        target: Rows and columns wanted.
        extra: Number of rows before those of the patches.

    Returns:
        Shape (1, extra + rows * columns of the target, D), in the dtype of the table.
    """
    grid = table[:, extra:].reshape(1, *source, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid.float(), size=target, mode='bicubic', align_corners=False)
    return torch.cat([table[:, :extra], grid.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)


def fit_table(
    name: str,
    table: Tensor,
    wanted: Tensor,
    target: Grid | None,
    source: Grid | None = None,
) -> tuple[Tensor, str | None]:
    """Makes a table of a checkpoint fit that of a module.

    Args:
        name: For messages.
        table: The checkpoint's, shape (1, tokens, D).
        wanted: The module's, shape (1, tokens, D).
        target: Rows and columns that the module states; ``None``: square.
        source: Rows and columns of the checkpoint's; ``None``: square, if it can be.

    Returns:
        The table, and what was done to it (``None``: nothing).

    Raises:
        IncompleteLoadError: If the grids are not known, or the channels differ.
    """
    if table.shape[2] != wanted.shape[2]:
        raise IncompleteLoadError(
            f'{name} has {table.shape[2]} channels in the checkpoint, {wanted.shape[2]} in the '
            'module: the two are models of different size'
        )
    target = target or _square(wanted.shape[1])
    if target is None and source is None and table.shape == wanted.shape:
        return table, None
    if source is None and target is not None:
        source = _square(table.shape[1])
        extra = wanted.shape[1] - target[0] * target[1]
        # 5 x 10 tokens are no 7 x 7 with one for the class, where the module has 5 x 10 too.
        if table.shape == wanted.shape and not _square(table.shape[1] - extra, (0,)):
            source = target
    if source is None or target is None:
        raise IncompleteLoadError(
            f'{name} has {table.shape[1]} tokens in the checkpoint, {wanted.shape[1]} in the '
            'module, and one of the grids is not square: state source_grid=(rows, columns)'
        )
    have = table.shape[1] - source[0] * source[1]
    need = wanted.shape[1] - target[0] * target[1]
    if have < need or have < 0:
        raise IncompleteLoadError(
            f'{name}: {table.shape[1]} tokens in the checkpoint are not a grid of {source[0]}x'
            f'{source[1]} and the {need} further token(s) that the module has'
        )
    done = []
    if have > need:
        table = table[:, have - need :]
        done.append(f'{have - need} leading token(s) cut off')
    if source != target:
        table = resize_table(table, source, target, need)
        done.append(f'{source[0]}x{source[1]} -> {target[0]}x{target[1]}, bicubic')
    return table, '; '.join(done) or None


def _square(tokens: int, extras: Iterable[int] = (1, 0)) -> Grid | None:
    """The square grid in a table of so many tokens, with or without one for the class."""
    for extra in extras:
        side = math.isqrt(max(tokens - extra, 0))
        if side and side * side == tokens - extra:
            return side, side
    return None
