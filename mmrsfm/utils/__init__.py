# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Small helpers around the library: the environment and its checks.

Nothing heavy is imported here: ``import mmrsfm`` passes through this package.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmrsfm.utils.collect_env import collect_env
    from mmrsfm.utils.setup_env import register_all_modules

__all__ = ['collect_env', 'register_all_modules']


def __getattr__(name: str) -> Any:
    # Lazy, because ``import mmrsfm`` imports mmrsfm.utils.dependencies, and because
    # ``python -m mmrsfm.utils.collect_env`` must not find its module imported already.
    if name == 'register_all_modules':
        from mmrsfm.utils.setup_env import register_all_modules

        return register_all_modules
    if name == 'collect_env':
        from mmrsfm.utils.collect_env import collect_env

        return collect_env
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
