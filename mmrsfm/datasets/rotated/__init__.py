# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Datasets of oriented boxes; they need mmrotate."""

from mmrsfm.datasets.rotated.dior_r import DIORRDataset
from mmrsfm.datasets.rotated.dota import DOTADataset, DOTAv2Dataset
from mmrsfm.datasets.rotated.fair1m import FAIR1MDataset

__all__ = ['DIORRDataset', 'DOTADataset', 'DOTAv2Dataset', 'FAIR1MDataset']
