# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Readers of annotations and tables on damaged text: what they need, or an error that names it.

Each reader gets a sound document with random cuts, copies and foreign words in it. It may read it
(not all damage can be seen) or raise a DataError with the path; nothing else, and what it reads are
finite numbers. A few examples by default, many with --all.
"""

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from data_converters.xview_geojson_to_coco import read_labels
from mmrsfm.datasets.bigearthnet_table import read_table
from mmrsfm.datasets.fmow_rgb import FMoWRGB
from mmrsfm.datasets.guso import read_homography
from mmrsfm.datasets.packed_tiles import PackedTiles, PackedTileWriter
from mmrsfm.datasets.sen12_flood import SEN12Flood
from mmrsfm.datasets.tile_dataset import TileDataset
from mmrsfm.datasets.zarr_array import zarr_attributes
from mmrsfm.errors import DataError
from mmrsfm.utils.conversion import read_names
from mmrsfm.utils.dior import read_dior_objects
from mmrsfm.utils.dota import read_dota_objects
from mmrsfm.utils.image_objects import read_things
from mmrsfm.utils.rle import encode_window
from mmrsfm.utils.samrs import read_instances
from mmrsfm.utils.vector import read_polygons

WORDS = [
    b'', b' ', b'\n', b'\r\n', b'\x00', b'\xff\xfe', b'nan', b'inf', b'-1', b'1e400',
    b'99999999999', b'"', b"'", b',', b'null', b'[]', b'{}', b'true', b'<', b'>', b'&',
    b'</object>', b'[[', b']]',
]  # fmt: skip
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(WORDS)), min_size=1, max_size=4
)
NUMBERS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**18), 10**18), st.floats(), st.text(max_size=3),
    st.lists(st.integers(0, 3), max_size=2), st.dictionaries(st.text(max_size=2), st.none()),
)  # fmt: skip


def damage(document: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Takes some bytes away at each place, and puts a word there."""
    for place, length, word in edits:
        at = int(place * len(document))
        document = document[:at] + word + document[at + length :]
    return document


def geojson() -> dict:
    ring = [[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]
    geometry = {'type': 'Polygon', 'coordinates': [ring]}
    properties = {'type_id': 18, 'image_id': 'a.tif', 'bounds_imcoords': '1,2,30,40', 'name': 'x'}
    return {
        'type': 'FeatureCollection',
        'crs': {'properties': {'name': 'EPSG:32618'}},
        'features': [{'type': 'Feature', 'properties': properties, 'geometry': geometry}] * 2,
    }


XML = b"""<annotation><size><width>48</width><height>40</height></size>
<object><name>ship</name><robndbox><x_left_top>1</x_left_top><y_left_top>2</y_left_top>
<x_right_top>9</x_right_top><y_right_top>2</y_right_top><x_right_bottom>9</x_right_bottom>
<y_right_bottom>8</y_right_bottom><x_left_bottom>1</x_left_bottom><y_left_bottom>8</y_left_bottom>
</robndbox><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object>
</annotation>"""
PATCH = 'S1B_IW_GRDH_1SDV_20170612T165809_33UUP_00_40'


def _fmow(path: Path):
    dataset = FMoWRGB(ann_file=str(path), lazy_init=True)
    return [one['gt_label'] for one in dataset.load_data_list()]


def _tiles(path: Path):
    folder = dict(img_path=str(path.parent))
    dataset = TileDataset(ann_file=str(path), data_prefix=folder, lazy_init=True)
    return [one.get('window') for one in dataset.load_data_list()]


def _floods(path: Path):
    return SEN12Flood(
        data_root=str(path.parent), ann_file=path.name, data_prefix='.', lazy_init=True
    ).load_data_list()


def _voc(path: Path):
    return [list(one.polygon.bounds) for one in read_things(path, path.parent / 'a.tif', ['ship'])]


READERS = {
    'dota': ('a.txt', b'imagesource:GoogleEarth\ngsd:0.1\n1 2 9 2 9 8 1 8 ship 0\n',
             lambda path: [one.corners for one in read_dota_objects(path)]),
    'dior': ('a.xml', XML, lambda path: [one.corners for one in read_dior_objects(path)]),
    'voc': ('a.xml', XML, _voc),
    'table of boxes': ('a.csv', b'image,xmin,ymin,xmax,ymax,label\na.tif,1,2,9,8,ship\n', _voc),
    'geojson': ('a.geojson', json.dumps(geojson()).encode(),
                lambda path: [one.geometry['coordinates'] for one in
                              read_polygons(path, CRS.from_epsg(32618))]),
    'xview': ('a.geojson', json.dumps(geojson()).encode(),
              lambda path: list(read_labels(path, {'a.tif': (48, 40)})[0].values())),
    'names': ('a.txt', b'a\nb\nc\n', lambda path: read_names(path) and None),
    'patches': ('a.csv', f'patch_id,labels,split,s1_name\n,"[\'x\']",train,{PATCH}\n'.encode(),
                lambda path: [one.month for one in read_table(path)]),
    'fmow': ('a.csv', b'category,location\nairport,a.jpg\n', _fmow),
    'tiles': ('a.csv', b'path,row,col,height,width\na.jpg,0,0,4,4\n', _tiles),
    'floods': ('a.csv', b'sequence,first,second,label\n0001,a,b,1\n', _floods),
    'homography': ('a.txt', b'1 0 3\n0 1 2\n0 0 1\n', read_homography),
    'homography json': ('a.json', b'[[1, 0, 3], [0, 1, 2], [0, 0, 1]]', read_homography),
    'zarr': ('.zattrs', b'{"labels": ["a", "b"]}', lambda path: zarr_attributes(path.parent) and 0),
}  # fmt: skip


def run_reader(reader, path: Path) -> None:
    """Reads, or says in a DataError which file is wrong."""
    try:
        found = reader(path)
    except DataError as error:
        assert error.path is not None, error
        return
    numbers = _numbers(found)
    assert all(math.isfinite(one) for one in numbers), numbers


def _numbers(value):
    if isinstance(value, np.ndarray):
        return value.ravel().tolist()
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [one for part in value for one in _numbers(part)]
    return [value] if isinstance(value, (int, float)) else []


def fuzz(examples: int):
    return settings(
        max_examples=examples, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def check_text(name: str, folder: Path, examples: int) -> None:
    file, document, reader = READERS[name]
    (folder / 'a.jpg').write_bytes(b'')
    path = folder / file
    path.write_bytes(document)

    @fuzz(examples)
    @given(EDITS)
    def run(edits):
        path.write_bytes(damage(document, edits))
        run_reader(reader, path)

    run()


@pytest.mark.parametrize('name', READERS)
def test_damaged_text(name, tmp_path):
    check_text(name, tmp_path, 20)


@pytest.mark.slow
@pytest.mark.parametrize('name', READERS)
def test_damaged_text_many_times(name, tmp_path):
    check_text(name, tmp_path, 300)


def check_values(folder: Path, examples: int) -> None:
    """Values of other kinds in the places of JSON and pickles that are sound otherwise."""
    mask = np.zeros((48, 40), np.uint8)
    mask[5:20, 6:30] = 1
    good = encode_window(0, 0, mask, mask.shape)

    @fuzz(examples)
    @given(st.sampled_from(['label', 'mask', 'size', 'counts', 'bbox']), NUMBERS)
    def run(key, value):
        entry = {'label': 1, 'mask': dict(good), 'size': int(mask.sum()), 'bbox': [5, 5, 9, 9]}
        if key == 'counts':
            entry['mask']['counts'] = value
        else:
            entry[key] = value
        path = folder / 'a.pkl'
        path.write_bytes(pickle.dumps([entry]))
        try:
            found = read_instances(path, mask.shape, 4)
        except DataError as error:
            assert error.path == str(path)
        else:
            assert all(0 <= one['label'] < 4 for one in found)
        content = geojson()
        feature = json.loads(json.dumps(content['features'][0]))
        feature['properties']['bounds_imcoords' if key == 'label' else 'type_id'] = value
        feature['geometry']['coordinates' if key == 'mask' else 'type'] = value
        content['features'] = [feature, value]
        path = folder / 'a.geojson'
        path.write_text(json.dumps(content))
        for name in ('geojson', 'xview'):
            run_reader(READERS[name][2], path)

    run()


def test_values_of_other_kinds(tmp_path):
    check_values(tmp_path, 20)


@pytest.mark.slow
def test_values_of_other_kinds_many_times(tmp_path):
    check_values(tmp_path, 400)


def check_packed(folder: Path, examples: int) -> None:
    path = folder / 'a.tiles'
    with PackedTileWriter(path, ['a'], ['x']) as writer:
        for number in range(2):
            writer.write(np.full((1, 4, 4), number, np.uint8), str(number), [0])
    sound = path.read_bytes()

    @fuzz(examples)
    @given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9), st.binary(max_size=9)),
                    min_size=1, max_size=2))  # fmt: skip
    def run(edits):
        broken = damage(sound, edits)
        path.write_bytes(broken)
        try:
            tiles = PackedTiles(path)
            values = [tiles.read(number) for number in range(len(tiles))]
        except DataError as error:
            assert error.path == str(path)
        else:
            assert [int(one.max()) for one in values] == [0, 1]

    run()


def test_damaged_packed_tiles(tmp_path):
    check_packed(tmp_path, 20)


@pytest.mark.slow
def test_damaged_packed_tiles_many_times(tmp_path):
    check_packed(tmp_path, 300)
