# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""TileDataset and GeoTIFFSegDataset: a user's own imagery."""

import numpy as np
import pytest
from mmengine.registry import init_default_scope

from mmrsfm.datasets import TileDataset
from mmrsfm.datasets.segmentation import GeoTIFFSegDataset
from mmrsfm.errors import DatasetNotFoundError
from tests.test_datasets.imagery import numbers, write_tif

LOAD = dict(type='mmrsfm.LoadMultiBandImage', to_float32=False)


@pytest.fixture
def folder(tmp_path):
    for name in ('b', 'a', 'sub/c'):
        write_tif(tmp_path / 'images' / f'{name}.tif', numbers(height=24, width=20))
    (tmp_path / 'images' / 'readme.md').touch()
    return tmp_path


def stems(dataset) -> list[str]:
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    return [path.rsplit('/', 1)[1].split('.')[0] for path in paths]


def tiles(folder, **options):
    return TileDataset(data_root=str(folder), data_prefix={'img_path': 'images'}, **options)


def test_a_folder_of_tiles(folder):
    assert stems(tiles(folder)) == ['a', 'b', 'c']
    assert stems(tiles(folder, recursive=False)) == ['a', 'b']
    named = tiles(folder, band_names=['w', 'x', 'y', 'z'], pipeline=[{**LOAD, 'bands': ['y']}])
    assert np.array_equal(named[0]['img'][..., 0], numbers(height=24, width=20)[2])


def test_a_list_and_a_table(folder):
    (folder / 'some.txt').write_text('b.tif\n\nsub/c.tif\n')
    assert stems(tiles(folder, ann_file='some.txt')) == ['b', 'c']
    (folder / 'some.csv').write_text('id,file,row,col,height,width\n1,a.tif,2,3,8,6\n2,b.tif,,,,\n')
    dataset = tiles(folder, ann_file='some.csv', path_column='file', pipeline=[LOAD])
    assert dataset[0]['img'].shape == (8, 6, 4)
    assert dataset[1]['img'].shape == (24, 20, 4)
    with pytest.raises(DatasetNotFoundError, match="no column 'path'"):
        tiles(folder, ann_file='some.csv')


def test_scenes_are_cut_into_windows_that_cover_them(folder):
    dataset = tiles(folder, tile_size=9, stride=8, pipeline=[LOAD])
    seen = np.zeros((24, 20), int)
    per_image = len(dataset) // 3
    for index in range(per_image):
        row, column, h, w = dataset.get_data_info(index)['window']
        assert (h, w) == (9, 9)
        seen[row : row + h, column : column + w] += 1
        window = numbers(height=24, width=20)[:, row : row + h, column : column + w]
        assert np.array_equal(dataset[index]['img'], window.transpose(1, 2, 0))
    assert seen.min() >= 1
    whole = tiles(folder, tile_size=100)
    assert whole.get_data_info(0)['window'] == (0, 0, 24, 20)


def test_tiles_that_are_not_there(folder):
    with pytest.raises(DatasetNotFoundError, match='no such folder'):
        TileDataset(data_root=str(folder / 'absent'))
    (folder / 'empty').mkdir()
    with pytest.raises(DatasetNotFoundError, match='holds no images'):
        TileDataset(data_root=str(folder / 'empty'))
    with pytest.raises(DatasetNotFoundError, match='no such list'):
        tiles(folder, ann_file='absent.txt')
    (folder / 'some.txt').write_text('a.tif\nabsent.tif')
    with pytest.raises(DatasetNotFoundError, match=r'absent\.tif: named in .*some\.txt'):
        tiles(folder, ann_file='some.txt')


# -- segmentation ----------------------------------------------------------------------------------

CLASSES = {'classes': ('water', 'land'), 'palette': [[0, 0, 255], [0, 255, 0]]}


def seg(folder, labels='labels', **options):
    init_default_scope('mmseg')
    return GeoTIFFSegDataset(
        data_root=str(folder),
        data_prefix={'img_path': 'images', 'seg_map_path': labels},
        metainfo=CLASSES,
        **options,
    )


@pytest.fixture
def labelled(folder):
    for name in ('b', 'a', 'sub/c'):
        write_tif(folder / 'labels' / f'{name}.tif', numbers(1, 24, 20, 'uint8') % 2)
    return folder


def test_segmentation(labelled):
    pipeline = [LOAD, dict(type='mmrsfm.LoadSegLabel'), dict(type='mmrsfm.PackSegInputs')]
    dataset = seg(labelled, band_names=['w', 'x', 'y', 'z'], pipeline=pipeline)
    assert stems(dataset) == ['a', 'b', 'c']
    assert dataset.metainfo['classes'] == ('water', 'land')
    assert dataset.metainfo['band_names'] == ('w', 'x', 'y', 'z')
    packed = dataset[2]
    assert packed['inputs'].shape == (4, 24, 20)
    sample = packed['data_samples']
    assert sample.gt_sem_seg.data.shape == (1, 24, 20)
    assert sample.band_names == ('w', 'x', 'y', 'z')
    assert sample.geo['crs'] == 'EPSG:32618'
    assert sample.seg_map_path.endswith('labels/sub/c.tif')


def test_segmentation_by_list_and_without_labels(labelled):
    (labelled / 'val.txt').write_text('b\n')
    assert stems(seg(labelled, ann_file='val.txt')) == ['b']
    unlabelled = GeoTIFFSegDataset(data_prefix={'img_path': str(labelled / 'images')})
    assert 'seg_map_path' not in unlabelled.get_data_info(0)


def test_classes_are_checked_against_the_labels(labelled):
    write_tif(labelled / 'labels' / 'a.tif', numbers(1, 24, 20, 'uint8') % 4)
    dataset = seg(labelled, pipeline=[LOAD, dict(type='mmrsfm.LoadSegLabel')])
    with pytest.raises(Exception, match=r'labels/a\.tif: the label holds \[2, 3\].*0\.\.1'):
        dataset[0]


def test_segmentation_that_is_not_there(labelled):
    with pytest.raises(DatasetNotFoundError, match=r'no such folder \(seg_map_path\).*Expected'):
        seg(labelled, labels='masks')
    (labelled / 'labels' / 'b.tif').unlink()
    with pytest.raises(DatasetNotFoundError, match=r'labels/b\.tif: 1 files .* missing'):
        seg(labelled)
    with pytest.raises(DatasetNotFoundError, match='no such list'):
        seg(labelled, ann_file='absent.txt')
    with pytest.raises(DatasetNotFoundError, match='holds no images'):
        seg(labelled, img_suffix='.jp2')
