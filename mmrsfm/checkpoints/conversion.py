# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""From any known layout to any other, by way of our names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmrsfm.checkpoints.layout import Layout, StateDict, detect_layout, get_layout
from mmrsfm.errors import CheckpointError


def convert_state_dict(
    state: Mapping[str, Tensor],
    source: str = 'auto',
    target: str = 'mmrsfm',
    meta: Mapping[str, Any] | None = None,
    strict: bool = True,
) -> StateDict:
    """Converts the names (and the q/k/v arrangement) of a state dict.

    Args:
        state: Name to tensor, unwrapped. Tensors are shared with the result where nothing but
            their name changes.
        source: Name of its layout, or ``'auto'``.
        target: Name of the layout that is wanted.
        meta: The ``meta`` entry of the checkpoint, for the detection.
        strict: Whether a name that one of the layouts does not know is an error; otherwise it is
            left out.

    Returns:
        The converted state dict.

    Raises:
        UnknownLayoutError: If the layout is unknown, or cannot be detected.
        CheckpointError: If names are left over (with ``strict``), or if the two layouts stand for
            blocks of different maths (pre-norm and post-norm).
    """
    origin: Layout = detect_layout(state, meta) if source == 'auto' else get_layout(source)
    destination = get_layout(target)
    if None not in (origin.norm_style, destination.norm_style) and (
        origin.norm_style != destination.norm_style
    ):
        raise CheckpointError(
            f'layout {origin.name!r} holds {origin.norm_style}-norm blocks, {destination.name!r} '
            f'{destination.norm_style}-norm ones: the weights would be silently wrong there'
        )
    ours, unknown = origin.to_mmrsfm(state)
    result, homeless = destination.from_mmrsfm(ours)
    left = [*unknown, *homeless]
    if strict and left:
        shown = ', '.join(left[:10]) + (', ...' if len(left) > 10 else '')
        raise CheckpointError(
            f'{len(left)} entries have no place on the way from {origin.name!r} to '
            f'{destination.name!r}: {shown}'
        )
    return result
