# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""OSCD, WHU-CD, LEVIR-CD and CDD (SVCD): two dates, and where they differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from PIL import Image

from .drawing import colour, generator, paint, rectangles, save, save_palette, terrain, write_lines


def pair(
    rng: np.random.Generator, height: int, width: int, changed: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two dates, (H, W, 3) uint8 each, and the change, (H, W) bool.

    Buildings of the first date stand on the second too, but for one; three are new; the light and
    the ground differ everywhere, which is no change.
    """
    ground = terrain(rng, height, width)
    second = np.clip(ground.astype(int) + rng.integers(-25, 26), 0, 255).astype(np.uint8)
    first, mask = ground.copy(), np.zeros((height, width), np.uint8)
    for k, polygon in enumerate(rectangles(rng, height, width, 6)):
        if k < 3 or not changed:  # stays
            first, second = (paint(image, polygon, colour(k % 3)) for image in (first, second))
        elif k == 3:  # pulled down
            first, mask = paint(first, polygon, colour(1)), paint(mask, polygon, 1)
        else:  # new
            second, mask = paint(second, polygon, colour(k)), paint(mask, polygon, 1)
    return first, second, mask.astype(bool)


def _triples(
    root: Path,
    splits: dict[str, Callable[[int], str]],
    seed: int,
    count: int,
    size: int,
    address: int,
    save_label: Callable[[Path, np.ndarray, int], object],
    suffix: str = '.png',
) -> Path:
    """Writes ``<split>/{A,B,label}``; the last of several images has no change."""
    for place, (split, name) in enumerate(splits.items()):
        for number in range(count):
            rng = generator(seed, address, place, number)
            changed = count == 1 or number < count - 1
            first, second, mask = pair(rng, size, size, changed)
            file = name(number) + suffix
            save(root / split / 'A' / file, first)
            save(root / split / 'B' / file, second)
            path = root / split / 'label' / file
            path.parent.mkdir(parents=True, exist_ok=True)
            save_label(path, mask, number)
    return root


def _grey(path: Path, mask: np.ndarray, number: int) -> None:
    save(path, mask.astype(np.uint8) * 255)


def make_oscd(root: Path, *, seed: int = 0, count: int = 2, size: int = 96) -> Path:
    """OSCD, red, green and blue, as the benchmark reads it: ``{train,test}/{A,B,label}/*.png``.

    96x96 patches of the Sentinel-2 pairs; labels 0 and 255, 8-bit grey (mtp_finetune.md 2.1;
    Caye Daudt et al., IGARSS 2018). There is no validation split.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Patches of each split.
        size: Side of a patch.
    """
    splits = {'train': lambda n: f'beirut_{n}_0', 'test': lambda n: f'brasilia_{n}_0'}
    return _triples(Path(root), splits, seed, count, size, 81, _grey)


def make_whu_cd(root: Path, *, seed: int = 0, count: int = 2, size: int = 64) -> Path:
    """WHU-CD as the benchmark reads it: ``{train,val,test}/{A,B,label}/*.png``, 256x256 patches.

    The source label is a tif of one bit a pixel, and the published patchings keep different kinds
    of png: the first label here is 8-bit grey with 0 and 255, the second of **one bit** a pixel
    (which decoders give as 0 and 1 or as 0 and 255). No suffix is configured, and file names are
    alike in the three folders (mtp_finetune.md 2.1; Ji et al., TGRS 2019).

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Patches of each split.
        size: Side of a patch.
    """

    def label(path: Path, mask: np.ndarray, number: int) -> None:
        if number % 2 == 1:
            Image.fromarray(mask).save(path)  # mode 1
        else:
            _grey(path, mask, number)

    splits = {s: (lambda n, s=s: f'whucd_{s}_{n:05d}') for s in ('train', 'val', 'test')}
    return _triples(Path(root), splits, seed, count, size, 82, label)


def make_levir_cd(root: Path, *, seed: int = 0, count: int = 2, size: int = 64) -> Path:
    """LEVIR-CD as the benchmark reads it: ``{train,val,test}/{A,B,label}/*.png``, 256x256 patches.

    Names as in the widely used patching, ``train_36_0512_0512.png`` (image, row and column of the
    window); labels 8-bit grey, 0 and 255 (the real triples that we have; mtp_finetune.md 2.1; Chen
    and Shi, Remote Sensing 2020). One label is a palette png, as image tools leave them: the
    index is not the value.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Patches of each split.
        size: Side of a patch.
    """

    def label(path: Path, mask: np.ndarray, number: int) -> None:
        if number == 1:
            save_palette(path, mask.astype(np.uint8), [(0, 0, 0), (255, 255, 255)])
        else:
            _grey(path, mask, number)

    splits = {
        s: (lambda n, s=s: f'{s}_{n + 1}_0000_{256 * n:04d}') for s in ('train', 'val', 'test')
    }
    return _triples(Path(root), splits, seed, count, size, 83, label)


def make_cdd(root: Path, *, seed: int = 0, count: int = 2, size: int = 64) -> Path:
    """CDD (SVCD) as the benchmark reads it: ``{train,val,test}/{A,B,label}/*.jpg``, 256x256.

    Labels are **JPEG** too, so that their values only lie near 0 and 255, and the threshold at 128
    matters; real folders call them ``OUT``, which was renamed. Names are ``00000.jpg`` and on
    (mtp_finetune.md 2.1; Lebedev et al., ISPRS Archives 2018). The second label here is a JPEG in
    colour.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images of each split.
        size: Side of an image.
    """

    def label(path: Path, mask: np.ndarray, number: int) -> None:
        mode = 'RGB' if number % 2 == 1 else None
        save(path, mask.astype(np.uint8) * 255, mode=mode, quality=75)

    splits = {s: (lambda n: f'{n:05d}') for s in ('train', 'val', 'test')}
    return _triples(Path(root), splits, seed, count, size, 84, label, '.jpg')


def make_cdd_source(root: Path, *, seed: int = 0, count: int = 2, size: int = 64) -> Path:
    """CDD as it is downloaded: ``Real/subset/{train,val,test}/{A,B,OUT}/<nnnnn>.jpg``."""
    root = Path(root)
    subset = make_cdd(root / 'Real' / 'subset', seed=seed, count=count, size=size)
    for split in ('train', 'val', 'test'):
        (subset / split / 'label').rename(subset / split / 'OUT')
    return root


def make_levir_cd_source(root: Path, *, seed: int = 0, count: int = 2, size: int = 128) -> Path:
    """LEVIR-CD as it is downloaded: ``{train,val,test}/{A,B,label}/<split>_<n>.png``, 1024x1024.

    Numbers from 1; RGB and 8-bit grey (0, 255).

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Images of each split.
        size: Side of an image.
    """
    splits = {s: (lambda n, s=s: f'{s}_{n + 1}') for s in ('train', 'val', 'test')}
    return _triples(Path(root), splits, seed, count, size, 85, _grey)


def make_whu_cd_source(
    root: Path, *, seed: int = 0, size: int = 96, layout: str = 'before_after'
) -> Path:
    """WHU-CD as it is downloaded: one big tif a date, and a label of one bit a pixel.

    The building change detection set has two forms. ``layout='before_after'``:
    ``before/before.tif``, ``after/after.tif``, ``change label/change_label.tif`` (32507x15354).
    ``layout='two_period'``: ``2012/whole_image/{train,test}/image/2012_train.tif``, the same for
    2016, and ``change_label/{train,test}/change_label.tif``. Images are uint8 RGB at 0.2 m;
    labels are bool (TIFF with one bit a sample). The sides are no multiples of a patch.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        size: Scale of the scenes; the whole one is ``2.5 * size + 13`` by ``size + 7`` pixels.
        layout: ``'before_after'`` or ``'two_period'``.
    """
    root = Path(root)
    height, width = size + 7, int(2.5 * size) + 13
    first, second, mask = pair(generator(seed, 86), height, width)
    whole = slice(None)
    if layout == 'before_after':
        parts = {('before/before.tif', 'after/after.tif', 'change label/change_label.tif'): whole}
    else:
        cut = int(0.6 * width)
        parts = {
            tuple(
                [f'{year}/whole_image/{split}/image/{year}_{split}.tif' for year in (2012, 2016)]
                + [f'change_label/{split}/change_label.tif']
            ): columns
            for split, columns in (('train', slice(cut)), ('test', slice(cut, None)))
        }
    transform = Affine(0.2, 0, 1571000.0, 0, -0.2, 5181000.0)
    for (before, after, label), columns in parts.items():
        for name, image in ((before, first), (after, second)):
            part = np.ascontiguousarray(image[:, columns])
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            with rasterio.open(
                root / name, 'w', driver='GTiff', height=part.shape[0], width=part.shape[1],
                count=3, dtype='uint8', crs='EPSG:2193', transform=transform, photometric='RGB',
            ) as target:  # fmt: skip
                target.write(part.transpose(2, 0, 1))
        (root / label).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(mask[:, columns])).save(root / label)  # mode 1
    return root


BANDS = ('B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B10', 'B11', 'B12')
TRAIN_CITIES = (
    'aguasclaras', 'bercy', 'bordeaux', 'nantes', 'paris', 'rennes', 'saclay_e', 'abudhabi',
    'cupertino', 'pisa', 'beihai', 'hongkong', 'beirut', 'mumbai',
)  # fmt: skip
TEST_CITIES = (
    'brasilia', 'montpellier', 'norcia', 'rio', 'saclay_w', 'valencia', 'dubai', 'lasvegas',
    'milano', 'chongqing',
)  # fmt: skip


def make_oscd_source(root: Path, *, seed: int = 0, count: int = 2, size: int = 120) -> Path:
    """OSCD as it is downloaded: three folders with a folder a city.

    ``Onera Satellite Change Detection dataset - Images/<city>/imgs_{1,2}_rect/<band>.tif``: one
    uint16 tif a band (reflectance times 10000), all resampled to the 10 m grid and registered;
    ``imgs_{1,2}/*_<band>.tif`` in their native 10, 20 and 60 m; ``pair/img{1,2}.png`` (8-bit
    pictures), ``dates.txt``, ``<city>.geojson``; ``train.txt`` and ``test.txt`` with the names of
    all cities, parted by commas, in one line. ``... - {Train,Test} Labels/<city>/cm/``: ``cm.png``
    (0 and 255, 8 bits; some are RGBA) and ``<city>-cm.tif`` (**1 unchanged, 2 changed**).
    Sizes differ by city and are no multiples of a patch. Caye Daudt et al., IGARSS 2018; public
    readers of the set.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Cities of each split that are there; the lists name those alone.
        size: Shorter side of a city in pixels of 10 m.
    """
    root = Path(root)
    title = 'Onera Satellite Change Detection dataset - '
    images = root / (title + 'Images')
    lists = {'train': TRAIN_CITIES[:count], 'test': TEST_CITIES[:count]}
    for place, (split, cities) in enumerate(lists.items()):
        write_lines(images / f'{split}.txt', [','.join(cities)])
        for number, city in enumerate(cities):
            rng = generator(seed, 87, place, number)
            height, width = size + 9 * number, size + 14 + 5 * number
            *dates, mask = pair(rng, height, width)
            for date, picture in enumerate(dates, start=1):
                _write_bands(images / city, date, picture)
                save(images / city / 'pair' / f'img{date}.png', picture)
            write_lines(images / city / 'dates.txt', ['date_1: 20160620', 'date_2: 20180318'])
            (images / city / f'{city}.geojson').write_text(
                '{"type": "FeatureCollection", "features": []}'
            )
            folder = root / f'{title}{split.capitalize()} Labels' / city / 'cm'
            save(folder / 'cm.png', mask.astype(np.uint8) * 255, mode='RGBA' if number else None)
            save(folder / f'{city}-cm.tif', mask.astype(np.uint8) + 1)
    return root


def _write_bands(folder: Path, date: int, picture: np.ndarray) -> None:
    """The 13 bands of one date, made of a picture: blue, green, red are B02, B03, B04."""
    red, green, blue = (picture[..., k].astype(np.uint16) * 12 + 200 for k in range(3))
    channel = {'B02': blue, 'B03': green, 'B04': red}
    granule = 'S2A_OPER_MSI_L1C_TL_EPA__20160620T100000_A000001_T36SYC'
    for name in BANDS:
        values = channel.get(name, (red + blue) // 2)
        step = 1 if name in ('B02', 'B03', 'B04', 'B08') else 2
        step = 6 if name in ('B01', 'B09', 'B10') else step
        native = values[::step, ::step]
        for path, array in (
            (folder / f'imgs_{date}_rect' / f'{name}.tif', values),
            (folder / f'imgs_{date}' / f'{granule}_{name}.tif', native),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(array)).save(path)  # 16-bit grey
