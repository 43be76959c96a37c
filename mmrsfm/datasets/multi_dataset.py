# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Several datasets as one, whose classes and labels need not agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dataset import ConcatDataset

from mmrsfm.errors import ConfigError
from mmrsfm.registry import DATASETS


@DATASETS.register_module()
class MultiDataset(ConcatDataset):
    """Concatenates datasets, each of which keeps its classes; samples know where they are from.

    MMEngine's ``ConcatDataset`` wants the same ``metainfo`` of all. Here each part has a name, that
    of its ``metainfo['dataset_name']`` unless ``names`` are given, and every packed sample carries
    it as ``dataset_name``, so that a model of several heads (:class:`mmrsfm.MTP`) and
    :class:`mmrsfm.MultiTaskMetric` take the right one. What a pipeline draws for a sample follows
    from its index here, as from that of any dataset: see :class:`mmrsfm.datasets.AddressedDataset`.

    Args:
        datasets: Datasets of MMEngine's kind, or their configs.
        names: Their names.
        pipeline: Of the datasets whose configs have none of their own.
        lazy_init: Whether to read annotations only when they are needed.

    Attributes:
        datasets: The parts.
        names: Their names, in the same order.

    Raises:
        ConfigError: Without datasets, or if names are missing or occur twice.
    """

    def __init__(
        self,
        datasets: Sequence[Any],
        names: Sequence[str] | None = None,
        pipeline: Sequence[Any] | None = None,
        lazy_init: bool = False,
    ) -> None:
        if not datasets:
            raise ConfigError('MultiDataset needs datasets')
        shared = {} if pipeline is None else {'pipeline': pipeline}
        self.datasets: list[Any] = [
            DATASETS.build({**shared, **one}) if isinstance(one, Mapping) else one
            for one in datasets
        ]
        if names is None:
            names = [one.metainfo.get('dataset_name') for one in self.datasets]
        if len(names) != len(self.datasets) or not all(names) or len(set(names)) < len(names):
            raise ConfigError(
                f'each of the {len(self.datasets)} datasets needs a name of its own, got '
                f'{list(names)}: set metainfo=dict(dataset_name=...) of each, or names'
            )
        self.names = [str(name) for name in names]
        # Not that of the base class: it would compare the classes.
        self.ignore_keys: list[str] = []
        self._metainfo = {
            'datasets': {
                name: dict(one.metainfo)
                for name, one in zip(self.names, self.datasets, strict=True)
            }
        }
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Annotation of a sample, with the name of its dataset."""
        info: dict[str, Any] = super().get_data_info(idx)
        info.setdefault('dataset_name', self.names[self._get_ori_dataset_idx(idx)[0]])
        return info

    def __getitem__(self, idx: int) -> Any:
        item = super().__getitem__(idx)
        sample = item.get('data_samples') if isinstance(item, Mapping) else None
        if sample is not None and hasattr(sample, 'set_metainfo'):
            name = self.names[self._get_ori_dataset_idx(idx)[0]]
            sample.set_metainfo(dict(dataset_name=name))
        return item
