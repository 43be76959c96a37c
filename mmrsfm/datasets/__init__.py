# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Datasets, one a file; what needs mmseg is in :mod:`mmrsfm.datasets.segmentation`."""

from mmrsfm.datasets.addressed import AddressedCollate, AddressedDataset
from mmrsfm.datasets.bigearthnet_v1 import BigEarthNetV1
from mmrsfm.datasets.bigearthnet_v2 import BigEarthNetV2
from mmrsfm.datasets.dfc23_height import DFC23HeightDataset
from mmrsfm.datasets.eurosat import EuroSAT
from mmrsfm.datasets.fmow_rgb import FMoWRGB
from mmrsfm.datasets.geobench import GeoBench
from mmrsfm.datasets.guso import GUSODataset
from mmrsfm.datasets.label_fraction import LabelFraction
from mmrsfm.datasets.mars_16m import MaRS16M
from mmrsfm.datasets.mmearth import MMEarth
from mmrsfm.datasets.multi_dataset import MultiDataset
from mmrsfm.datasets.naip_tiles import NAIPTiles
from mmrsfm.datasets.packed_tile_dataset import PackedTileDataset
from mmrsfm.datasets.paired_modality_dataset import PairedModalityDataset
from mmrsfm.datasets.resisc45 import RESISC45
from mmrsfm.datasets.scene_folder_dataset import SceneFolderDataset
from mmrsfm.datasets.scene_pair_dataset import ScenePairDataset
from mmrsfm.datasets.sen12_flood import SEN12Flood
from mmrsfm.datasets.tile_dataset import TileDataset
from mmrsfm.datasets.uc_merced import UCMerced
from mmrsfm.datasets.whu_rs19 import WHURS19

__all__ = [
    'RESISC45',
    'WHURS19',
    'AddressedCollate',
    'AddressedDataset',
    'BigEarthNetV1',
    'BigEarthNetV2',
    'DFC23HeightDataset',
    'EuroSAT',
    'FMoWRGB',
    'GUSODataset',
    'GeoBench',
    'LabelFraction',
    'MMEarth',
    'MaRS16M',
    'MultiDataset',
    'NAIPTiles',
    'PackedTileDataset',
    'PairedModalityDataset',
    'SEN12Flood',
    'SceneFolderDataset',
    'ScenePairDataset',
    'TileDataset',
    'UCMerced',
]
