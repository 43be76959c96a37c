# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The objects of a scene as files: GeoJSON, GeoPackage and DOTA's text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from rasterio.crs import CRS

from mmrsfm.apis.scene.objects import SceneObjects
from mmrsfm.errors import ConfigError
from mmrsfm.utils.vector_writing import write_dota, write_geojson, write_geopackage

# The names of the files, by format.
OBJECT_FILES = {'geojson': '{}.geojson', 'gpkg': '{}.gpkg', 'dota': '{}_dota.txt'}


def write_objects(
    out_dir: str | Path,
    stem: str,
    objects: SceneObjects,
    classes: Sequence[str],
    crs: CRS | None,
    transform: Affine,
    formats: Sequence[str] = tuple(OBJECT_FILES),
    tolerance: float = 0.5,
    description: Mapping[str, str] | None = None,
) -> list[Path]:
    """Writes the objects of a scene.

    Each has the name of its class, its score, and ``cut``: whether the border of a tile cuts it.

    Args:
        out_dir: Folder of the files; it is made.
        stem: Of their names.
        objects: The objects; none give valid files.
        classes: Names of the classes.
        crs: Of the scene, for the GeoPackage; the GeoJSON is in longitude and latitude. ``None``:
            both are in the coordinates of ``transform``, and say so.
        transform: Of the scene.
        formats: Of ``'geojson'``, ``'gpkg'`` and ``'dota'`` (pixels).
        tolerance: Outlines of masks lose corners, and move by no more than so many pixels; 0 keeps
            the edges of the pixels.
        description: Members of the GeoJSON and metadata of the GeoPackage, e.g. the model.

    Returns:
        The files.

    Raises:
        ConfigError: If there is no such format, or no name for a class.
        DataError: If a file cannot be written so, e.g. as a point has no longitude and latitude.
        OSError: If a file cannot be written.
    """
    if unknown := sorted(set(formats) - set(OBJECT_FILES)):
        raise ConfigError(f'objects are written as {", ".join(OBJECT_FILES)}, not as {unknown[0]}')
    if len(objects) and not 0 <= objects.labels.min() <= objects.labels.max() < len(classes):
        raise ConfigError(
            f'objects have classes up to number {objects.labels.max()}, but there are '
            f'{len(classes)} names: {", ".join(classes)}'
        )
    names = [str(classes[label]) for label in objects.labels]
    polygons = outlines(objects, tolerance)
    fields = {
        'class': np.array(names, object),
        # As decimals: 0.9 of 32 bits would be 0.8999999761581421.
        'score': objects.scores.astype(np.float64).round(6),
        'cut': objects.cut.astype(bool),
    }
    paths = {name: Path(out_dir) / OBJECT_FILES[name].format(stem) for name in formats}
    if 'gpkg' in paths:
        write_geopackage(paths['gpkg'], polygons, fields, crs, transform, description=description)
    if 'dota' in paths:
        write_dota(paths['dota'], objects.polygons, names)
    # Last: only this one can fail, where a point has no longitude and latitude.
    if 'geojson' in paths:
        write_geojson(paths['geojson'], polygons, fields, crs, transform, description)
    return list(paths.values())


def outlines(objects: SceneObjects, tolerance: float = 0.5) -> np.ndarray:
    """The polygons of objects, those of masks with fewer corners; see :func:`write_objects`."""
    if objects.kind != 'mask' or tolerance <= 0 or not len(objects):
        return objects.polygons
    simple = shapely.simplify(objects.polygons, tolerance)
    # What is as thin as the tolerance would be gone.
    lost = (shapely.area(simple) <= 0) | ~shapely.is_valid(simple)
    simple[lost] = objects.polygons[lost]
    return simple
