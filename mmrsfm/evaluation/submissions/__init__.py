# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Writers of what the servers of benchmarks take, as metrics for ``tools/test.py``."""

from mmrsfm.evaluation.submissions.change_map_submission import ChangeMapSubmission
from mmrsfm.evaluation.submissions.dota_submission import DOTASubmission
from mmrsfm.evaluation.submissions.fair1m_submission import FAIR1MSubmission
from mmrsfm.evaluation.submissions.height_map_submission import HeightMapSubmission
from mmrsfm.evaluation.submissions.loveda_submission import LoveDASubmission
from mmrsfm.evaluation.submissions.registration_submission import RegistrationSubmission
from mmrsfm.evaluation.submissions.translation_submission import TranslationSubmission

__all__ = [
    'ChangeMapSubmission',
    'DOTASubmission',
    'FAIR1MSubmission',
    'HeightMapSubmission',
    'LoveDASubmission',
    'RegistrationSubmission',
    'TranslationSubmission',
]
