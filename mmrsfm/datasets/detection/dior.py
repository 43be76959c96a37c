# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""DIOR: horizontal boxes of 20 classes in images of 800 x 800 pixels."""

from __future__ import annotations

from typing import Any, ClassVar

from mmdet.datasets import CocoDataset

from mmrsfm.class_tables import DIOR
from mmrsfm.datasets.detection.checked_coco_dataset import CheckedCocoDataset
from mmrsfm.registry import DATASETS


@DATASETS.register_module()
class DIORDataset(CheckedCocoDataset):
    """DIOR with its horizontal boxes, as COCO json; the oriented ones: ``mmrsfm.DIORRDataset``.

    Layout::

        data_root/
        ├── JPEGImages-trainval/*.jpg           11,725 images
        ├── JPEGImages-test/*.jpg               11,738 images
        ├── DIOR_trainval_coco.json
        └── DIOR_test_coco.json

    Paper: Li et al., "Object detection in optical remote sensing images: A survey and a new
    benchmark", ISPRS Journal 2020, arXiv 1909.00133. Licence: not stated; imagery from Google
    Earth, for research.

    Args:
        **kwargs: See :class:`CheckedCocoDataset`.
    """

    METAINFO: ClassVar[dict[str, Any]] = {
        'classes': DIOR,
        # The published palette is the beginning of COCO's.
        'palette': CocoDataset.METAINFO['palette'][: len(DIOR)],
    }
    layout: ClassVar[str] = (
        'JPEGImages-trainval/, JPEGImages-test/, DIOR_trainval_coco.json, DIOR_test_coco.json'
    )
    converter: ClassVar[str] = 'python data_converters/dior_to_coco.py'
