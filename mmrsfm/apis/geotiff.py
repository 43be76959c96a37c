# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Writing results on the grid of the image that they were made from."""

from mmrsfm.utils.geotiff import write_class_map

__all__ = ['write_class_map']
