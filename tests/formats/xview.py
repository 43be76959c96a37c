# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""xView (DIUx 2018): horizontal boxes of 60 classes, as COCO patches and as it is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

from .drawing import bounds, colour, generator, paint, rectangles, save, terrain, world

CLASSES = (
    'Fixed-wing Aircraft', 'Small Aircraft', 'Cargo Plane', 'Helicopter', 'Passenger Vehicle',
    'Small Car', 'Bus', 'Pickup Truck', 'Utility Truck', 'Truck', 'Cargo Truck', 'Truck w/Box',
    'Truck Tractor', 'Trailer', 'Truck w/Flatbed', 'Truck w/Liquid', 'Crane Truck',
    'Railway Vehicle', 'Passenger Car', 'Cargo Car', 'Flat Car', 'Tank car', 'Locomotive',
    'Maritime Vessel', 'Motorboat', 'Sailboat', 'Tugboat', 'Barge', 'Fishing Vessel', 'Ferry',
    'Yacht', 'Container Ship', 'Oil Tanker', 'Engineering Vehicle', 'Tower crane',
    'Container Crane', 'Reach Stacker', 'Straddle Carrier', 'Mobile Crane', 'Dump Truck',
    'Haul Truck', 'Scraper/Tractor', 'Front loader/Bulldozer', 'Excavator', 'Cement Mixer',
    'Ground Grader', 'Hut/Tent', 'Shed', 'Building', 'Aircraft Hangar', 'Damaged Building',
    'Facility', 'Construction Site', 'Vehicle Lot', 'Helipad', 'Storage Tank',
    'Shipping container lot', 'Shipping Container', 'Pylon', 'Tower',
)  # fmt: skip

# The numbers that the annotators gave to CLASSES, in the same order; 75 and 82 occur in the real
# file as well, and belong to no class.
TYPE_IDS = (
    11, 12, 13, 15, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 28, 29, 32, 33, 34, 35, 36, 37, 38, 40,
    41, 42, 44, 45, 47, 49, 50, 51, 52, 53, 54, 55, 56, 57, 59, 60, 61, 62, 63, 64, 65, 66, 71, 72,
    73, 74, 76, 77, 79, 83, 84, 86, 89, 91, 93, 94,
)  # fmt: skip


def make_xview(root: Path, *, seed: int = 0, count: int = 2, size: int = 96) -> Path:
    """XView as the benchmark reads it: patches and one COCO json a split.

    ``{train,val}/images/<scene>_<k>.png`` (416x416 RGB patches) and
    ``xview_{train,val}_coco_format.json`` in the root (mtp_finetune.md 2.1, 3.2;
    parity/converters/prepare_xview_dataset/expected). Ids of images, annotations and the 60
    categories start at 0; boxes are floats with the noise of six decimals that they went through,
    some a hair below 0; annotations have no ``segmentation``; a box of less than a pixel happens.
    Patches without boxes do not exist in the published conversion.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Patches of each split.
        size: Side of a patch in pixels.
    """
    root = Path(root)
    for place, split in enumerate(('train', 'val')):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(count):
            rng = generator(seed, place, number)
            picture = terrain(rng, size, size)
            name = f'{100 + 7 * number + place}_{number}.png'
            boxes = []
            for k, polygon in enumerate(rectangles(rng, size, size, 5, rotated=False)):
                label = (11 * number + 13 * k) % len(CLASSES)
                left, top, right, bottom = bounds(polygon)
                corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
                picture = paint(picture, corners, colour(label))
                boxes.append((label, left, top, right - left, bottom - top))
            if number == 0:
                boxes.append((5, 0, 0, 0.5, 0.5))  # a remainder at the border of the patch
            images.append({'file_name': name, 'id': number, 'width': size, 'height': size})
            for label, left, top, width, height in boxes:
                noise = 6e-5 if left else -6e-5
                box = [left - noise, top - noise, width + noise, height + noise]
                annotations.append(
                    {
                        'id': len(annotations),
                        'image_id': number,
                        'category_id': label,
                        'bbox': [float(v) for v in box],
                        'area': float(box[2] * box[3]),
                        'iscrowd': 0,
                    }
                )
            save(root / split / 'images' / name, picture)
        categories = [{'id': label, 'name': name} for label, name in enumerate(CLASSES)]
        content = {'images': images, 'annotations': annotations, 'categories': categories}
        (root / f'xview_{split}_coco_format.json').write_text(json.dumps(content))
    return root


def make_xview_source(root: Path, *, seed: int = 0, count: int = 4, size: int = 200) -> Path:
    """XView as it is downloaded: ``train_images/<n>.tif`` and ``xView_train.geojson``.

    Real scenes are RGB uint8 GeoTIFFs of about 3000x3000 pixels at 0.3 m in WGS 84. Each feature
    has the corners in pixels as a string ``bounds_imcoords`` ("x1,y1,x2,y2"), ``image_id``,
    ``type_id``, and ``cat_id``, ``edited_by``, ``ingest_time``, ``index_right``, ``feature_id``
    (Lam et al., arXiv 1802.07856, and the published file). What the real file is known for is here:
    boxes that leave the image, the classless type ids 75 and 82, an image that was never published
    (1395.tif), a few broken ``bounds_imcoords``, no order by image, images without labels; and one
    scene that is smaller than a patch in one direction.

    Args:
        root: Folder to make; returned.
        seed: Of all that is drawn.
        count: Scenes; the last has no labels.
        size: Shorter side of a scene.
    """
    root = Path(root)
    (root / 'train_images').mkdir(parents=True, exist_ok=True)
    features: list[dict[str, Any]] = []

    def feature(bounds_imcoords: str, image: str, type_id: int, ring: list[list[float]]) -> None:
        properties = {
            'bounds_imcoords': bounds_imcoords,
            'edited_by': 'wwoscarbecerril',
            'cat_id': '1040010028371A00',
            'type_id': type_id,
            'ingest_time': '2017/07/24 12:49:09.118+00',
            'index_right': len(features),
            'image_id': image,
            'point_geom': '0101000020E6100000616E4E6406A256C03BE6ADA0D6212D40',
            'feature_id': 374410 + len(features),
            'grid_file': 'Grid2.shp',
        }
        geometry = {'type': 'Polygon', 'coordinates': [ring]}
        features.append({'type': 'Feature', 'properties': properties, 'geometry': geometry})

    for number in range(count):
        rng = generator(seed, 9, number)
        height, width = (size, size) if number == 0 else (size + 17 * number, size + 41 * number)
        picture = terrain(rng, height, width)
        transform = from_origin(-90.5 + 0.1 * number, 14.9, 2.7e-6, 2.7e-6)
        name = f'{100 + 11 * number}.tif'
        found = rectangles(rng, height, width, 12, rotated=False) if number < count - 1 else []
        boxes = [(bounds(polygon), (7 * number + 5 * k) % 60) for k, polygon in enumerate(found)]
        if number == 0:
            boxes.append(((width - 20, height - 12, width + 6, height + 4), 49))
            boxes.append(((-5, 30, 7, 44), 5))
        for (left, top, right, bottom), label in boxes:
            corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
            picture = paint(picture, corners, colour(label))
            ring = [world(transform, x, y) for x, y in [*corners, corners[0]]]
            feature(f'{left},{top},{right},{bottom}', name, TYPE_IDS[label], ring)
        with rasterio.open(
            root / 'train_images' / name, 'w', driver='GTiff', height=height, width=width, count=3,
            dtype='uint8', crs='EPSG:4326', transform=transform, photometric='RGB',
        ) as target:  # fmt: skip
            target.write(picture.transpose(2, 0, 1))
    nowhere = [[0.0, 0.0]] * 5
    feature('10,10,30,30', '100.tif', 75, nowhere)
    feature('40,40,60,60', '100.tif', 82, nowhere)
    feature('1,1,9,9', '1395.tif', 18, nowhere)
    feature('1,1,9', '100.tif', 18, nowhere)
    feature('', '100.tif', 18, nowhere)
    order = generator(seed, 10).permutation(len(features))
    content = {
        'type': 'FeatureCollection',
        'crs': {'type': 'name', 'properties': {'name': 'urn:ogc:def:crs:OGC:1.3:CRS84'}},
        'features': [features[index] for index in order],
    }
    (root / 'xView_train.geojson').write_text(json.dumps(content))
    return root
