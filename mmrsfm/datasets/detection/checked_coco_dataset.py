# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What benchmarks in COCO's format share: the file is checked against the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from mmdet.datasets import CocoDataset

from mmrsfm.errors import DataError, DatasetNotFoundError


class CheckedCocoDataset(CocoDataset):
    """mmdet's CocoDataset, for a benchmark with a fixed class table.

    mmdet numbers the labels in the order in which the *file* lists its categories, and leaves out
    those that the file does not have: with another order, or a subset, a label would silently mean
    another class than METAINFO says. Here that is an error, and so are missing files.

    Boxes are read as mmdet does: those without overlap with the image, without area, or with a side
    below one pixel are left out; ``iscrowd`` marks boxes to be ignored.

    Args:
        **kwargs: As of mmdet's CocoDataset (``data_root``, ``ann_file``,
            ``data_prefix=dict(img=...)``, ``filter_cfg``, ``pipeline``, ``test_mode``, ...).

    Attributes:
        layout: What is expected below ``data_root``.
        converter: The command that makes it from the published files.

    Raises:
        DatasetNotFoundError: The annotation file or the folder of images is missing.
        DataError: The file has other categories than the dataset, or in another order.
    """

    layout: ClassVar[str] = ''
    converter: ClassVar[str] = ''

    def load_data_list(self) -> list[dict[str, Any]]:
        """Reads the annotation file; see the class."""
        source = Path(self.ann_file)
        hint = f'Expected: {self.layout}. Made by: {self.converter}'
        if not source.is_file():
            raise DatasetNotFoundError('no such annotation file (ann_file)', source, hint=hint)
        images = Path(self.data_prefix.get('img') or '.')
        if not images.is_dir():
            raise DatasetNotFoundError("no such folder (data_prefix['img'])", images, hint=hint)
        try:
            samples: list[dict[str, Any]] = super().load_data_list()
        except (
            # JSON, text, keys, types; and what pycocotools and mmdet only assert.
            ValueError, LookupError, TypeError, AttributeError, AssertionError,
        ) as error:  # fmt: skip
            raise DataError(
                f'is no COCO annotation file ({type(error).__name__}: {error})', source, hint=hint
            ) from error
        if not samples:
            raise DataError('lists no images', source, hint=hint)
        self._check_categories(source)
        return samples

    def COCOAPI(self, path: str) -> Any:  # noqa: N802 (mmdet's name of the reader)
        """Reads the file as mmdet does, and keeps its categories."""
        read = super().COCOAPI(path)
        self._categories = {number: one['name'] for number, one in read.cats.items()}
        return read

    def _check_categories(self, source: Path) -> None:
        found = [self._categories[number] for number in self.cat_ids]
        wanted = list(self.metainfo['classes'])
        if found == wanted:
            return
        missing = [name for name in wanted if name not in found]
        what = f'lacks the categories {missing[:5]}' if missing else 'has them in another order'
        raise DataError(
            f'of the {len(wanted)} classes of {type(self).__name__} the file {what}: labels would '
            'mean other classes',
            source,
            hint='List all classes under "categories", in the order of METAINFO, or give the '
            'classes of the file as metainfo=dict(classes=...)',
        )
