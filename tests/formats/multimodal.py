# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""EarthMiss, BRIGHT (DFC25), DFC23 and DeepGlobe roads: optical and radar images with maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .drawing import Array, colour, generator, paint, save, write_lines
from .modalities import as_uint8, backscatter, draw, save_tif, swath

# Values of a mask: 0 no data, then the eight classes.
EARTHMISS = (
    'background', 'building', 'road', 'water', 'barren', 'forest', 'agricultural', 'playground',
)  # fmt: skip
# All 13 cities: the parts of a benchmark must be complete.
EARTHMISS_CITIES = {
    'train': (
        'America-Eugene', 'America-Louisville', 'French-Paris', 'Morocco-Casablanca', 'Nanjing',
        'Netherlands-Rotterdam', 'Singapore',
    ),
    'val': ('Australia-PortHedland', 'America-Pake', 'Russian-Engels'),
    'test': ('America-NewYork', 'Japan-Hakodate', 'Peru-Callao'),
}  # fmt: skip


def make_earthmiss(root: Path, *, seed: int = 0, count: int = 2, size: int = 96) -> Path:
    """EarthMiss as it is downloaded: ``<city>/images/{RGB,SAR}/*.tif``, ``<city>/masks/*.tif``.

    LZW tifs of 1024x1024: rgb uint8 of three bands, radar uint8 of one, masks **float32** with 0
    for no data and 1 to 8 for the classes. The three names are ``<x>.tif``, ``<x>_SAR.tif`` and
    ``<x>_mask.tif``. Thirteen cities; America-NewYork, Japan-Hakodate and Peru-Callao are the test
    (mars.md 5; the set's public description and reader, whose labels are the masks less one).
    Downloads hold copies whose name ends in ``(1)``, not in all three folders alike: one is here.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images of each city.
        size: Side of an image.
    """
    root = Path(root)
    cities = [city for part in EARTHMISS_CITIES.values() for city in part]
    for place, city in enumerate(cities):
        for number in range(count):
            rng = generator(seed, 101, place, number)
            classes = [2 + (number + k) % 7 for k in range(7)]
            scene = draw(rng, size, size, count=6, classes=classes)
            mask = np.where(scene.label == 0, 1, scene.label).astype(np.float32)
            rgb = scene.rgb.copy()
            rgb[: size // 12], mask[: size // 12] = 0, 0  # outside of the survey
            stem = f'{city.split("-")[-1]}_{number}_{number + 1}'
            folder = root / city
            save_tif(folder / 'images' / 'RGB' / f'{stem}.tif', rgb, compress='lzw')
            radar = as_uint8(backscatter(rng, scene))
            save_tif(folder / 'images' / 'SAR' / f'{stem}_SAR.tif', radar, compress='lzw')
            save_tif(folder / 'masks' / f'{stem}_mask.tif', mask, compress='lzw')
            if place == 0 and number == 0:
                save_tif(folder / 'images' / 'RGB' / f'{stem}(1).tif', rgb, compress='lzw')
    return root


def make_bright(root: Path, *, seed: int = 0, count: int = 2, size: int = 96) -> Path:
    """BRIGHT as it is downloaded: ``{pre-event,post-event,target}/<id>_<kind>.tif`` and lists.

    ``<id>`` is an event and a number, ``bata-explosion_00000049``; kinds ``pre_disaster`` (optical,
    uint8, three bands), ``post_disaster`` (radar, uint8, **one** band) and ``building_damage``
    (uint8: 0 background, 1 intact, 2 damaged, 3 destroyed); all GeoTIFF of 1024x1024 on one grid.
    Lists of ids: ``{train,val,test}_set.txt`` of the standard split, here in ``splitname`` (mars.md
    5; the authors' page of DFC 2025 track 2; Chen et al., arXiv 2501.06019).

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images of each split.
        size: Side of an image.
    """
    root = Path(root)
    events = {'train': 'bata-explosion', 'val': 'hawaii-wildfire', 'test': 'noto-earthquake'}
    for place, (split, event) in enumerate(events.items()):
        names = [f'{event}_{49 + number:08d}' for number in range(count)]
        for number, name in enumerate(names):
            _bright(root, name, generator(seed, 102, place, number), size)
        write_lines(root / 'splitname' / f'{split}_set.txt', names)
    return root


def make_dfc25(root: Path, *, seed: int = 0, count: int = 2, size: int = 96) -> Path:
    """The contest's form of BRIGHT (DFC 2025 track 2): ``{train,val}/{pre-event,...}`` and lists.

    ``train_setlevel.txt`` and ``holdout_setlevel.txt`` both name images of ``train``,
    ``val_setlevel.txt`` those of ``val``, which have no target.

    Args:
        root: Folder to make (the archive's ``dfc25_track2_trainval``); returned.
        seed: Of all that is drawn.
        count: Images of each list.
        size: Side of an image.
    """
    root = Path(root)
    for place, (part, event) in enumerate(
        {'train': 'bata-explosion', 'holdout': 'turkey-earthquake', 'val': 'val-disaster'}.items()
    ):
        names = [f'{event}_{number + 1:08d}' for number in range(count)]
        for number, name in enumerate(names):
            rng = generator(seed, 103, place, number)
            _bright(root / ('val' if part == 'val' else 'train'), name, rng, size, part != 'val')
        write_lines(root / f'{part}_setlevel.txt', names)
    return root


def _bright(
    root: Path, name: str, rng: np.random.Generator, size: int, target: bool = True
) -> None:
    scene = draw(rng, size, size, count=6, classes=(1, 2, 3))
    # All buildings stand before; after, what is damaged scatters less, what is destroyed hardly.
    rgb = scene.rgb
    for polygon in scene.polygons:
        rgb = paint(rgb, polygon, colour(1))
    power = backscatter(rng, scene)
    for value, left in ((2, 0.4), (3, 0.1)):
        power[scene.label == value] *= left
    grid = {'crs': 'EPSG:4326'}
    save_tif(root / 'pre-event' / f'{name}_pre_disaster.tif', rgb, **grid)
    save_tif(root / 'post-event' / f'{name}_post_disaster.tif', as_uint8(power), **grid)
    if target:
        save_tif(root / 'target' / f'{name}_building_damage.tif', scene.label, **grid)


def make_dfc23(root: Path, *, seed: int = 0, count: int = 3, size: int = 96) -> Path:
    """DFC23 track 2 as it is used: ``{train,val}/{rgb,sar,dsm}/P_<nnnn>.tif``, 512x512.

    rgb uint8 of three bands; radar float32 of one, below 1 mostly with a heavy tail (mean 0.26,
    standard deviation 0.60 are published); dsm float32, metres above ground, 0 where nothing
    stands, at most 183.2. Names are alike in the three folders (mars.md 5; Persello et al., IEEE
    GRSM 2023). One dsm has NaN where nothing was measured.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images of each split.
        size: Side of an image.
    """
    root = Path(root)
    for place, split in enumerate(('train', 'val')):
        for number in range(count):
            rng = generator(seed, 104, place, number)
            scene = draw(rng, size, size, count=6)
            name = f'P_{number:04d}.tif'
            metres = scene.height.copy()
            if number == count - 1:
                metres[~swath(size, size, 0.1)] = np.nan
            save_tif(root / split / 'rgb' / name, scene.rgb)
            radar = (0.12 * backscatter(rng, scene)).astype(np.float32)
            save_tif(root / split / 'sar' / name, radar)
            save_tif(root / split / 'dsm' / name, metres)
    return root


def make_deepglobe(root: Path, *, seed: int = 0, count: int = 3, size: int = 96) -> Path:
    """DeepGlobe roads as they are downloaded: ``train/<id>_{sat.jpg,mask.png}``, ``{valid,test}``.

    Images are RGB JPEGs, masks **RGB** pngs whose values lie near 0 and 255 (their description says
    to cut at 128); 1024x1024 at 0.5 m. The validation and test folders have no masks, so that
    users split the training folder by lists: ``train.txt`` and ``val.txt`` here, one id a line
    (mars.md 5; Demir et al., CVPRW 2018).

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images of each list, and of valid and test.
        size: Side of an image.
    """
    root = Path(root)
    start = 100_034  # ids are numbers without leading zeros
    for place, split in enumerate(('train', 'val', 'valid', 'test')):
        names = [str(start + 7 * (place * count + number)) for number in range(count)]
        folder = root / ('train' if split == 'val' else split)
        for number, name in enumerate(names):
            picture, mask = _roads(generator(seed, 105, place, number), size)
            save(folder / f'{name}_sat.jpg', picture)
            if split in ('train', 'val'):
                save(folder / f'{name}_mask.png', mask)
        if split in ('train', 'val'):
            write_lines(root / f'{split}.txt', names)
    return root


def _roads(rng: np.random.Generator, size: int) -> tuple[Array, Array]:
    """A picture with two roads across it, and their mask, (H, W, 3) uint8."""
    picture = draw(rng, size, size, count=3).rgb
    mask = np.zeros((size, size), np.uint8)
    for _ in range(2):
        begin, end = rng.uniform(0.15, 0.85, 2) * size
        half = rng.uniform(2, 4)
        line = np.array([[0, begin - half], [size, end - half], [size, end + half]])
        line = np.concatenate([line, [[0, begin + half]]])
        if rng.random() < 0.5:
            line = line[:, ::-1]
        picture, mask = paint(picture, line, (205, 200, 190)), paint(mask, line, 1)
    values = np.where(mask == 1, 254, 1).astype(np.uint8)
    return picture, np.repeat(values[..., None], 3, axis=-1)
