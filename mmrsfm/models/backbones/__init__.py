# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.models.backbones.cross_scale_vit import CrossScaleViT

__all__ = ['CrossScaleViT']
