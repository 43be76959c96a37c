# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The converters against what the reference's scripts wrote from the same inputs."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_converters.dior_to_coco import dior_to_coco
from data_converters.loveda_server_labels import loveda_server_labels
from data_converters.samrs_pkl_to_coco import samrs_to_coco
from data_converters.spacenet_to_masks import building_mask, spacenet_to_masks
from data_converters.xview_geojson_to_coco import read_labels, xview_to_coco
from mmrsfm.utils.rgb import image_size
from tests.parity import parity_files

FOLDER = 'converters'
pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')


def load(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.parametrize('folder', parity_files(f'{FOLDER}/convert_pkl_json'))
@pytest.mark.parametrize('dataset', ['sota', 'sior', 'fast'])
def test_parity_samrs(folder, dataset, tmp_path):
    samrs_to_coco(folder / 'input', tmp_path, dataset, workers=2, quiet=True)
    expected = sorted(folder.glob(f'expected/{dataset}_*.json'))
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in expected]
    for path in expected:
        # Text, not objects: the order of the keys too.
        assert (tmp_path / path.name).read_text() == path.read_text().strip()


@pytest.mark.parametrize('folder', parity_files(f'{FOLDER}/dior_h_2_coco'))
def test_parity_dior(folder, tmp_path):
    dior_to_coco(folder / 'input', tmp_path, quiet=True)
    for path in sorted((folder / 'expected').iterdir()):
        assert (tmp_path / path.name).read_text() == path.read_text().strip()


# Where the reference is wrong. It scales the boxes of images that are smaller than a tile with
# the padding: image 101 is 300 pixels wide, and its boxes come out 416/300 times as wide.
XVIEW_WRONG = {
    '101_0.png': [[-0.0002, -0.0002, 27.7335, 20.0]],
    '101_1.png': [[346.6667, 366.0001, 55.4665, 40.0001]],
}
XVIEW_RIGHT = {  # of the geojson: 0,0,20,20 and 250,450,290,490 (the second tile begins at y 84)
    '101_0.png': [[0, 0, 20, 20]],
    '101_1.png': [[250, 366, 40, 40]],
}


@pytest.mark.parametrize('folder', parity_files(f'{FOLDER}/prepare_xview_dataset'))
def test_parity_xview(folder, tmp_path):
    source = folder / 'input'
    split = load(source / 'split.json')
    for _ in range(2):  # the reference doubles its labels when it is run again
        xview_to_coco(
            source / 'xView_train.geojson', source / 'train_images', tmp_path, split, quiet=True
        )
    patches = folder / 'expected' / 'yolo_format_patch'
    for part in split:
        ours = load(tmp_path / f'xview_{part}_coco_format.json')
        theirs = load(patches / f'xview_{part}_coco_format.json')
        assert ours['images'] == theirs['images']
        assert ours['categories'] == theirs['categories']
        names = [image['file_name'] for image in ours['images']]
        assert len(ours['annotations']) == len(theirs['annotations'])
        for one, other in zip(ours['annotations'], theirs['annotations'], strict=True):
            name = names[one['image_id']]
            if name in XVIEW_WRONG:
                np.testing.assert_allclose([other['bbox']], XVIEW_WRONG[name], atol=1e-3)
                np.testing.assert_allclose([one['bbox']], XVIEW_RIGHT[name], atol=1e-3)
                other = {**other, 'bbox': one['bbox'], 'area': one['area']}
            assert list(one.items()) == list(other.items())
        written = sorted((tmp_path / part / 'images').iterdir())
        expected = sorted((patches / part / 'images').iterdir())
        assert [path.name for path in written] == [path.name for path in expected]
        for one, other in zip(written, expected, strict=True):
            np.testing.assert_array_equal(cv2.imread(one), cv2.imread(other))


@pytest.mark.parametrize('folder', parity_files(f'{FOLDER}/prepare_xview_dataset'))
def test_parity_xview_labels(folder):
    images = sorted((folder / 'input' / 'train_images').iterdir())
    sizes = {path.name: image_size(path) for path in images}
    labels, left_out = read_labels(folder / 'input' / 'xView_train.geojson', sizes)
    for path in sorted((folder / 'expected' / 'train_txts').iterdir()):
        lines = [
            f'{category} ' + ' '.join(f'{value:.6f}' for value in box)
            for category, *box in labels.pop(f'{path.stem}.tif')
        ]
        assert lines == path.read_text().splitlines()
    assert not labels
    assert left_out == {
        'no such image': 1, 'no bounds': 1, 'bounds that are not four integers': 1,
        'type_id of no class': 2,
    }  # fmt: skip


@pytest.mark.parametrize('folder', parity_files(f'{FOLDER}/process_spacenet'))
def test_parity_spacenet(folder, tmp_path):
    # The reference writes 255 for a building, which is the number of no label in training.
    source = folder / 'input'
    expected = sorted((folder / 'expected').glob('*.tif'))
    counts = spacenet_to_masks(
        source / '3band', source / 'geojson', tmp_path, val_names=[expected[0].stem], quiet=True
    )
    assert counts == {'train': len(expected) - 1, 'val': 1}
    for path in expected:
        part = 'val' if path == expected[0] else 'train'
        theirs = cv2.imread(path, cv2.IMREAD_UNCHANGED)
        assert set(np.unique(theirs)) <= {0, 255}
        mask = cv2.imread(tmp_path / part / 'labels' / f'{path.stem}.png', cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(mask, theirs // 255)
        geojson = source / 'geojson' / f'Geo_{path.stem.removeprefix("3band_")}.geojson'
        np.testing.assert_array_equal(building_mask(geojson, source / '3band' / path.name), mask)
        image = cv2.imread(tmp_path / part / 'images' / f'{path.stem}.png')
        np.testing.assert_array_equal(image, cv2.imread(source / '3band' / path.name))


@pytest.mark.parametrize('folder', parity_files(f'{FOLDER}/change_loveda_label'))
def test_parity_loveda_labels(folder, tmp_path):
    expected = sorted((folder / 'expected').iterdir())
    assert loveda_server_labels(folder / 'input', tmp_path, quiet=True) == len(expected)
    for path in expected:
        ours, theirs = (cv2.imread(p, cv2.IMREAD_UNCHANGED) for p in (tmp_path / path.name, path))
        np.testing.assert_array_equal(ours, theirs)


# Tested beside what replaces their scripts: the decoders and the two submissions.
ELSEWHERE = {'change_ckpt', 'dota_merge_submission', 'dota_submit_txt_to_fair1m_xml'}


@pytest.mark.parametrize('folder', parity_files(FOLDER))
def test_no_fixture_is_left_out(folder):
    here = Path(__file__).read_text()
    for path in folder.iterdir():
        assert not path.is_dir() or path.name in ELSEWHERE or f'/{path.name}' in here
