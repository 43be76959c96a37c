# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Labelled polygons and boxes of images, from vector files, tables and Pascal VOC."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shapely import affinity
from shapely.geometry import Polygon, box, shape

from mmrsfm.errors import ConfigError, DataError
from mmrsfm.utils.conversion import number, read_text, read_xml, xml_text
from mmrsfm.utils.rgb import image_stem, open_raster
from mmrsfm.utils.vector import read_polygons

_TABLE = ('xmin', 'ymin', 'xmax', 'ymax')
_IMAGE_COLUMNS = ('image_path', 'image', 'filename')


class Thing(NamedTuple):
    """An object: number of its class, and its polygon in pixels of the image (x, y)."""

    label: int
    polygon: Polygon


def read_things(
    labels: str | Path,
    image: str | Path,
    classes: Sequence[str],
    field: str | None = None,
    pixels: bool = False,
) -> list[Thing]:
    """Reads the objects of one image.

    Args:
        labels: The file of the image, or a table or vector file of several images.
        image: The image.
        classes: Names of the classes.
        field: Property or column with the name of the class (of XML: always ``name``). ``None``:
            ``label`` of a table; of vector files every polygon is of the one class.
        pixels: Coordinates of vector files are pixels of the image, not of the map.

    Returns:
        The objects, in pixels from the outer corner of the first one; those outside of the image
        are among them.

    Raises:
        DatasetNotFoundError: If the file is missing.
        DataError: If it cannot be used, or the image has no georeference; it is named.
        ConfigError: If there are several classes and no ``field``.
    """
    suffix = Path(labels).suffix.lower()
    numbers = {name: label for label, name in enumerate(classes)}
    if suffix == '.xml':
        return list(_voc_boxes(labels, numbers))
    if suffix == '.csv':
        return list(_table_boxes(labels, image, numbers, field or 'label'))
    if field is None and len(classes) > 1:
        raise ConfigError(
            f'{len(classes)} classes, but no property of the polygons that names them (--field)'
        )
    with open_raster(image) as source:
        transform, crs = source.transform, source.crs
    if not pixels and crs is None and transform.is_identity:
        raise DataError(
            'has no georeference, so that the polygons have no place',
            path=image,
            hint='If they are in pixels: --pixels',
        )
    found = []
    for one in read_polygons(labels, None if pixels else crs):
        name = classes[0] if field is None else one.properties.get(field)
        where = f'feature {one.feature}'
        polygon = shape(one.geometry)
        if not pixels:
            a, b, c, d, e, f = (~transform)[:6]
            polygon = affinity.affine_transform(polygon, (a, b, d, e, c, f))
        # Rings that cross themselves are mended; what has no area is none.
        polygon = polygon if polygon.is_valid else polygon.buffer(0)
        label = _number_of(name, numbers, labels, where)
        for part in getattr(polygon, 'geoms', [polygon]):
            if part.area > 0:
                found.append(Thing(label, part))
    return found


def _number_of(name: Any, numbers: dict[str, int], path: str | Path, where: str) -> int:
    if str(name) not in numbers:
        raise DataError(
            f'{where} is of the class {name!r}; the classes are {", ".join(numbers)}', path=path
        )
    return numbers[str(name)]


def _box(values: Sequence[float], path: str | Path, where: str) -> Polygon:
    left, top, right, bottom = values
    if right <= left or bottom <= top:
        raise DataError(f'{where} has no area', path=path)
    return box(left, top, right, bottom)


def _voc_boxes(path: str | Path, numbers: dict[str, int]) -> Iterator[Thing]:
    for index, element in enumerate(read_xml(path).findall('object'), start=1):
        where = f'object {index}'
        # Where there is one class, its name in the file does not matter.
        name = next(iter(numbers)) if len(numbers) == 1 else xml_text(element, 'name', path, where)
        values = [
            number(xml_text(element, f'bndbox/{k}', path, where), path, where) for k in _TABLE
        ]
        yield Thing(_number_of(name, numbers, path, where), _box(values, path, where))


def _table_boxes(
    path: str | Path, image: str | Path, numbers: dict[str, int], field: str
) -> Iterator[Thing]:
    rows = csv.DictReader(io.StringIO(read_text(path, 'table')))
    columns = rows.fieldnames or []
    missing = [column for column in _TABLE if column not in columns]
    if missing:
        raise DataError(f'has no column {missing[0]!r}', path=path)
    images = next((column for column in _IMAGE_COLUMNS if column in columns), None)
    for line, row in enumerate(rows, start=2):
        if images is not None and image_stem(row[images] or '') != Path(image).stem:
            continue
        where = f'line {line}'
        if not any((row[column] or '').strip() for column in _TABLE):
            continue  # an image without objects
        if None in row.values() or (field in columns and not row[field].strip()):
            raise DataError(f'{where} is cut off', path=path)
        name = next(iter(numbers)) if len(numbers) == 1 else row.get(field)
        values = [number(row[column] or '', path, where) for column in _TABLE]
        yield Thing(_number_of(name, numbers, path, where), _box(values, path, where))
