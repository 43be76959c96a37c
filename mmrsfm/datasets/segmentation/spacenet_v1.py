# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""SpaceNet 1: buildings in WorldView-2 imagery of Rio de Janeiro, 0.5 m."""

from __future__ import annotations

from typing import Any, ClassVar

from mmrsfm.datasets.segmentation.geotiff_seg_dataset import GeoTIFFSegDataset
from mmrsfm.registry import DATASETS


@DATASETS.register_module()
class SpaceNetV1Dataset(GeoTIFFSegDataset):
    """SpaceNet 1 (AOI 1, Rio) as label maps: 0 background, 1 building, 255 ignored.

    Layout::

        data_root/
        ├── train/images/*.png   train/labels/*.png
        └── val/images/*.png     val/labels/*.png

    The images (6,940 of 3 bands, 406 x 438 or 439 pixels) come with GeoJSON footprints;
    ``data_converters`` makes the label maps, as PNG with the values above, and the split. The split
    of MTP is not published.

    Paper: Van Etten et al., "SpaceNet: A Remote Sensing Dataset and Challenge Series", arXiv
    1807.01232. Licence: CC BY-SA 4.0.

    Args:
        img_suffix: Suffix of the images.
        seg_map_suffix: Suffix of the label maps.
        **kwargs: See :class:`GeoTIFFSegDataset`.
    """

    METAINFO: ClassVar[dict[str, Any]] = {
        'classes': ('background', 'building'),
        'palette': [[255, 255, 255], [255, 0, 0]],
    }
    converter: ClassVar[str] = 'python data_converters/spacenet_to_masks.py'

    def __init__(
        self, img_suffix: str = '.png', seg_map_suffix: str = '.png', **kwargs: Any
    ) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)
