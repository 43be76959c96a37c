# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pictures with objects on them, and the files they are kept in.

What is drawn and what is written to the label files are the same polygons, so that a box that does
not lie on its object is a fault of the reader, and a model can learn from a few images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from affine import Affine
from PIL import Image, ImageDraw

Array = np.ndarray


def generator(seed: int, *address: int) -> np.random.Generator:
    """A generator of its own for each (data set, split, image): counts can change freely."""
    return np.random.default_rng([seed, *address])


def terrain(rng: np.random.Generator, height: int, width: int) -> Array:
    """(H, W, 3) uint8: slow waves of dark colour and a little noise; objects are brighter."""
    coarse = rng.integers(40, 100, (4, 4, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noise = rng.integers(-6, 7, (height, width, 3))
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def colour(label: int) -> tuple[int, int, int]:
    """A bright colour for a class (no two of the first 125 are equal)."""
    steps = (140, 165, 190, 215, 240)
    return steps[label % 5], steps[label // 5 % 5], steps[(label // 25 + 2 * label) % 5]


def rectangles(
    rng: np.random.Generator,
    height: int,
    width: int,
    count: int,
    *,
    rotated: bool = True,
    margin: float = 1.0,
) -> Array:
    """(n, 4, 2) float: up to ``count`` rectangles (x, y) within the image that do not touch.

    Corners run clockwise on the screen from what is the upper left one before the turn. The sides
    are an eighth to a third of the shorter image side, at least 8 pixels the longer one.
    """
    short = min(height, width)
    found: list[Array] = []
    circles: list[tuple[float, float, float]] = []
    for _ in range(count * 30):
        if len(found) == count:
            break
        long_side = max(rng.uniform(0.18, 0.33) * short, 8.0)
        short_side = max(long_side * rng.uniform(0.4, 0.75), 5.0)
        angle = rng.uniform(0, np.pi) if rotated else 0.0
        if not rotated and rng.random() < 0.5:
            long_side, short_side = short_side, long_side
        radius = float(np.hypot(long_side, short_side)) / 2
        if 2 * (radius + margin) >= short:
            continue
        x = rng.uniform(radius + margin, width - 1 - radius - margin)
        y = rng.uniform(radius + margin, height - 1 - radius - margin)
        if any(np.hypot(x - a, y - b) < radius + r + 1 for a, b, r in circles):
            continue
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (long_side / 2, short_side / 2)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        found.append(corners @ turn + (x, y))
        circles.append((x, y, radius))
    return np.array(found).reshape(-1, 4, 2)


def paint(image: Array, polygon: Array, value: int | Sequence[int]) -> Array:
    """Fills a polygon, (n, 2) of x and y, in a copy of an image or mask."""
    picture = Image.fromarray(image)
    fill = int(value) if np.isscalar(value) else tuple(int(v) for v in value)
    ImageDraw.Draw(picture).polygon([(float(x), float(y)) for x, y in polygon], fill=fill)
    return np.array(picture)


def bounds(polygon: Array) -> tuple[int, int, int, int]:
    """Whole numbers (left, top, right, bottom) around a polygon."""
    left, top = np.floor(polygon.min(0))
    right, bottom = np.ceil(polygon.max(0))
    return int(left), int(top), int(right), int(bottom)


def world(transform: Affine, x: float, y: float) -> list[float]:
    """[x, y] on the map of a point in pixels; the operators of affine differ by its version."""
    a, b, c, d, e, f = transform[:6]
    return [float(a * x + b * y + c), float(d * x + e * y + f)]


def save(path: Path, image: Array, *, mode: str | None = None, **options: object) -> Path:
    """Writes an image by its suffix, in another mode of PIL if one is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(image)
    if mode is not None:
        picture = picture.convert(mode)
    if path.suffix == '.jpg':
        options.setdefault('quality', 95)
    picture.save(path, **options)
    return path


def save_palette(path: Path, indices: Array, palette: Sequence[Sequence[int]]) -> Path:
    """Writes a palette png: the file holds the indices, and the colours they stand for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(indices)
    picture.putpalette([int(v) for entry in palette for v in entry])
    picture.save(path)
    return path


def write_lines(path: Path, lines: Sequence[str], newline: str = '\n') -> Path:
    """Writes lines, each with its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(''.join(line + newline for line in lines).encode())
    return path
