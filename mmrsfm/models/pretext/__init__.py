# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.models.pretext.cross_scale_mae import CrossScaleMAE
from mmrsfm.models.pretext.mars import MaRS
from mmrsfm.models.pretext.mp_mae import MPMAE
from mmrsfm.models.pretext.sar_w_mixmae import SARWMixMAE

__all__ = ['MPMAE', 'CrossScaleMAE', 'MaRS', 'SARWMixMAE']
