# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""mmrsfm: remote-sensing foundation models from pretraining to every downstream task."""

from mmengine.config.utils import MODULE2PACKAGE

from mmrsfm import registry
from mmrsfm.version import __version__

# MMEngine resolves ``_base_ = 'mmrsfm::...'`` through this table and refuses what is not in it.
MODULE2PACKAGE.setdefault('mmrsfm', 'mmrsfm')

__all__ = ['__version__', 'registry']
