# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pretraining of one encoder by several tasks. Needs mmseg, mmdet and mmrotate."""

from mmrsfm.models.multi_task.instance_decoder import InstanceDecoder
from mmrsfm.models.multi_task.mtp import MTP
from mmrsfm.models.multi_task.mtp_data_preprocessor import MTPDataPreprocessor
from mmrsfm.models.multi_task.rotated_decoder import RotatedDecoder
from mmrsfm.models.multi_task.seeded_sampler import SeededRandomSampler
from mmrsfm.models.multi_task.semantic_decoder import SemanticDecoder

__all__ = [
    'MTP',
    'InstanceDecoder',
    'MTPDataPreprocessor',
    'RotatedDecoder',
    'SeededRandomSampler',
    'SemanticDecoder',
]
