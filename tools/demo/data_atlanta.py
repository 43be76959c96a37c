# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Building footprints of the SpaceNet Atlanta scene, as it comes in the package solaris.

One panchromatic scene of 450 m x 450 m at 0.5 m with 43 building polygons, cut into a training and
a test area with a gap between them, for three tasks: oriented boxes, building masks, and a change
of buildings that is **simulated**: there is one date only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from shapely.geometry import MultiPolygon, Polygon, box, shape

from mmrsfm.errors import ConfigError, CorruptImageError, DatasetNotFoundError

SCENE = 'sample_geotiff.tif'
LABELS = 'geotiff_labels.geojson'
CLASSES = ('building',)
# Columns of the two areas; between them lie 84 columns (42 m) that nobody sees.
AREAS = {'train': (384, 900), 'test': (0, 300)}
# Boxes and masks: patches of the size that the model trains on (pixels; 96 m), so that few steps
# are enough to learn them. Steps between them in rows and columns, so that they cover the area.
SIZE = 192
STRIDES = {'train': (177, 162), 'test': (177, 108)}
# Change: larger patches, to be cropped. Those for training overlap.
CHANGE_SIZE = 300
CHANGE_STRIDES = {'train': (100, 108), 'test': (CHANGE_SIZE, CHANGE_SIZE)}


@dataclass(frozen=True)
class Patch:
    """A square of the scene.

    Attributes:
        name: File stem: scene, side, column and row, as splitters of DOTA write it.
        image: uint8 (H, W).
        polygons: Buildings in pixels of the patch, clipped to it.
    """

    name: str
    image: np.ndarray
    polygons: list[Polygon]


def read_scene(path: Path) -> tuple[np.ndarray, rasterio.Affine]:
    """Reads the 16-bit band and stretches it to 8 bits between its percentiles 1 and 99.

    Args:
        path: The GeoTIFF.

    Returns:
        uint8 (H, W) and the transform from pixels to the map.

    Raises:
        DatasetNotFoundError: If there is no such file.
        CorruptImageError: If it cannot be read.
    """
    if not path.is_file():
        raise DatasetNotFoundError('no such scene', path=path)
    try:
        with rasterio.open(path) as source:
            band, transform = source.read(1).astype(np.float32), source.transform
    except RasterioError as error:
        raise CorruptImageError(f'cannot be read ({error})', path=path) from error
    low, high = np.percentile(band, (1, 99))
    # A square root would be too much, a straight line leaves the shadows black.
    scaled = np.clip((band - low) / max(float(high - low), 1e-6), 0, 1) ** 0.7
    return (scaled * 255).round().astype(np.uint8), transform


def read_buildings(path: Path, transform: rasterio.Affine) -> list[Polygon]:
    """Reads the polygons of a GeoJSON file in the coordinates of the scene, as pixels.

    Args:
        path: The GeoJSON file.
        transform: Of the scene.

    Returns:
        Polygons with x = column and y = row; parts of a multipolygon are polygons of their own.

    Raises:
        DatasetNotFoundError: If there is no such file.
        CorruptImageError: If it is no GeoJSON of polygons.
    """
    if not path.is_file():
        raise DatasetNotFoundError('no such file of polygons', path=path)
    inverse = ~transform
    turn = np.array([[inverse.a, inverse.d], [inverse.b, inverse.e]])
    origin = (inverse.c, inverse.f)
    found = []
    try:
        for feature in json.loads(path.read_text())['features']:
            geometry = shape(feature['geometry'])
            parts = geometry.geoms if isinstance(geometry, MultiPolygon) else [geometry]
            for part in parts:
                rings = [
                    np.asarray(ring.coords)[:, :2] @ turn + origin
                    for ring in (part.exterior, *part.interiors)
                ]
                found.append(Polygon(rings[0], rings[1:]).buffer(0))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptImageError(f'is no GeoJSON of polygons ({error})', path=path) from error
    return [polygon for polygon in found if not polygon.is_empty]


def cut_patches(
    scene: np.ndarray,
    buildings: Sequence[Polygon],
    columns: tuple[int, int],
    strides: tuple[int, int],
    size: int,
    keep: float = 0.4,
) -> Iterator[Patch]:
    """Cuts the patches of an area.

    Args:
        scene: uint8 (H, W).
        buildings: In pixels of the scene.
        columns: First column and end of the area.
        strides: Steps between patches, in rows and in columns.
        size: Side of the patches.
        keep: A building of which less than this share is inside does not count as one.

    Yields:
        The patches, row by row.
    """
    for top in range(0, scene.shape[0] - size + 1, strides[0]):
        for left in range(columns[0], columns[1] - size + 1, strides[1]):
            window = box(left, top, left + size, top + size)
            inside = []
            for building in buildings:
                part = building.intersection(window)
                if part.area > keep * building.area:
                    pieces = [piece for piece in getattr(part, 'geoms', [part]) if piece.area]
                    largest = max(pieces, key=lambda piece: piece.area)
                    inside.append(
                        Polygon([(x - left, y - top) for x, y in largest.exterior.coords])
                    )
            image = scene[top : top + size, left : left + size]
            yield Patch(f'atlanta__{size}__{left}___{top}', image.copy(), inside)


def oriented_box(polygon: Polygon) -> np.ndarray:
    """The rectangle of least area around a polygon, float32 (4, 2): x and y of its corners."""
    rectangle = polygon.minimum_rotated_rectangle
    return np.asarray(rectangle.exterior.coords[:4], dtype=np.float32)


def dota_lines(polygons: Sequence[Polygon], name: str = CLASSES[0]) -> str:
    """The lines of a DOTA annotation file: eight coordinates, class, difficulty."""
    lines = []
    for polygon in polygons:
        numbers = ' '.join(f'{value:.1f}' for value in oriented_box(polygon).ravel())
        lines.append(f'{numbers} {name} 0\n')
    return ''.join(lines)


def polygon_mask(polygons: Sequence[Polygon], size: int) -> np.ndarray:
    """Burns polygons into a mask, uint8 (size, size): 1 where a pixel's centre is in one."""
    if not polygons:
        return np.zeros((size, size), dtype=np.uint8)
    return rasterize([(polygon, 1) for polygon in polygons], (size, size), dtype='uint8')


def remove_buildings(
    image: np.ndarray,
    polygons: Sequence[Polygon],
    ground: np.ndarray,
    occupied: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Paints over buildings with ground from elsewhere.

    Args:
        image: uint8 (H, W).
        polygons: The buildings to remove, in pixels of the image.
        ground: uint8 (H', W'), the area from which the ground is taken.
        occupied: uint8 (H', W'), 1 where a building stands.
        rng: Chooses the places.

    Returns:
        uint8 (H, W).

    Raises:
        ConfigError: If there is no ground without buildings that is large enough.
    """
    out = image.astype(np.float32)
    for polygon in polygons:
        mask = polygon_mask([polygon.buffer(3)], len(image))
        rows, columns = np.nonzero(mask)
        if not rows.size:
            continue
        top, left = max(rows.min() - 5, 0), max(columns.min() - 5, 0)
        inside = (slice(top, rows.max() + 6), slice(left, columns.max() + 6))
        height, width = mask[inside].shape
        # A window of this size is free where no building is within it.
        anchor = (width - 1 - width // 2, height - 1 - height // 2)
        taken = cv2.dilate(occupied, np.ones((height, width), np.uint8), anchor=anchor)
        free = np.argwhere(taken[height : -height or None, width : -width or None] == 0)
        if not len(free):
            raise ConfigError(
                f'nowhere in the area are {height} x {width} pixels without a building'
            )
        row, column = free[rng.integers(len(free))] + (height, width)
        row, column = row - height // 2, column - width // 2
        donor = ground[row : row + height, column : column + width].astype(np.float32)
        soft = cv2.GaussianBlur(mask[inside].astype(np.float32), (0, 0), 1.5)
        # As bright as its surroundings, or the place would stand out by its mean.
        ring = cv2.dilate(mask, np.ones((25, 25), np.uint8)) - mask > 0
        shift = np.median(out[ring]) - np.median(donor)
        out[inside] = out[inside] * (1 - soft) + (donor + shift) * soft
    return np.clip(out, 0, 255).astype(np.uint8)


def other_date(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What differs between two dates without any change: light, haze, focus, noise, half a pixel.

    Args:
        image: uint8 (H, W).
        rng: Draws the differences.

    Returns:
        uint8 (H, W).
    """
    shift = np.float32([[1, 0, rng.uniform(-0.5, 0.5)], [0, 1, rng.uniform(-0.5, 0.5)]])
    moved = cv2.warpAffine(image, shift, image.shape[::-1], borderMode=cv2.BORDER_REFLECT)
    moved = cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.4, 0.8)).astype(np.float32) / 255
    light = moved ** rng.uniform(0.8, 1.25) * rng.uniform(0.85, 1.1) + rng.uniform(-0.05, 0.08)
    noisy = light + rng.normal(0, 0.02, image.shape)
    return (np.clip(noisy, 0, 1) * 255).round().astype(np.uint8)


def build_obb(source: Path, target: Path) -> None:
    """Writes ``{train,test}/{images,labelTxt}``: the layout of DOTA after splitting."""
    for split, patch in _patches(source):
        _write_image(target / split / 'images' / f'{patch.name}.png', patch.image)
        path = target / split / 'labelTxt' / f'{patch.name}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dota_lines(patch.polygons))


def build_seg(source: Path, target: Path) -> None:
    """Writes ``{train,test}/{images,masks}``: masks of 0 (background) and 1 (building)."""
    for split, patch in _patches(source, keep=0.0):
        _write_image(target / split / 'images' / f'{patch.name}.png', patch.image)
        mask = polygon_mask(patch.polygons, SIZE)
        _write_image(target / split / 'masks' / f'{patch.name}.png', mask)


def build_cd(source: Path, target: Path, versions: int = 4) -> None:
    """Writes ``{train,test}/{A,B,label}``: the layout of LEVIR-CD, with a simulated change.

    Half of the buildings are painted over in one of the two dates, which of them and in which date
    is drawn; date B is seen in another light. Labels are 0 and 255.

    Args:
        source: The unpacked sample.
        target: The folder to fill.
        versions: Draws of each patch.
    """
    scene, transform = read_scene(source / SCENE)
    buildings = read_buildings(source / LABELS, transform)
    occupied = rasterize([(one, 1) for one in buildings], scene.shape, dtype='uint8')
    for split, columns in AREAS.items():
        area = (slice(None), slice(*columns))
        patches = cut_patches(scene, buildings, columns, CHANGE_STRIDES[split], CHANGE_SIZE)
        for number, patch in enumerate(one for one in patches if one.polygons):
            for version in range(versions):
                rng = np.random.default_rng([number, version, split == 'train'])
                fate = rng.integers(0, 4, len(patch.polygons))  # 0: gone, 1: new, else as it was
                gone = [one for one, f in zip(patch.polygons, fate, strict=True) if f == 0]
                new = [one for one, f in zip(patch.polygons, fate, strict=True) if f == 1]
                before = remove_buildings(patch.image, new, scene[area], occupied[area], rng)
                after = remove_buildings(patch.image, gone, scene[area], occupied[area], rng)
                name = f'{patch.name}_{version}.png'
                _write_image(target / split / 'A' / name, before)
                _write_image(target / split / 'B' / name, other_date(after, rng))
                label = polygon_mask(gone + new, CHANGE_SIZE) * 255
                _write_image(target / split / 'label' / name, label)


def _patches(source: Path, keep: float = 0.4) -> Iterator[tuple[str, Patch]]:
    scene, transform = read_scene(source / SCENE)
    buildings = read_buildings(source / LABELS, transform)
    for split, columns in AREAS.items():
        for patch in cut_patches(scene, buildings, columns, STRIDES[split], SIZE, keep):
            yield split, patch


def _write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
