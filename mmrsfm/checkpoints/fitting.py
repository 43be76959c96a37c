# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What of a checkpoint is made to fit the module: its tables of positions, and its first layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mmrsfm.checkpoints.adaptation import CHOICES
from mmrsfm.checkpoints.layout import StateDict
from mmrsfm.checkpoints.position import (
    Grid,
    fit_bias_table,
    fit_distance_table,
    fit_table,
    grid_of_distances,
    is_bias_table,
    is_distance_table,
    is_position_table,
    stated_grid,
)
from mmrsfm.checkpoints.report import LoadReport
from mmrsfm.checkpoints.stem import adapt_stem, find_stem
from mmrsfm.contract import band_keys
from mmrsfm.errors import ContractError


def fit_tables(
    offered: StateDict,
    target: Mapping[str, Tensor],
    module: nn.Module,
    source_grid: Grid | None,
    report: LoadReport,
) -> None:
    """Resizes, in place, position and bias tables to those of the module.

    Args:
        offered: Entries of the checkpoint, under the names of the module.
        target: Entries of the module.
        module: The module.
        source_grid: Rows and columns of the checkpoint's position table, where it is not square.
        report: Gets what was resized.
    """
    for name in list(offered):
        done = None
        if name not in target:
            continue
        if is_position_table(name, offered[name]):
            grid = source_grid or grid_of_distances(offered, name)
            offered[name], done = fit_table(
                name, offered[name], target[name], stated_grid(module, name), grid
            )
        elif is_distance_table(name, offered[name]):
            offered[name], done = fit_distance_table(name, offered[name], target[name])
        elif is_bias_table(name, offered[name]):
            offered[name], done = fit_bias_table(name, offered[name], target[name], module)
        if done:
            report.resized[name] = done


def fit_stem(
    offered: StateDict,
    target: Mapping[str, Tensor],
    module: nn.Module,
    whole: bool,
    report: LoadReport,
) -> None:
    """Adapts, in place, the first convolution to the bands of the module, as ``adapt=`` says.

    Args:
        offered: Entries of the checkpoint, under the names of the module.
        target: Entries of the module.
        module: The module.
        whole: Whether it is a task model, whose stem is that of its backbone.
        report: Says how to adapt and what is known of the bands; gets what was adapted.

    Raises:
        ContractError: If the bands differ, and nothing says what to do.
    """
    stem = find_stem(module.backbone if whole else module)  # type: ignore[arg-type]
    name = f'backbone.{stem}' if whole and stem else stem
    if name is None or name not in offered or name not in target:
        return
    weight, wanted = offered[name], target[name]
    method = report.adaptation.bands
    if weight.ndim != 4 or wanted.ndim != 4:
        return
    source_bands = report.adaptation.source_bands
    if source_bands is None and report.contract is not None:
        source_bands = report.contract.band_names
    target_bands = report.target.band_names if report.target is not None else None
    same_count = weight.shape[1] == wanted.shape[1]
    if method is None:
        if not same_count:
            names = f' ({", ".join(source_bands)})' if source_bands else ''
            raise ContractError(
                f'{report.source}: the stem {name} takes {weight.shape[1]} bands{names}, this '
                f'model has {wanted.shape[1]}. Say in init_cfg what to do: {CHOICES}.'
            )
        return
    if method == 'random':
        if not same_count or not _same_bands(source_bands, target_bands):
            del offered[name]
            report.adapted[name] = 'left as it was initialised'
        return
    if same_count and (method != 'by_name' or _same_bands(source_bands, target_bands)):
        return
    offered[name], report.adapted[name] = adapt_stem(
        weight, wanted.shape[1], method, source_bands, target_bands
    )


def _same_bands(one: Sequence[str] | None, other: Sequence[str] | None) -> bool:
    return bool(one and other) and band_keys(one or ()) == band_keys(other or ())
