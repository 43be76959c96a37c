# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pretraining of one encoder by several tasks. Needs mmseg, mmdet and mmrotate."""
