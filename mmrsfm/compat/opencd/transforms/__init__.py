# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Transforms of image pairs under Open-CD's names. Needs mmseg.

The pair is ``results['img']``, a list of two (H, W, C); geometry is drawn once and applied to both
and to the maps of ``results['seg_fields']``. Each class is the one of mmseg or mmcv whose name it
bears, with the same arguments and the same order of random draws (NumPy's global generator), so
that seeded runs agree with Open-CD's.
"""

from mmrsfm.compat.opencd.transforms.exchange_time import MultiImgExchangeTime
from mmrsfm.compat.opencd.transforms.geometry import (
    MultiImgPad,
    MultiImgRandomCrop,
    MultiImgRandomFlip,
    MultiImgRandomRotate,
    MultiImgRandomRotFlip,
)
from mmrsfm.compat.opencd.transforms.loading import (
    MultiImgLoadAnnotations,
    MultiImgLoadImageFromFile,
)
from mmrsfm.compat.opencd.transforms.packing import MultiImgPackSegInputs
from mmrsfm.compat.opencd.transforms.photometry import (
    MultiImgAlbu,
    MultiImgNormalize,
    MultiImgPhotoMetricDistortion,
)
from mmrsfm.compat.opencd.transforms.resizing import MultiImgRandomResize, MultiImgResize

__all__ = [
    'MultiImgAlbu',
    'MultiImgExchangeTime',
    'MultiImgLoadAnnotations',
    'MultiImgLoadImageFromFile',
    'MultiImgNormalize',
    'MultiImgPackSegInputs',
    'MultiImgPad',
    'MultiImgPhotoMetricDistortion',
    'MultiImgRandomCrop',
    'MultiImgRandomFlip',
    'MultiImgRandomResize',
    'MultiImgRandomRotFlip',
    'MultiImgRandomRotate',
    'MultiImgResize',
]
