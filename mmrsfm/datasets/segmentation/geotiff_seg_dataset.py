# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A semantic segmentation dataset of any imagery: a folder of images and a folder of label maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from mmseg.datasets import BaseSegDataset

from mmrsfm.errors import DatasetNotFoundError
from mmrsfm.registry import DATASETS
from mmrsfm.utils.conversion import read_text


@DATASETS.register_module()
class GeoTIFFSegDataset(BaseSegDataset):
    """Images of any number of bands with label maps of the same name, described by arguments.

    Layout::

        data_root/
        ├── {data_prefix['img_path']}/      a.tif b.tif ...      (img_suffix)
        └── {data_prefix['seg_map_path']}/  a.tif b.tif ...      (seg_map_suffix)

    ``ann_file`` may name a text file with one name a line (without suffix) that selects a part.

    Args:
        band_names: Names of all bands of the image files, in their order; needed where the files do
            not name them and bands are chosen by name.
        img_suffix: Suffix of the images.
        seg_map_suffix: Suffix of the label maps.
        metainfo: ``dict(classes=(...), palette=[[r, g, b], ...])``.
        **kwargs: As of mmseg's BaseSegDataset (``data_root``, ``data_prefix``, ``ann_file``,
            ``pipeline``, ``test_mode``, ...). Without ``seg_map_path`` in ``data_prefix`` the
            dataset has no labels.

    Raises:
        DatasetNotFoundError: A folder is missing or empty, or an image has no label map.
    """

    # The command that makes the layout from the published files, of datasets that have one.
    converter: ClassVar[str] = ''

    def __init__(
        self,
        band_names: Sequence[str] | None = None,
        img_suffix: str = '.tif',
        seg_map_suffix: str = '.tif',
        metainfo: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.band_names = None if band_names is None else tuple(band_names)
        super().__init__(
            img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, metainfo=metainfo, **kwargs
        )
        if self.band_names is not None:
            self._metainfo['band_names'] = self.band_names

    def load_data_list(self) -> list[dict[str, Any]]:
        """Lists the images and checks that their label maps are there."""
        layout = (
            f"Expected: images (*{self.img_suffix}) in data_prefix['img_path'] and label maps of "
            f"the same names (*{self.seg_map_suffix}) in data_prefix['seg_map_path']"
        )
        if self.converter:
            layout += f'. Made by: {self.converter}'
        for key in ('img_path', 'seg_map_path'):
            folder = self.data_prefix.get(key)
            if folder is not None and not Path(folder).is_dir():
                raise DatasetNotFoundError(f'no such folder ({key})', path=folder, hint=layout)
        if self.ann_file and not Path(self.ann_file).is_file():
            raise DatasetNotFoundError('no such list of names (ann_file)', path=self.ann_file)
        if self.ann_file:
            read_text(self.ann_file, 'list of names')
        samples = super().load_data_list()
        if not samples:
            raise DatasetNotFoundError(
                'holds no images', path=self.data_prefix.get('img_path'), hint=layout
            )
        missing = [
            sample[key]
            for sample in samples
            for key in ('img_path', 'seg_map_path')
            if key in sample and not Path(sample[key]).is_file()
        ]
        if missing:
            raise DatasetNotFoundError(
                f'{len(missing)} files that the dataset names are missing, the first is this',
                path=missing[0],
                hint=layout,
            )
        self._refuse_labels_without_image(samples, layout)
        classes = self._metainfo.get('classes')
        for sample in samples:
            if self.band_names is not None:
                sample['band_names'] = self.band_names
            if classes is not None:
                sample['num_classes'] = len(classes)
        return samples

    def _refuse_labels_without_image(self, samples: list[dict[str, Any]], layout: str) -> None:
        """Without a list, the folders say what there is: as many labels as images."""
        folder = self.data_prefix.get('seg_map_path')
        if self.ann_file or folder is None or not self.seg_map_suffix:
            return
        used = {sample['seg_map_path'] for sample in samples}
        lonely = sorted(
            str(path)
            for path in Path(folder).rglob(f'*{self.seg_map_suffix}')
            if str(path) not in used and not path.name.startswith('.')
        )
        if lonely and not self._is_an_image_folder(folder):
            raise DatasetNotFoundError(
                f'{len(lonely)} label maps have no image, the first is this',
                path=lonely[0],
                hint=f'{layout}. ann_file selects a part',
            )

    def _is_an_image_folder(self, folder: str) -> bool:
        """Whether images and label maps of one suffix lie in one folder: all look like labels."""
        same = Path(folder).resolve() == Path(self.data_prefix['img_path']).resolve()
        return same and self.img_suffix.endswith(self.seg_map_suffix)
