# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Objects of an image as vector files: GeoJSON, GeoPackage, and DOTA's text.

Formats: GeoJSON, RFC 7946; GeoPackage, OGC 12-128r18; Xia et al., "DOTA: A Large-Scale Dataset for
Object Detection in Aerial Images", CVPR 2018, arXiv 1711.10398.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from pyogrio.errors import DataLayerError, DataSourceError, FieldError, GeometryError
from pyogrio.raw import write as write_layer
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform as transform_points
from shapely.geometry import MultiPolygon, Polygon

from mmrsfm.errors import DataError
from mmrsfm.utils.conversion import write_lines, write_whole

# Longitude and latitude on WGS 84, in this order.
LONGITUDE_LATITUDE = CRS.from_user_input('OGC:CRS84')
# Of longitudes and latitudes: a millimetre.
_DECIMALS = 8
_PIXELS = (
    'Pixel coordinates, not longitude and latitude: the image has no georeference. x is the column '
    'and y the row, both from its upper left corner; y points down.'
)
_LOCAL = (
    'Coordinates of the transform of the image, not longitude and latitude: the image names no '
    'coordinate reference system.'
)
_ENGINEERING = (
    'Coordinates of the image in a local system of its own, not longitude and latitude: nothing '
    'says where on the earth it lies.'
)


def to_map(polygons: np.ndarray, transform: Affine) -> np.ndarray:
    """Takes polygons from pixels to the coordinates of an image.

    Args:
        polygons: Shapely polygons and multipolygons in pixels (column, row) from the outer corner
            of the first one, (N,).
        transform: Of the image; it may turn, shear and mirror.

    Returns:
        Polygons (N,) with exterior rings counterclockwise and interior ones clockwise.
    """
    a, b, c, d, e, f = tuple(transform)[:6]
    turn, origin = np.array([[a, d], [b, e]]), np.array([c, f])
    moved = shapely.transform(polygons, lambda points: points @ turn + origin)
    return shapely.orient_polygons(moved)


def to_longitude_latitude(polygons: np.ndarray, crs: CRS) -> np.ndarray:
    """Takes polygons from a coordinate reference system to longitude and latitude on WGS 84.

    A polygon that crosses the antimeridian is cut there into a multipolygon, as RFC 7946 (3.1.9)
    demands; longitudes beyond it, of images that count them from 0 to 360 degrees, come back by
    whole turns.

    Args:
        polygons: Shapely polygons and multipolygons (N,).
        crs: Theirs.

    Returns:
        Polygons (N,) with exterior rings counterclockwise and interior ones clockwise.

    Raises:
        DataError: If a point cannot be transformed.
    """

    def project(points: np.ndarray) -> np.ndarray:
        if not len(points):
            return points
        try:
            found = transform_points(crs, LONGITUDE_LATITUDE, points[:, 0], points[:, 1])
        except (RasterioError, CPLE_BaseError) as error:
            raise DataError(f'coordinates cannot be transformed from {crs} ({error})') from error
        result = np.stack([np.asarray(axis, np.float64) for axis in found[:2]], axis=1)
        if not np.isfinite(result).all():
            raise DataError(f'coordinates of {crs} have no longitude and latitude')
        return result

    moved = shapely.transform(polygons, project)
    bounds = shapely.bounds(moved).reshape(-1, 4)
    # No object goes around half of the globe: one that seems to crosses the antimeridian.
    around = bounds[:, 2] - bounds[:, 0] > 180
    beyond = (bounds[:, 0] < -180) | (bounds[:, 2] > 180)
    for number in np.flatnonzero(around | beyond):
        turns = 0.0 if around[number] else np.floor((bounds[number, 0] + 180) / 360)
        moved[number] = _cut_at_antimeridian(moved[number], 360 * turns, bool(around[number]))
    return shapely.orient_polygons(moved)


def is_local(crs: CRS) -> bool:
    """Whether a system is one of engineering, which has no place on the earth."""
    return crs.to_wkt().startswith(('LOCAL_CS', 'ENGCRS', 'ENGINEERINGCRS'))


def write_geojson(
    path: str | Path,
    polygons: np.ndarray,
    fields: Mapping[str, np.ndarray],
    crs: CRS | None,
    transform: Affine,
    description: Mapping[str, Any] | None = None,
    in_crs: bool = False,
) -> None:
    """Writes polygons as GeoJSON, in longitude and latitude as RFC 7946 demands.

    Args:
        path: The file; it appears when it is complete. Without polygons it is a valid one.
        polygons: Shapely polygons and multipolygons in pixels; see :func:`to_map`.
        fields: Properties by name, each of N numbers, truth values or texts.
        crs: Of the image. ``None``, or a local one (:func:`is_local`): the coordinates are those
            of ``transform``, pixels where it is the identity; the member ``coordinates`` of the
            file says so.
        transform: Of the image.
        description: More members of the file, e.g. the model.
        in_crs: Keep the coordinates of ``crs``. Such a file is not of RFC 7946, but names its
            system as GeoJSON of 2008 does, which GDAL and QGIS read.

    Raises:
        DataError: If a point has no longitude and latitude.
        OSError: If the file cannot be written.
    """
    members: dict[str, Any] = {'type': 'FeatureCollection'}
    placed = to_map(polygons, transform)
    decimals: int | None = None
    if crs is None:
        # GeoJSON of 2008 where no system can be assumed; RFC 7946 leaves the member to others.
        members |= {'crs': None, 'coordinates': _PIXELS if transform.is_identity else _LOCAL}
    elif in_crs:
        members['crs'] = {'type': 'name', 'properties': {'name': _name_of(crs)}}
    elif is_local(crs):
        members |= {'crs': None, 'coordinates': _ENGINEERING}
    else:
        placed, decimals = to_longitude_latitude(placed, crs), _DECIMALS
    members |= dict(description or {})
    columns = {name: np.asarray(values).tolist() for name, values in fields.items()}
    lines = []
    for number, polygon in enumerate(placed):
        properties = {name: values[number] for name, values in columns.items()}
        geometry = _geometry(polygon, decimals)
        lines.append(_json({'type': 'Feature', 'properties': properties, 'geometry': geometry}))
    # One feature a line: files of a hundred thousand can be looked at, and compared.
    text = (
        f'{_json(members)[:-1]}, "features": [' + ','.join(f'\n{one}' for one in lines) + '\n]}\n'
    )
    write_whole(path, text.encode())


def write_geopackage(
    path: str | Path,
    polygons: np.ndarray,
    fields: Mapping[str, np.ndarray],
    crs: CRS | None,
    transform: Affine,
    layer: str = 'objects',
    description: Mapping[str, str] | None = None,
) -> None:
    """Writes polygons as a GeoPackage in the coordinate reference system of the image.

    Args:
        path: The file; it appears when it is complete, in the place of another one.
        polygons: Shapely polygons and multipolygons in pixels; see :func:`to_map`.
        fields: Columns by name, each of N numbers, truth values or texts.
        crs: Of the image; ``None``: the layer is in an undefined Cartesian system, with the
            coordinates of ``transform``.
        transform: Of the image.
        layer: Name of the layer.
        description: Metadata of the layer.

    Raises:
        DataError: If GDAL cannot write it.
        OSError: If it cannot be renamed to its place.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.stem}.partial.gpkg')
    placed = to_map(polygons, transform)
    several = bool((shapely.get_type_id(placed) == shapely.GeometryType.MULTIPOLYGON).any())
    note = {} if crs is not None else {
        'coordinates': _PIXELS if transform.is_identity else _LOCAL
    }  # fmt: skip
    try:
        partial.unlink(missing_ok=True)
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message="'crs' was not provided")
            write_layer(
                str(partial), shapely.to_wkb(placed), [np.asarray(one) for one in fields.values()],
                list(fields), layer=layer, driver='GPKG', crs=None if crs is None else crs.to_wkt(),
                geometry_type='MultiPolygon' if several else 'Polygon', promote_to_multi=several,
                layer_metadata={**note, **(description or {})} or None,
            )  # fmt: skip
        partial.replace(path)
    except (DataSourceError, DataLayerError, GeometryError, FieldError) as error:
        raise DataError(f'cannot be written as a GeoPackage ({error})', path=path) from error
    finally:
        for left in (partial, *partial.parent.glob(f'{partial.name}-*')):
            left.unlink(missing_ok=True)


def write_dota(path: str | Path, polygons: np.ndarray, names: Sequence[str]) -> None:
    """Writes the text of an annotation of DOTA: four corners in pixels, class, difficulty 0.

    The corners go clockwise on the screen, as DOTA's do.

    Args:
        path: The file; it appears when it is complete, and is empty without polygons.
        polygons: Shapely polygons in pixels, (N,); of those with other than four corners, the
            rectangle of least area around them is written.
        names: Class of each; blanks in it become hyphens, as blanks separate the columns.
    """
    lines = []
    for polygon, name in zip(polygons, names, strict=True):
        points = shapely.get_coordinates(polygon)
        if len(points) != 5 or polygon.geom_type != 'Polygon':
            polygon = shapely.minimum_rotated_rectangle(polygon)
        # Counterclockwise where y points up is clockwise where it points down.
        points = shapely.get_coordinates(shapely.orient_polygons(polygon))
        numbers = ' '.join(f'{value:.2f}' for value in points[:4].ravel())
        lines.append(f'{numbers} {"-".join(name.split())} 0')
    write_lines(path, lines)


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


def _geometry(polygon: Polygon | MultiPolygon, decimals: int | None) -> dict[str, Any]:
    def rings(part: Polygon) -> list[list[list[float]]]:
        found = [shapely.get_coordinates(ring) for ring in (part.exterior, *part.interiors)]
        return [(ring if decimals is None else ring.round(decimals)).tolist() for ring in found]

    if polygon.geom_type == 'Polygon':
        return {'type': 'Polygon', 'coordinates': rings(polygon)}
    return {'type': 'MultiPolygon', 'coordinates': [rings(part) for part in polygon.geoms]}


def _cut_at_antimeridian(
    polygon: Polygon | MultiPolygon, shift: float, from_zero: bool
) -> Polygon | MultiPolygon:
    """Cuts at 180 degrees; longitudes lose ``shift`` first, or are counted from 0 to 360."""

    def place(points: np.ndarray) -> np.ndarray:
        longitudes = points[:, 0] % 360 if from_zero else points[:, 0] - shift
        return np.stack([longitudes, points[:, 1]], axis=1)

    around = shapely.transform(polygon, place)
    east = shapely.intersection(around, shapely.box(-180, -90, 180, 90))
    west = shapely.intersection(around, shapely.box(180, -90, 540, 90))
    west = shapely.transform(west, lambda points: points - np.array([360, 0]))
    parts = [part for side in (east, west) for part in getattr(side, 'geoms', [side])]
    parts = [part for part in parts if part.geom_type == 'Polygon' and part.area > 0]
    return parts[0] if len(parts) == 1 else MultiPolygon(parts)


def _name_of(crs: CRS) -> str:
    code = crs.to_epsg()
    return crs.to_wkt() if code is None else f'urn:ogc:def:crs:EPSG::{code}'
