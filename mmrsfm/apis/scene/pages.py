# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Results of a scene to look at: a picture, and a page for a browser."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
import shapely
from affine import Affine
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from mmrsfm.apis.scene.area import Region
from mmrsfm.apis.scene.object_files import outlines
from mmrsfm.apis.scene.objects import SceneObjects
from mmrsfm.apis.scene.scene_files import open_scene
from mmrsfm.contract import band_keys
from mmrsfm.utils.rgb import write_png
from mmrsfm.visualization.objects import draw_polygons
from mmrsfm.visualization.panels import colourise, distinct_colours, draw_panels, stretch
from mmrsfm.visualization.scene_page import PageObjects, write_scene_page

_STRIPS = 16
# Longer side of the picture: a PNG of a photograph has 3 bytes a pixel, the page has JPEG.
_PICTURE = 1400
# What red, green and blue are called, in small letters.
_RGB = (('red', 'green', 'blue'), ('b04', 'b03', 'b02'), ('r', 'g', 'b'))


def write_pages(
    out: str | Path,
    stem: str,
    scenes: Sequence[str | Path],
    region: Region,
    classes: Sequence[str] | None,
    palette: Sequence[Sequence[int]] | None = None,
    objects: SceneObjects | None = None,
    result: str | Path | None = None,
    facts: Mapping[str, Any] | None = None,
    band_names: Sequence[str] | None = None,
    max_side: int = 2048,
) -> dict[str, Path]:
    """Writes ``<stem>.html`` and ``<stem>.png``: the scene, reduced, and what was found in it.

    Args:
        out: Their folder.
        stem: Of their names, and the title.
        scenes: The scene; further ones, on any grid, can be chosen in the page.
        region: The rectangle of the first scene that is shown.
        classes: Names of the classes.
        palette: Their colours; chosen where there are none.
        objects: What is outlined, in pixels of the scene.
        result: A map of the region: of classes, if of integers, else of any numbers.
        facts: What the page says of the run.
        band_names: Names of the bands of the scenes, where the files name none.
        max_side: Pixels of the longer side of the pictures.

    Returns:
        The files: ``html`` and ``png``.

    Raises:
        DataError: If a scene cannot be opened.
        OSError: If a file cannot be written.
    """
    out = Path(out)
    files = {'html': out / f'{stem}.html', 'png': out / f'{stem}.png'}
    pictures, crs, transform = _overviews(scenes, region, band_names, max_side)
    class_map, nodata = None, 255
    if result is not None:
        values, nodata = _read_map(result, max_side)
        if values.dtype == np.uint8:
            class_map = values[..., 0]
        else:
            pictures.append(('result', _coloured(values)))
    names = list(classes or [])
    if class_map is not None and not names:
        count = int(class_map[class_map != nodata].max(initial=0)) + 1
        names = [f'class {number}' for number in range(count)]
    colours = list(palette or distinct_colours(len(names)))
    inside: PageObjects | None = None
    if objects is not None:
        polygons = outlines(objects)
        if len(polygons):
            shift = np.array([region.col, region.row])
            polygons = shapely.transform(polygons, lambda points: points - shift)
        inside = PageObjects(polygons, objects.labels, objects.scores)
    write_scene_page(
        files['html'], stem, pictures, (region.height, region.width), names, colours, inside,
        class_map, nodata, crs, transform, facts, max_side,
    )  # fmt: skip
    legend = list(zip(names, colours, strict=False))
    if inside is not None:
        picture = _small(pictures[0][1], _PICTURE)
        scale = picture.shape[1] / region.width
        write_png(
            files['png'],
            draw_polygons(picture, inside.polygons, inside.labels.tolist(), colours, scale),
        )
    else:
        panels = [(name, _small(picture, _PICTURE)) for name, picture in pictures]
        if class_map is not None:
            painted = colourise(class_map, colours)
            painted[class_map == nodata] = 0
            panels.append(('map', _small(painted, _PICTURE, cv2.INTER_NEAREST)))
        sizes = panels[0][1].shape[1::-1]
        panels = [(name, cv2.resize(one, sizes)) for name, one in panels]
        draw_panels(files['png'], panels, legend if class_map is not None else ())
    return files


def read_overview(
    file: Any, region: Region, names: Sequence[str] | None = None, max_side: int = 2048
) -> np.ndarray:
    """A scene as a small picture; what cannot be read stays black.

    Args:
        file: An open dataset of rasterio.
        region: What of it is shown.
        names: Of its bands, where it names none.
        max_side: Pixels of the longer side at most.

    Returns:
        uint8 (h, w, 3): red, green and blue where the bands are known, else the first three, or the
        first. Other than 8-bit values are stretched between their percentiles 1 and 99.
    """
    share = min(max_side / max(region.height, region.width), 1.0)
    height, width = (max(round(side * share), 1) for side in (region.height, region.width))
    bands = _display_bands(file, names)
    values = np.zeros((len(bands), height, width), np.float32)
    filled = np.zeros((height, width), bool)
    edges = np.linspace(0, height, min(_STRIPS, height) + 1).round().astype(int)
    for top, bottom in pairwise(edges):
        first, last = (at * region.height / height for at in (top, bottom))
        window = Window(region.col, region.row + first, region.width, last - first)
        shape = (bottom - top, width)
        try:
            # Averages where many pixels become one, nothing between them where one stays one.
            how = Resampling.average if share < 1 else Resampling.nearest
            part = file.read(bands, window=window, out_shape=(len(bands), *shape), resampling=how)
            mask = file.dataset_mask(window=window, out_shape=shape) > 0
        except RasterioError:
            continue
        values[:, top:bottom], filled[top:bottom] = part, mask
    filled &= np.isfinite(values).all(axis=0)
    if file.dtypes[bands[0] - 1] == 'uint8':
        picture = np.rint(values.transpose(1, 2, 0)).astype(np.uint8)
    else:
        # All black is padding, which has no part in the percentiles.
        filled &= (values != 0).any(axis=0)
        shown = np.where(filled, values, np.nan).transpose(1, 2, 0)
        picture = stretch(shown)
    picture = np.repeat(picture, 3, axis=2) if len(bands) == 1 else picture
    picture[~filled] = 0
    return np.ascontiguousarray(picture)


def _overviews(
    scenes: Sequence[str | Path], region: Region, names: Sequence[str] | None, max_side: int
) -> tuple[list[tuple[str, np.ndarray]], str | None, Affine | None]:
    stack: list[Any] = []
    pictures = []
    try:
        for path in scenes:
            file = open_scene(str(path), stack[0] if stack else None, Resampling.nearest, stack)
            pictures.append((Path(path).name, read_overview(file, region, names, max_side)))
        first = stack[0]
        crs = None if first.crs is None else first.crs.to_string()
        crs = crs if crs is None or len(crs) < 30 else 'the system of the scene'
        moved = first.transform @ Affine.translation(region.col, region.row)
        return pictures, crs, None if first.transform.is_identity else moved
    finally:
        for file in reversed(stack):
            file.close()


def _display_bands(file: Any, names: Sequence[str] | None) -> list[int]:
    """Numbers from 1 of one band or three."""
    kinds = list(file.colorinterp)
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(one in kinds for one in colours):
        return [kinds.index(one) + 1 for one in colours]
    stated = list(names or []) if names and len(names) == file.count else file.descriptions
    keys = [key.lower() for key in band_keys([str(one or '') for one in stated])]
    for wanted in _RGB:
        if all(one in keys for one in wanted):
            return [keys.index(one) + 1 for one in wanted]
    return [1, 2, 3] if file.count >= 3 else [1]


def _read_map(path: str | Path, max_side: int) -> tuple[np.ndarray, int]:
    """A map of results, reduced, (h, w, bands): classes as uint8, or float32 with NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            share = min(max_side / max(file.shape), 1.0)
            shape = [max(round(side * share), 1) for side in file.shape]
            bands = [1, 2, 3] if file.count >= 3 else [1]
            values = file.read(bands, out_shape=(len(bands), *shape)).transpose(1, 2, 0)
            nodata = file.nodata
    if values.dtype.kind == 'f':
        return values.astype(np.float32), 255
    # More classes than a byte has are shown modulo; the file has them all.
    empty = np.zeros(values.shape, bool) if nodata is None else values == nodata
    return np.where(empty, 255, values % 255).astype(np.uint8), 255


def _coloured(values: np.ndarray) -> np.ndarray:
    """Numbers as colours from their percentile 1 (dark) to 99 (bright), no data black."""
    if values.shape[2] == 3:
        return stretch(values)
    from matplotlib import colormaps

    grey = stretch(values)[..., 0]
    picture = (colormaps['viridis'](grey)[..., :3] * 255).round().astype(np.uint8)
    picture[~np.isfinite(values[..., 0])] = 0
    return picture


def _small(picture: np.ndarray, side: int, how: int = cv2.INTER_AREA) -> np.ndarray:
    share = side / max(picture.shape[:2])
    if share >= 1:
        return picture
    height, width = (max(round(length * share), 1) for length in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=how)
