# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Functional Map of the World, RGB: 62 classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from mmpretrain.datasets import BaseDataset

from mmrsfm.errors import ConfigError, DatasetNotFoundError
from mmrsfm.registry import DATASETS
from mmrsfm.utils.conversion import read_rows

_CLASSES = (
    'airport', 'airport_hangar', 'airport_terminal', 'amusement_park', 'aquaculture',
    'archaeological_site', 'barn', 'border_checkpoint', 'burial_site', 'car_dealership',
    'construction_site', 'crop_field', 'dam', 'debris_or_rubble', 'educational_institution',
    'electric_substation', 'factory_or_powerplant', 'fire_station', 'flooded_road', 'fountain',
    'gas_station', 'golf_course', 'ground_transportation_station', 'helipad', 'hospital',
    'impoverished_settlement', 'interchange', 'lake_or_pond', 'lighthouse', 'military_facility',
    'multi-unit_residential', 'nuclear_powerplant', 'office_building', 'oil_or_gas_facility',
    'park', 'parking_lot_or_garage', 'place_of_worship', 'police_station', 'port', 'prison',
    'race_track', 'railway_bridge', 'recreational_facility', 'road_bridge', 'runway', 'shipyard',
    'shopping_mall', 'single-unit_residential', 'smokestack', 'solar_farm', 'space_facility',
    'stadium', 'storage_tank', 'surface_mine', 'swimming_pool', 'toll_booth', 'tower',
    'tunnel_opening', 'waste_disposal', 'water_treatment_facility', 'wind_farm', 'zoo',
)  # fmt: skip


@DATASETS.register_module()
class FMoWRGB(BaseDataset):
    """fMoW-RGB from a csv file with a header, one row an image: label, path, anything.

    A label is a class index or a class name. A path is relative to the folder of the csv file, to
    ``data_prefix`` where that is given, or absolute. The class indices are those of the sorted
    names (hyphens sort before underscores and letters).

    Args:
        ann_file: The csv file, relative to ``data_root``.
        label_column: Column of the label, by name or zero-based position.
        path_column: Column of the path.
        check_files: Whether to look for every file (minutes for the whole dataset on a network
            disk); otherwise only for the first.
        **kwargs: As of mmpretrain's BaseDataset.

    Raises:
        DatasetNotFoundError: The csv file or an image is missing, or a row is wrong.
        ConfigError: Without ``ann_file``.
    """

    METAINFO: ClassVar[dict[str, Any]] = {'classes': _CLASSES}
    bands: ClassVar[tuple[str, ...]] = ('R', 'G', 'B')
    citation: ClassVar[str] = (
        'Christie et al., "Functional Map of the World", CVPR 2018, arXiv 1711.07846'
    )
    licence: ClassVar[str] = 'Functional Map of the World Challenge Public License'
    splits: ClassVar[tuple[str, ...]] = ('train', 'val', 'test')

    def __init__(
        self,
        ann_file: str = '',
        label_column: int | str = 0,
        path_column: int | str = 1,
        check_files: bool = False,
        **kwargs: Any,
    ) -> None:
        if not ann_file:
            raise ConfigError('FMoWRGB: ann_file must name a csv file with label and path')
        self.label_column = label_column
        self.path_column = path_column
        self.check_files = check_files
        super().__init__(ann_file=ann_file, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Reads the csv file; see the class."""
        source = Path(self.ann_file)
        if not source.is_file():
            raise self._error('no such file', source)
        prefix = self.img_prefix
        # mmpretrain joins an empty prefix with data_root: only a prefix that was given counts.
        given = prefix and Path(prefix) != Path(self.data_root or '')
        root = Path(prefix) if given else source.parent
        samples: list[dict[str, Any]] = []
        header, *rows = read_rows(source, 'table of images') or [[]]
        label_at, path_at = (
            self._position(column, header, source)
            for column in (self.label_column, self.path_column)
        )
        for number, row in enumerate(rows, start=2):
            if len(row) <= max(label_at, path_at):
                raise self._error(f'line {number} has {len(row)} column(s)', source)
            samples.append({
                'img_path': str(root / row[path_at].strip()),
                'gt_label': self._label(row[label_at].strip(), number, source),
                'band_names': self.bands,
            })  # fmt: skip
        if not samples:
            raise self._error('holds no rows below the header', source)
        for sample in samples if self.check_files else samples[:1]:
            if not Path(sample['img_path']).is_file():
                raise self._error(f'named in {source}, but missing', sample['img_path'])
        return samples

    def _position(self, column: int | str, header: list[str], source: Path) -> int:
        if isinstance(column, int):
            return column
        if column not in header:
            raise self._error(f'has no column {column!r}, only {header}', source)
        return header.index(column)

    def _label(self, text: str, number: int, source: Path) -> int:
        if text in self.class_to_idx:
            return self.class_to_idx[text]
        if text.isdigit() and int(text) < len(self.CLASSES):
            return int(text)
        raise self._error(
            f'line {number}: {text!r} is neither a class name nor an index below '
            f'{len(self.CLASSES)}',
            source,
        )

    def _error(self, reason: str, path: str | Path) -> DatasetNotFoundError:
        return DatasetNotFoundError(
            reason,
            path=path,
            hint='Expected: a csv file with a header and the columns label (class name or index) '
            f'and path, relative to the folder of the csv file ({self.citation})',
        )

    @property
    def class_to_idx(self) -> dict[str, int]:
        """From class name to class index; built once, for half a million rows."""
        if getattr(self, '_class_to_idx', None) is None:
            self._class_to_idx = {name: index for index, name in enumerate(self.CLASSES)}
        return self._class_to_idx
