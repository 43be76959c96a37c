# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Registration of images of two modalities."""

from mmrsfm.models.registration.matching_head import MatchingHead
from mmrsfm.models.registration.registration_model import RegistrationModel
from mmrsfm.models.registration.robust_transform import RobustTransform

__all__ = ['MatchingHead', 'RegistrationModel', 'RobustTransform']
