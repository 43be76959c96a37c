# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""UBCv2: buildings, as boxes and masks, in optical and SAR images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mmrsfm.datasets.detection.checked_coco_dataset import CheckedCocoDataset
from mmrsfm.errors import ConfigError, DatasetNotFoundError
from mmrsfm.registry import DATASETS


@DATASETS.register_module()
class UBCv2Dataset(CheckedCocoDataset):
    """UBCv2, multi-modal: RGB and SAR images of 512 x 512 pixels, COCO json with polygons.

    Layout, as the contest DFC23 (track 1) and the published MaRS run have it::

        data_root/
        ├── annotations/roof_fine_{train,val,test}_single_category.json
        └── {train,val,test}/
            ├── rgb/<name>.tif      3 bands
            ├── sar/<name>.tif      1 band, float32
            └── merge/<name>.tif    all four in one file: R, G, B, SAR

    A sample has ``modality_paths`` for :class:`mmrsfm.LoadModalities`. For the merged files, name
    the folder for both, ``data_prefix=dict(rgb='train/merge', sar='train/merge')``, and let
    LoadModalities take the bands: ``modalities=dict(rgb=dict(channels=3, bands=[1, 2, 3]),
    sar=dict(channels=1, bands=[4]))``.

    There is one class here; the name of the one category of the file does not matter. For the
    roofs in 12 classes give ``metainfo=dict(classes=...)`` in the order of the file.

    Paper: Huang et al., "Urban Building Classification (UBC) - A Dataset for Individual Building
    Detection and Classification From Satellite Imagery", CVPRW 2022; the names of the folders and
    of the annotation files are those that the published runs read; other releases have others.

    Args:
        data_prefix: Modality to folder.
        renamed: For a modality whose files are named otherwise than the annotations say:
            ``(old, new)`` parts of the name, e.g. ``dict(sar=('_RGB', '_SAR'))``.
        **kwargs: See :class:`CheckedCocoDataset`.

    Raises:
        ConfigError: If ``data_prefix`` names no modality.
        DatasetNotFoundError: A folder or the annotation file is missing.
        DataError: The file has other categories than the dataset.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'classes': ('building',), 'palette': [(220, 20, 60)]}
    layout: ClassVar[str] = (
        'annotations/roof_fine_<split>_single_category.json, <split>/rgb/, <split>/sar/ or '
        '<split>/merge/'
    )
    converter: ClassVar[str] = 'the publisher'

    def __init__(
        self,
        data_prefix: Mapping[str, str],
        renamed: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        self.modalities = [key for key in data_prefix if key != 'img']
        if not self.modalities:
            raise ConfigError(
                f'{type(self).__name__}: data_prefix names no modality, got {dict(data_prefix)}; '
                "e.g. dict(rgb='train/rgb', sar='train/sar')"
            )
        self.renamed = {key: tuple(parts) for key, parts in (renamed or {}).items()}
        # What mmdet itself looks for; the first modality gives the size and the name.
        prefix = {'img': data_prefix[self.modalities[0]], **data_prefix}
        super().__init__(data_prefix=prefix, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Reads the annotation file; see the class."""
        for key in self.modalities:
            if not Path(self.data_prefix[key]).is_dir():
                raise DatasetNotFoundError(
                    f"no such folder (data_prefix['{key}'])",
                    self.data_prefix[key],
                    hint=f'Expected: {self.layout}',
                )
        return super().load_data_list()

    def parse_data_info(self, raw_data_info: dict) -> dict | list[dict]:
        """A sample as mmdet makes it, with the files of all modalities."""
        sample = super().parse_data_info(raw_data_info)
        name = raw_data_info['raw_img_info']['file_name']
        sample['modality_paths'] = {
            key: str(Path(self.data_prefix[key]) / self._name(name, key)) for key in self.modalities
        }
        sample['img_path'] = sample['modality_paths'][self.modalities[0]]
        return sample

    def _name(self, name: str, key: str) -> str:
        old, new = self.renamed.get(key, ('', ''))
        return name.replace(old, new) if old else name

    def COCOAPI(self, path: str) -> Any:  # noqa: N802 (mmdet's name of the reader)
        """Reads the file as mmdet does; the only category of a file is the only class."""
        read = super().COCOAPI(path)
        classes = self.metainfo['classes']
        if len(classes) == len(read.cats) == 1:
            (category,) = read.cats.values()
            category['name'] = classes[0]
            self._categories = {category['id']: classes[0]}
        return read
