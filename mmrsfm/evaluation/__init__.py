# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Evaluation protocols and metrics."""

from mmrsfm.evaluation.cross_modal_retrieval_metric import CrossModalRetrievalMetric
from mmrsfm.evaluation.height_metric import HeightMetric
from mmrsfm.evaluation.knn_loop import KNNLoop
from mmrsfm.evaluation.multi_label_ap_metric import MultiLabelAPMetric
from mmrsfm.evaluation.nearest_neighbors import nearest_neighbors, vote
from mmrsfm.evaluation.reconstruction_metric import ReconstructionMetric
from mmrsfm.evaluation.registration_metric import RegistrationMetric
from mmrsfm.evaluation.submissions import (
    ChangeMapSubmission,
    DOTASubmission,
    FAIR1MSubmission,
    HeightMapSubmission,
    LoveDASubmission,
    RegistrationSubmission,
    TranslationSubmission,
)
from mmrsfm.evaluation.translation_metric import TranslationMetric

__all__ = [
    'ChangeMapSubmission',
    'CrossModalRetrievalMetric',
    'DOTASubmission',
    'FAIR1MSubmission',
    'HeightMapSubmission',
    'HeightMetric',
    'KNNLoop',
    'LoveDASubmission',
    'MultiLabelAPMetric',
    'ReconstructionMetric',
    'RegistrationMetric',
    'RegistrationSubmission',
    'TranslationMetric',
    'TranslationSubmission',
    'nearest_neighbors',
    'vote',
]
