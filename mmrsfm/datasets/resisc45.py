# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""NWPU-RESISC45: scene classification, 45 classes, 31,500 RGB images of 256 x 256 pixels."""

from __future__ import annotations

from typing import Any, ClassVar

from mmrsfm.datasets.scene_folder_dataset import SceneFolderDataset
from mmrsfm.registry import DATASETS

_CLASSES = (
    'airplane', 'airport', 'baseball_diamond', 'basketball_court', 'beach', 'bridge', 'chaparral',
    'church', 'circular_farmland', 'cloud', 'commercial_area', 'dense_residential', 'desert',
    'forest', 'freeway', 'golf_course', 'ground_track_field', 'harbor', 'industrial_area',
    'intersection', 'island', 'lake', 'meadow', 'medium_residential', 'mobile_home_park',
    'mountain', 'overpass', 'palace', 'parking_lot', 'railway', 'railway_station',
    'rectangular_farmland', 'river', 'roundabout', 'runway', 'sea_ice', 'ship', 'snowberg',
    'sparse_residential', 'stadium', 'storage_tank', 'tennis_court', 'terrace',
    'thermal_power_station', 'wetland',
)  # fmt: skip


@DATASETS.register_module()
class RESISC45(SceneFolderDataset):
    """NWPU-RESISC45, 0.2 to 30 m; see :class:`SceneFolderDataset` for the arguments."""

    METAINFO: ClassVar[dict[str, Any]] = {'classes': _CLASSES}
    bands: ClassVar[tuple[str, ...] | None] = ('R', 'G', 'B')
    citation: ClassVar[str] = (
        'Cheng et al., "Remote Sensing Image Scene Classification: Benchmark and State of the '
        'Art", Proceedings of the IEEE 2017, arXiv 1703.00121'
    )
    licence: ClassVar[str] = 'not stated; imagery from Google Earth, for research'
    layout: ClassVar[str] = 'airplane/airplane_001.jpg, one folder for each of 45 classes'
