# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Data sets with several kinds of label. Needs mmseg, mmdet and mmrotate."""
