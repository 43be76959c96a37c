# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""DOTA-1.0 and DOTA-2.0: oriented boxes in patches of large aerial images."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from mmrotate.datasets import DOTADataset as BaseDOTADataset
from mmrotate.datasets import DOTAv2Dataset as BaseDOTAv2Dataset

from mmrsfm.datasets.rotated.quadrilaterals import is_degenerate
from mmrsfm.errors import DatasetNotFoundError
from mmrsfm.registry import DATASETS
from mmrsfm.utils.dota import label_of, read_dota_objects


@DATASETS.register_module()
class DOTADataset(BaseDOTADataset):
    """DOTA-1.0, 15 classes, from text files with one object a line.

    Layout, as mmrotate's ``img_split`` and ``data_converters`` write it::

        data_root/
        ├── trainval/images/P0001__1024__0___0.png      trainval/annfiles/P0001__1024__0___0.txt
        ├── val/images/*.png                            val/annfiles/*.txt
        └── test/images/*.png

    A line is ``x1 y1 x2 y2 x3 y3 x4 y4 class difficulty``, the corners in pixels of the patch. MTP
    takes the multi-scale patches of DOTA-1.0 (rates 0.5, 1, 1.5 with a gap of 500 pixels, 68,300
    for training) and the single-scale ones of DOTA-2.0 (gap 200, 17,600 for training).

    mmrotate's reader, with its defects mended: blank lines and the header lines of the published
    files (``imagesource:``, ``gsd:``) are passed over, the difficulty may be missing, the order of
    the files does not depend on the file system, and a broken line is an error that names file and
    line, not an IndexError or KeyError.

    Paper: Xia et al., "DOTA: A Large-Scale Dataset for Object Detection in Aerial Images", CVPR
    2018, arXiv 1711.10398; Ding et al., TPAMI 2021, arXiv 2102.12219. Licence: for academic use
    only.

    Args:
        diff_thr: Objects of a difficulty above this are marked to be ignored.
        img_suffix: Suffix of the images, without a dot.
        skip_degenerate: Whether to leave out objects of which two neighbouring corners coincide;
            ``None``: as published for the dataset (DOTA keeps them, FAIR1M does not).
        **kwargs: As of MMEngine's BaseDataset. ``ann_file`` is the *folder* of the text files;
            without it the dataset is all images of ``data_prefix['img_path']``, without labels.

    Raises:
        DatasetNotFoundError: A folder is missing or empty.
        DataError: A line cannot be read, or names an unknown class.
    """

    layout: ClassVar[str] = 'trainval/images/, trainval/annfiles/, test/images/'
    converter: ClassVar[str] = 'python data_converters/split_dota.py'
    skips_degenerate: ClassVar[bool] = False

    def __init__(
        self,
        diff_thr: int = 100,
        img_suffix: str = 'png',
        skip_degenerate: bool | None = None,
        **kwargs: Any,
    ) -> None:
        self.skip_degenerate = self.skips_degenerate if skip_degenerate is None else skip_degenerate
        super().__init__(diff_thr=diff_thr, img_suffix=img_suffix, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Lists the images, in the order of their names, with their objects."""
        hint = f'Expected: {self.layout}. Made by: {self.converter}'
        images = Path(self.data_prefix.get('img_path') or '.')
        if not images.is_dir():
            raise DatasetNotFoundError(
                "no such folder (data_prefix['img_path'])", images, hint=hint
            )
        if not self.ann_file:
            found = sorted(images.glob(f'*.{self.img_suffix}'))
            if not found:
                raise DatasetNotFoundError(f'holds no *.{self.img_suffix}', images, hint=hint)
            return [self._sample(path, []) for path in found]
        labels = Path(self.ann_file)
        if not labels.is_dir():
            raise DatasetNotFoundError('no such folder (ann_file)', labels, hint=hint)
        texts = sorted(labels.glob('*.txt'))
        if not texts:
            raise DatasetNotFoundError('holds no *.txt', labels, hint=hint)
        self._labels = {name: label for label, name in enumerate(self.metainfo['classes'])}
        return [
            self._sample(images / f'{text.stem}.{self.img_suffix}', self._read(text))
            for text in texts
        ]

    @staticmethod
    def _sample(path: Path, instances: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            'img_path': str(path),
            'file_name': path.name,
            'img_id': path.stem,
            'instances': instances,
        }

    def _read(self, path: Path) -> list[dict[str, Any]]:
        return [
            {
                'bbox': one.corners,
                'bbox_label': label_of(one, self._labels, path),
                'ignore_flag': int(one.difficulty > self.diff_thr),
            }
            for one in read_dota_objects(path)
            if not (self.skip_degenerate and is_degenerate(one.corners))
        ]


@DATASETS.register_module()
class DOTAv2Dataset(DOTADataset):
    """DOTA-2.0, 18 classes; see :class:`DOTADataset`."""

    METAINFO: ClassVar[dict[str, Any]] = BaseDOTAv2Dataset.METAINFO
