# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The bi-temporal datasets: what they list, and what they say where something is missing."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmseg')

from mmengine.registry import DATASETS

from mmrsfm.errors import ConfigError, DatasetNotFoundError
from tests.formats.change_detection import make_cdd, make_levir_cd, make_oscd, make_whu_cd

PREFIX = {'img_path_from': 'train/A', 'img_path_to': 'train/B', 'seg_map_path': 'train/label'}
PIPELINE = [
    {'type': 'opencd.MultiImgLoadImageFromFile'},
    {'type': 'opencd.MultiImgLoadAnnotations'},
    {'type': 'opencd.MultiImgPackSegInputs'},
]


def build(kind, root, **options):
    options.setdefault('data_prefix', dict(PREFIX))
    return DATASETS.build({'type': kind, 'data_root': str(root), **options})


def write(path, value=0, size=(4, 4), mode='RGB'):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


@pytest.fixture
def pairs(tmp_path):
    for name in ('b/2', '1', 'b/1'):
        for folder in ('A', 'B'):
            write(tmp_path / 'train' / folder / f'{name}.png')
        write(tmp_path / 'train' / 'label' / f'{name}.png', 255, mode='L')
    return tmp_path


@pytest.mark.parametrize(
    ('kind', 'make'),
    [
        ('LEVIR_CD_Dataset', make_levir_cd),
        ('OSCD_RGB_CD_Dataset', make_oscd),
        ('WHU_CD_Dataset', make_whu_cd),
        ('SVCD_Dataset', make_cdd),
    ],
)
def test_reads_the_benchmarks_as_they_lie_on_the_disk(kind, make, tmp_path):
    root = make(tmp_path, count=2)
    dataset = build(f'opencd.{kind}', root, pipeline=PIPELINE)
    assert len(dataset) == 2
    assert dataset.metainfo['classes'] == ('unchanged', 'changed')
    assert dataset.metainfo['palette'] == [[0, 0, 0], [255, 255, 255]]
    changed = []
    for item in dataset:
        assert item['inputs'].shape[0] == 6
        label = item['data_samples'].gt_sem_seg.data
        assert label.shape[1:] == item['inputs'].shape[1:]
        assert set(label.unique().tolist()) <= {0, 1}
        changed.append(bool(label.any()))
    assert changed == [True, False]  # as the generators make them


def test_items_are_sorted_and_complete(pairs):
    items = [build('opencd.LEVIR_CD_Dataset', pairs).get_data_info(i) for i in range(3)]
    names = ['1', 'b/1', 'b/2']
    assert [item['img_path'] for item in items] == [
        [f'{pairs}/train/{folder}/{name}.png' for folder in 'AB'] for name in names
    ]
    assert [item['seg_map_path'] for item in items] == [
        f'{pairs}/train/label/{name}.png' for name in names
    ]
    for key, value in (
        ('label_map', None), ('format_seg_map', 'to_binary'), ('reduce_zero_label', False),
        ('seg_fields', []),
    ):  # fmt: skip
        assert items[0][key] == value


def test_a_list_of_names_selects(pairs):
    (pairs / 'part.txt').write_text('b/2\n\n1\n')
    dataset = build('opencd.LEVIR_CD_Dataset', pairs, ann_file='part.txt')
    maps = [dataset.get_data_info(i)['seg_map_path'] for i in range(len(dataset))]
    assert maps == [f'{pairs}/train/label/{name}.png' for name in ('1', 'b/2')]


def test_unlabelled_pairs_need_no_folder_of_maps(pairs):
    for prefix in ({}, {'seg_map_path': None}):
        data_prefix = {key: PREFIX[key] for key in ('img_path_from', 'img_path_to')} | prefix
        dataset = build('opencd.LEVIR_CD_Dataset', pairs, data_prefix=data_prefix)
        assert 'seg_map_path' not in dataset.get_data_info(0)


def test_general_class_takes_any_classes_also_by_mmseg(pairs):
    metainfo = {'classes': ('none', 'new', 'gone'), 'palette': [[0] * 3, [1] * 3, [2] * 3]}
    dataset = build('mmseg._BaseCDDataset', pairs, img_suffix='.png', metainfo=metainfo)
    assert dataset.get_data_info(0)['format_seg_map'] is None
    assert dataset.get_data_info(0)['num_classes'] == 3
    assert DATASETS.get('opencd._BaseCDDataset') is type(dataset)


class TestFailures:
    def test_missing_partner_is_named(self, pairs):
        (pairs / 'train' / 'B' / 'b' / '2.png').unlink()
        with pytest.raises(DatasetNotFoundError) as caught:
            build('opencd.LEVIR_CD_Dataset', pairs)
        message = str(caught.value)
        assert 'b/2.png is in' in message and 'train/A, not in' in message
        assert '3 and 2' in message

    def test_surplus_partner_is_named(self, pairs):
        write(pairs / 'train' / 'B' / '0.png')
        with pytest.raises(DatasetNotFoundError, match=r'0\.png is in .*train/B, not in'):
            build('opencd.LEVIR_CD_Dataset', pairs)

    def test_missing_map_is_named(self, pairs):
        (pairs / 'train' / 'label' / '1.png').unlink()
        with pytest.raises(DatasetNotFoundError, match=r'label/1\.png: 1 of 3 change maps'):
            build('opencd.LEVIR_CD_Dataset', pairs)

    def test_missing_and_empty_folders(self, pairs):
        with pytest.raises(DatasetNotFoundError, match='train/C: no such folder'):
            build('opencd.LEVIR_CD_Dataset', pairs, data_prefix=PREFIX | {'img_path_to': 'train/C'})
        with pytest.raises(DatasetNotFoundError, match=r'holds no images \(\*\.jpg\)'):
            build('opencd.SVCD_Dataset', pairs)

    def test_lists_of_names(self, pairs):
        with pytest.raises(DatasetNotFoundError, match='no such list of names'):
            build('opencd.LEVIR_CD_Dataset', pairs, ann_file='none.txt')
        (pairs / 'with_suffix.txt').write_text('1.png\n')
        with pytest.raises(DatasetNotFoundError, match='names without suffix'):
            build('opencd.LEVIR_CD_Dataset', pairs, ann_file='with_suffix.txt')
        (pairs / 'empty.txt').write_text('\n')
        with pytest.raises(DatasetNotFoundError, match='list of names is empty'):
            build('opencd.LEVIR_CD_Dataset', pairs, ann_file='empty.txt')

    def test_arguments(self, pairs):
        with pytest.raises(ConfigError, match="None or 'to_binary'"):
            build('opencd.LEVIR_CD_Dataset', pairs, format_seg_map='binary')
        with pytest.raises(
            ConfigError, match='data_prefix has no img_path_from and no img_path_to'
        ):
            build('opencd.LEVIR_CD_Dataset', pairs, data_prefix={'img_path': 'train/A'})


def test_labels_are_what_the_files_hold(tmp_path):
    for folder in ('A', 'B'):
        write(tmp_path / 'train' / folder / '1.png')
    label = tmp_path / 'train' / 'label' / '1.png'
    label.parent.mkdir()
    Image.fromarray(np.array([[0, 127, 128, 255]] * 4, np.uint8)).save(label)
    (item,) = build('opencd.LEVIR_CD_Dataset', tmp_path, pipeline=PIPELINE)
    assert item['data_samples'].gt_sem_seg.data.tolist() == [[[0, 0, 1, 1]] * 4]
