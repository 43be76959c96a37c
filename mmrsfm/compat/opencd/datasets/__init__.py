# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Bi-temporal datasets under Open-CD's names. Needs mmseg."""

from mmrsfm.compat.opencd.datasets.base_cd_dataset import _BaseCDDataset
from mmrsfm.compat.opencd.datasets.benchmarks import (
    CLCD_Dataset,
    DSIFN_Dataset,
    JL1_CD_Dataset,
    LEVIR_CD_Dataset,
    OSCD_RGB_CD_Dataset,
    RSIPAC_CD_Dataset,
    S2Looking_Dataset,
    SVCD_Dataset,
    WHU_CD_Dataset,
)

__all__ = [
    'CLCD_Dataset',
    'DSIFN_Dataset',
    'JL1_CD_Dataset',
    'LEVIR_CD_Dataset',
    'OSCD_RGB_CD_Dataset',
    'RSIPAC_CD_Dataset',
    'S2Looking_Dataset',
    'SVCD_Dataset',
    'WHU_CD_Dataset',
    '_BaseCDDataset',
]
