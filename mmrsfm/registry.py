# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Child registries, scope ``mmrsfm``, of every root registry of MMEngine.

Importing this module is cheap: no model, dataset or task library is imported. A registry looks a
name up when it is asked for, in the packages of its ``locations``, the light ones first, so that
``type='mmrsfm.CrossScaleViT'`` imports mmpretrain but never mmdet, mmseg or mmrotate.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Sequence
from typing import Any

import mmengine.registry as roots
from mmengine.registry import DefaultScope, Registry

from mmrsfm.errors import MissingDependencyError

SCOPE = 'mmrsfm'


class LazyRegistry(Registry):
    """A registry that imports its locations one by one, until the name is found.

    Args:
        name: Name of the registry.
        parent: The root registry of MMEngine; without one, only who holds the registry finds it.
        locations: Modules whose import registers classes, in the order in which they are tried.
            One that needs a task library which is not installed, or does not work, is passed over,
            and named in the error if the name is not found elsewhere.
        scope: The scope of its names.
    """

    def __init__(
        self, name: str, parent: Registry | None, locations: Sequence[str], scope: str = SCOPE
    ) -> None:
        super().__init__(name, parent=parent, scope=scope, locations=list(locations))
        self._pending = list(locations)
        self._failed: dict[str, Exception] = {}

    def import_from_location(self) -> None:
        """Imports nothing: the locations are tried one by one in :meth:`get`."""

    def get(self, key: str) -> Any:
        """Returns what is registered under ``key``; see :meth:`mmengine.registry.Registry.get`.

        Raises:
            MissingDependencyError: If the name is not found, and a location of this registry could
                not be imported.
        """
        scope, name = self.split_scope_key(key)
        found = self._get_from_task_library(name) if scope is None else None
        if found is not None:
            return found  # without an import of ours, which may need another library
        if scope in (None, self.scope):
            self._import_until_found(name)
        found = super().get(key)
        # Also without a scope: a root registry takes it off before it asks this one.
        if found is None and self._failed and scope in (None, self.scope):
            self._raise_missing(name)
        return found

    def _get_from_task_library(self, name: str) -> Any:
        """What the library that a config is for has under a name without a scope.

        MMEngine marks what a config inherits by ``_base_ = 'mmrsfm::...'`` with our scope, which it
        makes the default while it builds that: also for the types of the task library, which stand
        in it without a scope, and of which some have the name of one of ours (``Resize``). Ours are
        written with the scope in every config.
        """
        scopes = DefaultScope._instance_dict
        names = [one.scope_name for one in scopes.values()]
        if self.scope != SCOPE or not names or names[-1] != SCOPE or self.parent is None:
            return None
        if not next(reversed(scopes)).startswith('overwrite'):
            return None  # the scope that the config itself asks for
        outer = next((one for one in reversed(names) if one != SCOPE), None)
        library = None if outer is None else self.parent._search_child(outer)
        return None if library is None else library.get(name)

    def import_all(self) -> None:
        """Imports every location whose task library is installed and works."""
        self._import_until_found(None)

    def _import_until_found(self, name: str | None) -> None:
        while self._pending and (name is None or name not in self._module_dict):
            location = self._pending[0]
            try:
                importlib.import_module(location)
            except Exception as error:
                if _is_ours(error):
                    raise  # a module of ours is broken: never hide that
                self._failed[location] = error
            # Removed afterwards: an import that registers by name may come back here.
            if self._pending and self._pending[0] == location:
                self._pending.pop(0)

    def _raise_missing(self, name: str) -> None:
        reasons = '; '.join(
            f'{location}: {type(error).__name__}: {error}'
            for location, error in self._failed.items()
        )
        raise MissingDependencyError(
            f"'{self.scope}.{name}' is not in the {self.name} registry, and some of mmrsfm could "
            f'not be imported ({reasons}). Install or repair the package, as '
            'python -m mmrsfm.utils.collect_env --check says, or correct the name.'
        )


def _is_ours(error: Exception) -> bool:
    """Whether an import failed in a module of mmrsfm, and not in a library that it needs."""
    if isinstance(error, ImportError):
        return (error.name or '').split('.')[0] == SCOPE
    # Task libraries assert versions, and compiled ones fail with whatever their loader raises.
    innermost = SCOPE
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == '<module>':
            innermost = frame.f_globals.get('__name__', '')
    return innermost.split('.')[0] == SCOPE


def _child(name: str, *locations: str) -> LazyRegistry:
    root: Registry = getattr(roots, name)
    return LazyRegistry(root.name, parent=root, locations=locations)


# Subpackages that need a task library come last and are named after it.
MODELS = _child(
    'MODELS',
    'mmrsfm.models',
    'mmrsfm.models.segmentation',
    'mmrsfm.models.change_detection',
    'mmrsfm.models.detection',
    'mmrsfm.models.multi_task',
)
DATASETS = _child(
    'DATASETS',
    'mmrsfm.datasets',
    'mmrsfm.datasets.segmentation',
    'mmrsfm.datasets.detection',
    'mmrsfm.datasets.rotated',
    'mmrsfm.datasets.multi_task',
)
TRANSFORMS = _child(
    'TRANSFORMS',
    'mmrsfm.datasets.transforms',
    'mmrsfm.datasets.segmentation',
    'mmrsfm.datasets.multi_task',
)
METRICS = _child(
    'METRICS',
    'mmrsfm.evaluation',
    'mmrsfm.evaluation.segmentation',
    'mmrsfm.evaluation.multi_task',
)
EVALUATOR = _child('EVALUATOR', 'mmrsfm.evaluation')
LOOPS = _child('LOOPS', 'mmrsfm.engine', 'mmrsfm.evaluation')
HOOKS = _child('HOOKS', 'mmrsfm.engine')
DATA_SAMPLERS = _child('DATA_SAMPLERS', 'mmrsfm.engine')
OPTIMIZERS = _child('OPTIMIZERS', 'mmrsfm.engine')
OPTIM_WRAPPERS = _child('OPTIM_WRAPPERS', 'mmrsfm.engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child('OPTIM_WRAPPER_CONSTRUCTORS', 'mmrsfm.engine')
PARAM_SCHEDULERS = _child('PARAM_SCHEDULERS', 'mmrsfm.engine')
MODEL_WRAPPERS = _child('MODEL_WRAPPERS', 'mmrsfm.engine')
LOG_PROCESSORS = _child('LOG_PROCESSORS', 'mmrsfm.engine')
RUNNERS = _child('RUNNERS', 'mmrsfm.engine')
RUNNER_CONSTRUCTORS = _child('RUNNER_CONSTRUCTORS', 'mmrsfm.engine')
STRATEGIES = _child('STRATEGIES', 'mmrsfm.engine')
WEIGHT_INITIALIZERS = _child('WEIGHT_INITIALIZERS', 'mmrsfm.checkpoints')
TASK_UTILS = _child('TASK_UTILS', 'mmrsfm.models', 'mmrsfm.models.multi_task')
VISUALIZERS = _child('VISUALIZERS', 'mmrsfm.visualization')
VISBACKENDS = _child('VISBACKENDS', 'mmrsfm.visualization')
INFERENCERS = _child('INFERENCERS', 'mmrsfm.apis')
FUNCTIONS = _child('FUNCTIONS', 'mmrsfm.datasets')
