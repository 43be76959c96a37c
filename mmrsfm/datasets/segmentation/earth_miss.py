# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""EarthMiss: land cover from optical and SAR images, of which one may be missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from mmrsfm.datasets.segmentation.multi_modal_seg_dataset import LABEL, MultiModalSegDataset
from mmrsfm.errors import ConfigError
from mmrsfm.registry import DATASETS

_COPY = '(1)'


@DATASETS.register_module()
class EarthMissDataset(MultiModalSegDataset):
    """EarthMiss: 3,355 pairs of 1024 x 1024 pixels at 0.6 m in 13 cities, 8 classes.

    Layout, as published::

        data_root/
        └── <city>/                         America-Eugene, French-Paris, ... (13 folders)
            ├── images/RGB/<name>.tif       3 bands
            ├── images/SAR/<name>_SAR.tif   1 band
            └── masks/<name>_mask.tif       0: no label, 1 to 8: the classes below

    The parts are made of cities; these are those of the authors' code
    (github.com/Yi-Heng/EarthMiss, which selects on the test cities and leaves the others unused).
    The files are LZW-compressed, and the downloads hold some that are there twice, with ``(1)`` at
    the end of the name: those are left out.

    Paper: Zhou et al., "Remote sensing meta modal representation for missing modality land cover
    mapping: From EarthMiss dataset to MetaRS method", RSE 2025, doi 10.1016/j.rse.2025.115132.
    Data: Zenodo record 17231107; licence: see there.

    Args:
        split: ``'train'``, ``'val'`` or ``'test'``: the cities of that part.
        cities: Instead: folders of cities, or names that end them (``'NewYork'``).
        reduce_zero_label: Stored 0 becomes "no label", 1 to 8 become 0 to 7.
        **kwargs: See :class:`MultiModalSegDataset`; ``data_prefix`` is relative to the folder of a
            city, and without ``rgb`` gives the test on SAR alone.

    Raises:
        ConfigError: For contradictory arguments.
        DatasetNotFoundError: A folder is missing or empty, or a place lacks a file.
    """

    METAINFO: ClassVar[dict[str, Any]] = {
        'classes': (
            'background', 'building', 'road', 'water', 'barren', 'forest', 'agricultural',
            'playground',
        ),
        'palette': [
            [255, 255, 255], [255, 0, 0], [255, 255, 0], [0, 0, 255], [159, 129, 183], [0, 255, 0],
            [255, 195, 128], [165, 0, 165],
        ],
    }  # fmt: skip
    splits: ClassVar[Mapping[str, tuple[str, ...]]] = {
        'train': (
            'America-Eugene', 'America-Louisville', 'French-Paris', 'Morocco-Casablanca', 'Nanjing',
            'Netherlands-Rotterdam', 'Singapore',
        ),
        'val': ('Australia-PortHedland', 'America-Pake', 'Russian-Engels'),
        'test': ('America-NewYork', 'Japan-Hakodate', 'Peru-Callao'),
    }  # fmt: skip
    prefixes: ClassVar[Mapping[str, str]] = {
        'rgb': 'images/RGB',
        'sar': 'images/SAR',
        LABEL: 'masks',
    }
    file_suffix: ClassVar[Mapping[str, str | Sequence[str]]] = {
        'rgb': ('.tif', '.png'),
        'sar': ('_SAR.tif', '_SAR.png', '.tif', '.png'),
        LABEL: ('_mask.tif', '_mask.png', '.tif', '.png'),
    }
    layout: ClassVar[str] = (
        '<city>/images/RGB/<name>.tif, <city>/images/SAR/<name>_SAR.tif, '
        '<city>/masks/<name>_mask.tif'
    )
    citation: ClassVar[str] = 'Zenodo 17231107'

    def __init__(
        self,
        split: str | None = None,
        cities: Sequence[str] | None = None,
        reduce_zero_label: bool = True,
        **kwargs: Any,
    ) -> None:
        if (split is None) == (cities is None) or (split is not None and split not in self.splits):
            raise ConfigError(
                f'{type(self).__name__}: give split, one of {list(self.splits)}, or cities; got '
                f'split={split!r}, cities={cities!r}'
            )
        self.cities = tuple(self.splits[split] if split is not None else cities or ())
        super().__init__(reduce_zero_label=reduce_zero_label, **kwargs)

    def _join_prefix(self) -> None:
        """Joins only the list of names: the prefixes belong below the folder of a city."""
        names = str(vars(self)['ann_file'])
        if names:
            self.ann_file = str(Path(self.data_root or '') / names)

    def find_files(self, key: str) -> dict[str, str]:
        """Files of all cities; the names are ``<city>/<name>``."""
        found: dict[str, str] = {}
        for city in self._folders():
            folder = city / self.data_prefix[key]
            if not folder.is_dir():
                raise self.not_found(f"no such folder (data_prefix['{key}'])", folder)
            for name, path in self._scan(folder, key).items():
                found[f'{city.name}/{name}'] = path
        if not found:
            raise self.not_found(f'holds no images or labels of {key!r}', self.data_root or '.')
        return found

    def _scan(self, folder: Path, key: str) -> dict[str, str]:
        # The mark of a second download stands behind everything: "x_SAR(1).tif".
        return {
            name: path
            for name, path in super()._scan(folder, key).items()
            if not Path(path).stem.endswith(_COPY)
        }

    def _folders(self) -> list[Path]:
        root = Path(self.data_root or '.')
        if not root.is_dir():
            raise self.not_found('no such folder (data_root)', root)
        folders = [path for path in sorted(root.iterdir()) if path.is_dir()]
        chosen = []
        for city in self.cities:
            ending = city.lower()
            hits = [f for f in folders if f.name.lower() == ending] or [
                f for f in folders if f.name.lower().endswith(f'-{ending}')
            ]
            if len(hits) != 1:
                raise self.not_found(
                    f'{len(hits) or "no"} folders of the city {city!r}, there are '
                    f'{[folder.name for folder in folders][:15]}',
                    root,
                )
            chosen.append(hits[0])
        return chosen
