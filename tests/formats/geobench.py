# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""GEO-Bench v1.0 as it is downloaded: a folder for each set, one HDF5 file for each sample.

Written from mp_mae.md 4 and from what the benchmark's authors publish of their format: pickled
descriptions of the task and of each sample, whose classes are those of the package ``geobench``;
it is not installed here, so classes of the same names are made while a file is written.
(Lacoste et al., "GEO-Bench: Toward Foundation Models for Earth Monitoring", NeurIPS 2023,
arXiv 2306.03831.) Classes and bands of the sets are real; files hold a few small samples.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import pickle
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from affine import Affine
from rasterio.crs import CRS

from .drawing import Array, generator, paint, rectangles

# Name, other names, resolution in metres, micrometres.
SENTINEL2 = [
    ('01 - Coastal aerosol', ('1', '01'), 60, 0.443),
    ('02 - Blue', ('2', '02', 'blue'), 10, 0.49),
    ('03 - Green', ('3', '03', 'green'), 10, 0.56),
    ('04 - Red', ('4', '04', 'red'), 10, 0.665),
    ('05 - Vegetation Red Edge', ('5', '05'), 20, 0.705),
    ('06 - Vegetation Red Edge', ('6', '06'), 20, 0.74),
    ('07 - Vegetation Red Edge', ('7', '07'), 20, 0.783),
    ('08 - NIR', ('8', '08', 'NIR'), 10, 0.842),
    ('08A - Vegetation Red Edge', ('8A', '08A'), 20, 0.865),
    ('09 - Water vapour', ('9', '09'), 60, 0.945),
    ('10 - SWIR - Cirrus', ('10',), 60, 1.375),
    ('11 - SWIR', ('11',), 20, 1.61),
    ('12 - SWIR', ('12',), 20, 2.19),
]  # fmt: skip
SENTINEL1 = [
    (name, (), 10, None)
    for name in (
        '01 - VH.Real', '02 - VH.Imaginary', '03 - VV.Real', '04 - VV.Imaginary',
        '05 - VH.LEE Filtered', '06 - VV.LEE Filtered', '07 - VH.LEE Filtered.Real',
        '08 - VV.LEE Filtered.Imaginary',
    )
]  # fmt: skip
LANDSAT = [
    ('02 - Blue', ('2', '02', 'B2', 'blue'), 15, 0.482),
    ('03 - Green', ('3', '03', 'B3', 'green'), 15, 0.5614),
    ('04 - Red', ('4', '04', 'B4', 'red'), 15, 0.6546),
    ('05 - NIR', ('5', '05', 'B5', 'nir'), 30, 0.8647),
    ('06 - SWIR1', ('6', '06', 'B6', 'swir1'), 30, 1.6089),
    ('07 - SWIR2', ('7', '07', 'B7', 'swir2'), 30, 2.2007),
]
RGB = [
    ('Red', ('red',), 0.1, 0.665), ('Green', ('green',), 0.1, 0.56), ('Blue', ('blue',), 0.1, 0.49),
]  # fmt: skip
_NO_CIRRUS = SENTINEL2[:10] + SENTINEL2[11:]
# Kind, bands, classes, real side in pixels, class of the bands, number type.
SETS: dict[str, tuple[str, list[Any], int, int, str, str]] = {
    'm-eurosat': ('classification', SENTINEL2, 10, 64, 'Sentinel2', 'int16'),
    'm-brick-kiln': ('classification', SENTINEL2, 2, 64, 'Sentinel2', 'float32'),
    'm-so2sat': (
        'classification',
        [*SENTINEL1, *SENTINEL2[1:9], *SENTINEL2[11:]], 17, 32, 'Sentinel2', 'float32',
    ),
    'm-bigearthnet': ('multi_label', _NO_CIRRUS, 43, 120, 'Sentinel2', 'int16'),
    'm-forestnet': ('classification', LANDSAT, 12, 332, 'Landsat8', 'uint8'),
    'm-pv4ger': ('classification', RGB, 2, 320, 'SpectralBand', 'uint8'),
    'm-pv4ger-seg': ('segmentation', RGB, 2, 320, 'SpectralBand', 'uint8'),
    'm-chesapeake': (
        'segmentation', [*RGB, ('NIR', ('nir',), 1, 0.842)], 7, 256, 'SpectralBand', 'uint8',
    ),
    'm-cashew-plant': ('segmentation', _NO_CIRRUS, 7, 256, 'Sentinel2', 'int16'),
    'm-SA-crop-type': ('segmentation', _NO_CIRRUS, 10, 256, 'Sentinel2', 'int16'),
    'm-nz-cattle': ('segmentation', RGB, 2, 500, 'SpectralBand', 'uint8'),
    'm-NeonTree': (
        'segmentation', [*RGB, ('Canopy Height Model', (), 1, None)], 2, 400, 'SpectralBand',
        'int16',
    ),
}  # fmt: skip
PARTITIONS = {
    'default': 1.0, '0.01x_train': 0.01, '0.02x_train': 0.02, '0.05x_train': 0.05,
    '0.10x_train': 0.1, '0.20x_train': 0.2, '0.50x_train': 0.5, '1.00x_train': 1.0,
}  # fmt: skip
_PERCENTILES = {
    'percentile_0_1': 0.1, 'percentile_1': 1, 'percentile_5': 5, 'percentile_95': 95,
    'percentile_99': 99, 'percentile_99_9': 99.9,
}  # fmt: skip
_DATE = datetime.date(2018, 5, 3)


def make_geobench(
    root: Path,
    *,
    seed: int = 0,
    count: int = 6,
    size: int | None = 32,
    names: Sequence[str] = ('m-eurosat',),
    statistics_factor: float = 1.0,
    dates: int = 1,
) -> Path:
    """GEO-Bench: ``{classification,segmentation}_v1.0/<set>/`` below a folder, which is returned.

    A set has ``task_specs.pkl``, ``band_stats.json``, ``label_map.json``, for each partition
    ``<partition>_partition.json``, and ``<sample>.hdf5``: a dataset for each band, named after it
    and, where it is known, the date; for segmentation one more, ``label``; an attribute ``pickle``,
    the text of the bytes of a pickle. Bands of m-forestnet are dated. The bands of m-eurosat and
    m-brick-kiln lie in other than the order that their names say.

    Args:
        root: Folder to make.
        seed: Of all that is drawn.
        count: Training samples; half as many for validation, and for the test.
        size: Side of the images in pixels; ``None``: the real one.
        names: The sets.
        statistics_factor: What ``band_stats.json`` is multiplied with; there is a set whose
            statistics are known to be of other units than its samples.
        dates: How often each band of m-forestnet is there.
    """
    root = Path(root)
    for name in names:
        kind = SETS[name][0]
        benchmark = 'segmentation' if kind == 'segmentation' else 'classification'
        folder = root / f'{benchmark}_v1.0' / name
        folder.mkdir(parents=True, exist_ok=True)
        _make_set(folder, name, seed, count, size or SETS[name][3], statistics_factor, dates)
    return root


def _make_set(
    folder: Path, name: str, seed: int, count: int, size: int, factor: float, dates: int
) -> None:
    kind, bands, classes, _, band_class, _ = SETS[name]
    half = max(1, count // 2)
    splits = {'train': count, 'valid': half, 'test': half}
    members: dict[str, list[str]] = {split: [] for split in splits}
    values: dict[str, list[Array]] = {band[0]: [] for band in bands}
    labels: dict[str, list[str]] = {}
    with _classes() as make:
        infos = [
            make(
                'Sentinel1' if band in SENTINEL1 else band_class, name=band[0], alt_names=band[1],
                spatial_resolution=band[2], wavelength=band[3],
            )
            for band in bands
        ]  # fmt: skip
        class_names = [f'class {number}' for number in range(classes)]
        label_type = _label_type(make, kind, classes, class_names)
        number = 0
        for split, amount in splits.items():
            for _ in range(amount):
                sample = f'{split}_{number:04d}'
                images, label = _draw(name, seed, number, size)
                for band, image in images.items():
                    values[band].append(image)
                _write(folder / f'{sample}.hdf5', name, infos, images, label, label_type, dates)
                members[split].append(sample)
                if kind == 'classification':
                    labels.setdefault(str(label), []).append(sample)
                number += 1
        specs = make(
            'TaskSpecifications', dataset_name=name, benchmark_name='converted',
            patch_size=(size, size), n_time_steps=dates, bands_info=infos,
            label_type=label_type, spatial_resolution=10.0,
        )  # fmt: skip
        (folder / 'task_specs.pkl').write_bytes(pickle.dumps(specs, protocol=4))
    stats = {band: _statistics(np.stack(found), factor) for band, found in values.items()}
    (folder / 'band_stats.json').write_text(json.dumps(stats))
    (folder / 'label_map.json').write_text(json.dumps(labels))
    for partition, share in PARTITIONS.items():
        kept = members['train'][: max(1, round(share * count))]
        text = json.dumps({**members, 'train': kept}, indent=2)
        (folder / f'{partition}_partition.json').write_text(text)


def _label_type(make: Any, kind: str, classes: int, names: list[str]) -> Any:
    if kind == 'segmentation':
        return make(
            'SegmentationClasses', name='label', alt_names=(), spatial_resolution=10.0,
            n_classes=classes, _class_names=names,
        )  # fmt: skip
    if kind == 'multi_label':
        return make('MultiLabelClassification', n_classes=classes, class_name=names)
    return make('Classification', n_classes=classes, _class_names=names)


def _draw(name: str, seed: int, number: int, size: int) -> tuple[dict[str, Array], Any]:
    """The bands of a sample by their names, and its label; classes differ in colour."""
    kind, bands, classes, _, _, dtype = SETS[name]
    rng = generator(seed, 71, number)
    label: Any
    if kind == 'segmentation':
        label = np.zeros((size, size), np.uint8)
        for polygon in rectangles(rng, size, size, 3):
            label = paint(label, polygon, int(rng.integers(1, classes)))
        tint = label / classes
    elif kind == 'multi_label':
        label = np.zeros(classes, int)
        label[rng.choice(classes, 3, replace=False)] = 1
        tint = np.full((size, size), np.flatnonzero(label).mean() / classes)
    else:
        label = number % classes
        tint = np.full((size, size), label / classes)
    images = {}
    for position, band in enumerate(bands):
        level = 0.1 + 0.4 * np.abs(np.sin(1 + position + 2 * tint)) + 0.1 * tint
        image = level + 0.02 * rng.standard_normal((size, size))
        if dtype == 'uint8':
            image = np.clip(255 * image, 0, 255)
        elif name != 'm-so2sat':
            image = np.clip(1e4 * image, 1, None)
        images[band[0]] = image.astype(dtype)
    return images, label


def _write(
    path: Path,
    name: str,
    infos: Sequence[Any],
    images: dict[str, Array],
    label: Any,
    label_type: Any,
    dates: int,
) -> None:
    found: list[datetime.date | None] = [None]
    if name == 'm-forestnet':
        found = [_DATE.replace(year=_DATE.year + year) for year in range(dates)]
    content: dict[str, Any] = {}
    order = []
    with h5py.File(path, 'w') as file:
        entries = [(info, images[info.name], date) for date in found for info in infos]
        if isinstance(label, np.ndarray) and label.ndim == 2:
            entries.append((label_type, label, None))
        else:
            content['label'] = label
        for info, image, date in entries:
            descriptor = info.name + ('' if date is None else f'_{date:%Y-%m-%d}')
            file.create_dataset(descriptor, data=image)
            order.append(descriptor)
            content[descriptor] = {
                'date': date, 'date_id': date, 'spatial_resolution': 10.0, 'band_info': info,
                'meta_info': {'note': 'drawn'}, 'transform': Affine(10, 0, 5e5, 0, -10, 4e6),
                'crs': CRS.from_epsg(32631),
            }  # fmt: skip
        content['bands_order'] = order
        file.attrs['pickle'] = str(pickle.dumps(content))


def _statistics(values: Array, factor: float) -> dict[str, float]:
    numbers = values.astype(float) * factor
    result = {
        'min': numbers.min(), 'max': numbers.max(), 'mean': numbers.mean(), 'std': numbers.std(),
        'median': np.median(numbers),
    }  # fmt: skip
    result.update({key: np.percentile(numbers, at) for key, at in _PERCENTILES.items()})
    return {key: float(value) for key, value in result.items()}


@contextlib.contextmanager
def _classes() -> Iterator[Any]:
    """Makes objects of classes of the package ``geobench``, which exist within the block alone."""
    homes = {
        'geobench.dataset': (
            'Sentinel1', 'Sentinel2', 'Landsat8', 'SpectralBand', 'SegmentationClasses',
        ),
        'geobench.label': ('Classification', 'MultiLabelClassification'),
        'geobench.task': ('TaskSpecifications',),
    }  # fmt: skip
    known: dict[str, type] = {}
    modules = {'geobench': types.ModuleType('geobench')}
    for home, names in homes.items():
        modules[home] = types.ModuleType(home)
        for name in names:
            known[name] = type(name, (), {'__module__': home})
            setattr(modules[home], name, known[name])

    def make(kind: str, /, **attributes: Any) -> Any:
        made = known[kind]()
        made.__dict__.update(attributes)
        return made

    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield make
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module
