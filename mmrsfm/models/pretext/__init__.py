# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.models.pretext.cross_scale_mae import CrossScaleMAE
from mmrsfm.models.pretext.mars import MaRS

__all__ = ['CrossScaleMAE', 'MaRS']
