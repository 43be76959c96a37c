# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What is written is what the descriptions say: whole layouts, ids, and boxes on their objects."""

import hashlib
import json
import pickle
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests import formats
from tests.formats import change_detection, dior, dota, fair1m, xview


def digest(root: Path) -> dict[str, str]:
    """Every file below a folder, and what is in it."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


@pytest.mark.parametrize('name', formats.MAKERS)
def test_the_same_again(name, tmp_path):
    roots = [formats.MAKERS[name](tmp_path / part) for part in 'ab']
    files = digest(roots[0])
    assert files
    assert files == digest(roots[1])
    assert files != digest(formats.MAKERS[name](tmp_path / 'c', seed=1))


@pytest.mark.parametrize('name', formats.SOURCES)
def test_sources_the_same_again(name, tmp_path):
    first, second = (digest(formats.SOURCES[name](tmp_path / part)) for part in 'ab')
    assert first
    assert first == second


def on_object(image: np.ndarray, polygon) -> bool:
    """Whether a polygon lies on something brighter than all that is around."""
    x, y = np.asarray(polygon, float).reshape(-1, 2).mean(0)
    return int(image[int(y), int(x)].min()) > 105


@pytest.mark.parametrize('name', ['xview', 'dior'])
def test_coco_boxes_lie_on_objects(name, tmp_path):
    root = formats.MAKERS[name](tmp_path)
    folders = {
        'xview_train_coco_format.json': 'train/images',
        'xview_val_coco_format.json': 'val/images',
        'DIOR_trainval_coco.json': 'JPEGImages-trainval',
        'DIOR_test_coco.json': 'JPEGImages-test',
    }
    files = sorted(root.glob('*.json'))
    assert len(files) == 2
    for file in files:
        content = json.loads(file.read_text())
        assert [entry['id'] for entry in content['images']] == list(range(len(content['images'])))
        ids = [entry['id'] for entry in content['annotations']]
        assert ids == list(range(len(ids)))
        assert len(content['categories']) == {'xview': 60, 'dior': 20}[name]
        for annotation in content['annotations']:
            entry = content['images'][annotation['image_id']]
            image = np.array(Image.open(root / folders[file.name] / entry['file_name']))
            assert image.shape == (entry['height'], entry['width'], 3)
            left, top, width, height = annotation['bbox']
            if min(width, height) < 2 or left < -1:
                continue  # faults that are written on purpose
            assert left + width <= entry['width']
            assert top + height <= entry['height']
            assert on_object(image, [[left, top], [left + width, top + height]])


@pytest.mark.parametrize(
    ('name', 'classes'),
    [
        ('dota1', dota.CLASSES_V1),
        ('dota2', dota.CLASSES_V2),
        ('fair1m', fair1m.CLASSES),
    ],
)
def test_patches_in_the_form_of_dota(name, classes, tmp_path):
    root = formats.MAKERS[name](tmp_path, count=3)
    files = sorted(root.glob('*/annfiles/*.txt'))
    assert files
    seen = set()
    for file in files:
        picture = file.parent.parent / 'images' / (file.stem + '.png')
        image = np.array(Image.open(picture))
        assert image.shape[0] == int(file.stem.split('__')[1])
        for line in file.read_text().splitlines():
            *corners, label, difficulty = line.split(' ')
            assert len(corners) == 8
            assert label in classes
            assert difficulty in '012'
            seen.add(difficulty)
            if float(corners[0]) > 0 and corners[:2] != corners[2:4]:
                assert on_object(image, [float(value) for value in corners])
    assert seen == {'0', '1', '2'}
    assert not all(file.stat().st_size for file in files)
    assert not (root / 'test' / 'annfiles').exists()


def test_dota_sources_have_their_headers(tmp_path):
    root = formats.make_dota_source(tmp_path / 'v1')
    for file in sorted(root.glob('*/labelTxt/*.txt')):
        source, gsd, *lines = file.read_bytes().split(b'\r\n')[:-1]
        assert (source, gsd[:4]) == (b'imagesource:GoogleEarth', b'gsd:')
        assert all(len(line.split(b' ')) == 10 for line in lines)
    root = formats.make_dota_source(tmp_path / 'v2', version='v2')
    assert b'\r' not in b''.join(file.read_bytes() for file in root.glob('*/labelTxt/*'))


def test_both_xml_of_dior(tmp_path):
    root = formats.make_dior_source(tmp_path)
    names = set()
    for split in ('train', 'val', 'test'):
        for stem in (root / 'ImageSets' / 'Main' / f'{split}.txt').read_text().split():
            folder = 'JPEGImages-test' if split == 'test' else 'JPEGImages-trainval'
            image = np.array(Image.open(root / folder / f'{stem}.jpg'))
            trees = [
                ElementTree.parse(root / 'Annotations' / f'{kind} Bounding Boxes' / f'{stem}.xml')
                for kind in ('Horizontal', 'Oriented')
            ]
            flat, turned = ([*tree.getroot().iter('object')] for tree in trees)
            assert len(turned) - len(flat) in (0, 1)  # the degenerate one
            for a, b in zip(flat, turned, strict=False):
                names.add(a.findtext('name'))
                assert a.findtext('name') == b.findtext('name')
                box = [int(value.text) for value in a.find('bndbox')]
                corners = np.array([int(value.text) for value in b.find('robndbox')]).reshape(4, 2)
                assert box == [*corners.min(0), *corners.max(0)]
                assert on_object(image, corners)
    assert names <= set(dior.XML_NAMES)
    assert any(name != name.lower() for name in names)


def test_fair1m_xml(tmp_path):
    root = formats.make_fair1m_source(tmp_path)
    names = set()
    for file in sorted(root.glob('*/labelXml/*.xml')):
        image = np.array(Image.open(file.parent.parent / 'images' / f'{file.stem}.tif'))
        for thing in ElementTree.parse(file).getroot().iter('object'):
            points = [point.text.split(',') for point in thing.iter('point')]
            assert len(points) == 5
            assert points[0] == points[4]
            assert on_object(image, np.array(points[:4], float))
            names.add(thing.findtext('possibleresult/name'))
    assert {'Small Car', 'other-ship'} <= names <= set(fair1m.XML_NAMES)


def test_values_of_the_label_maps(tmp_path):
    expected = {'spacenet_v1': {0, 1}, 'loveda': set(range(8))}
    for name, values in expected.items():
        root = formats.MAKERS[name](tmp_path / name, count=3)
        found = set()
        for file in root.glob('*/labels/*.png'):
            label = Image.open(file)
            assert label.mode == 'L'
            assert (file.parent.parent / 'images' / file.name).is_file()
            found |= set(np.unique(label).tolist())
        assert found == values


@pytest.mark.parametrize('name', ['oscd', 'whu_cd', 'levir_cd', 'cdd'])
def test_two_dates_and_their_change(name, tmp_path):
    root = formats.MAKERS[name](tmp_path)
    splits = {'train', 'test'} if name == 'oscd' else {'train', 'val', 'test'}
    assert {path.name for path in root.iterdir()} == splits
    modes, changes = set(), []
    for file in sorted(root.glob('*/label/*')):
        first, second = (Image.open(file.parent.parent / date / file.name) for date in 'AB')
        label = Image.open(file)
        modes.add(label.mode)
        assert first.size == second.size == label.size
        changed = np.array(label.convert('L')) >= 128
        changes.append(changed.mean())
        difference = np.abs(np.array(first, int) - np.array(second, int)).max(-1)
        if changed.any():
            assert difference[changed].mean() > 2 * difference[~changed].mean()
    assert 0 in changes
    assert 0.02 < max(changes) < 0.5
    expected = {'whu_cd': {'L', '1'}, 'levir_cd': {'L', 'P'}, 'cdd': {'L', 'RGB'}, 'oscd': {'L'}}
    assert modes == expected[name]


def test_oscd_bands_and_labels(tmp_path):
    root = formats.make_oscd_source(tmp_path)
    images = root / 'Onera Satellite Change Detection dataset - Images'
    cities = (images / 'train.txt').read_text().strip().split(',')
    assert cities == list(change_detection.TRAIN_CITIES[:2])
    for city in cities:
        bands = [Image.open(file) for file in (images / city / 'imgs_1_rect').glob('*.tif')]
        assert len(bands) == 13
        folder = root / 'Onera Satellite Change Detection dataset - Train Labels' / city / 'cm'
        change = np.array(Image.open(folder / f'{city}-cm.tif'))
        assert set(np.unique(change)) == {1, 2}
        assert {band.size for band in bands} == {change.shape[::-1]}
        grey = np.array(Image.open(folder / 'cm.png').convert('L'))
        assert np.array_equal(grey == 255, change == 2)


def test_xview_names_and_samrs_masks(tmp_path):
    assert len(xview.CLASSES) == len(xview.TYPE_IDS) == len(set(xview.TYPE_IDS)) == 60
    assert len(set(formats.classification.RESISC45)) == 45
    root = formats.make_samrs_source(tmp_path)
    for stem in (root / 'train.txt').read_text().split():
        file = root / 'trainval' / 'rhbox_segs_init' / 'ins' / f'{stem}.pkl'
        instances = pickle.loads(file.read_bytes())
        grey = np.array(Image.open(file.parent.parent / 'gray' / f'{stem}.png'))
        for instance in instances:
            mask = coco_mask.decode(instance['mask']).astype(bool)
            assert mask.sum() == instance['size']
            assert (grey[mask] == instance['label']).all()


@pytest.mark.parametrize('layout', ['before_after', 'two_period'])
def test_whu_sources(layout, tmp_path):
    root = formats.make_whu_cd_source(tmp_path, layout=layout)
    labels = sorted(root.rglob('change_label.tif'))
    assert len(labels) == (1 if layout == 'before_after' else 2)
    assert {Image.open(label).mode for label in labels} == {'1'}
