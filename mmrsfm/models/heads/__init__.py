# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.models.heads.multi_pretext_head import MultiPretextHead
from mmrsfm.models.heads.pixel_shuffle_head import PixelShuffleHead

__all__ = ['MultiPretextHead', 'PixelShuffleHead']
