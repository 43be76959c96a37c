# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Tree boxes of NEON, as they come in the package deepforest, as a COCO data set of tiles."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from mmrsfm.errors import CorruptImageError, DatasetNotFoundError

# Test is an image of another forest. Those for training are the small ones of the package: a few
# hundred steps can learn them. Dead trees are told apart in one image only, so there is one class.
SPLITS = {
    'train': ('OSBS_029.tif', 'SOAP_061.png'),
    'test': ('2019_YELL_2_541000_4977000_image_crop.png',),
}
# For the map of a whole scene, which is the test: all that lies elsewhere. The two images of
# Yellowstone are 13 km apart by their names, and no part of one correlates with the other.
SCENE_SPLITS = {
    'train': (*SPLITS['train'], *SPLITS['test']),
    'test': ('2019_YELL_2_528000_4978000_image_crop2.png',),
}
CLASSES = ('tree',)


@dataclass(frozen=True)
class Tile:
    """A square of an image: left column, top row and side in pixels."""

    left: int
    top: int
    size: int


def read_voc_boxes(path: Path) -> np.ndarray:
    """Reads the boxes of an annotation file in the format of Pascal VOC.

    Args:
        path: The XML file.

    Returns:
        float32 (N, 4): left, top, right, bottom in pixels.

    Raises:
        DatasetNotFoundError: If there is no such file.
        CorruptImageError: If it cannot be read, or a box is empty or upside down.
    """
    if not path.is_file():
        raise DatasetNotFoundError('no such annotation file', path=path)
    boxes = []
    try:
        for thing in ElementTree.parse(path).iter('bndbox'):
            corners = [thing.findtext(name) for name in ('xmin', 'ymin', 'xmax', 'ymax')]
            boxes.append([float(value) for value in corners])  # type: ignore[arg-type]
    except (ElementTree.ParseError, TypeError, ValueError) as error:
        raise CorruptImageError(f'is no annotation of Pascal VOC ({error})', path=path) from error
    found = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    if (found[:, 2:] <= found[:, :2]).any():
        raise CorruptImageError('has a box without area', path=path)
    return found


def read_rgb(path: Path) -> np.ndarray:
    """Reads the first three bands of an 8-bit image, uint8 (H, W, 3)."""
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', NotGeoreferencedWarning)
            with rasterio.open(path) as source:
                return np.ascontiguousarray(source.read([1, 2, 3]).transpose(1, 2, 0))
    except (RasterioError, IndexError) as error:
        raise CorruptImageError(f'is no RGB image ({error})', path=path) from error


def make_tiles(height: int, width: int, size: int) -> list[Tile]:
    """Covers an image with as few tiles as possible, spread evenly; they overlap where they must.

    Args:
        height: Rows of the image.
        width: Columns of the image.
        size: Side of a tile; smaller images give one tile of the smaller side.

    Returns:
        The tiles, row by row.
    """
    size = min(size, height, width)

    def starts(length: int) -> list[int]:
        count = -(-length // size)
        return [round(step * (length - size) / max(count - 1, 1)) for step in range(count)]

    return [Tile(left, top, size) for top in starts(height) for left in starts(width)]


def crop_boxes(boxes: np.ndarray, tile: Tile, keep: float = 0.4) -> np.ndarray:
    """Moves boxes into a tile and clips them there.

    Args:
        boxes: (N, 4) in the image.
        tile: The tile.
        keep: Boxes of which less than this share of the area is inside are dropped.

    Returns:
        (M, 4) in the tile.
    """
    origin = np.array([tile.left, tile.top] * 2, dtype=np.float32)
    clipped = np.clip(boxes - origin, 0, tile.size)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    inside = np.prod(clipped[:, 2:] - clipped[:, :2], axis=1)
    return clipped[inside >= keep * area]


def build_neon_scene(source: Path, target: Path) -> dict[str, tuple[int, int]]:
    """Like :func:`build_neon`, of :data:`SCENE_SPLITS`."""
    return build_neon(source, target, splits=SCENE_SPLITS)


def build_neon(
    source: Path,
    target: Path,
    size: int = 200,
    splits: Mapping[str, Sequence[str]] = SPLITS,
) -> dict[str, tuple[int, int]]:
    """Writes ``{train,test}/<image>__<column>_<row>.png`` and ``{train,test}.json``.

    Args:
        source: The folder with the images and their XML files.
        target: The folder to fill.
        size: Side of the tiles in pixels.
        splits: The images of each split.

    Returns:
        Numbers of tiles and of boxes by split.
    """
    counts = {}
    for split, names in splits.items():
        (target / split).mkdir(parents=True, exist_ok=True)
        images: list[dict] = []
        annotations: list[dict] = []
        for name in names:
            picture = read_rgb(source / name)
            boxes = read_voc_boxes((source / name).with_suffix('.xml'))
            for tile in make_tiles(*picture.shape[:2], size):
                file_name = f'{Path(name).stem}__{tile.left}_{tile.top}.png'
                rows, columns = (slice(at, at + tile.size) for at in (tile.top, tile.left))
                Image.fromarray(picture[rows, columns]).save(target / split / file_name)
                images.append(
                    dict(id=len(images), file_name=file_name, height=tile.size, width=tile.size)
                )
                for left, top, right, bottom in crop_boxes(boxes, tile).tolist():
                    annotations.append(
                        dict(
                            id=len(annotations) + 1,
                            image_id=images[-1]['id'],
                            category_id=1,
                            bbox=[left, top, right - left, bottom - top],
                            area=(right - left) * (bottom - top),
                            iscrowd=0,
                        )
                    )
        categories = [dict(id=number, name=name) for number, name in enumerate(CLASSES, start=1)]
        (target / f'{split}.json').write_text(
            json.dumps(dict(images=images, annotations=annotations, categories=categories))
        )
        counts[split] = (len(images), len(annotations))
    return counts
