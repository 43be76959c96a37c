# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Loading a checkpoint into a module, or saying why not."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from mmrsfm.checkpoints.adaptation import Adaptation, check_contract
from mmrsfm.checkpoints.branches import choose_branch
from mmrsfm.checkpoints.fitting import fit_stem, fit_tables
from mmrsfm.checkpoints.kinship import adopt
from mmrsfm.checkpoints.layout import Layout, StateDict, detect_layout, get_layout
from mmrsfm.checkpoints.position import Grid
from mmrsfm.checkpoints.reading import read_checkpoint
from mmrsfm.checkpoints.report import LoadReport, attach_report, compact, fingerprint
from mmrsfm.checkpoints.stem import contract_of_layout
from mmrsfm.checkpoints.traits import CONTRACT_KEY, TRAITS_KEY
from mmrsfm.checkpoints.unwrapping import unwrap
from mmrsfm.contract import ImageryContract
from mmrsfm.errors import CheckpointError, ContractError, IncompleteLoadError, UnknownLayoutError

# Buffers that are computed from the architecture, or only count.
_DERIVED = (
    '*num_batches_tracked',
    '*relative_position_index',
    '*relative_coords_table',
    '*attn_mask',
    '*data_preprocessor.*',
)
NATIVE = 'native'


def load_pretrained(
    module: nn.Module,
    path: str | Path | Mapping[str, Any],
    layout: str = 'auto',
    allow_missing: str | Sequence[str] = (),
    adapt: str | Mapping[str, Any] | Adaptation | None = None,
    contract: ImageryContract | Mapping[str, Any] | None = None,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    weights: str = 'auto',
    part: str = 'backbone',
    source_grid: Grid | None = None,
) -> LoadReport:
    """Loads pretrained weights; the module is left untouched where anything is wrong.

    A module with a ``backbone`` is a whole model: all parts of the checkpoint are offered to it,
    and the backbone must be complete. Any other module gets the part ``part`` of the checkpoint,
    and must be complete itself.

    Args:
        module: What gets the weights.
        path: A file or address (see :func:`mmrsfm.checkpoints.read_checkpoint`), or the contents of
            one that was read before.
        layout: Name of the layout of the weights. ``'auto'``: by their names. ``'native'``: the
            names are those of ``module``, with or without a prefix ``backbone.``.
        allow_missing: fnmatch patterns of the names in ``module`` that the checkpoint need not
            have, such as ``'ln2.*'``. They keep their initial values.
        adapt: What may differ between the imagery of the checkpoint and that of the run; a
            method for the bands or a dict, see :class:`mmrsfm.checkpoints.adaptation.Adaptation`.
        contract: The imagery of the run, in particular ``band_names`` for ``adapt='by_name'``.
        sha256: Digest that the file must have (8 or more digits).
        md5: The same for MD5.
        weights: Entry of the file that holds the weights, e.g. ``'ema_state_dict'``.
        part: The part of the checkpoint that a module without a ``backbone`` gets. Where the
            checkpoint has an encoder for each modality, and the backbone is a single one, the one
            to take, e.g. ``'backbone.branches.sar'``; by default that with as many bands.
        source_grid: Rows and columns of the checkpoint's position table, where it is not square.

    Returns:
        The report. It is logged, and kept on the module (see :func:`report_of`).

    Raises:
        IncompleteLoadError: If a parameter, or a buffer that matters, stays without a value and
            no pattern of ``allow_missing`` covers it.
        ContractError: If the imagery differs, or the number of input channels, without ``adapt``.
        CheckpointError: Any other reason; see :mod:`mmrsfm.errors`.
    """
    if is_model_wrapper(module):
        module = module.module  # type: ignore[assignment]
    where = 'the checkpoint' if isinstance(path, Mapping) else str(path)
    content = path if isinstance(path, Mapping) else read_checkpoint(path, sha256, md5)
    with _named(where):
        found = unwrap(content, weights)
        whole = isinstance(getattr(module, 'backbone', None), nn.Module)
        adaptation = Adaptation.parse(adapt)
        report = LoadReport(where, layout, found.steps, notes=found.notes, adaptation=adaptation)
        report.contract = _contract_of(found.meta, where)
        offered = _offer(found.state, found.meta, layout, module, part, whole, report)
        if report.contract is None and report.layout != NATIVE:
            report.contract = contract_of_layout(get_layout(report.layout), offered, module, whole)
        if contract is not None:
            report.target = (
                contract
                if isinstance(contract, ImageryContract)
                else ImageryContract.from_dict(contract)
            )
            if report.contract is not None:
                report.notes += check_contract(report.contract, report.target, adaptation, where)
        offered, by_design = adopt(offered, module, whole, report)
        _check_norm_style(module, found.meta, report, where)
        target: dict[str, Tensor] = dict(module.state_dict(keep_vars=True))
        traits = found.meta.get(TRAITS_KEY) or {}
        if source_grid is None and traits.get('grid'):
            source_grid = (int(traits['grid'][0]), int(traits['grid'][1]))
        fit_tables(offered, target, module, source_grid, report)
        fit_stem(offered, target, module, whole, report)
        selected = _match(offered, target, report)
        _check_complete(target, selected, module, whole, allow_missing, by_design, report, where)
        module.load_state_dict(selected, strict=False)
        _verify(module, selected, report, where)
        attach_report(module, report)
        level = logging.WARNING if report.missing or report.unexpected else logging.INFO
        print_log(report.summary(), logger='current', level=level)
        return report


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Errors of steps that see only the contents name the file too."""
    try:
        yield
    except CheckpointError as error:
        if where in str(error):
            raise
        raise type(error)(f'{where}: {error}') from error


def _contract_of(meta: Mapping[str, Any], where: str) -> ImageryContract | None:
    stated = meta.get(CONTRACT_KEY)
    if not stated:
        return None
    try:
        return ImageryContract.from_dict(stated)
    except Exception as error:
        raise ContractError(f'{where}: the contract in it cannot be used: {error}') from error


def _offer(
    state: StateDict,
    meta: Mapping[str, Any],
    name: str,
    module: nn.Module,
    part: str,
    whole: bool,
    report: LoadReport,
) -> StateDict:
    """The checkpoint's entries under the names of the module; fills in what is left over."""
    chosen = _choose_layout(state, meta, name, module)
    if chosen is None:
        report.layout = NATIVE
        return _native(state, module, report)
    report.layout = chosen.name
    ours, report.unexpected = chosen.to_mmrsfm(state)
    ours = _without_idle(ours, chosen, module, report)
    ours = choose_branch(ours, module, whole, part, report, meta)
    if whole:
        report.dropped += [key for key in ours if key.startswith('data_preprocessor.')]
        return {key: value for key, value in ours.items() if key not in report.dropped}
    prefix = f'{part}.'
    offered = {key[len(prefix) :]: ours[key] for key in ours if key.startswith(prefix)}
    if not offered:
        parts = sorted({key.split('.', 1)[0] for key in ours})
        raise IncompleteLoadError(
            f'{report.source}: has no {part!r} to load; its parts are {parts}'
        )
    for key in ours:
        if not key.startswith(prefix):
            by_design = any(fnmatchcase(key, pattern) for pattern in chosen.dropped)
            (report.dropped if by_design or part != 'backbone' else report.unexpected).append(key)
    return offered


def _without_idle(
    ours: StateDict, chosen: Layout, module: nn.Module, report: LoadReport
) -> StateDict:
    known = set(module.state_dict(keep_vars=True)) if chosen.idle else set()
    for pattern, why in chosen.idle.items():
        idle = [name for name in ours if fnmatchcase(name, pattern) and name not in known]
        if idle:
            report.dropped += idle
            report.notes.append(f'left aside {compact(idle)}: {why}')
            ours = {name: value for name, value in ours.items() if name not in idle}
    return ours


def _choose_layout(
    state: StateDict, meta: Mapping[str, Any], name: str, module: nn.Module
) -> Layout | None:
    if name == NATIVE:
        return None
    if name != 'auto':
        return get_layout(name)
    try:
        return detect_layout(state, meta)
    except UnknownLayoutError:
        # The names may be the module's own, as those of any OpenMMLab backbone.
        if _native_prefix(state, module) is not None:
            return None
        raise


def _native_prefix(state: Mapping[str, Any], module: nn.Module) -> str | None:
    wanted = [name for name, _ in module.named_parameters()]
    for prefix in ('', 'backbone.'):
        if wanted and all(prefix + name in state for name in wanted):
            return prefix
    return None


def _native(state: StateDict, module: nn.Module, report: LoadReport) -> StateDict:
    prefix = _native_prefix(state, module)
    if prefix is None:  # asked for by name: take the prefix under which more is found
        names = set(module.state_dict())
        prefix = max(('', 'backbone.'), key=lambda p: sum(p + name in state for name in names))
    offered = {
        name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)
    }
    report.dropped = [name for name in state if not name.startswith(prefix)]
    return offered


def _check_norm_style(
    module: nn.Module, meta: Mapping[str, Any], report: LoadReport, where: str
) -> None:
    stated = (meta.get(TRAITS_KEY) or {}).get('norm_style')
    if stated is None and report.layout != NATIVE:
        stated = get_layout(report.layout).norm_style
    here = getattr(getattr(module, 'backbone', module), 'norm_style', 'pre')
    if stated is not None and stated != here:
        raise CheckpointError(
            f'{where} (layout {report.layout}) holds the weights of {stated}-norm blocks, and '
            f'{type(module).__name__} has {here}-norm ones: it would compute nonsense without a '
            f"word. Build the backbone with norm_style='{stated}'."
        )


def _match(
    offered: StateDict, target: Mapping[str, Tensor], report: LoadReport
) -> dict[str, Tensor]:
    selected: dict[str, Tensor] = {}
    for name, value in offered.items():
        if name not in target:
            report.unexpected.append(name)
        elif value.shape != target[name].shape:
            report.missing[name] = (
                f'{tuple(value.shape)} in the checkpoint, {tuple(target[name].shape)} in the module'
            )
        else:
            selected[name] = value
    report.matched = [name for name in target if name in selected]
    return selected


def _check_complete(
    target: Mapping[str, Tensor],
    selected: Mapping[str, Tensor],
    module: nn.Module,
    whole: bool,
    allow_missing: str | Sequence[str],
    by_design: Mapping[str, str],
    report: LoadReport,
    where: str,
) -> None:
    allowed = [allow_missing] if isinstance(allow_missing, str) else list(allow_missing)
    idle = [pattern for pattern in allowed if not any(fnmatchcase(n, pattern) for n in target)]
    if idle:
        report.notes.append(f'allow_missing matches nothing in the module: {", ".join(idle)}')
    allowed += [name for name in report.adapted if name not in selected]
    uncovered = []
    for name in target:
        if name in selected or any(fnmatchcase(name, pattern) for pattern in _DERIVED):
            report.missing.pop(name, None)
            continue
        reason = None
        if any(fnmatchcase(name, pattern) for pattern in allowed):
            reason = 'allowed'
        elif name not in report.missing:  # what is there in another shape is no design
            reasons = [why for pattern, why in by_design.items() if fnmatchcase(name, pattern)]
            reason = reasons[0] if reasons else None
        required = not whole or name.startswith('backbone.')
        if required and reason is None:
            uncovered.append(name)
        report.missing.setdefault(name, reason or 'not in the checkpoint')
    if not uncovered and selected:
        return
    of = f'{len(uncovered)} of the {len(target)} entries of {type(module).__name__}'
    whys = {report.missing[name] for name in uncovered} - {'not in the checkpoint'}
    raise IncompleteLoadError(
        f'{where} (layout {report.layout}) does not fill {of}: {compact(uncovered)}'
        f'{" (" + "; ".join(sorted(whys)[:3]) + ")" if whys else ""}. '
        f'Left over in the checkpoint: {compact(report.unexpected) or "nothing"}. '
        'Correct the architecture or the layout, or list what may keep its initial values in '
        "allow_missing=['pattern', ...]. Nothing was loaded."
    )


def _verify(
    module: nn.Module, selected: Mapping[str, Tensor], report: LoadReport, where: str
) -> None:
    """Reads back what was loaded: a module may have hooks that change names or values."""
    now = module.state_dict()
    wrong = []
    for name, value in selected.items():
        if any(fnmatchcase(name, pattern) for pattern in _DERIVED):
            continue
        if not torch.equal(now[name].cpu(), value.detach().to('cpu', now[name].dtype)):
            wrong.append(name)
        report.fingerprints[name] = fingerprint(now[name])
    if wrong:
        raise IncompleteLoadError(
            f'{where}: after loading, {type(module).__name__} does not hold the numbers of the '
            f'checkpoint in {compact(wrong)}: one of its load_state_dict hooks changed them'
        )
