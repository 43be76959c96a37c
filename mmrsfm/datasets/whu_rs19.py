# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""WHU-RS19: scene classification, 19 classes, 1,005 RGB images of 600 x 600 pixels, up to 0.5 m."""

from __future__ import annotations

from typing import Any, ClassVar

from mmrsfm.datasets.scene_folder_dataset import SceneFolderDataset
from mmrsfm.registry import DATASETS

_CLASSES = (
    'Airport', 'Beach', 'Bridge', 'Commercial', 'Desert', 'Farmland', 'footballField', 'Forest',
    'Industrial', 'Meadow', 'Mountain', 'Park', 'Parking', 'Pond', 'Port', 'railwayStation',
    'Residential', 'River', 'Viaduct',
)  # fmt: skip


@DATASETS.register_module()
class WHURS19(SceneFolderDataset):
    """WHU-RS19; see :class:`SceneFolderDataset` for the arguments."""

    METAINFO: ClassVar[dict[str, Any]] = {'classes': _CLASSES}
    bands: ClassVar[tuple[str, ...] | None] = ('R', 'G', 'B')
    citation: ClassVar[str] = (
        'Dai and Yang, "Satellite Image Classification via Two-Layer Sparse Coding with Biased '
        'Image Representation", GRSL 2011'
    )
    licence: ClassVar[str] = 'not stated; imagery from Google Earth, for research'
    layout: ClassVar[str] = 'Airport/airport_01.jpg, one folder for each of 19 classes'
