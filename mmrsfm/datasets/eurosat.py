# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""EuroSAT: land use from Sentinel-2, 10 classes, 27,000 images of 64 x 64 pixels at 10 m."""

from __future__ import annotations

from typing import Any, ClassVar

from mmrsfm.datasets.scene_folder_dataset import SceneFolderDataset
from mmrsfm.errors import ConfigError
from mmrsfm.registry import DATASETS

_CLASSES = (
    'AnnualCrop', 'Forest', 'HerbaceousVegetation', 'Highway', 'Industrial', 'Pasture',
    'PermanentCrop', 'Residential', 'River', 'SeaLake',
)  # fmt: skip


@DATASETS.register_module()
class EuroSAT(SceneFolderDataset):
    """EuroSAT as RGB (``.jpg``) or with all 13 bands (``.tif``, reflectance * 1e4).

    The files do not name their bands. B8A is the *last* band of a file, not the ninth (EuroSAT
    issue 7; torchgeo had it wrong until 2024): choose bands by name.

    Args:
        modality: ``'rgb'`` or ``'all_bands'``.
        **kwargs: See :class:`SceneFolderDataset`. The usual lists (``eurosat-train.txt`` ...) name
            ``.jpg`` files, and serve both modalities.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'classes': _CLASSES}
    all_bands: ClassVar[tuple[str, ...]] = (
        'B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B09', 'B10', 'B11', 'B12', 'B8A',
    )  # fmt: skip
    citation: ClassVar[str] = (
        'Helber et al., "EuroSAT: A Novel Dataset and Deep Learning Benchmark for Land Use and '
        'Land Cover Classification", JSTARS 2019, arXiv 1709.00029'
    )
    licence: ClassVar[str] = 'MIT; contains Copernicus Sentinel data'
    layout: ClassVar[str] = (
        'AnnualCrop/AnnualCrop_1.jpg (or .tif with 13 bands), one folder a class'
    )

    def __init__(self, modality: str = 'rgb', **kwargs: Any) -> None:
        if modality not in ('rgb', 'all_bands'):
            raise ConfigError(f"EuroSAT: modality is 'rgb' or 'all_bands', got {modality!r}")
        rgb = modality == 'rgb'
        kwargs.setdefault('suffixes', ('.jpg', '.jpeg') if rgb else ('.tif', '.tiff'))
        kwargs.setdefault('band_names', ('R', 'G', 'B') if rgb else self.all_bands)
        super().__init__(**kwargs)
