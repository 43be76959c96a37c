# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Which encoder of several a single backbone gets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from mmrsfm.checkpoints.layout import StateDict
from mmrsfm.checkpoints.report import LoadReport
from mmrsfm.checkpoints.stem import find_stem
from mmrsfm.checkpoints.traits import TRAITS_KEY
from mmrsfm.contract import ImageryContract
from mmrsfm.errors import IncompleteLoadError
from mmrsfm.layers.modalities import channel_columns

_BACKBONE = 'backbone.'
_BRANCH = 'backbone.branches.'


def branches_of(state: StateDict) -> list[str]:
    """Names of the encoders in a checkpoint with several, under our names; else nothing."""
    return list(
        dict.fromkeys(
            name[len(_BRANCH) :].split('.', 1)[0] for name in state if name.startswith(_BRANCH)
        )
    )


def take_part(state: StateDict, part: str) -> tuple[StateDict, list[str]]:
    """Makes a part of a model its backbone.

    Args:
        state: Name to tensor, under our names.
        part: For example ``'backbone.branches.sar'`` or ``'teacher'``.

    Returns:
        The part, with ``backbone.`` before its names, and the names that are not in it.

    Raises:
        IncompleteLoadError: If there is no such part.
    """
    prefix = f'{part}.'
    taken = {
        _BACKBONE + name[len(prefix) :]: value
        for name, value in state.items()
        if name.startswith(prefix)
    }
    if not taken:
        parts = {name.split('.', 1)[0] for name in state}
        parts |= {_BRANCH + name for name in branches_of(state)}
        raise IncompleteLoadError(f'has no {part!r} to load; its parts are {sorted(parts)}')
    return taken, [name for name in state if not name.startswith(prefix)]


def contract_of_branches(
    contract: ImageryContract, meta: Mapping[str, Any], names: Iterable[str]
) -> ImageryContract:
    """What a checkpoint with several encoders says of the bands of some of them.

    Args:
        contract: That of the whole model.
        meta: Of the checkpoint; where it does not say which bands are whose, the contract is
            returned as it is.
        names: The encoders.
    """
    stated = (meta.get(TRAITS_KEY) or {}).get('modalities') or {}
    columns = channel_columns(stated)
    names = set(names)
    if not names or not names <= set(columns) or contract.num_bands != sum(stated.values()):
        return contract
    return contract.select([n for name, own in columns.items() if name in names for n in own])


def choose_branch(
    state: StateDict,
    module: nn.Module,
    whole: bool,
    part: str,
    report: LoadReport,
    meta: Mapping[str, Any],
) -> StateDict:
    """Gives a backbone without branches one of the encoders of a checkpoint with several.

    That is the one that ``part`` names, the only one, or the only one that takes as many bands. The
    contract in the report becomes that of the encoders that are taken.

    Args:
        state: The checkpoint's entries under our names.
        module: What gets them: a backbone, or a model with one.
        whole: Whether it is such a model.
        part: As for :func:`mmrsfm.checkpoints.load_pretrained`.
        report: Gets what is left aside, and a note on the choice.
        meta: Of the checkpoint.

    Returns:
        The entries, the chosen encoder as ``backbone.*``; the same where there is no choice.

    Raises:
        IncompleteLoadError: If it cannot be told which encoder is meant, or a whole model cannot
            get what ``part`` names.
    """

    def narrow(taken: Iterable[str]) -> None:
        if report.contract is not None:
            report.contract = contract_of_branches(report.contract, meta, taken)

    backbone: nn.Module = module.backbone if whole else module  # type: ignore[assignment]
    names = branches_of(state)
    explicit = part.removeprefix(_BRANCH) if part.startswith(_BRANCH) else None
    own = getattr(backbone, 'branches', None)
    if whole and part != 'backbone' and (own is not None or explicit not in names):
        raise IncompleteLoadError(
            f'part={part!r} cannot be given to a whole {type(module).__name__}'
            + (', which has encoders of its own' if own is not None else f': encoders: {names}')
            + '. Load it into the part of the model that it is for'
        )
    if not names or own is not None or not (whole or part == 'backbone'):
        if explicit is not None:
            narrow([explicit])
        elif own is not None:
            narrow(name for name in names if name in own)
        return state
    stem = find_stem(backbone)
    weight = None if stem is None else backbone.state_dict(keep_vars=True).get(stem)
    bands = None if weight is None else weight.shape[1]
    if explicit is not None:
        chosen, why = [explicit], 'as asked for'
    elif len(names) == 1:
        chosen, why = names, 'the only one'
    else:
        chosen = [n for n in names if _bands(state.get(f'{_BRANCH}{n}.{stem}')) == bands]
        why = f'the only one of {bands} bands'
    if len(chosen) != 1:
        raise IncompleteLoadError(
            f'holds an encoder for each of {names}, and {len(chosen)} of them take {bands} bands '
            f'as {type(backbone).__name__} does. Say which one to load: part={_BRANCH + names[0]!r}'
        )
    narrow(chosen)
    taken, aside = take_part(state, _BRANCH + chosen[0])
    if whole:
        others = {name: state[name] for name in aside if not name.startswith(_BRANCH)}
        aside = [name for name in aside if name not in others]
        taken = {**taken, **others}
    report.dropped += aside
    report.notes.append(f'of the encoders {names} that of {chosen[0]!r}, {why}')
    return taken


def _bands(weight: Tensor | None) -> int | None:
    return None if weight is None or weight.ndim != 4 else weight.shape[1]
