# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""One HTML file of a scene and what was found in it, for any browser, without a network.

The image is embedded, reduced; outlines stay vectors, and a map of classes stays numbers, so that
classes can be hidden and the least score chosen in the page.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import shapely
from affine import Affine

from mmrsfm.errors import ConfigError
from mmrsfm.utils.conversion import write_whole
from mmrsfm.visualization.panels import distinct_colours

_TEMPLATE = Path(__file__).with_name('scene_page.html')
_JPEG_QUALITY = 85


@dataclass(frozen=True, eq=False)
class PageObjects:
    """Objects of a page.

    Attributes:
        polygons: Shapely polygons and multipolygons in pixels of the scene, (N,).
        labels: Numbers of the classes, (N,).
        scores: In [0, 1], (N,).
    """

    polygons: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


def write_scene_page(
    path: str | Path,
    title: str,
    images: Sequence[tuple[str, np.ndarray]],
    size: tuple[int, int],
    classes: Sequence[str] = (),
    palette: Sequence[Sequence[int]] | None = None,
    objects: PageObjects | None = None,
    class_map: np.ndarray | None = None,
    nodata: int = 255,
    crs: str | None = None,
    transform: Affine | None = None,
    facts: Mapping[str, Any] | None = None,
    max_side: int = 2048,
) -> None:
    """Writes the page of a scene.

    Args:
        path: The file; it appears when it is complete.
        title: Its title.
        images: Name and picture, uint8 (h, w, 3), of one or several images that show all of the
            scene at any resolution, e.g. of two dates.
        size: Height and width of the scene in pixels.
        classes: Names of the classes.
        palette: Colour of each class, red, green, blue in 0 to 255; chosen where there is none.
        objects: What is outlined.
        class_map: uint8 (h, w) of any resolution: numbers of the classes.
        nodata: The number in ``class_map`` that is no class.
        crs: Name of the scene's coordinate reference system.
        transform: Of the scene: the page then shows coordinates under the pointer.
        facts: What is said at the side: names and values.
        max_side: Longer pictures are reduced to this many pixels.

    Raises:
        ConfigError: If there is no image, or a class has no name.
        OSError: If the file cannot be written.
    """
    if not images:
        raise ConfigError('a page needs an image')
    labels = [] if objects is None else np.asarray(objects.labels).tolist()
    used = {*labels, *(() if class_map is None else np.unique(class_map[class_map != nodata]))}
    if used and not 0 <= min(used) <= max(used) < len(classes):
        raise ConfigError(f'there are {len(classes)} classes, but number {max(used)} is used')
    colours = [*(palette or ()), *distinct_colours(len(classes))[len(palette or ()) :]]
    data: dict[str, Any] = {
        'size': [int(size[1]), int(size[0])],
        'images': [
            {'name': name, 'source': _embedded(_reduced(image, max_side), '.jpg')}
            for name, image in images
        ],
        'classes': [str(name) for name in classes],
        'palette': [[int(part) for part in colour] for colour in colours],
    }
    if objects is not None:
        data['objects'] = {
            'labels': labels,
            'scores': np.asarray(objects.scores, np.float64).round(3).tolist(),
            'rings': [_rings(polygon) for polygon in objects.polygons],
        }
    if class_map is not None:
        numbers = _reduced(class_map.astype(np.uint8), max_side)
        counts = np.bincount(numbers[numbers != nodata], minlength=len(classes))
        shares = counts / max(counts.sum(), 1)
        data['map'] = {
            'source': _embedded(numbers, '.png'), 'nodata': nodata,
            'shares': [f'{share:.1%}' for share in shares],
        }  # fmt: skip
    if transform is not None:
        # As many digits as a tenth of a pixel needs.
        pixel = max(abs(transform.a) + abs(transform.b), 1e-12)
        data |= {
            'transform': [float(value) for value in tuple(transform)[:6]],
            'crs': crs or 'coordinates of the image', 'decimals': digits_of(pixel / 10),
        }  # fmt: skip
    text = _TEMPLATE.read_text(encoding='utf-8')
    # A "<" in a name would end the element of the data.
    content = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(',', ':'))
    rows = ''.join(
        f'<dt>{html.escape(str(name))}</dt><dd>{html.escape(str(value))}</dd>'
        for name, value in (facts or {}).items()
    )
    # One pass: what is put in is not looked at again.
    fills = {'TITLE': html.escape(title), 'FACTS': rows, 'DATA': content.replace('<', '\\u003c')}
    parts = text.split('@@')
    filled = [fills[part] if at % 2 else part for at, part in enumerate(parts)]
    write_whole(path, ''.join(filled).encode())


def digits_of(value: float) -> int:
    """Decimals with which a positive number shows, at most 9: 0.05 needs 2."""
    return int(np.clip(np.ceil(-np.log10(value)), 0, 9))


def _reduced(picture: np.ndarray, max_side: int) -> np.ndarray:
    share = max_side / max(picture.shape[:2])
    if share >= 1:
        return picture
    height, width = (max(round(side * share), 1) for side in picture.shape[:2])
    # Numbers of classes have no mean.
    how = cv2.INTER_AREA if picture.ndim == 3 else cv2.INTER_NEAREST
    return cv2.resize(picture, (width, height), interpolation=how)


def _embedded(picture: np.ndarray, suffix: str) -> str:
    pixels = np.ascontiguousarray(picture[..., ::-1] if picture.ndim == 3 else picture)
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if suffix == '.jpg' else []
    done, content = cv2.imencode(suffix, pixels, options)
    if not done:
        raise ConfigError(f'a picture of shape {picture.shape} cannot be embedded')
    kind = 'jpeg' if suffix == '.jpg' else 'png'
    return f'data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode()}'


def _rings(polygon: shapely.Geometry) -> list[list[int]]:
    """The rings of a polygon as x, y, x, y, ... in tenths of a pixel, without the closing point."""
    found = []
    for part in getattr(polygon, 'geoms', [polygon]):
        for ring in (part.exterior, *part.interiors):
            points = np.rint(shapely.get_coordinates(ring)[:-1] * 10).astype(int)
            found.append(points.ravel().tolist())
    return found
