# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""DFC25 track 2, BRIGHT: damage of buildings, optical before and SAR after a disaster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mmrsfm.datasets.segmentation.multi_modal_seg_dataset import LABEL, MultiModalSegDataset
from mmrsfm.registry import DATASETS


@DATASETS.register_module()
class DFC25Dataset(MultiModalSegDataset):
    """BRIGHT, the data of track 2 of the IEEE GRSS Data Fusion Contest 2025, as published.

    Layout, 1024 x 1024 pixels at 0.3 to 1 m::

        data_root/
        ├── train/                                     (of the contest; BRIGHT itself has one level
        │   ├── pre-event/<id>_pre_disaster.tif         less: set data_prefix) 3 bands, optical
        │   ├── post-event/<id>_post_disaster.tif      1 band, SAR
        │   └── target/<id>_building_damage.tif        values 0 to 3, the classes below
        ├── val/                                       the same without target
        └── train_setlevel.txt, holdout_setlevel.txt, val_setlevel.txt   (one id a line)

    ``<id>`` is like ``bata-explosion_00000049``. The lists come with the authors' code
    (github.com/ChenHongruixuan/BRIGHT); train and holdout are both in the folder ``train``.

    Paper: Chen et al., "BRIGHT: a globally distributed multimodal building damage assessment
    dataset with very-high-resolution for all-weather disaster response", arXiv 2501.06019. Data:
    Zenodo record 14619798; licence: see there.

    Args:
        **kwargs: See :class:`MultiModalSegDataset`; the modalities are ``pre`` and ``post``, and
            ``data_prefix`` is that of the contest's training images unless given.
    """

    METAINFO: ClassVar[dict[str, Any]] = {
        'classes': ('background', 'intact', 'damaged', 'destroyed'),
        'palette': [[0, 0, 0], [70, 181, 121], [228, 189, 139], [182, 70, 69]],
    }
    prefixes: ClassVar[Mapping[str, str]] = {
        'pre': 'train/pre-event',
        'post': 'train/post-event',
        LABEL: 'train/target',
    }
    file_suffix: ClassVar[Mapping[str, str | Sequence[str]]] = {
        'pre': '_pre_disaster.tif',
        'post': '_post_disaster.tif',
        LABEL: '_building_damage.tif',
    }
    layout: ClassVar[str] = (
        'pre-event/<id>_pre_disaster.tif, post-event/<id>_post_disaster.tif, '
        'target/<id>_building_damage.tif'
    )
    citation: ClassVar[str] = 'BRIGHT, Zenodo 14619798'
