# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""BigEarthNet version 2 (reBEN): 480,038 pairs of Sentinel-1 and Sentinel-2 patches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from mmrsfm.datasets.bigearthnet import BANDS, BigEarthNet
from mmrsfm.datasets.bigearthnet_labels import label_numbers, nomenclature
from mmrsfm.datasets.bigearthnet_table import Patch
from mmrsfm.errors import ConfigError
from mmrsfm.registry import DATASETS


@DATASETS.register_module()
class BigEarthNetV2(BigEarthNet):
    """BigEarthNet v2: GeoTIFF folders with the official metadata.

    Layout::

        {data_root}/
        ├── metadata.parquet (or .csv: patch_id, labels, split, country, s1_name, ...)
        ├── BigEarthNet-S1/S1B_IW_GRDH_1SDV_20170612T165809/
        │   └── S1B_IW_GRDH_1SDV_20170612T165809_33UUP_26_57/..._VH.tif, ..._VV.tif
        └── BigEarthNet-S2/S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP/
            └── S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57/..._B01.tif ...

    The labels of the metadata are of the 19 classes. For the 43 give a table whose labels are of
    these: the metadata of version 2 do not hold them. The splits of SAR-W-MixMAE
    (``benv2_train.csv`` ...) are read as they are.

    Statistics of Sentinel-1 in dB (VH, VV), from the published pretraining: mean -19.1966,
    -12.5144, standard deviation 5.4501, 5.0019.

    Args:
        **kwargs: See :class:`mmrsfm.datasets.bigearthnet.BigEarthNet`; ``ann_file`` is needed.
    """

    default_prefix: ClassVar[dict[str, str]] = {'s1': 'BigEarthNet-S1', 's2': 'BigEarthNet-S2'}
    layout: ClassVar[str] = (
        'BigEarthNet-S1/{scene}/{patch}/{patch}_{VH,VV}.tif, BigEarthNet-S2/{scene}/{patch}/'
        '{patch}_{B01..B12}.tif, metadata.parquet or .csv'
    )
    citation: ClassVar[str] = 'Clasen et al., "reBEN", IGARSS 2025, arXiv 2407.03653'

    def find_patches(self) -> list[Patch]:
        """Not possible: labels are in the table alone."""
        raise ConfigError(
            'BigEarthNetV2: ann_file must name the official metadata (parquet or csv), or a list '
            'of SAR-W-MixMAE: the folders hold no labels'
        )

    def patch_name(self, patch: Patch, modality: str) -> str | None:
        """See :class:`BigEarthNet`."""
        return patch.s1 if modality == 's1' else patch.s2

    def band_paths(self, name: str, modality: str) -> list[str]:
        """See :class:`BigEarthNet`."""
        # Behind the name of the scene: tile, column, row; or column, row.
        scene = name.rsplit('_', 3 if modality == 's1' else 2)[0]
        start = str(Path(self.data_prefix[modality], scene, name, name))
        return [f'{start}_{band}.tif' for band in BANDS[modality]]

    def labels_of(self, patch: Patch, names: Mapping[str, str]) -> list[int]:
        """See :class:`BigEarthNet`."""
        if patch.labels is None:
            raise self.not_found(f'has no labels of {patch.s2 or patch.s1}', self.tables[0])
        # Names that are in both are of the one that is asked for.
        source = nomenclature(patch.labels) or self.num_classes
        if not set(patch.labels):
            source = self.num_classes
        return label_numbers(patch.labels, self.num_classes, source, self.tables[0])
