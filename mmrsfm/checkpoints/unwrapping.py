# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""From the contents of a checkpoint file to the state dict in it; every step is reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mmrsfm.checkpoints.layout import StateDict
from mmrsfm.errors import CheckpointReadError

# In the order in which they are looked for; averages come last and are never preferred.
_CONTAINERS = ('state_dict', 'model', 'model_state_dict', 'module', 'net', 'network')
_AVERAGES = ('ema_state_dict', 'model_ema', 'ema', 'state_dict_ema')
# What wrappers put before every name: DataParallel, torch.compile, mmengine's averaged models.
_PREFIXES = ('module.', '_orig_mod.', 'model.')


@dataclass
class Unwrapped:
    """A state dict, and how it was found.

    Attributes:
        state: Name to tensor.
        meta: The ``meta`` entry of the file; empty where there is none.
        steps: What was opened or removed, in order, e.g. ``["['model']", "prefix 'module.'"]``.
        notes: What else the user should know, such as averaged weights that were left aside.
    """

    state: StateDict
    meta: dict[str, Any]
    steps: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def unwrap(checkpoint: Mapping[str, Any], weights: str = 'auto') -> Unwrapped:
    """Finds the state dict in what :func:`mmrsfm.checkpoints.read_checkpoint` returned.

    Args:
        checkpoint: Contents of the file.
        weights: The entry that holds the weights, e.g. ``'ema_state_dict'``. ``'auto'`` takes the
            first of the usual ones, and averaged weights only where there are no others.

    Raises:
        CheckpointReadError: If there is no state dict, or no entry of that name.
    """
    meta = checkpoint.get('meta')
    result = Unwrapped({}, dict(meta) if isinstance(meta, Mapping) else {})
    content: Mapping[str, Any] = checkpoint
    if weights != 'auto':
        if not _is_state(checkpoint.get(weights)):
            found = [key for key in checkpoint if _is_state(checkpoint[key])]
            raise CheckpointReadError(
                f'the checkpoint has no weights under {weights!r}; it has some under {found}'
            )
        content = checkpoint[weights]
        result.steps.append(f'[{weights!r}]')
    for _ in range(3):
        if any(isinstance(value, Tensor) for value in content.values()):
            break
        names = [name for name in (*_CONTAINERS, *_AVERAGES) if _is_state(content.get(name))]
        if not names:
            raise CheckpointReadError(
                f'no weights found in the checkpoint, whose entries are {sorted(map(str, content))}'
            )
        left = ', '.join(repr(name) for name in names[1:])
        if left:
            result.notes.append(f'weights under {left} were left aside (weights=... takes them)')
        elif names[0] in _AVERAGES:
            result.notes.append(f'only averaged weights ({names[0]!r}) were there')
        result.steps.append(f'[{names[0]!r}]')
        content = content[names[0]]
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    others = [str(name) for name in content if str(name) not in state]
    if others:
        result.notes.append(f'entries that are no tensors were left aside: {", ".join(others[:8])}')
    result.state = _strip_prefixes(state, result)
    return result


def _is_state(value: Any) -> bool:
    """Whether something holds tensors, or a container that does."""
    if not isinstance(value, Mapping):
        return False
    if any(isinstance(item, Tensor) for item in value.values()):
        return True
    return any(_is_state(value.get(name)) for name in (*_CONTAINERS, *_AVERAGES))


def _strip_prefixes(state: StateDict, result: Unwrapped) -> StateDict:
    for _ in range(3):
        # mmengine's averaged model counts its steps beside the weights.
        names = [name for name in state if name != 'steps' and name != 'n_averaged']
        for prefix in _PREFIXES:
            if names and all(name.startswith(prefix) for name in names):
                state = {name[len(prefix) :]: state[name] for name in names}
                result.steps.append(f'prefix {prefix!r}')
                break
        else:
            break
    return state
