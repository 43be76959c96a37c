# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""MaRS-16M: pairs of optical and SAR images of Umbra and Capella, about 0.35 m."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from mmrsfm.datasets.paired_modality_dataset import PairedModalityDataset
from mmrsfm.errors import ConfigError
from mmrsfm.registry import DATASETS


@DATASETS.register_module()
class MaRS16M(PairedModalityDataset):
    """Pairs of RGB (uint8) and single-band SAR (Umbra uint8, Capella uint16), X band, HH or VV.

    Layout::

        {data_root}/
        ├── Umbra_patches/{rgb,sar}/NAME.tif
        └── Capella_patches/{rgb,sar}/NAME.tif

    A sample says its ``sensor``, ``'umbra'`` or ``'capella'``: their SAR images have other units,
    so that the data preprocessor needs statistics by sensor
    (``configs/_base_/datasets/mars16m_512px.py``). ``data_converters/cut_pairs.py`` cuts scenes
    into this layout.

    The dataset (16,785,168 pairs) is not public, but for a demonstration archive.

    Args:
        sensors: Which of the two are read, in this order.
        **kwargs: As of :class:`mmrsfm.PairedModalityDataset`. ``on_missing='skip'`` is what the
            reference code does, without a word.

    Raises:
        ConfigError: For an unknown sensor, or folders outside of those of the sensors.
        DatasetNotFoundError: With the layout that is expected.
    """

    folders: ClassVar[dict[str, str]] = {'umbra': 'Umbra_patches', 'capella': 'Capella_patches'}
    bands: ClassVar[tuple[str, ...]] = ('R', 'G', 'B', 'SAR')
    layout: ClassVar[str] = '{Umbra,Capella}_patches/{rgb,sar}/NAME.tif, pairs named alike'
    citation: ClassVar[str] = 'MaRS, AAAI 2026, github.com/WanderRainy/MaRS'

    def __init__(self, sensors: Sequence[str] = ('umbra', 'capella'), **kwargs: Any) -> None:
        self.sensors = (sensors,) if isinstance(sensors, str) else tuple(sensors)
        unknown = set(self.sensors) - set(self.folders)
        if unknown or not self.sensors:
            raise ConfigError(
                f'MaRS16M: sensors are some of {list(self.folders)}, got {list(self.sensors)}'
            )
        super().__init__(**kwargs)

    def groups(self) -> list[tuple[str | None, dict[str, Path]]]:
        """The sensors, and for each the folder of each modality."""
        root = Path(self.data_root or '.')
        # data_prefix holds paths below data_root by now.
        below = {}
        for name, path in self.data_prefix.items():
            if not Path(path).is_relative_to(root):
                raise ConfigError(
                    f'MaRS16M: data_prefix names folders below those of the sensors, got {path}'
                )
            below[name] = Path(path).relative_to(root)
        return [
            (sensor, {name: root / self.folders[sensor] / path for name, path in below.items()})
            for sensor in self.sensors
        ]
