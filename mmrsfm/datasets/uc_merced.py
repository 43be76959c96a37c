# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""UC Merced Land Use: 21 classes, 2,100 RGB images of 256 x 256 pixels at 0.3 m."""

from __future__ import annotations

from typing import Any, ClassVar

from mmrsfm.datasets.scene_folder_dataset import SceneFolderDataset
from mmrsfm.registry import DATASETS

_CLASSES = (
    'agricultural', 'airplane', 'baseballdiamond', 'beach', 'buildings', 'chaparral',
    'denseresidential', 'forest', 'freeway', 'golfcourse', 'harbor', 'intersection',
    'mediumresidential', 'mobilehomepark', 'overpass', 'parkinglot', 'river', 'runway',
    'sparseresidential', 'storagetanks', 'tenniscourt',
)  # fmt: skip


@DATASETS.register_module()
class UCMerced(SceneFolderDataset):
    """UC Merced Land Use; see :class:`SceneFolderDataset` for the arguments.

    Some images are a few pixels larger or smaller than 256: resize or crop them.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'classes': _CLASSES}
    bands: ClassVar[tuple[str, ...] | None] = ('R', 'G', 'B')
    citation: ClassVar[str] = (
        'Yang and Newsam, "Bag-of-Visual-Words and Spatial Extensions for Land-Use '
        'Classification", ACM SIGSPATIAL 2010'
    )
    licence: ClassVar[str] = 'USGS National Map Urban Area Imagery, public domain'
    layout: ClassVar[str] = (
        'UCMerced_LandUse/Images/agricultural/agricultural00.tif, one folder for each of 21 '
        "classes (data_prefix='UCMerced_LandUse/Images')"
    )
