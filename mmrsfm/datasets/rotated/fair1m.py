# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""FAIR1M-2.0: oriented boxes of 37 fine-grained classes."""

from __future__ import annotations

from typing import Any, ClassVar

from mmdet.datasets import CocoPanopticDataset

from mmrsfm.class_tables import FAIR1M
from mmrsfm.datasets.rotated.dota import DOTADataset
from mmrsfm.registry import DATASETS


@DATASETS.register_module()
class FAIR1MDataset(DOTADataset):
    """FAIR1M-2.0 in DOTA's format, patches of 800 x 800 pixels.

    Layout::

        data_root/
        ├── trainval/images/*.png   trainval/annfiles/*.txt     about 41,900 patches with objects
        └── test/images/*.png

    The published files are TIFF images with XML labels; ``data_converters`` writes the text files
    (class names with dashes, as here) and cuts the patches. Objects of which two neighbouring
    corners coincide are left out, as in the published fine-tuning.

    Paper: Sun et al., "FAIR1M: A benchmark dataset for fine-grained object recognition in
    high-resolution remote sensing imagery", ISPRS Journal 2022, arXiv 2103.05569. For
    non-commercial research, by the publisher's terms; the labels of the test set are on its server.

    Args:
        **kwargs: See :class:`DOTADataset`.
    """

    METAINFO: ClassVar[dict[str, Any]] = {
        'classes': FAIR1M,
        # The published palette is a part of COCO's.
        'palette': CocoPanopticDataset.METAINFO['palette'][43 : 43 + len(FAIR1M)],
    }
    layout: ClassVar[str] = 'trainval/images/, trainval/annfiles/, test/images/'
    converter: ClassVar[str] = (
        'python data_converters/fair1m_to_dota.py, then python data_converters/split_dota.py'
    )
    skips_degenerate: ClassVar[bool] = True
