# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""SARDet-100K, DFC23 and DeepGlobe roads: what is read is what is in the files."""

import json

import numpy as np
import pytest
import rasterio
import torch
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from mmrsfm.datasets.splits import names_in_split
from mmrsfm.datasets.transforms import LoadHeightMap, LoadSegLabel, Pad, RandomFlip, Resize
from mmrsfm.errors import (
    BandMismatchError,
    ConfigError,
    DataError,
    DatasetNotFoundError,
    ImageSizeError,
)

pytestmark = pytest.mark.filterwarnings('ignore', category=NotGeoreferencedWarning)
NAN = float('nan')


def save(path, array, nodata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(array)
    array = array[None] if array.ndim == 2 else array
    count, height, width = array.shape
    with rasterio.open(
        path, 'w', driver='GTiff', width=width, height=height, count=count,
        dtype=array.dtype, nodata=nodata,
    ) as out:  # fmt: skip
        out.write(array)
    return path


# --- splits ---------------------------------------------------------------------------------


def test_splits_are_exact_disjoint_and_hardly_move():
    names = [str(number) for number in range(6226)]
    val = names_in_split(names, 'val', 1530 / 6226)
    train = names_in_split(reversed(names), 'train', 1530 / 6226)
    assert len(val) == 1530
    assert val | train == set(names)
    assert not val & train
    # The first digits of SHA-256 of '0', '1', '2' are 5f, 6b, d4.
    assert names_in_split(['0', '1', '2'], 'val', 1 / 3) == {'0'}
    fewer = names_in_split(names[1:], 'val', 1530 / 6226)
    assert len((val - {'0'}) ^ fewer) <= 1
    assert names_in_split(names, None, 0.5) == set(names)
    for options in (('test', 0.5), ('val', 1.5)):
        with pytest.raises(ConfigError):
            names_in_split(names, *options)


# --- DFC23 ----------------------------------------------------------------------------------


@pytest.fixture
def dfc23(tmp_path):
    for number in range(5):
        name = f'GF2_City_{number}.tif'
        save(tmp_path / 'train' / 'rgb' / name, np.full((3, 4, 6), number, np.uint8))
        save(tmp_path / 'train' / 'sar' / name, np.full((4, 6), 0.25, np.float32))
        heights = np.full((4, 6), 10.0 + number, np.float32)
        heights[0, 0], heights[0, 1] = -9999, NAN
        save(tmp_path / 'train' / 'dsm' / name, heights, nodata=-9999)
    return tmp_path


PIPELINE = [
    dict(type='mmrsfm.LoadModalities', modalities=dict(rgb=3, sar=1)),
    dict(type='mmrsfm.LoadHeightMap'),
    dict(type='mmrsfm.RandomFlip', prob=1.0, direction='horizontal'),
    dict(type='mmrsfm.PackSegInputs'),
]


def dataset(root, kind='mmrsfm.DFC23HeightDataset', **options):
    init_default_scope('mmseg')
    return DATASETS.build(dict(type=kind, data_root=str(root), **options))


def test_dfc23_heights_follow_the_image(dfc23):
    pytest.importorskip('mmseg')
    found = dataset(dfc23, pipeline=PIPELINE)
    assert len(found) == 5
    info = found.get_data_info(2)
    assert info['img_path'].endswith('train/rgb/GF2_City_2.tif')
    assert list(info['modality_paths']) == ['rgb', 'sar']
    packed = found[2]
    assert packed['inputs'].shape == (4, 4, 6)
    heights = packed['data_samples'].gt_depth_map.data
    assert heights.dtype == torch.float32
    assert torch.isnan(heights[0, 0, 4:]).all()  # mirrored
    assert torch.isnan(heights).sum() == 2
    assert heights[0, 3, 0] == 12


def test_dfc23_splits(dfc23):
    parts = [dataset(dfc23, split=split, val_fraction=0.4) for split in ('train', 'val')]
    names = [{part.get_data_info(i)['img_path'] for i in range(len(part))} for part in parts]
    assert [len(part) for part in parts] == [3, 2]
    assert not names[0] & names[1]
    (dfc23 / 'list.txt').write_text('GF2_City_4\nGF2_City_0\n')
    listed = dataset(dfc23, split='val', val_fraction=0.4, ann_file='list.txt')
    assert len(listed) == 2
    with pytest.raises(DatasetNotFoundError, match='split'):
        dataset(dfc23, split='val', val_fraction=0.0)


def test_dfc23_without_heights(dfc23):
    found = dataset(dfc23, data_prefix=dict(rgb='train/rgb', sar='train/sar'), pipeline=PIPELINE)
    assert 'height_map_path' not in found.get_data_info(0)
    with pytest.raises(ConfigError, match='there are no heights'):
        found.prepare_data(0)


# --- heights --------------------------------------------------------------------------------


def test_heights_that_are_none(tmp_path):
    path = save(tmp_path / 'h.tif', np.array([[-1, 3, 250], [0, NAN, 7]], np.float32))
    read = LoadHeightMap(nodata=7, valid_range=(0, 200)).transform({'height_map_path': path})
    expected = np.array([[NAN, 3, NAN], [0, NAN, NAN]], np.float32)
    np.testing.assert_array_equal(read['gt_depth_map'], expected)
    assert read['seg_fields'] == ['gt_depth_map']
    half = LoadHeightMap(scale=0.5).transform({'height_map_path': path})['gt_depth_map']
    assert half[0, 2] == 125


def test_heights_stay_aligned(tmp_path):
    heights = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = save(tmp_path / 'h.tif', heights)
    sample = {'height_map_path': path, 'img': heights[..., None].repeat(2, axis=2)}
    sample = LoadHeightMap().transform(sample)
    for step in (Resize((4, 6)), RandomFlip(1.0, 'vertical'), Pad(size=(5, 6))):
        sample = step(sample)
    assert sample['gt_depth_map'].shape == (5, 6)
    assert sample['gt_depth_map'][0, 5] == 5
    assert np.isnan(sample['gt_depth_map'][4]).all()


def test_heights_that_cannot_be_read(tmp_path):
    several = save(tmp_path / 's.tif', np.zeros((2, 3, 3), np.float32))
    with pytest.raises(BandMismatchError, match='one band'):
        LoadHeightMap().transform({'height_map_path': several})
    one = save(tmp_path / 'o.tif', np.zeros((3, 3), np.float32))
    with pytest.raises(ImageSizeError):
        LoadHeightMap().transform({'height_map_path': one, 'img': np.zeros((4, 4, 1))})
    for options in (dict(nodata='none'), dict(valid_range=(2, 1))):
        with pytest.raises(ConfigError):
            LoadHeightMap(**options)


# --- DeepGlobe ------------------------------------------------------------------------------


@pytest.fixture
def deepglobe(tmp_path):
    folder = tmp_path / 'train'
    folder.mkdir()
    for number in range(4):
        Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(folder / f'{number}_sat.jpg')
        mask = np.full((8, 8, 3), 3, np.uint8)
        mask[:, 2:4] = 250
        mask[:, 4], mask[:, 5] = 127, 128
        Image.fromarray(mask).save(folder / f'{number}_mask.png')
    return tmp_path


def test_deepglobe(deepglobe):
    pytest.importorskip('mmseg')
    steps = [
        dict(type='mmrsfm.LoadMultiBandImage', to_float32=False),
        dict(type='mmrsfm.LoadSegLabel', band=1, threshold=128),
        dict(type='mmrsfm.PackSegInputs'),
    ]
    kind = 'mmrsfm.DeepGlobeRoadDataset'
    found = dataset(deepglobe, kind, pipeline=steps)
    label = found[1]['data_samples'].gt_sem_seg.data[0]
    assert label.unique(dim=0).tolist() == [[0, 0, 1, 1, 0, 1, 0, 0]]
    assert len(dataset(deepglobe, kind, split='val')) == 1
    assert len(dataset(deepglobe, kind, split='train')) == 3
    (deepglobe / 'mine.txt').write_text('3\n1\n')
    mine = dataset(deepglobe, kind, split='val', ann_file='mine.txt')
    assert [mine.get_data_info(i)['img_path'][-9:] for i in range(2)] == ['3_sat.jpg', '1_sat.jpg']
    with pytest.raises(DatasetNotFoundError, match='split'):
        dataset(deepglobe, kind, split='val', val_fraction=0.0)


def test_label_of_several_bands_needs_to_know_which(deepglobe):
    path = deepglobe / 'train' / '0_mask.png'
    with pytest.raises(BandMismatchError, match='band=1'):
        LoadSegLabel().transform({'seg_map_path': path})
    with pytest.raises(BandMismatchError):
        LoadSegLabel(band=4).transform({'seg_map_path': path})
    with pytest.raises(ConfigError):
        LoadSegLabel(threshold=1, value_map={0: 0})


def test_threshold_keeps_what_is_not_labelled(tmp_path):
    path = save(tmp_path / 'l.tif', np.array([[0.0, 200.0, NAN, 255.0]], np.float32))
    read = LoadSegLabel(threshold=128, ignore_values=[255]).transform({'seg_map_path': path})
    assert read['gt_seg_map'].tolist() == [[0, 1, 255, 255]]


# --- SARDet-100K ----------------------------------------------------------------------------


def sardet(root, names, grey):
    folder = root / 'JPEGImages' / 'train'
    folder.mkdir(parents=True)
    shape = (20, 30) if grey else (20, 30, 3)
    Image.fromarray(np.full(shape, 77, np.uint8)).save(folder / '1.png')
    content = {
        'images': [dict(id=1, file_name='1.png', height=20, width=30)],
        'annotations': [
            dict(id=1, image_id=1, category_id=4, bbox=[2, 3, 10, 8], area=80, iscrowd=0)
        ],
        'categories': [dict(id=number, name=name) for number, name in enumerate(names)],
    }
    (root / 'Annotations').mkdir()
    (root / 'Annotations' / 'train.json').write_text(json.dumps(content))


NAMES = ['ship', 'aircraft', 'car', 'tank', 'bridge', 'harbor']


@pytest.mark.parametrize('grey', [True, False])
def test_sardet_is_read_as_one_band(grey, tmp_path):
    pytest.importorskip('mmdet')
    sardet(tmp_path, NAMES, grey)
    init_default_scope('mmdet')
    found = DATASETS.build(
        dict(
            type='mmrsfm.SARDet100KDataset',
            data_root=str(tmp_path),
            ann_file='Annotations/train.json',
            data_prefix=dict(img='JPEGImages/train'),
            pipeline=[
                dict(type='mmrsfm.LoadMultiBandImage', bands=[1], nodata=None, to_float32=False),
                dict(type='LoadAnnotations', with_bbox=True),
                dict(type='Resize', scale=(15, 10), keep_ratio=True),
                dict(type='RandomFlip', prob=1.0),
                dict(type='PackDetInputs'),
            ],
        )
    )
    packed = found[0]
    assert packed['inputs'].shape == (1, 10, 15)
    assert packed['inputs'].dtype == torch.uint8
    assert (packed['inputs'] == 77).all()
    instances = packed['data_samples'].gt_instances
    assert instances.labels.tolist() == [4]
    np.testing.assert_allclose(instances.bboxes.numpy(), [[9.0, 1.5, 14.0, 5.5]])


def test_sardet_with_other_classes(tmp_path):
    pytest.importorskip('mmdet')
    sardet(tmp_path, NAMES[::-1], True)
    init_default_scope('mmdet')
    with pytest.raises(DataError, match='another order'):
        DATASETS.build(
            dict(
                type='mmrsfm.SARDet100KDataset',
                data_root=str(tmp_path),
                ann_file='Annotations/train.json',
                data_prefix=dict(img='JPEGImages/train'),
                pipeline=[],
            )
        )
