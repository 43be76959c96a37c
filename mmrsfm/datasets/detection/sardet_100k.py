# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""SARDet-100K: horizontal boxes of six classes in radar images."""

from __future__ import annotations

from typing import Any, ClassVar

from mmdet.datasets import CocoDataset

from mmrsfm.class_tables import SARDET_100K
from mmrsfm.datasets.detection.checked_coco_dataset import CheckedCocoDataset
from mmrsfm.registry import DATASETS


@DATASETS.register_module()
class SARDet100KDataset(CheckedCocoDataset):
    """SARDet-100K, as published: ten data sets of radar images, cut and brought to one form.

    Layout::

        data_root/
        ├── JPEGImages/{train,val,test}/*.png, *.jpg     94,493, 10,492 and 11,613 images
        └── Annotations/{train,val,test}.json            COCO

    The images are 8-bit chips of one amplitude, saved with one or three equal bands, of sizes
    around 512 pixels: ``mmrsfm.LoadMultiBandImage(bands=[1])`` reads the amplitude.

    Paper: Li et al., "SARDet-100K: Towards Open-Source Benchmark and ToolKit for Large-Scale SAR
    Object Detection", NeurIPS 2024, arXiv 2403.06534. Licence: CC BY-NC 4.0.

    Args:
        **kwargs: See :class:`CheckedCocoDataset`.
    """

    METAINFO: ClassVar[dict[str, Any]] = {
        'classes': SARDET_100K,
        'palette': CocoDataset.METAINFO['palette'][: len(SARDET_100K)],
    }
    layout: ClassVar[str] = (
        'JPEGImages/train/, JPEGImages/val/, JPEGImages/test/, Annotations/train.json, val.json, '
        'test.json'
    )
    converter: ClassVar[str] = 'nothing: it is published so'
