# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Scene classification datasets: classes, lists, splits, and every way not to find them."""

import numpy as np
import pytest
from PIL import Image

from mmrsfm.datasets import (
    RESISC45,
    WHURS19,
    EuroSAT,
    FMoWRGB,
    NAIPTiles,
    SceneFolderDataset,
    UCMerced,
)
from mmrsfm.errors import BandMismatchError, ConfigError, DatasetNotFoundError
from tests.test_datasets.imagery import numbers, write_tif

SCENES = [
    (EuroSAT, 10, '.jpg'),
    (RESISC45, 45, '.jpg'),
    (UCMerced, 21, '.tif'),
    (WHURS19, 19, '.jpg'),
]


def folders(root, classes, suffix='.jpg', count=5):
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f'{name}_{number}{suffix}').touch()
    return root


@pytest.mark.parametrize(('cls', 'count', 'suffix'), SCENES)
def test_class_tables(cls, count, suffix):
    classes = cls.METAINFO['classes']
    assert len(classes) == len(set(classes)) == count
    assert sorted(classes, key=str.lower) == list(classes)
    assert cls.citation
    assert cls.licence


@pytest.mark.parametrize(('cls', 'count', 'suffix'), SCENES)
def test_folders_are_found_whatever_their_case(tmp_path, cls, count, suffix):
    names = [name.upper().replace('_', '-') for name in cls.METAINFO['classes']]
    folders(tmp_path / 'images', names, suffix, 2)
    dataset = cls(data_root=str(tmp_path), data_prefix='images')
    assert len(dataset) == 2 * count
    assert cls.METAINFO['classes'] == dataset.CLASSES
    info = dataset.get_data_info(3)
    assert info['gt_label'] == 1
    assert info['img_path'].endswith(f'{names[1]}_1{suffix}')
    assert info['band_names'] == ('R', 'G', 'B')


def scenes(tmp_path, **options):
    if not (tmp_path / 'a').exists():
        folders(tmp_path, ['a', 'b', 'c'], count=20)
    return SceneFolderDataset(data_root=str(tmp_path), **options)


def names(dataset):
    return {dataset.get_data_info(i)['img_path'] for i in range(len(dataset))}


def test_classes_are_the_folders_where_nothing_else_is_said(tmp_path):
    assert scenes(tmp_path).CLASSES == ('a', 'b', 'c')
    assert len(scenes(tmp_path)) == 60


def test_splits_are_disjoint_complete_stratified_and_stable(tmp_path):
    parts = [scenes(tmp_path, split=split) for split in ('train', 'val', 'test')]
    assert [len(part) for part in parts] == [36, 12, 12]
    assert np.bincount(parts[0].get_gt_labels()).tolist() == [12, 12, 12]
    assert names(parts[0]) | names(parts[1]) | names(parts[2]) == names(scenes(tmp_path))
    assert names(scenes(tmp_path, split='train')) == names(parts[0])
    assert names(scenes(tmp_path, split='train', split_seed=1)) != names(parts[0])
    assert len(scenes(tmp_path, split='train', fractions=(0.5, 0, 0.5))) == 30


def test_rgb_and_many_bands_are_split_alike(tmp_path):
    classes = EuroSAT.METAINFO['classes']
    folders(tmp_path / 'rgb', classes)
    folders(tmp_path / 'ms', classes, '.tif')
    root = {'data_root': str(tmp_path), 'split': 'train'}
    rgb = EuroSAT(data_prefix='rgb', **root)
    ms = EuroSAT('all_bands', data_prefix='ms', **root)
    stems = [{path.rsplit('/', 1)[1][:-4] for path in names(one)} for one in (rgb, ms)]
    assert stems[0] == stems[1]


def test_lists(tmp_path):
    lines = ['a_3.jpg', 'b/b_2.jpg', 'c_1.tif', 'a/a_0.jpg 0', 'b_0.jpg b', '']
    (tmp_path / 'train.txt').write_text('\n'.join(lines))
    dataset = scenes(tmp_path, ann_file='train.txt')
    assert dataset.get_gt_labels().tolist() == [0, 1, 2, 0, 1]
    assert dataset.get_data_info(2)['img_path'].endswith('c/c_1.jpg')


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('x.jpg', r'line 1: x\.jpg is missing below'),
        ('a_1.jpg 2', r'line 1: a_1\.jpg is said to be of class 2, .* of class 0'),
    ],
)
def test_wrong_lists(tmp_path, line, message):
    (tmp_path / 'train.txt').write_text(line)
    with pytest.raises(DatasetNotFoundError, match=message):
        scenes(tmp_path, ann_file='train.txt')


def test_ambiguous_names(tmp_path):
    folders(tmp_path, ['a', 'b'])
    (tmp_path / 'b' / 'a_1.jpg').touch()
    (tmp_path / 'train.txt').write_text('a_1.jpg')
    with pytest.raises(DatasetNotFoundError, match='name of several images'):
        scenes(tmp_path, ann_file='train.txt')


def test_subset_of_the_classes(tmp_path):
    folders(tmp_path, EuroSAT.METAINFO['classes'])
    dataset = EuroSAT(data_root=str(tmp_path), classes=['River', 'Forest'])
    assert np.bincount(dataset.get_gt_labels()).tolist() == [5, 5]
    assert 'River' in dataset.get_data_info(9)['img_path']
    assert dataset.get_data_info(9)['gt_label'] == 0


@pytest.mark.parametrize(('cls', 'count', 'suffix'), SCENES)
def test_what_is_not_there_is_described(tmp_path, cls, count, suffix):
    layout = 'one folder (a class|for each of)'
    with pytest.raises(DatasetNotFoundError, match=f'no such folder.*Expected: .*{layout}'):
        cls(data_root=str(tmp_path / 'absent'))
    with pytest.raises(DatasetNotFoundError, match='no folder for the classes'):
        cls(data_root=str(tmp_path))
    classes = cls.METAINFO['classes']
    folders(tmp_path, [*classes[:-1], 'something else'], suffix)
    with pytest.raises(DatasetNotFoundError, match='something else: the folder is none of the'):
        cls(data_root=str(tmp_path))
    with pytest.raises(DatasetNotFoundError, match='no such list'):
        folders(tmp_path / 'b', classes, suffix)
        cls(data_root=str(tmp_path / 'b'), ann_file='train.txt')


def test_folders_without_images(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
    with pytest.raises(DatasetNotFoundError, match='no image with one of the suffixes'):
        SceneFolderDataset(data_root=str(tmp_path))


def test_contradictory_arguments(tmp_path):
    with pytest.raises(ConfigError, match='split is one of'):
        scenes(tmp_path, split='training')
    with pytest.raises(ConfigError, match='not given with ann_file'):
        scenes(tmp_path, split='train', ann_file='x.txt')
    with pytest.raises(ConfigError, match='three parts of 1'):
        scenes(tmp_path, fractions=(0.9, 0.9, 0.9))
    with pytest.raises(ConfigError, match='modality'):
        EuroSAT('sar')


def test_eurosat_bands_are_in_the_order_of_sentinel_2(tmp_path):
    array = numbers(13, 8, 8)
    for name in EuroSAT.METAINFO['classes']:
        write_tif(tmp_path / name / f'{name}_1.tif', array)
    load = dict(type='mmrsfm.LoadMultiBandImage', bands=['B08', 'B8A', 'B09'], to_float32=False)
    dataset = EuroSAT('all_bands', data_root=str(tmp_path), pipeline=[load])
    results = dataset[0]
    assert results['band_names'] == ('B08', 'B8A', 'B09')
    assert np.array_equal(results['img'], array[[7, 12, 8]].transpose(1, 2, 0))
    other = EuroSAT('all_bands', data_root=str(tmp_path), pipeline=[load], band_names=('B1', 'B2'))
    with pytest.raises(BandMismatchError, match='13 bands, but 2 band names'):
        other[0]


# -- fMoW ------------------------------------------------------------------------------------------


def csv_file(root, rows, name='train.csv'):
    for row in rows[1:]:
        if row and not row[1].startswith('absent'):
            path = root / row[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    (root / name).write_text('\n'.join(','.join(row) for row in rows))


def test_fmow_classes():
    classes = FMoWRGB.METAINFO['classes']
    assert len(classes) == 62
    assert sorted(classes) == list(classes)


def test_fmow_labels_are_names_or_indices_and_paths_are_beside_the_csv(tmp_path):
    rows = [['label', 'path', 'x'], ['3', 'a/0.jpg', ''], ['zoo', 'a/1.jpg', ''], []]
    (tmp_path / 'lists').mkdir()
    csv_file(tmp_path / 'lists', rows)
    dataset = FMoWRGB('lists/train.csv', data_root=str(tmp_path), check_files=True)
    assert dataset.get_gt_labels().tolist() == [3, 61]
    assert dataset.get_data_info(1)['img_path'] == str(tmp_path / 'lists' / 'a' / '1.jpg')
    assert dataset.get_data_info(1)['band_names'] == ('R', 'G', 'B')


def test_fmow_columns_and_prefix(tmp_path):
    rows = [['image_path', 'i/0.jpg'], ['zoo', 'i/0.jpg']]
    csv_file(tmp_path, rows)
    (tmp_path / 'named.csv').write_text(
        f'id,image_path,category\n7,0.jpg,zoo\n8,{tmp_path}/i/0.jpg,0'
    )
    dataset = FMoWRGB(
        'named.csv', 'category', 'image_path', True, data_root=str(tmp_path), data_prefix='i'
    )
    assert dataset.get_data_info(0)['img_path'] == str(tmp_path / 'i' / '0.jpg')
    assert dataset.get_data_info(1)['img_path'] == str(tmp_path / 'i' / '0.jpg')
    assert dataset.get_gt_labels().tolist() == [61, 0]
    with pytest.raises(DatasetNotFoundError, match="no column 'label'"):
        FMoWRGB('named.csv', 'label', data_root=str(tmp_path))


@pytest.mark.parametrize(
    ('row', 'message'),
    [
        (['castle', '0.jpg'], "line 2: 'castle' is neither a class name nor an index below 62"),
        (['62', '0.jpg'], 'neither a class name'),
        (['-1', '0.jpg'], 'neither a class name'),
        (['0', 'absent.jpg'], 'named in .*train.csv, but missing'),
    ],
)
def test_fmow_wrong_rows(tmp_path, row, message):
    csv_file(tmp_path, [['label', 'path'], row])
    with pytest.raises(DatasetNotFoundError, match=message + r'.*Expected: a csv file'):
        FMoWRGB('train.csv', data_root=str(tmp_path))


def test_fmow_without_files(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r'no such file.*Expected: a csv'):
        FMoWRGB('train.csv', data_root=str(tmp_path))
    with pytest.raises(ConfigError, match='ann_file'):
        FMoWRGB()
    (tmp_path / 'train.csv').write_text('label,path\n')
    with pytest.raises(DatasetNotFoundError, match='no rows'):
        FMoWRGB('train.csv', data_root=str(tmp_path))
    (tmp_path / 'train.csv').write_text('label,path\n3\n')
    with pytest.raises(DatasetNotFoundError, match=r'line 2 has 1 column'):
        FMoWRGB('train.csv', data_root=str(tmp_path))


# -- NAIP ------------------------------------------------------------------------------------------


def naip(root, codes=(24, 1, 24, 36, 1), parts=(0, 0, 1, 2, 2)):
    (root / 'tiles').mkdir()
    for number in range(5):
        np.save(root / 'tiles' / f'{number}tile.npy', np.full((6, 6, 4), number, np.uint8))
    np.save(root / 'y.npy', np.array(codes))
    np.save(root / 'splits.npy', np.array(parts))
    return {'data_root': str(root), 'data_prefix': 'tiles'}


def test_naip(tmp_path):
    where = naip(tmp_path)
    assert NAIPTiles(**where).get_gt_labels().tolist() == [1, 0, 1, 2, 0]
    assert NAIPTiles(**where).CLASSES == ('1', '24', '36')
    load = dict(type='mmrsfm.LoadMultiBandImage', bands=['R', 'G', 'B'])
    dataset = NAIPTiles(split='val+test', pipeline=[load], **where)
    assert dataset.get_gt_labels().tolist() == [1, 2, 0]
    assert dataset[0]['img'].shape == (6, 6, 3)
    assert (dataset[0]['img'] == 2).all()
    assert [len(NAIPTiles(split=split, **where)) for split in ('train', 'val', 'test')] == [2, 1, 2]


def test_naip_that_is_not_there(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r'y\.npy: no such file.*Expected: 0tile\.npy'):
        NAIPTiles(data_root=str(tmp_path))
    where = naip(tmp_path)
    (tmp_path / 'tiles' / '3tile.npy').unlink()
    with pytest.raises(DatasetNotFoundError, match=r'3tile\.npy: no such tile'):
        NAIPTiles(**where)
    np.save(tmp_path / 'splits.npy', np.zeros(4))
    with pytest.raises(DatasetNotFoundError, match='4 entries, but 5 labels'):
        NAIPTiles(**where)
    np.save(tmp_path / 'splits.npy', np.zeros(5))
    with pytest.raises(DatasetNotFoundError, match="no entry for the split 'val'"):
        NAIPTiles(split='val', **where)
    (tmp_path / 'splits.npy').write_bytes(b'')
    with pytest.raises(DatasetNotFoundError, match='not a readable'):
        NAIPTiles(**where)
    with pytest.raises(ConfigError, match='split'):
        NAIPTiles(split='all', **where)
