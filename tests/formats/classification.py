# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""EuroSAT and NWPU-RESISC45: scenes in folders by class, and list files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .drawing import colour, generator, paint, rectangles, save, terrain, write_lines

EUROSAT = (
    'AnnualCrop', 'Forest', 'HerbaceousVegetation', 'Highway', 'Industrial', 'Pasture',
    'PermanentCrop', 'Residential', 'River', 'SeaLake',
)  # fmt: skip

RESISC45 = (
    'airplane', 'airport', 'baseball_diamond', 'basketball_court', 'beach', 'bridge', 'chaparral',
    'church', 'circular_farmland', 'cloud', 'commercial_area', 'dense_residential', 'desert',
    'forest', 'freeway', 'golf_course', 'ground_track_field', 'harbor', 'industrial_area',
    'intersection', 'island', 'lake', 'meadow', 'medium_residential', 'mobile_home_park',
    'mountain', 'overpass', 'palace', 'parking_lot', 'railway', 'railway_station',
    'rectangular_farmland', 'river', 'roundabout', 'runway', 'sea_ice', 'ship', 'snowberg',
    'sparse_residential', 'stadium', 'storage_tank', 'tennis_court', 'terrace',
    'thermal_power_station', 'wetland',
)  # fmt: skip


def _scene(seed: int, label: int, number: int, size: int) -> np.ndarray:
    """A scene whose objects have the colour of its class."""
    rng = generator(seed, label, number)
    image = terrain(rng, size, size)
    for polygon in rectangles(rng, size, size, 4):
        image = paint(image, polygon, colour(label))
    return image


def make_eurosat(root: Path, *, seed: int = 0, count: int = 1, size: int = 64) -> Path:
    """EuroSAT (RGB) as the benchmark reads it: ``{train,val}/<class>/<class>_<n>.jpg``.

    The real files are JPEG, RGB, 64x64 pixels, numbered from 1 in each class; the ten folders keep
    their CamelCase names (mtp_finetune.md 2.1 and 2.3; Helber et al., IEEE JSTARS 2019, and the
    archive ``EuroSAT_RGB``). The benchmark has 16200 training and 5400 validation images.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images of each class in each split.
        size: Side of an image in pixels.
    """
    root = Path(root)
    for label, name in enumerate(EUROSAT):
        for number in range(2 * count):
            split = 'train' if number < count else 'val'
            image = _scene(seed, label, number, size)
            save(root / split / name / f'{name}_{number + 1}.jpg', image)
    return root


def make_eurosat_source(root: Path, *, seed: int = 0, count: int = 4, size: int = 64) -> Path:
    """EuroSAT as it is downloaded: ``<class>/<class>_<n>.jpg``, no splits (folder of the archive).

    The real set has 27000 images, 2000 to 3000 a class, numbered from 1 without leading zeros, so
    that the sorted order of names (``_1, _10, _2``) is not that of numbers.
    """
    root = Path(root)
    for label, name in enumerate(EUROSAT):
        for number in range(count):
            save(root / name / f'{name}_{number + 1}.jpg', _scene(seed, label, number, size))
    return root


def make_resisc45(root: Path, *, seed: int = 0, count: int = 1, size: int = 64) -> Path:
    """NWPU-RESISC45 as the benchmark reads it: all images in one folder, and two list files.

    ``all_img/<class>_<nnn>.jpg`` (real: 256x256 RGB JPEG, 700 a class, numbered from 001), and
    ``mtp/{train,valid}_labels_28_mtp.txt`` with lines ``<file> <label>`` (mtp_finetune.md 2.1;
    mtp_ft_config_facts.json). 28 means 2:8: a fifth of the images trains. Labels are the places of
    the alphabetical class names. Cheng, Han and Lu, Proc. IEEE 2017.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Training images of each class; one validation image each beside them.
        size: Side of an image in pixels.
    """
    root = Path(root)
    lists: dict[str, list[str]] = {'train': [], 'valid': []}
    for label, name in enumerate(RESISC45):
        for number in range(count + 1):
            file = f'{name}_{number + 1:03d}.jpg'
            save(root / 'all_img' / file, _scene(seed, label, number, size))
            lists['train' if number < count else 'valid'].append(f'{file} {label}')
    for split, lines in lists.items():
        # The published lists are shuffled.
        lines = [str(line) for line in generator(seed, 99).permutation(lines)]
        write_lines(root / 'mtp' / f'{split}_labels_28_mtp.txt', lines)
    return root


def make_resisc45_source(root: Path, *, seed: int = 0, count: int = 5, size: int = 32) -> Path:
    """NWPU-RESISC45 as it is downloaded: ``<class>/<class>_<nnn>.jpg``, 256x256 RGB JPEG."""
    root = Path(root)
    for label, name in enumerate(RESISC45):
        for number in range(count):
            save(root / name / f'{name}_{number + 1:03d}.jpg', _scene(seed, label, number, size))
    return root
