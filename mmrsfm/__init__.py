# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""mmrsfm: remote-sensing foundation models from pretraining to every downstream task."""

# Before anything of MMEngine is imported: a wrong version shall be named, not run into.
from mmrsfm.utils.dependencies import check_dependencies  # isort: skip

check_dependencies()

from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402

from mmrsfm import registry  # noqa: E402
from mmrsfm.compat.opencd import registry as _opencd  # noqa: E402, F401  # scope 'opencd'
from mmrsfm.version import __version__  # noqa: E402

# MMEngine resolves ``_base_ = 'mmrsfm::...'`` through this table and refuses what is not in it.
MODULE2PACKAGE.setdefault('mmrsfm', 'mmrsfm')

__all__ = ['__version__', 'registry']
