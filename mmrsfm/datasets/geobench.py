# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""GEO-Bench v1.0: six sets for classification and six for segmentation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from mmrsfm.contract import band_keys
from mmrsfm.datasets.geobench_files import (
    StoredBand,
    Task,
    read_partition,
    read_sample,
    read_statistics,
    read_task,
)
from mmrsfm.errors import BandMismatchError, ConfigError, DataError
from mmrsfm.registry import DATASETS

_SHORT = re.compile(r'B(\d\d|8A)$')
NAMES = ('corrected', 'as_published')
# What the bands of two sets really are, by their stored names: these follow the order of other
# files (ServiceNow/geo-bench issues 28 and 29). In the first B8A comes last; the second has
# neither B06 nor B09, and its last three bands are a picture.
_REALLY: dict[str, dict[str, str]] = {
    'm-eurosat': {
        '08A - Vegetation Red Edge': 'B09', '09 - Water vapour': 'B10',
        '10 - SWIR - Cirrus': 'B11', '11 - SWIR': 'B12', '12 - SWIR': 'B8A',
    },
    'm-brick-kiln': {
        '06 - Vegetation Red Edge': 'B07', '07 - Vegetation Red Edge': 'B8A',
        '08 - NIR': 'B08', '08A - Vegetation Red Edge': 'B11', '09 - Water vapour': 'B12',
        '10 - SWIR - Cirrus': 'TCI_R', '11 - SWIR': 'TCI_G', '12 - SWIR': 'TCI_B',
    },
}  # fmt: skip


@DATASETS.register_module()
class GeoBench(BaseDataset):
    """A set of GEO-Bench v1.0 (Lacoste et al., NeurIPS 2023, arXiv 2306.03831), local copy.

    Layout: a folder ``<benchmark>_v1.0/<set>`` with ``task_specs.pkl``, ``band_stats.json``,
    ``<partition>_partition.json`` and ``<sample>.hdf5``, as ``geobench-download`` unpacks them. The
    package ``geobench`` is not needed; of its pickles nothing is run.

    Task, classes and bands come from the set; ``metainfo`` has ``classes``, ``task_kind``
    (``'classification'``, ``'multi_label'``, ``'segmentation'``) and, for segmentation,
    ``palette``. :class:`mmrsfm.LoadGeoBench` reads the samples.

    **Bands** are chosen by any of their names: that of the files (``'08A - Vegetation Red Edge'``),
    the set's other names (``'red'``, ``'8A'``), and for Sentinel-2 that of the band (``'B8A'``).
    The names in the files of m-eurosat and m-brick-kiln are wrong from the ninth or sixth band on
    (ServiceNow/geo-bench issues 28, 29). By default the real ones are used;
    ``names='as_published'`` takes those of the files, as published numbers do.

    Args:
        data_root: The folder of the set.
        partition: ``'default'`` (all training samples), or ``'0.01x_train'``, ``'0.02x_train'``,
            ``'0.05x_train'``, ``'0.10x_train'``, ``'0.20x_train'``, ``'0.50x_train'``,
            ``'1.00x_train'``.
        split: ``'train'``, ``'valid'`` or ``'test'``.
        bands: Bands to load, in this order. ``None``: all.
        substitutes: From a name in ``bands`` to the band that is loaded under that name, e.g.
            ``dict(B01='B02', B09='B8A')`` where a model wants bands that the set does not have.
            Whatever is chosen, the samples say the names in ``bands``.
        names: ``'corrected'`` or ``'as_published'``, see above.
        statistics_scale: Factor for the mean and deviation of ``band_stats.json``. ``'auto'``: 1,
            or 1e-4 if the first sample is of reflectance as fractions and the statistics are of
            numbers up to 10000, as has been reported for m-so2sat; then a log message says so.
        date: Of samples of several dates: ``'first'``, ``'last'``, or one as in the files.
        **kwargs: As of MMEngine's BaseDataset (``pipeline``, ``indices``, ``test_mode``, ...).

    Attributes:
        task: What the set says of itself (:class:`mmrsfm.datasets.geobench_files.Task`).

    Raises:
        DatasetNotFoundError: A file is missing, or a partition has no samples.
        CorruptImageError: A file is damaged, or no such file.
        BandMismatchError: The set has no such band.
    """

    SETS: ClassVar[dict[str, tuple[str, ...]]] = {
        'classification': (
            'm-eurosat', 'm-so2sat', 'm-bigearthnet', 'm-brick-kiln', 'm-forestnet', 'm-pv4ger',
        ),
        'segmentation': (
            'm-pv4ger-seg', 'm-chesapeake', 'm-cashew-plant', 'm-SA-crop-type', 'm-nz-cattle',
            'm-NeonTree',
        ),
    }  # fmt: skip
    citation: ClassVar[str] = (
        'Lacoste et al., "GEO-Bench: Toward Foundation Models for Earth Monitoring", NeurIPS 2023, '
        'arXiv 2306.03831'
    )

    def __init__(
        self,
        data_root: str = '',
        partition: str = 'default',
        split: str = 'train',
        bands: Sequence[str] | None = None,
        substitutes: Mapping[str, str] | None = None,
        names: str = 'corrected',
        statistics_scale: float | str = 'auto',
        date: str | None = None,
        metainfo: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if names not in NAMES:
            raise ConfigError(f'GeoBench: names is one of {NAMES}, got {names!r}')
        if isinstance(bands, str):
            raise ConfigError(f'GeoBench: bands is a list of names, got {bands!r}')
        unused = set(substitutes or ()) - set(bands or ())
        if unused:
            raise ConfigError(f'GeoBench: substitutes for {sorted(unused)}, which bands has not')
        self.partition = partition
        self.split = split
        self.names = names
        self.date = date
        self.folder = Path(data_root or '.').expanduser()
        self.task = self._named(read_task(self.folder))
        self._columns = self._choose(bands, dict(substitutes or {}))
        self._band_names = self._report_names(bands)
        self._statistics = self._find_statistics(statistics_scale)
        own: dict[str, Any] = dict(classes=self.task.classes, band_names=self._band_names)
        if self.task.kind == 'segmentation':
            own['palette'] = _palette(len(self.task.classes))
        super().__init__(data_root=data_root, metainfo={**own, **(metainfo or {})}, **kwargs)
        self._metainfo['task_kind'] = self.task.kind  # MMEngine takes a text for a file

    def load_data_list(self) -> list[dict[str, Any]]:
        """Lists the samples; no file of a sample is opened."""
        samples = read_partition(self.folder, self.partition, self.split)
        return [{'sample_name': name} for name in samples]

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """What :class:`mmrsfm.LoadGeoBench` needs; statistics are not kept for each sample."""
        sample = super().get_data_info(idx)
        sample.update(
            img_path=str(self.folder / f'{sample["sample_name"]}.hdf5'),
            task_kind=self.task.kind,
            num_classes=len(self.task.classes),
            stored_bands=self._columns,
            band_names=self._band_names,
            band_statistics=self._statistics,
            date=self.date,
        )
        if self.task.kind == 'segmentation':
            sample.update(seg_map_path=sample['img_path'], reduce_zero_label=False, seg_fields=[])
        return sample

    def _named(self, task: Task) -> Task:
        """The task with the names that its bands have here."""
        really = _REALLY.get(task.name, {}) if self.names == 'corrected' else {}
        bands = tuple(
            StoredBand(band.name, _short_names(really[band.name]), band.count)
            if band.name in really
            else band
            for band in task.bands
        )
        return Task(task.name, task.kind, task.classes, bands, task.patch_size)

    def _choose(
        self, wanted: Sequence[str] | None, substitutes: dict[str, str]
    ) -> tuple[StoredBand, ...]:
        if wanted is None:
            return self.task.bands
        known = {key: band for band in reversed(self.task.bands) for key in band_keys(band.names)}
        chosen = []
        for name in wanted:
            key = band_keys([substitutes.get(name, name)])[0]
            if key not in known:
                raise BandMismatchError(
                    'there is no such band; by all their names there are '
                    f'{[list(band.names) for band in self.task.bands]}',
                    path=self.folder,
                    band=key,
                    hint=f'substitutes=dict({name}=...) takes another one in its place',
                )
            chosen.append(known[key])
        return tuple(chosen)

    def _report_names(self, wanted: Sequence[str] | None) -> tuple[str, ...]:
        names: list[str] = []
        for number, band in enumerate(self._columns):
            known = [one for one in band.names if _SHORT.match(one)]
            name = (known or [band.name])[0] if wanted is None else wanted[number]
            several = range(1, band.count + 1)
            names += [name] if band.count == 1 else [f'{name}_{channel}' for channel in several]
        return tuple(names)

    def _find_statistics(self, scale: float | str) -> tuple[np.ndarray, np.ndarray]:
        stored = read_statistics(self.folder)
        missing = [band.name for band in self._columns if band.name not in stored]
        if missing:
            raise BandMismatchError(
                f'are not about {missing}, only about {list(stored)}',
                path=self.folder / 'band_stats.json',
            )
        rows = np.array(
            [stored[band.name] for band in self._columns for _ in range(band.count)], np.float64
        )
        if scale == 'auto':
            scale = self._detect_scale(rows[:, 0])
        rows *= float(scale)
        if not (np.isfinite(rows).all() and (rows[:, 1] > 0).all()):
            raise ConfigError(f'{self.folder}/band_stats.json: a deviation is 0, or not a number')
        return rows[:, 0].astype(np.float32), rows[:, 1].astype(np.float32)

    def _detect_scale(self, means: np.ndarray) -> float:
        """1e-4 where a sample is at least 1000 times darker than the statistics say."""
        if np.median(means) < 100:
            return 1.0  # no numbers of up to 10000
        names = [band.name for band in self._columns]
        for sample in read_partition(self.folder, self.partition, self.split)[:20]:
            path = self.folder / f'{sample}.hdf5'
            try:
                images, _ = read_sample(path, names, self.task.kind, self.date)
                break
            except DataError:  # whoever loads it says so, or skips it
                continue
        else:
            return 1.0
        brightest = max(float(np.max(image)) for image in images)
        if brightest > np.median(means) / 100:
            return 1.0
        print_log(
            f'{self.task.name}: its statistics are of numbers up to 10000, {path.name} has '
            f'{brightest:.4g} at most: they are divided by 10000 (statistics_scale=1 does not)',
            logger='current',
        )
        return 1e-4


def _short_names(name: str) -> tuple[str, ...]:
    number = name[1:] if _SHORT.match(name) else ''
    return tuple(dict.fromkeys((name, number, number.lstrip('0')))) if number else (name,)


def _palette(count: int) -> list[list[int]]:
    """Colours for classes, the first dark, the others around the circle of hues."""
    hues = 2 * np.pi * np.arange(count - 1) / max(1, count - 1)
    waves = [np.cos(hues - turn) for turn in (0, 2 * np.pi / 3, 4 * np.pi / 3)]
    colours = (140 + 110 * np.stack(waves, axis=1)).astype(int).tolist()
    return [[30, 30, 30], *colours]
