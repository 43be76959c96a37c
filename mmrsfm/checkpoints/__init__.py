# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Weights: read safely, recognise their layout, convert, load and say what happened."""

from mmrsfm.checkpoints.adaptation import Adaptation, check_contract
from mmrsfm.checkpoints.conversion import convert_state_dict
from mmrsfm.checkpoints.exporting import export_checkpoint
from mmrsfm.checkpoints.inspection import inspect_checkpoint
from mmrsfm.checkpoints.layout import (
    Layout,
    detect_layout,
    get_layout,
    known_layouts,
    register_layout,
)
from mmrsfm.checkpoints.loading import load_pretrained
from mmrsfm.checkpoints.pretrained import Pretrained
from mmrsfm.checkpoints.reading import file_digests, read_checkpoint
from mmrsfm.checkpoints.report import LoadReport, report_of
from mmrsfm.checkpoints.traits import describe_model
from mmrsfm.checkpoints.unwrapping import Unwrapped, unwrap

__all__ = [
    'Adaptation',
    'Layout',
    'LoadReport',
    'Pretrained',
    'Unwrapped',
    'check_contract',
    'convert_state_dict',
    'describe_model',
    'detect_layout',
    'export_checkpoint',
    'file_digests',
    'get_layout',
    'inspect_checkpoint',
    'known_layouts',
    'load_pretrained',
    'read_checkpoint',
    'register_layout',
    'report_of',
    'unwrap',
]
