# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The data sets of a multi-task pretraining, as its model knows them: names, classes, tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from mmrsfm.class_tables import SAMRS
from mmrsfm.errors import ConfigError

SEMANTIC = 'semantic'
TASKS = (SEMANTIC, 'instance', 'rotated')
BACKGROUND = 'background'


@dataclass(frozen=True)
class LabelSet:
    """One data set.

    Attributes:
        name: What ``dataset_name`` of its samples says.
        classes: Names of the classes of objects, by number.
        semantic_classes: Names of the classes of pixels, by number.
        tasks: The kinds of label that it may have.
    """

    name: str
    classes: tuple[str, ...]
    semantic_classes: tuple[str, ...]
    tasks: tuple[str, ...]

    def num_classes(self, task: str) -> int:
        """Number of classes of a kind of label (without the background of detectors)."""
        return len(self.semantic_classes if task == SEMANTIC else self.classes)


def parse_label_set(given: Mapping[str, Any], tasks: Sequence[str]) -> LabelSet:
    """Reads one entry of ``datasets`` of :class:`mmrsfm.MTP`.

    Args:
        given: ``name``; ``classes`` (names, or their number; default: those of SAMRS for
            ``'sota'``, ``'sior'`` and ``'fast'``), or ``metainfo`` with them;
            ``semantic_classes`` (default: ``'background'`` and the ``classes``); ``tasks``
            (default: all of the model; what the model does not have is left out).
        tasks: The tasks of the model.

    Raises:
        ConfigError: If something is missing, unknown, or a name that cannot be used.
    """
    entry = dict(given)
    name = entry.pop('name', None)
    metainfo = dict(entry.pop('metainfo', None) or {})
    classes = entry.pop('classes', metainfo.get('classes'))
    semantic = entry.pop('semantic_classes', metainfo.get('semantic_classes'))
    own = entry.pop('tasks', None)
    if entry:
        raise ConfigError(
            f'datasets: {name!r} has unknown entries {sorted(entry)}; there are name, classes, '
            'metainfo, semantic_classes and tasks'
        )
    _check_name(name)
    if classes is None:
        classes = SAMRS.get(name)
    if classes is None:
        raise ConfigError(
            f'datasets: {name!r} needs classes=(...), or metainfo=dict(classes=...) of its '
            f'dataset; known without are {", ".join(SAMRS)}'
        )
    classes = _names(classes)
    semantic = (BACKGROUND, *classes) if semantic is None else _names(semantic)
    unknown = [task for task in own or () if task not in (*tasks, *TASKS)]
    if unknown:
        raise ConfigError(
            f'datasets: {name!r} has unknown tasks {unknown}; there are {list(tasks)}'
        )
    chosen = tuple(task for task in tasks if own is None or task in own)
    if not chosen or not classes or not semantic:
        raise ConfigError(
            f'datasets: {name!r} has no classes, or none of the tasks {list(tasks)}: leave it out'
        )
    return LabelSet(name, classes, semantic, chosen)


def parse_label_sets(given: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[LabelSet]:
    """Reads ``datasets`` of :class:`mmrsfm.MTP`; see :func:`parse_label_set`.

    Raises:
        ConfigError: If there are none, or two of one name, or a task that no data set has.
    """
    sets = [parse_label_set(one, tasks) for one in given]
    names = [one.name for one in sets]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f'datasets: at least one, each with a name of its own, got {names}')
    idle = [task for task in tasks if not any(task in one.tasks for one in sets)]
    if idle:
        raise ConfigError(f'decoders: none of the data sets has labels for {idle}: leave them out')
    return sets


def _check_name(name: Any) -> None:
    # It is a component of names of parameters and of losses.
    ok = isinstance(name, str) and name and not set(name) & set('./ ')
    if not ok or 'loss' in name or hasattr(nn.ModuleDict(), name):
        raise ConfigError(
            f'datasets: {name!r} cannot be the name of a data set: a word without dots, slashes '
            "and spaces, not one of torch's own (such as 'type' or 'keys'), without 'loss' in it"
        )


def _names(classes: Any) -> tuple[str, ...]:
    if isinstance(classes, int):
        return tuple(f'class {number}' for number in range(classes))
    if isinstance(classes, str):
        raise ConfigError(f'datasets: classes are a sequence of names or a number, got {classes!r}')
    return tuple(str(name) for name in classes)
