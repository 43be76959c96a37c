# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""DeepGlobe roads: 0.5 m imagery of Thailand, Indonesia and India."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, ClassVar

from mmrsfm.datasets.segmentation.geotiff_seg_dataset import GeoTIFFSegDataset
from mmrsfm.datasets.splits import names_in_split
from mmrsfm.errors import DatasetNotFoundError
from mmrsfm.registry import DATASETS


@DATASETS.register_module()
class DeepGlobeRoadDataset(GeoTIFFSegDataset):
    """The road extraction challenge of DeepGlobe: 0 background, 1 road.

    Layout, as published::

        data_root/
        ├── train/ID_sat.jpg      6,226 images of 1024 x 1024 pixels
        ├── train/ID_mask.png     three equal bands, near 0 or 255
        ├── valid/ID_sat.jpg      1,243, without labels
        └── test/ID_sat.jpg       1,101, without labels

    The masks are read by ``mmrsfm.LoadSegLabel(band=1, threshold=128)``: the publisher says to
    binarise them at 128.

    Only ``train`` has labels. Papers divide it, usually into 4,696 images for training and 1,530
    for testing, by lists of their own: give yours as ``ann_file``. Without one, ``split`` divides
    by name; see :func:`mmrsfm.datasets.splits.names_in_split`.

    Paper: Demir et al., "DeepGlobe 2018: A Challenge to Parse the Earth through Satellite Images",
    CVPR Workshops 2018, arXiv 1805.06561. Imagery: DigitalGlobe, for research.

    Args:
        data_prefix: Folders of the images and masks; without ``seg_map_path``: no labels.
        split: ``'train'``, ``'val'``, or ``None``: everything in the folder. With a list of IDs
            (``ann_file``), the list decides.
        val_fraction: See ``split``; by default the share of the usual division.
        img_suffix: Suffix of the images.
        seg_map_suffix: Suffix of the masks.
        **kwargs: See :class:`GeoTIFFSegDataset`.

    Raises:
        DatasetNotFoundError: A folder is missing or holds nothing of the split, or an image has no
            mask.
    """

    METAINFO: ClassVar[dict[str, Any]] = {
        'classes': ('background', 'road'),
        'palette': [[0, 0, 0], [255, 255, 255]],
    }

    def __init__(
        self,
        data_prefix: dict[str, str] | None = None,
        split: str | None = None,
        val_fraction: float = 1530 / 6226,
        img_suffix: str = '_sat.jpg',
        seg_map_suffix: str = '_mask.png',
        **kwargs: Any,
    ) -> None:
        if data_prefix is None:
            data_prefix = dict(img_path='train', seg_map_path='train')
        self.split = split
        self.val_fraction = val_fraction
        super().__init__(
            data_prefix=data_prefix,
            img_suffix=img_suffix,
            seg_map_suffix=seg_map_suffix,
            **kwargs,
        )

    def load_data_list(self) -> list[dict[str, Any]]:
        """Lists the images of the split."""
        samples = super().load_data_list()
        if self.ann_file:
            return samples
        names = [PurePath(one['img_path']).name[: -len(self.img_suffix)] for one in samples]
        wanted = names_in_split(names, self.split, self.val_fraction)
        samples = [one for one, name in zip(samples, names, strict=True) if name in wanted]
        if not samples:
            raise DatasetNotFoundError(
                f'holds no sample of split={self.split!r}', path=self.data_prefix.get('img_path')
            )
        return samples
