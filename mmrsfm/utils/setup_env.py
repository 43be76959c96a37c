# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Registering everything at once, as users of the other OpenMMLab libraries know it."""

from __future__ import annotations

import datetime
import warnings

from mmengine.registry import DefaultScope

from mmrsfm import registry


def register_all_modules(init_default_scope: bool = True) -> None:
    """Imports every subpackage of mmrsfm whose task library is installed.

    Configs need no call of this: the registries import what a config names. It serves code that
    builds modules by hand, and MMEngine, which calls it by name.

    Args:
        init_default_scope: Whether to make ``mmrsfm`` the default scope, so that ``type='X'`` means
            ``mmrsfm.X``. Configs of a task keep the scope of its library instead
            (``default_scope='mmseg'``), and a runner that is built from one sets it itself.
    """
    for child in vars(registry).values():
        if isinstance(child, registry.LazyRegistry):
            child.import_all()
    if not init_default_scope:
        return
    current = DefaultScope.get_current_instance()
    if current is None:
        DefaultScope.get_instance(registry.SCOPE, scope_name=registry.SCOPE)
    elif current.scope_name != registry.SCOPE:
        warnings.warn(
            f"The default scope changes from '{current.scope_name}' to '{registry.SCOPE}'. "
            'Call register_all_modules(init_default_scope=False) to keep it.',
            stacklevel=2,
        )
        # Instances are found by name for ever: a new one needs a name of its own.
        name = f'{registry.SCOPE}-{datetime.datetime.now().isoformat()}'
        DefaultScope.get_instance(name, scope_name=registry.SCOPE)
