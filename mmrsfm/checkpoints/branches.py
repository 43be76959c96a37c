# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Which encoder of several a single backbone gets."""

from __future__ import annotations

from torch import Tensor, nn

from mmrsfm.checkpoints.layout import StateDict
from mmrsfm.checkpoints.report import LoadReport
from mmrsfm.checkpoints.stem import find_stem
from mmrsfm.errors import IncompleteLoadError

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


def choose_branch(
    state: StateDict, module: nn.Module, whole: bool, part: str, report: LoadReport
) -> StateDict:
    """Gives a backbone without branches one of the encoders of a checkpoint with several.

    That is the one that ``part`` names, the only one, or the only one that takes as many bands.

    Args:
        state: The checkpoint's entries under our names.
        module: What gets them: a backbone, or a model with one.
        whole: Whether it is such a model.
        part: As for :func:`mmrsfm.checkpoints.load_pretrained`.
        report: Gets what is left aside, and a note on the choice.

    Returns:
        The entries, the chosen encoder as ``backbone.*``; the same where there is no choice.

    Raises:
        IncompleteLoadError: If it cannot be told which encoder is meant.
    """
    backbone: nn.Module = module.backbone if whole else module  # type: ignore[assignment]
    names = branches_of(state)
    explicit = part.removeprefix(_BRANCH) if part.startswith(_BRANCH) else None
    if not names or hasattr(backbone, 'branches') or not (whole or part == 'backbone'):
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
