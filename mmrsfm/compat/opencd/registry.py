# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Child registries, scope ``opencd``, of every root registry of MMEngine.

``import mmrsfm`` imports this module. Without an installed Open-CD it costs next to nothing: the
registries import their locations when a name is asked for (:class:`mmrsfm.registry.LazyRegistry`).

An installed Open-CD is imported here, and its registries are the children of the roots; ours stand
apart and hand over, when the first name is asked for, what the real ones do not have. One that is
installed but cannot be imported (it asserts versions of mmcv and mmseg) is replaced, with a
warning, and blocked for this process: MMEngine tries to import ``opencd.registry`` whenever it
builds something in this scope and survives an ImportError only.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import warnings

import mmengine.registry as roots
from mmengine.logging import MMLogger
from mmengine.registry import Registry

from mmrsfm.registry import LazyRegistry

SCOPE = 'opencd'
_HERE = 'mmrsfm.compat.opencd'
_SUPPLEMENT = f'{_HERE}.supplement'


def _find_real() -> bool:
    """Whether a real Open-CD is there and works; it has made its registries then."""
    if SCOPE in sys.modules and sys.modules[SCOPE] is None:
        return False
    if SCOPE not in sys.modules and importlib.util.find_spec(SCOPE) is None:
        return False
    try:
        importlib.import_module(f'{SCOPE}.registry')
    except Exception as error:  # it asserts versions, and imports mmdet, mmseg and mmcv
        warnings.warn(
            f'The installed Open-CD cannot be imported ({type(error).__name__}: {error}); the '
            "components of mmrsfm stand in for it under the scope 'opencd'.",
            stacklevel=2,
        )
        for name in [SCOPE, *(key for key in sys.modules if key.startswith(f'{SCOPE}.'))]:
            sys.modules.pop(name, None)
        sys.modules[SCOPE] = None  # type: ignore[assignment]  # Python's own mark: do not import
        return False
    return True


def _silence_missing_package() -> None:
    """Drops MMEngine's warning that ``opencd.registry`` cannot be imported, and no other message.

    MMEngine logs it for everything that is built while ``opencd`` is the default scope. Each run
    has loggers of its own, the first of them before any code of a config runs, so the filter
    belongs to their class.
    """
    marker = f'Failed to import `{SCOPE}.registry`'
    inherited = MMLogger.filter

    def filter_record(self: MMLogger, record: logging.LogRecord) -> bool | logging.LogRecord:
        if isinstance(record.msg, str) and record.msg.startswith(marker):
            return False
        return inherited(self, record)

    MMLogger.filter = filter_record


def _child(name: str, *locations: str) -> LazyRegistry:
    root: Registry = getattr(roots, name)
    own = root.children.get(SCOPE)
    if own is None:
        return LazyRegistry(root.name, root, locations, scope=SCOPE)
    if locations:
        # After its own locations: then it is known what it lacks. (A new list: MMEngine's
        # registries without locations share one.)
        own._locations = [*own._locations, _SUPPLEMENT]
        own._imported = False
    return LazyRegistry(root.name, None, locations, scope=SCOPE)


REAL = _find_real()
if not REAL:
    _silence_missing_package()

MODELS = _child('MODELS', f'{_HERE}.models')
DATASETS = _child('DATASETS', f'{_HERE}.datasets')
TRANSFORMS = _child('TRANSFORMS', f'{_HERE}.transforms')
HOOKS = _child('HOOKS', f'{_HERE}.visualization')
VISUALIZERS = _child('VISUALIZERS', f'{_HERE}.visualization')
VISBACKENDS = _child('VISBACKENDS', f'{_HERE}.visualization')
METRICS = _child('METRICS')
EVALUATOR = _child('EVALUATOR')
LOOPS = _child('LOOPS')
DATA_SAMPLERS = _child('DATA_SAMPLERS')
OPTIMIZERS = _child('OPTIMIZERS')
OPTIM_WRAPPERS = _child('OPTIM_WRAPPERS')
OPTIM_WRAPPER_CONSTRUCTORS = _child('OPTIM_WRAPPER_CONSTRUCTORS')
PARAM_SCHEDULERS = _child('PARAM_SCHEDULERS')
MODEL_WRAPPERS = _child('MODEL_WRAPPERS')
LOG_PROCESSORS = _child('LOG_PROCESSORS')
RUNNERS = _child('RUNNERS')
RUNNER_CONSTRUCTORS = _child('RUNNER_CONSTRUCTORS')
STRATEGIES = _child('STRATEGIES')
WEIGHT_INITIALIZERS = _child('WEIGHT_INITIALIZERS')
TASK_UTILS = _child('TASK_UTILS')
INFERENCERS = _child('INFERENCERS')
FUNCTIONS = _child('FUNCTIONS')
