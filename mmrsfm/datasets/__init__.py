# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Datasets, one a file; what needs mmseg is in :mod:`mmrsfm.datasets.segmentation`."""

from mmrsfm.datasets.addressed import AddressedCollate, AddressedDataset
from mmrsfm.datasets.tile_dataset import TileDataset

__all__ = ['AddressedCollate', 'AddressedDataset', 'TileDataset']
