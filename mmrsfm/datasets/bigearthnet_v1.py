# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""BigEarthNet version 1 (BigEarthNet-MM): 590,326 pairs of Sentinel-1 and Sentinel-2 patches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from mmrsfm.datasets.bigearthnet import BANDS, BigEarthNet
from mmrsfm.datasets.bigearthnet_labels import label_numbers
from mmrsfm.datasets.bigearthnet_table import Patch, is_s1, is_s2
from mmrsfm.datasets.zarr_array import zarr_attributes
from mmrsfm.errors import ConfigError, DataError
from mmrsfm.registry import DATASETS

FORMS = ('auto', 'folder', 'zarr')


@DATASETS.register_module()
class BigEarthNetV1(BigEarthNet):
    """BigEarthNet v1, as it was published or as a Zarr store.

    Layout, ``form='folder'``::

        {data_root}/
        ├── BigEarthNet-S1-v1.0/{s1}/{s1}_VH.tif, {s1}_VV.tif, {s1}_labels_metadata.json
        ├── BigEarthNet-v1.0/{s2}/{s2}_B01.tif ..., {s2}_labels_metadata.json
        └── train.csv, val.csv, test.csv (ann_file; names of Sentinel-2 and Sentinel-1, no header)

    Layout, ``form='zarr'``, with ``data_prefix=dict(s1='benv1.zarr/sentinel1')``: the group of each
    patch, with an array a band and the attribute ``labels``::

        {data_root}/benv1.zarr/sentinel1/{s1}/VH, VV

    Labels are read from the JSON files, or the attributes of the groups, and are of the 43 classes;
    ``num_classes=19`` regroups them. Without ``ann_file`` the folders are listed; pairs of both
    sensors follow from ``corresponding_s2_patch``. ``split`` and ``countries`` need a table that
    knows them: the metadata of version 2, whose ``s2v1_name`` is the name of the patch here.

    Statistics of Sentinel-1 in dB (VH, VV), from the published pretraining: mean -19.2309,
    -12.5951, standard deviation 3.1672, 2.9644.

    Args:
        form: ``'folder'``, ``'zarr'``, or ``'auto'``: zarr where the path has a folder whose name
            ends with ``.zarr``, or is a group of a store.
        **kwargs: See :class:`mmrsfm.datasets.bigearthnet.BigEarthNet`.

    Raises:
        ConfigError: For an unknown form.
    """

    default_prefix: ClassVar[dict[str, str]] = {
        's1': 'BigEarthNet-S1-v1.0',
        's2': 'BigEarthNet-v1.0',
    }
    layout: ClassVar[str] = (
        'BigEarthNet-S1-v1.0/{s1}/{s1}_{VH,VV}.tif, BigEarthNet-v1.0/{s2}/{s2}_{B01..B12}.tif with '
        '_labels_metadata.json; or benv1.zarr/sentinel1/{s1}/{VH,VV}'
    )
    citation: ClassVar[str] = 'Sumbul et al., "BigEarthNet-MM", IEEE GRSM 2021, arXiv 2105.07921'

    def __init__(self, form: str = 'auto', **kwargs: Any) -> None:
        if form not in FORMS:
            raise ConfigError(f'BigEarthNetV1: form is one of {FORMS}, got {form!r}')
        self.form = form
        self._zarr: dict[str, bool] = {}
        super().__init__(**kwargs)

    def find_patches(self) -> list[Patch]:
        """The patches of the first modality; pairs by their JSON files."""
        first = self.modalities[0]
        if len(self.modalities) > 1:
            if self._is_zarr('s1'):
                raise ConfigError('BigEarthNetV1: pairs of a Zarr store need a table (ann_file)')
            first = 's1'
        root = Path(self.data_prefix[first])
        known = is_s1 if first == 's1' else is_s2
        names = sorted(path.name for path in root.iterdir() if known(path.name))
        if len(self.modalities) == 1:
            return [Patch(s1=one) if first == 's1' else Patch(s2=one) for one in names]
        return [
            Patch(s1=one, s2=self._content(one, 's1').get('corresponding_s2_patch'))
            for one in names
        ]

    def patch_name(self, patch: Patch, modality: str) -> str | None:
        """See :class:`BigEarthNet`."""
        return patch.s1 if modality == 's1' else patch.s2_v1 or patch.s2

    def band_paths(self, name: str, modality: str) -> list[str]:
        """See :class:`BigEarthNet`."""
        folder = str(Path(self.data_prefix[modality], name))
        if self._is_zarr(modality):
            return [f'{folder}/{band}' for band in BANDS[modality]]
        return [f'{folder}/{name}_{band}.tif' for band in BANDS[modality]]

    def labels_of(self, patch: Patch, names: Mapping[str, str]) -> list[int]:
        """See :class:`BigEarthNet`."""
        modality, name = next(iter(names.items()))
        content = self._content(name, modality)
        return label_numbers(content['labels'], self.num_classes, 43, content['path'])

    def _is_zarr(self, modality: str) -> bool:
        if modality not in self._zarr:
            root = Path(self.data_prefix[modality])
            self._zarr[modality] = self.form == 'zarr' or (
                self.form == 'auto'
                and (
                    any(part.endswith('.zarr') for part in root.parts)
                    or any((root / name).is_file() for name in ('.zgroup', 'zarr.json'))
                )
            )
        return self._zarr[modality]

    def _content(self, name: str, modality: str) -> dict[str, Any]:
        """What the dataset says of a patch, and where."""
        folder = Path(self.data_prefix[modality], name)
        if self._is_zarr(modality):
            path, content = folder, zarr_attributes(folder)
        else:
            path = folder / f'{name}_labels_metadata.json'
            if not path.is_file():
                raise self.not_found('no such file', path)
            try:
                content = json.loads(path.read_text(encoding='utf-8'))
            except ValueError as error:
                raise DataError(f'is not JSON ({error})', path=path) from error
        if not isinstance(content, dict) or not isinstance(content.get('labels'), list):
            raise DataError('has no list of labels', path=path)
        return {**content, 'path': path}
