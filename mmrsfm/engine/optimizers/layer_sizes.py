# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Whether the number of layers that a config states is that of the model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

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


def check_stages(
    found: Mapping[str, Sequence[str]],
    model: nn.Module,
    stages: str,
    paramwise_cfg: Mapping[str, Any],
    blocks: str = '.blocks',
) -> list[int]:
    """Counts the layers of each stage, and compares with ``depths`` and ``num_layers``.

    Args:
        found: Names within the backbone, for each prefix at which one was found.
        model: The model.
        stages: Name of the list of stages, e.g. ``'levels'``.
        paramwise_cfg: What the config states.
        blocks: What follows the number of a stage in the name of its list of layers.

    Returns:
        The number of layers of each stage.

    Raises:
        ConfigError: If the config contradicts the model or itself, or backbones differ.
    """
    given = paramwise_cfg.get('depths')
    total = paramwise_cfg.get('num_layers')
    if given is not None and total is not None and sum(given) != total:
        raise ConfigError(f'paramwise_cfg: depths {list(given)} do not sum to {total} layers')
    sizes = [
        _stage_depths(names, model, prefix, stages, blocks, given)
        for prefix, names in found.items()
    ]
    if not sizes:
        return list(given) if given is not None else [total or 0]
    depths = sizes[0]
    if any(other != depths for other in sizes):
        raise ConfigError(f'the backbones of the model have different {stages}: {sizes}')
    if total is not None and sum(depths) != total:
        raise ConfigError(
            f'paramwise_cfg: num_layers={total}, but the model has {stages} of {depths} layers: '
            f'{sum(depths)}. Correct it, or leave it out'
        )
    return depths


def _stage_depths(
    names: Sequence[str],
    model: nn.Module,
    prefix: str,
    stages: str,
    blocks: str,
    given: Sequence[int] | None,
) -> list[int]:
    pattern = re.compile(re.escape(stages) + r'\.(\d+)\.')
    count = max(int(match[1]) for name in names if (match := pattern.match(name))) + 1
    if given is not None and len(given) < count:
        raise ConfigError(
            f'paramwise_cfg: depths {list(given)} are of {len(given)} {stages}, but {prefix!r} '
            f'of the model has {count}'
        )
    depths = list(given) if given is not None else [None] * count
    return [
        check_blocks(names, model, prefix, f'{stages}.{stage}{blocks}', depth, f'depths[{stage}]')
        for stage, depth in enumerate(depths)
    ]
