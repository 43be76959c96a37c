# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The version of mmrsfm."""

__version__ = '0.1.0'
