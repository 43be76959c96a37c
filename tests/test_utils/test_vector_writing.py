# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Vector files lie where the image lies, are valid when empty, and say when they have no place."""

import json

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform as transform_points

from mmrsfm.errors import DataError
from mmrsfm.utils.dota import read_dota_objects
from mmrsfm.utils.vector import read_polygons
from mmrsfm.utils.vector_writing import (
    to_longitude_latitude,
    to_map,
    write_dota,
    write_geojson,
    write_geopackage,
)

UTM = CRS.from_epsg(32618)
NORTH_UP = Affine(10, 0, 4e5, 0, -10, 4e6)
TRANSFORMS = {
    'north-up': NORTH_UP,
    'south-up': Affine(10, 0, 4e5, 0, 10, 4e6),
    'rotated': Affine.translation(4e5, 4e6) @ Affine.rotation(30) @ Affine.scale(10, -10),
    'no square pixels': Affine(3, 0.4, 4e5, 0.7, -5, 4e6),
}
HOLE = shapely.box(5, 5, 25, 20).difference(shapely.box(10, 8, 12, 12))
PIXELS = np.array([shapely.box(10, 20, 30, 50), HOLE], object)
FIELDS = {
    'class': np.array(['large house', 'Löschteich']),
    'score': np.array([0.875, 0.5], np.float32),
    'cut': np.array([True, False]),
}


def corner_of(transform, x, y):
    """A corner of a pixel in longitude and latitude, by hand and by rasterio."""
    at = (transform.a * x + transform.b * y + transform.c,
          transform.d * x + transform.e * y + transform.f)  # fmt: skip
    longitude, latitude = transform_points(UTM, 'OGC:CRS84', [at[0]], [at[1]])
    return longitude[0], latitude[0]


@pytest.mark.parametrize('name', list(TRANSFORMS))
def test_places_and_winding(tmp_path, name):
    transform = TRANSFORMS[name]
    write_geojson(tmp_path / 'a.geojson', PIXELS, FIELDS, UTM, transform, {'model': 'a'})
    content = json.loads((tmp_path / 'a.geojson').read_text())
    # RFC 7946: no member crs, longitude first, exterior counterclockwise, interior clockwise.
    assert 'crs' not in content and content['model'] == 'a'
    first, second = content['features']
    assert first['properties'] == {'class': 'large house', 'score': 0.875, 'cut': True}
    ring = first['geometry']['coordinates'][0]
    corners = {(x, y): corner_of(transform, x, y) for x in (10, 30) for y in (20, 50)}
    for found in corners.values():
        assert min(np.hypot(*(np.array(found) - point)) for point in ring) < 2e-8
        assert -77 < found[0] < -75 and 35 < found[1] < 38
    for feature in (first, second):
        rings = [shapely.LinearRing(ring) for ring in feature['geometry']['coordinates']]
        assert rings[0].is_ccw and not any(one.is_ccw for one in rings[1:])
    assert len(second['geometry']['coordinates']) == 2

    # In the system of the image, by a reader that is not ours.
    write_geopackage(tmp_path / 'a.gpkg', PIXELS, FIELDS, UTM, transform, description={'m': 'a'})
    info = pyogrio.read_info(tmp_path / 'a.gpkg')
    assert info['crs'] == 'EPSG:32618' and info['layer_metadata'] == {'m': 'a'}
    _, _, shapes, columns = pyogrio.raw.read(tmp_path / 'a.gpkg')
    placed = shapely.from_wkb(shapes)
    back = to_map(placed, ~transform)
    assert np.allclose(shapely.area(shapely.symmetric_difference(back, PIXELS)), 0, atol=1e-6)
    assert [column.tolist() for column in columns] == [v.tolist() for v in FIELDS.values()]
    # Both by our own reader.
    for file in ('a.geojson', 'a.gpkg'):
        ours = read_polygons(tmp_path / file, UTM)
        assert [one.properties['class'] for one in ours] == FIELDS['class'].tolist()
        for one, there in zip(ours, placed, strict=True):
            assert shapely.geometry.shape(one.geometry).hausdorff_distance(there) < 2e-3
    # And the GeoJSON that keeps the system.
    write_geojson(tmp_path / 'b.geojson', PIXELS, FIELDS, UTM, transform, in_crs=True)
    assert pyogrio.read_info(tmp_path / 'b.geojson')['crs'] == 'EPSG:32618'
    ours = read_polygons(tmp_path / 'b.geojson', UTM)
    assert shapely.geometry.shape(ours[1].geometry).equals(placed[1])


@pytest.mark.parametrize('transform', [Affine.identity(), Affine(0.5, 0, 9, 0, -0.5, 7)])
def test_without_a_system_the_file_says_so(tmp_path, transform):
    write_geojson(tmp_path / 'a.geojson', PIXELS, FIELDS, None, transform)
    content = json.loads((tmp_path / 'a.geojson').read_text())
    said = 'Pixel coordinates' if transform.is_identity else 'Coordinates of the transform'
    assert content['crs'] is None and content['coordinates'].startswith(said)
    write_geopackage(tmp_path / 'a.gpkg', PIXELS, FIELDS, None, transform)
    info = pyogrio.read_info(tmp_path / 'a.gpkg')
    assert info['crs'] is None and info['layer_metadata']['coordinates'].startswith(said)
    for file in ('a.geojson', 'a.gpkg'):
        ours = read_polygons(tmp_path / file, None)
        assert shapely.geometry.shape(ours[0].geometry).equals(to_map(PIXELS, transform)[0])


@pytest.mark.parametrize('crs', [UTM, None])
def test_empty_results_are_valid_files(tmp_path, crs):
    nothing = {name: values[:0] for name, values in FIELDS.items()}
    write_geojson(tmp_path / 'a.geojson', PIXELS[:0], nothing, crs, NORTH_UP)
    write_geopackage(tmp_path / 'a.gpkg', PIXELS[:0], nothing, crs, NORTH_UP, layer='things')
    write_dota(tmp_path / 'a.txt', PIXELS[:0], [])
    assert pyogrio.read_info(tmp_path / 'a.geojson')['features'] == 0
    info = pyogrio.read_info(tmp_path / 'a.gpkg', layer='things')
    assert info['features'] == 0 and info['fields'].tolist() == list(FIELDS)
    assert (
        read_polygons(tmp_path / 'a.geojson', crs) == read_polygons(tmp_path / 'a.gpkg', crs) == []
    )
    assert read_dota_objects(tmp_path / 'a.txt') == []


def test_several_parts_and_replaced_files(tmp_path):
    parts = np.array([shapely.MultiPolygon([shapely.box(0, 0, 2, 2), HOLE]), HOLE], object)
    for polygons in (PIXELS, parts):  # the second run replaces the file of the first
        write_geopackage(tmp_path / 'a.gpkg', polygons, FIELDS, UTM, NORTH_UP)
        write_geojson(tmp_path / 'a.geojson', polygons, FIELDS, UTM, NORTH_UP)
    info = pyogrio.read_info(tmp_path / 'a.gpkg')
    assert info['geometry_type'] == 'MultiPolygon' and info['features'] == 2
    assert len(read_polygons(tmp_path / 'a.geojson', UTM)) == 3
    # Nothing is left beside them, and a failed run leaves the former file.
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.geojson', 'a.gpkg']
    before = (tmp_path / 'a.gpkg').read_bytes()
    with pytest.raises(Exception, match=r'same length|number of'):
        write_geopackage(tmp_path / 'a.gpkg', PIXELS[:1], FIELDS, UTM, NORTH_UP)
    assert (tmp_path / 'a.gpkg').read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.geojson', 'a.gpkg']


def test_the_antimeridian(tmp_path):
    # UTM zone 60: 177 to 180 degrees east; the box reaches two kilometres over the line.
    zone = CRS.from_epsg(32660)
    (edge,), (north,) = transform_points('OGC:CRS84', zone, [180.0], [-17.0])
    transform = Affine(10, 0, edge - 1000, 0, -10, north)
    boxes = np.array([shapely.box(0, 0, 300, 50), shapely.box(0, 60, 90, 70)], object)
    placed = to_longitude_latitude(to_map(boxes, transform), zone)
    assert [one.geom_type for one in placed] == ['MultiPolygon', 'Polygon']
    east, west = sorted(placed[0].geoms, key=lambda part: -part.bounds[0])
    assert east.bounds[2] == 180 and west.bounds[0] == -180
    assert 1.9 < west.area / east.area < 2.1
    assert all(part.exterior.is_ccw for part in placed[0].geoms)
    write_geojson(tmp_path / 'a.geojson', boxes, {}, zone, transform)
    assert pyogrio.read_info(tmp_path / 'a.geojson')['features'] == 2


@pytest.mark.parametrize(
    ('first', 'bounds'),
    [
        (200, [(-159.9, -159.6)]),  # counted from 0 to 360
        (359.8, [(-0.1, 0.2)]),  # likewise, at Greenwich
        (179.8, [(-180, -179.8), (179.9, 180)]),
        (-180.2, [(-180, -179.8), (179.9, 180)]),
        (-40, [(-39.9, -39.6)]),
    ],
)
def test_longitudes_beyond_the_antimeridian(first, bounds):
    boxes = np.array([shapely.box(10, 20, 40, 60)], object)
    transform = Affine(0.01, 0, first, 0, -0.01, 10)
    (placed,) = to_longitude_latitude(to_map(boxes, transform), CRS.from_epsg(4326))
    parts = sorted(getattr(placed, 'geoms', [placed]), key=lambda part: part.bounds[0])
    assert (placed.geom_type == 'MultiPolygon') == (len(bounds) == 2)
    found = np.array([(part.bounds[0], part.bounds[2]) for part in parts])
    assert found.shape == np.shape(bounds) and np.allclose(found, bounds)
    assert abs(found).max() <= 180


def test_a_system_without_a_place_on_the_earth(tmp_path):
    # As programs of photogrammetry write it.
    local = CRS.from_wkt('LOCAL_CS["Local Coordinates (m)",UNIT["metre",1]]')
    write_geojson(tmp_path / 'a.geojson', PIXELS, FIELDS, local, NORTH_UP)
    content = json.loads((tmp_path / 'a.geojson').read_text())
    assert content['crs'] is None and 'local system' in content['coordinates']
    ours = read_polygons(tmp_path / 'a.geojson', None)
    assert shapely.geometry.shape(ours[0].geometry).equals(to_map(PIXELS, NORTH_UP)[0])
    write_geopackage(tmp_path / 'a.gpkg', PIXELS, FIELDS, local, NORTH_UP)
    _, _, shapes, _ = pyogrio.raw.read(tmp_path / 'a.gpkg')
    assert shapely.from_wkb(shapes)[0].equals(to_map(PIXELS, NORTH_UP)[0])


def test_what_has_no_place(tmp_path):
    with pytest.raises(DataError, match=r'longitude and latitude|cannot be transformed'):
        write_geojson(tmp_path / 'a.geojson', PIXELS, FIELDS, UTM, Affine(1e9, 0, 1e30, 0, 1e9, 1))
    assert not list(tmp_path.iterdir())


def test_dota(tmp_path):
    turned = shapely.affinity.rotate(shapely.box(10, 10, 30, 20), 30)
    blob = shapely.affinity.rotate(HOLE, 45)
    write_dota(tmp_path / 'a.txt', np.array([turned, blob], object), ['large house', 'b'])
    found = read_dota_objects(tmp_path / 'a.txt')
    assert [one.name for one in found] == ['large-house', 'b']
    for one, area in zip(found, (turned.area, 20 * 15), strict=True):
        polygon = shapely.Polygon(np.reshape(one.corners, (4, 2)))
        # Clockwise on the screen, where y points down.
        assert polygon.exterior.is_ccw
        assert polygon.area == pytest.approx(area, rel=1e-2)
    assert shapely.Polygon(np.reshape(found[0].corners, (4, 2))).hausdorff_distance(turned) < 0.01
