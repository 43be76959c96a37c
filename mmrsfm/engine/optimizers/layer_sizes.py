# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Whether the number of layers that a config states is that of the model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from mmrsfm.errors import ConfigError


def check_blocks(
    names: Sequence[str],
    model: nn.Module,
    prefix: str,
    blocks: str,
    stated: int | None,
    option: str,
) -> int:
    """Counts numbered layers, and compares the count with what a config states.

    Args:
        names: Names of the parameters of a backbone, without ``prefix``.
        model: The model.
        prefix: What stands before the names of the backbone.
        blocks: Name of the list of layers within the backbone, e.g. ``'levels.2.blocks'``.
        stated: The number of the config; ``None``: any.
        option: What the config calls it, for the message.

    Returns:
        The number of layers.

    Raises:
        ConfigError: If the model has more layers than stated, or its list of layers fewer.
    """
    pattern = re.compile(re.escape(blocks) + r'\.(\d+)\.')
    numbers = [int(match[1]) for name in names if (match := pattern.match(name))]
    found = max(numbers, default=-1) + 1
    if stated is None:
        return found
    try:
        complete = isinstance(model.get_submodule(prefix + blocks), (nn.ModuleList, nn.Sequential))
    except AttributeError:
        complete = False
    if found > stated or (complete and found < stated):
        raise ConfigError(
            f'paramwise_cfg: {option}={stated}, but {prefix}{blocks} of the model has {found} '
            'layers: every learning rate would be off. Correct it, or leave it out'
        )
    return stated
