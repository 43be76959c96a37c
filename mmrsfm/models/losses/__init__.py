# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from mmrsfm.models.losses.masked_reconstruction_loss import MaskedReconstructionLoss
from mmrsfm.models.losses.nt_xent_loss import NTXentLoss

__all__ = ['MaskedReconstructionLoss', 'NTXentLoss']
