# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.models.losses.cross_granularity_contrastive_loss import (
    CrossGranularityContrastiveLoss,
)
from mmrsfm.models.losses.dice_loss import DiceLoss
from mmrsfm.models.losses.masked_reconstruction_loss import MaskedReconstructionLoss
from mmrsfm.models.losses.nt_xent_loss import NTXentLoss
from mmrsfm.models.losses.regression_loss import RegressionLoss
from mmrsfm.models.losses.sar_weighted_reconstruction_loss import (
    SARWeightedReconstructionLoss,
)
from mmrsfm.models.losses.task_weighting import TaskWeighting
from mmrsfm.models.losses.token_clip_loss import TokenCLIPLoss

__all__ = [
    'CrossGranularityContrastiveLoss',
    'DiceLoss',
    'MaskedReconstructionLoss',
    'NTXentLoss',
    'RegressionLoss',
    'SARWeightedReconstructionLoss',
    'TaskWeighting',
    'TokenCLIPLoss',
]
