# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Parts of change-detection models. Needs mmseg."""

from mmrsfm.models.change_detection.unet_head import UNetHead

__all__ = ['UNetHead']
