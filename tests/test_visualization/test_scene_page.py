# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The page of a scene: one file that asks no network, and does what its user does."""

import base64
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely
from affine import Affine

from mmrsfm.errors import ConfigError
from mmrsfm.visualization.scene_page import PageObjects, digits_of, write_scene_page

CLASSES = ['tree', '</script><b> & "pool"']
# A scene of 200 rows and 400 columns: on a canvas of 400 x 300 it is shown from row 50 on.
SIZE = (200, 400)
RING = shapely.box(100, 20, 160, 80).difference(shapely.box(120, 40, 140, 60))
POLYGONS = np.array([shapely.box(10, 10, 50, 40), RING, shapely.box(20, 15, 30, 25)], object)
OBJECTS = PageObjects(POLYGONS, np.array([0, 1, 0]), np.array([0.9, 0.7, 0.425], np.float32))
PICTURE = np.full((100, 200, 3), (200, 100, 50), np.uint8)


class Structure(HTMLParser):
    """Checks that elements close, and notes what they name."""

    VOID = {'meta', 'input', 'link', 'br', 'img'}

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.text = [], [], [], ''

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == 'id':
                self.ids.append(value)
            if name in ('src', 'href', 'action', 'srcset', 'data') or name.startswith('on'):
                self.links.append((name, value))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ('script', 'style'):
            self.text += data


def read(path):
    text = path.read_text(encoding='utf-8')
    structure = Structure()
    structure.feed(text)
    assert not structure.open and len(structure.ids) == len(set(structure.ids))
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return text, structure, json.loads(data.group(1))


def picture_of(source, flag=cv2.IMREAD_UNCHANGED):
    content = base64.b64decode(source.split(',', 1)[1])
    return cv2.imdecode(np.frombuffer(content, np.uint8), flag)


def test_the_file_is_whole_and_asks_no_network(tmp_path):
    path = tmp_path / 'out' / 'scene.html'
    facts = {'Model': '<i>a</i>', 'Tiles': 12}
    write_scene_page(path, 'A & B <x>', [('2020', PICTURE)], SIZE, CLASSES, [(255, 0, 0)], OBJECTS,
                     facts=facts, max_side=50)  # fmt: skip
    text, structure, data = read(path)
    assert not structure.links and '@@' not in text
    assert "default-src 'none'" in text and not re.search(r'https?:|//cdn', text)
    assert 'A & B <x>' in structure.text and '<i>a</i>' in structure.text
    assert data['classes'] == CLASSES and data['size'] == [400, 200]
    assert data['palette'][0] == [255, 0, 0] and len(data['palette']) == 2
    image = picture_of(data['images'][0]['source'])
    assert image.shape == (25, 50, 3)
    assert abs(image[10, 10].astype(int) - [50, 100, 200]).max() <= 3  # BGR
    # Tenths of a pixel; a hole is a ring of its own.
    rings = data['objects']['rings']
    assert [len(polygon) for polygon in rings] == [1, 2, 1]
    corners = np.reshape(rings[1][0], (-1, 2)) / 10
    assert shapely.Polygon(corners).equals(shapely.Polygon(RING.exterior))
    assert data['objects']['scores'] == [0.9, 0.7, 0.425]
    assert 'transform' not in data and 'map' not in data


def test_maps_of_classes_stay_numbers(tmp_path):
    numbers = np.full((60, 120), 255, np.uint8)
    numbers[:30], numbers[30:45] = 0, 1
    write_scene_page(tmp_path / 'a.html', 'a', [('a', PICTURE)], SIZE, CLASSES, class_map=numbers,
                     crs='EPSG:32618', transform=Affine(0.5, 0, 4e5, 0, -0.5, 4e6))  # fmt: skip
    _, _, data = read(tmp_path / 'a.html')
    assert np.array_equal(picture_of(data['map']['source']), numbers)
    assert data['map']['shares'] == ['66.7%', '33.3%'] and data['decimals'] == 2
    assert data['transform'] == [0.5, 0, 4e5, 0, -0.5, 4e6]


def test_what_cannot_be_shown(tmp_path):
    with pytest.raises(ConfigError, match='needs an image'):
        write_scene_page(tmp_path / 'a.html', 'a', [], SIZE)
    with pytest.raises(ConfigError, match='1 classes, but number 1 is used'):
        write_scene_page(tmp_path / 'a.html', 'a', [('a', PICTURE)], SIZE, ['a'], None, OBJECTS)
    nothing = PageObjects(POLYGONS[:0], np.zeros(0, int), np.zeros(0))
    write_scene_page(tmp_path / 'a.html', 'a', [('a', PICTURE)], SIZE, [], None, nothing)
    assert read(tmp_path / 'a.html')[2]['objects'] == {'labels': [], 'scores': [], 'rings': []}
    assert [digits_of(one) for one in (0.05, 0.1, 1, 3, 1e-6)] == [2, 1, 0, 0, 6]


def in_node(path, points, pixels=()):
    node = shutil.which('node')
    if node is None:
        pytest.skip('install Node.js (node) to run the script of the page')
    environment = {**os.environ, 'POINTS': json.dumps(points), 'MAP': json.dumps(list(pixels))}
    run = subprocess.run(
        [node, Path(__file__).with_name('page_in_node.js'), path], env=environment, timeout=60,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_the_page_works_with_objects(tmp_path):
    path = tmp_path / 'a.html'
    write_scene_page(path, 'a', [('a', PICTURE)], SIZE, CLASSES, None, OBJECTS,
                     crs='EPSG:32618', transform=Affine(0.5, 0, 4e5, 0, -0.5, 4e6))  # fmt: skip
    # In a small box within another, in a ring, in its hole, outside of the scene.
    shown = in_node(path, [[25, 70], [12, 62], [110, 80], [130, 100], [200, 20]])
    assert shown['fit'] == [1, 0, 0, 1, 0, 50]
    assert shown['counts'] == [2, 1]
    assert shown['hidden'] == {
        'images': True, 'scores': False, 'opacities': True, 'legends': False,
    }  # fmt: skip
    tips = [tip for tip, _ in shown['hover']]
    # Decimals as JavaScript rounds them: 0.425 is a little less.
    assert tips[1:] == ['tree 0.90', f'{CLASSES[1]} 0.70', '', '']
    assert tips[0] in ('tree 0.42', 'tree 0.43')
    assert shown['hover'][0][1] == 'column 25, row 20 · 400012.50, 3999990.00 (EPSG:32618)'
    # The wheel keeps the point under it: column 100, row 10.
    a, _, _, d, e, f = shown['zoomed']
    assert a == d > 2 and a * 100 + e == pytest.approx(100) and d * 10 + f == pytest.approx(60)
    assert np.allclose(np.subtract(shown['moved'], shown['zoomed'])[4:], [67, -5])
    assert shown['back'] == shown['fit']
    assert shown['fewer'] == [1, 1]
    # Without the first class: the seam and the line of the second.
    assert shown['strokes'] == 2 and shown['without'] == ['', '', f'{CLASSES[1]} 0.70', '', '']


def test_the_page_works_with_a_map(tmp_path):
    path = tmp_path / 'a.html'
    numbers = np.array([[0, 1], [255, 1]], np.uint8)
    write_scene_page(path, 'a', [('a', PICTURE), ('b', PICTURE)], SIZE, CLASSES,
                     [(1, 2, 3), (4, 5, 6)], class_map=numbers)  # fmt: skip
    grey = np.stack([numbers] * 3 + [np.full_like(numbers, 255)], -1)
    shown = in_node(path, [[10, 60], [300, 60], [10, 200]], grey.ravel().tolist())
    assert [tip for tip, _ in shown['hover']] == ['tree', CLASSES[1], '']
    assert shown['hover'][0][1] == 'column 10, row 10'
    assert shown['counts'] == ['33.3%', '66.7%']
    assert shown['hidden'] == {
        'images': False, 'scores': True, 'opacities': False, 'legends': False,
    }  # fmt: skip
    first, second, nothing = [1, 2, 3, 255], [4, 5, 6, 255], [0, 0, 0, 0]
    assert shown['pixels'] == first + second + nothing + second
    assert shown['fewer_pixels'] == nothing + second + nothing + second
    assert shown['without'] == ['', CLASSES[1], '']
