# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Weights: read safely, recognise their layout, convert, load and say what happened."""

from mmrsfm.checkpoints.conversion import convert_state_dict
from mmrsfm.checkpoints.layout import Layout, detect_layout, get_layout, layouts, register_layout

__all__ = [
    'Layout',
    'convert_state_dict',
    'detect_layout',
    'get_layout',
    'layouts',
    'register_layout',
]
