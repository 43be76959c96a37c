# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pairs of optical and radar images: MaRS-16M, SpaceNet-6, GUSO, whole scenes, labelled scenes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from rasterio.transform import from_origin
from rasterio.warp import Resampling, reproject, transform_bounds

from .drawing import Array, generator, save, write_lines
from .modalities import as_uint8, as_uint16, backscatter, draw, save_tif, swath

SCENES = ('harbour', 'field', 'town')  # classes of the labelled pairs


def make_mars_16m(
    root: Path, *, seed: int = 0, count: int = 3, size: int = 96, faults: bool = True
) -> Path:
    """MaRS-16M as it was trained on: ``{Umbra,Capella}_patches/{rgb,sar}/<name>.tif``.

    rgb uint8 of three bands, radar one band: Umbra uint8, Capella uint16 with heavy tails; a pair
    has one name; no georeferencing; 0 is no data, in up to 30 % of a tile (mars.md 3; real tiles
    have 512 or 1024 pixels). Numbers of a scene have gaps: tiles that hold too little are skipped.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Pairs of each sensor; the last has a swath edge.
        size: Side of a tile.
        faults: Adds what real folders hold: an rgb without radar, a radar without rgb, a file that
            is no image.
    """
    root = Path(root)
    for place, (sensor, number_type) in enumerate((('Umbra', as_uint8), ('Capella', as_uint16))):
        folder = root / f'{sensor}_patches'
        names = [
            f'2023-08-1{n // 2}-10-{place}_scene{n // 2}_{3 * n:03d}.tif' for n in range(count)
        ]
        for number, name in enumerate(names):
            rng = generator(seed, 91, place, number)
            scene = draw(rng, size, size)
            radar, rgb = number_type(backscatter(rng, scene)), scene.rgb.copy()
            if number == count - 1 and count > 1:
                radar[~swath(size, size, 0.25)] = 0
                rgb[-size // 8 :] = 0
            save_tif(folder / 'rgb' / name, rgb)
            save_tif(folder / 'sar' / name, radar)
        if faults:
            lonely = draw(generator(seed, 91, place, 10_000), size, size)
            save_tif(folder / 'rgb' / '2023-09-01-10_scene9_000.tif', lonely.rgb)
            radar = number_type(backscatter(generator(seed, 91, place, 10_001), lonely))
            save_tif(folder / 'sar' / '2023-09-02-10_scene9_001.tif', radar)
            (folder / 'rgb' / 'Thumbs.db').write_bytes(b'\0')
    return root


def make_vhr_rgb(root: Path, *, seed: int = 0, count: int = 4, size: int = 96) -> Path:
    """Optical images of ones own: ``images/<name>.tif``, uint8 RGB, of several sizes.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images.
        size: Least side of an image.
    """
    root = Path(root)
    for number in range(count):
        scene = draw(generator(seed, 90, number), size + 8 * (number % 2), size)
        save_tif(root / 'images' / f'scene_{number}.tif', scene.rgb)
    return root


def make_spacenet6(root: Path, *, seed: int = 0, count: int = 2, size: int = 96) -> Path:
    """SpaceNet-6 (Rotterdam): ``PS-RGB/*.tif`` and ``SAR-Intensity/*.tif`` on one grid.

    rgb uint8; radar float32, four bands (HH, HV, VH, VV) in decibels, **NaN** outside of the swath
    (39 % of the pair that we have); EPSG:32631, 0.5 m. Names differ in the product alone:
    ``SN6_Train_AOI_11_Rotterdam_{PS-RGB,SAR-Intensity}_<times>_tile_<n>.tif`` (Shermeyer et al.,
    CVPRW 2020).

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Pairs.
        size: Side of a tile (real: 900).
    """
    root = Path(root)
    for number in range(count):
        rng = generator(seed, 92, number)
        scene = draw(rng, size, size)
        power = np.stack([backscatter(rng, scene) * gain for gain in (1, 0.3, 0.3, 0.8)], -1)
        radar = (10 * np.log10(power)).astype(np.float32)
        radar[~swath(size, size, 0.4 if number == 0 else 0.0)] = np.nan
        grid = {
            'transform': from_origin(590_000.0 + 0.5 * size * number, 5_750_000.0, 0.5, 0.5),
            'crs': 'EPSG:32631',
        }
        for product, image in (('PS-RGB', scene.rgb), ('SAR-Intensity', radar)):
            name = f'SN6_Train_AOI_11_Rotterdam_{product}_20190804111224_tile_{8700 + number}.tif'
            save_tif(root / product / name, image, **grid)
    return root


def make_scene_pairs(root: Path, *, seed: int = 0, count: int = 2, size: int = 200) -> Path:
    """Whole scenes as sensors deliver them: ``{optical,sar}/<name>.tif``, each on its own grid.

    Optical uint8 RGB at 0.5 m in UTM (EPSG:32631). The radar of the first scene is uint16 at 0.4 m
    in degrees (EPSG:4326), covers another extent and has 0 (declared) for no data; that of the
    second is uint8 on the optical grid but one row of pixels off by a third of a pixel, without a
    declared value. The right eighth of the optical image is empty (declared 0) in the first.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Scenes.
        size: Shorter side of an optical scene in pixels.
    """
    root = Path(root)
    for number in range(count):
        rng = generator(seed, 93, number)
        height, width = size, size + 40
        scene = draw(rng, height, width, count=9)
        radar, rgb = backscatter(rng, scene), scene.rgb.copy()
        left, top = 590_000.0 + 1000 * number, 5_750_000.0
        grid = from_origin(left, top, 0.5, 0.5)
        name = f'scene_{number}.tif'
        if number % 2 == 0:
            rgb = np.maximum(rgb, 1)
            rgb[:, -width // 8 :] = 0
            save_tif(root / 'optical' / name, rgb, transform=grid, crs='EPSG:32631', nodata=0)
            warped, place = _to_degrees(as_uint16(radar), grid)
            save_tif(root / 'sar' / name, warped, transform=place, crs='EPSG:4326', nodata=0)
        else:
            save_tif(root / 'optical' / name, rgb, transform=grid, crs='EPSG:32631')
            grid = from_origin(left + 0.5 / 3, top, 0.5, 0.5)
            save_tif(root / 'sar' / name, as_uint8(radar), transform=grid, crs='EPSG:32631')
    return root


def _to_degrees(image: Array, grid: object) -> tuple[Array, object]:
    """An image in UTM, warped to a grid in degrees that reaches beyond it on one side."""
    height, width = image.shape
    left, top = grid.c, grid.f
    bounds = (left, top - 0.5 * height, left + 0.5 * width, top)
    west, south, east, north = transform_bounds('EPSG:32631', 'EPSG:4326', *bounds)
    step = 0.4 / 111_000  # about 0.4 m of latitude
    west -= 20 * step
    shape = round((north - south) / step), round((east - west) / step)
    place = from_origin(west, north, step, step)
    warped = np.zeros(shape, image.dtype)
    reproject(
        image, warped, src_transform=grid, src_crs='EPSG:32631', dst_transform=place,
        dst_crs='EPSG:4326', src_nodata=0, dst_nodata=0, resampling=Resampling.nearest,
    )  # fmt: skip
    return warped, place


def make_guso(root: Path, *, seed: int = 0, count: int = 3, size: int = 96) -> Path:
    """GUSO, registered pairs: ``<terrain>-<split>/{opt,sar}/<name>.png``, 8 bits.

    The published set has one archive for each terrain (urban, rural, plain, hill, water, and
    disaster, which has a test part only) and split; 593,335 pairs at 0.16 to 0.98 m; the way inside
    of the archives is not public, so that the two folders are ours (mars.md 5). Optical images are
    RGB, radar is one band. A pair has one name and is aligned.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Pairs of each archive (here: urban's train, val and test, and disaster's test).
        size: Side of an image (real: 512 and more).
    """
    root = Path(root)
    for place, archive in enumerate(('urban-train', 'urban-val', 'urban-test', 'disaster-test')):
        for number in range(count):
            rng = generator(seed, 94, place, number)
            scene = draw(rng, size, size, count=8)
            name = f'{archive.split("-")[0]}_{number:06d}.png'
            save(root / archive / 'opt' / name, scene.rgb)
            save(root / archive / 'sar' / name, as_uint8(backscatter(rng, scene)))
    return root


def make_scene_labels(root: Path, *, seed: int = 0, count: int = 2, size: int = 64) -> Path:
    """Labelled pairs of ones own, one class a pair: ``<split>/{rgb,sar}/<class>/<name>.tif``.

    rgb uint8, radar uint16; one validation pair has no radar image at all.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Pairs of each class in each split (train, val).
        size: Side of an image.
    """
    root = Path(root)
    for place, split in enumerate(('train', 'val')):
        for label, title in enumerate(SCENES):
            for number in range(count):
                rng = generator(seed, 96, place, label, number)
                scene = draw(rng, size, size, count=4, classes=(label + 1,))
                name = f'{title}_{number:03d}.tif'
                save_tif(root / split / 'rgb' / title / name, scene.rgb)
                if split == 'train' or number or label:
                    radar = as_uint16(backscatter(rng, scene))
                    save_tif(root / split / 'sar' / title / name, radar)
    return root


def make_scene_multilabels(root: Path, *, seed: int = 0, count: int = 4, size: int = 64) -> Path:
    """Labelled pairs of ones own, several classes a pair: ``{rgb,sar}/<name>.tif``, two lists.

    ``<split>.json`` in mmpretrain's form (``metainfo.classes``; ``data_list`` of ``img_path`` and
    ``gt_label``, a list that may be empty).

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Pairs of each split (train, val); the last has no class.
        size: Side of an image.
    """
    root = Path(root)
    for place, split in enumerate(('train', 'val')):
        entries = []
        for number in range(count):
            rng = generator(seed, 97, place, number)
            objects = 0 if number == count - 1 else 1 + number % 3
            scene = draw(
                rng, size, size, count=objects, classes=(1 + number % 3, 1 + (number + 1) % 3)
            )
            name = f'{split}_{number:04d}.tif'
            save_tif(root / 'rgb' / name, scene.rgb)
            save_tif(root / 'sar' / name, as_uint8(backscatter(rng, scene)))
            entries.append({'img_path': name, 'gt_label': sorted({c - 1 for c in scene.classes})})
        content = {'metainfo': {'classes': list(SCENES)}, 'data_list': entries}
        (root / f'{split}.json').write_text(json.dumps(content))
        write_lines(root / f'{split}.txt', [str(entry['img_path']) for entry in entries])
    return root
