# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Polygons from vector files, in the coordinate reference system of an image."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pyogrio import list_layers
from pyogrio.errors import DataLayerError, DataSourceError
from pyogrio.raw import read as read_layer
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform_geom
from shapely import from_wkb
from shapely.errors import ShapelyError
from shapely.geometry import mapping

from mmrsfm.errors import DataError, DatasetNotFoundError
from mmrsfm.utils.conversion import read_text

GEOJSON_SUFFIXES = ('.geojson', '.json')


class VectorPolygon(NamedTuple):
    """One polygon of a file.

    Attributes:
        geometry: GeoJSON: ``type`` Polygon and ``coordinates``, rings of (x, y).
        properties: Of its feature.
        feature: Number of its feature, from 0.
    """

    geometry: dict[str, Any]
    properties: dict[str, Any]
    feature: int


def read_polygons(path: str | Path, crs: CRS | None) -> list[VectorPolygon]:
    """Reads the polygons of a vector file.

    Args:
        path: A GeoJSON file (a file without any text holds none); or a GeoPackage, a Shapefile or
            what else GDAL opens, of which the first layer is read.
        crs: What the polygons are transformed to; ``None``: they stay as they are. A GeoJSON that
            names no system is in longitude and latitude.

    Returns:
        Polygons and the parts of multipolygons and collections, in the order of the features;
        other geometries and empty ones are left out.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DataError: If it is no vector file, names an unknown system or one that its coordinates are
            not of, or has a broken geometry.
    """
    path = Path(path)
    if path.suffix.lower() in GEOJSON_SUFFIXES:
        system, features = _read_geojson(path)
    else:
        system, features = _read_with_gdal(path)
    found = []
    for index, feature in enumerate(features):
        try:
            properties = dict(feature.get('properties') or {})
            polygons = list(_polygons(feature.get('geometry')))
            if polygons and crs is not None and not _same(system, crs):
                polygons = [transform_geom(system, crs, polygon) for polygon in polygons]
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(f'feature {index} has no usable geometry ({error!r})', path=path) \
                from error  # fmt: skip
        except CPLE_BaseError as error:  # GDAL's own, which rasterio passes on
            raise DataError(
                f'feature {index} cannot be transformed from {system} to {crs} ({error})',
                path=path,
                hint='A geojson without "crs" is in longitude and latitude; if it is not, its file '
                'has to name its system',
            ) from error
        found += [VectorPolygon(polygon, properties, index) for polygon in polygons]
    return found


def _read_geojson(path: Path) -> tuple[CRS, list[Any]]:
    text = read_text(path, 'geojson')
    if not text.strip():
        return CRS.from_user_input('OGC:CRS84'), []
    try:
        content = json.loads(text)
        stated = (content.get('crs') or {}).get('properties', {}).get('name')
        features = list(content['features'])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'is no geojson with features ({error!r})', path=path) from error
    try:
        return CRS.from_user_input(stated or 'OGC:CRS84'), features
    except CRSError as error:
        raise DataError(f'names the unknown system {stated!r}', path=path) from error


def _read_with_gdal(path: Path) -> tuple[CRS, list[Any]]:
    if not path.is_file():
        raise DatasetNotFoundError('there is no such vector file', path=path)
    try:
        layers = list_layers(path)
        if not len(layers):
            raise DataError('holds no layer', path=path)
        meta, _, shapes, columns = read_layer(path, layer=layers[0][0], force_2d=True)
        system = CRS.from_user_input(meta['crs'] or 'OGC:CRS84')
    except (DataSourceError, DataLayerError, CRSError) as error:
        raise DataError(f'cannot be read as a vector file ({error})', path=path) from error
    rows = zip(*(column.tolist() for column in columns), strict=True)
    fields = list(meta['fields'])
    properties = [dict(zip(fields, row, strict=True)) for row in rows] or [{} for _ in shapes]
    try:
        geometries = [None if text is None else mapping(from_wkb(text)) for text in shapes]
    except ShapelyError as error:
        raise DataError(f'holds a broken geometry ({error})', path=path) from error
    return system, [
        {'geometry': geometry, 'properties': row}
        for geometry, row in zip(geometries, properties, strict=True)
    ]


def _same(one: CRS, other: CRS) -> bool:
    # Longitude and latitude have two names that differ in the order of axes, which neither
    # geojson nor GDAL's rasters follow.
    names = {CRS.from_user_input('OGC:CRS84'), CRS.from_epsg(4326)}
    return one == other or (one in names and other in names)


def _polygons(geometry: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The polygons of a geometry, with rings of two dimensions and at least four points."""
    if not geometry:
        return
    kind = geometry['type']
    if kind == 'GeometryCollection':
        for part in geometry['geometries']:
            yield from _polygons(part)
    if kind not in ('Polygon', 'MultiPolygon'):
        return
    coordinates = geometry['coordinates']
    for polygon in [coordinates] if kind == 'Polygon' else coordinates:
        rings = [[(float(p[0]), float(p[1])) for p in ring] for ring in polygon]
        if not all(math.isfinite(value) for ring in rings for point in ring for value in point):
            raise ValueError('a coordinate is not finite')
        if rings and len(rings[0]) >= 4:
            rings = rings[:1] + [ring for ring in rings[1:] if len(ring) >= 4]
            yield {'type': 'Polygon', 'coordinates': rings}
