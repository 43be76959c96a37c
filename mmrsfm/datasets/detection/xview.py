# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""xView: horizontal boxes of 60 classes in WorldView-3 imagery of 0.3 m."""

from __future__ import annotations

from typing import Any, ClassVar

from mmdet.datasets import CocoDataset

from mmrsfm.class_tables import XVIEW
from mmrsfm.datasets.detection.checked_coco_dataset import CheckedCocoDataset
from mmrsfm.registry import DATASETS


@DATASETS.register_module()
class XViewDataset(CheckedCocoDataset):
    """xView as MTP fine-tunes on it: patches of 416 x 416 pixels, COCO json, categories 0 to 59.

    Layout::

        data_root/
        ├── train/images/*.png                  about 10,040 patches with objects
        ├── val/images/*.png
        ├── xview_train_coco_format.json
        └── xview_val_coco_format.json

    The publisher labels 847 training images (one of them, 1395.tif, is not in the public files);
    700 of them, drawn at random, are MTP's training part. Its draw was not seeded: numbers on
    another split compare only roughly.

    Paper: Lam et al., "xView: Objects in Context in Overhead Imagery", arXiv 1802.07856.
    Licence of the imagery: CC BY-NC-SA 4.0; a registration is needed.

    Args:
        **kwargs: See :class:`CheckedCocoDataset`.
    """

    METAINFO: ClassVar[dict[str, Any]] = {
        'classes': XVIEW,
        # The published palette is the beginning of COCO's.
        'palette': CocoDataset.METAINFO['palette'][: len(XVIEW)],
    }
    layout: ClassVar[str] = (
        'train/images/, val/images/, xview_train_coco_format.json, xview_val_coco_format.json'
    )
    converter: ClassVar[str] = 'python data_converters/xview_geojson_to_coco.py'
