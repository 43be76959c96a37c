# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""SAMRS from files: three parts, two sources of instances, and what is wrong is named."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from mmengine.registry import DATASETS
from PIL import Image

from mmrsfm.class_tables import SAMRS
from mmrsfm.datasets import AddressedDataset
from mmrsfm.engine.run_config import register_scope
from mmrsfm.errors import (
    BandMismatchError,
    ConfigError,
    ContractError,
    CorruptImageError,
    DataError,
    DatasetNotFoundError,
    ImageSizeError,
)
from mmrsfm.randomness import SampleAddress
from mmrsfm.registry import MODELS
from tests.formats import MAKERS
from tests.formats.samrs import FOLDERS
from tests.test_datasets.test_multi_task.test_alignment import CHAIN, assert_coincide

LOAD = [dict(type='mmrsfm.LoadMultiBandImage'), dict(type='mmrsfm.LoadMultiTaskAnnotations')]
PACK = [dict(type='mmrsfm.PhotometricDistortion'), dict(type='mmrsfm.PackMultiTaskInputs')]
PARTS = ['sota', 'sior', 'fast']


def build(root, part, list_=False, split='train', pipeline=LOAD, **options):
    register_scope('mmdet')
    ann_file = f'{split}.txt' if list_ else f'{part}_rbb_{split}_ins_segmentation.json'
    return DATASETS.build(
        dict(
            type='mmrsfm.SAMRSDataset', name=part, data_root=str(root), ann_file=ann_file,
            pipeline=pipeline, **options,
        )
    )  # fmt: skip


@pytest.fixture(scope='module')
def trees(tmp_path_factory):
    folder = tmp_path_factory.mktemp('samrs')
    return {part: MAKERS[f'samrs_{part}'](folder / part, count=3, size=96) for part in PARTS}


@pytest.mark.parametrize('part', PARTS)
def test_labels_lie_on_their_objects(trees, part):
    dataset = build(trees[part], part)
    assert len(dataset) == 3
    meta = dataset.metainfo
    assert meta['classes'] == SAMRS[part] and meta['dataset_name'] == part
    assert meta['semantic_classes'] == ('background', *SAMRS[part])
    assert len(meta['semantic_palette']) == len(meta['palette']) + 1 == len(SAMRS[part]) + 1
    for number in range(3):
        sample = dataset[number]
        assert sample['dataset_name'] == part and sample['sample_idx'] == number
        # The rotated box without a width is left out, the image without objects is a sample.
        assert len(sample['gt_bboxes']) == len(sample['gt_rboxes']) == (0 if number == 2 else 4)
        # On a classless copy: every object is brighter than the ground.
        seen = dict(sample, img=np.where(sample['img'].min(2, keepdims=True) > 115, 200.0, 0.0))
        numbers = np.arange(len(sample['gt_bboxes']))
        assert np.array_equal(sample['gt_bboxes_labels'], sample['gt_rboxes_labels'])
        labels = np.zeros_like(sample['gt_seg_map'])
        for k, mask in enumerate(sample['gt_masks'].to_array() > 0):
            assert set(sample['gt_seg_map'][mask]) == {sample['gt_bboxes_labels'][k] + 1}
            labels[mask] = k + 1
        assert np.array_equal(labels > 0, sample['gt_seg_map'] > 0)
        seen.update(gt_seg_map=labels, gt_bboxes_labels=numbers, gt_rboxes_labels=numbers)
        # The numbers in the files are of pixel centres: half a pixel less than edges.
        assert_coincide(seen, slack=1.1, fit=0.6)


@pytest.mark.parametrize('part', PARTS)
def test_pickles_instead_of_a_json(trees, part):
    ours, theirs = build(trees[part], part, list_=True)[0], build(trees[part], part)[0]
    assert torch.equal(ours['gt_bboxes'].tensor, theirs['gt_bboxes'].tensor)
    assert np.array_equal(ours['gt_masks'].to_array(), theirs['gt_masks'].to_array())
    assert np.array_equal(ours['gt_bboxes_labels'], theirs['gt_bboxes_labels'])
    assert ours['img_path'] == theirs['img_path'] and ours['img_id'] == theirs['img_id'] == 0


def test_packed_samples_follow_their_address(trees):
    steps = [LOAD[0], LOAD[1], *({**one, 'size': 96} if 'size' in one else one for one in CHAIN)]
    steps[3] = dict(steps[3], scale=(96, 96))
    dataset = AddressedDataset(build(trees['sota'], 'sota', pipeline=[*steps, *PACK]), seed=3)
    one, same, other = (dataset[SampleAddress(0, epoch)] for epoch in (1, 1, 2))
    assert torch.equal(one['inputs'], same['inputs']) and one['inputs'].shape == (3, 96, 96)
    first, second = one['data_samples'], same['data_samples']
    assert first.sampling_seed == second.sampling_seed != other['data_samples'].sampling_seed
    assert first.tasks == ('semantic', 'instance', 'rotated') and first.dataset_name == 'sota'
    assert first.gt_sem_seg.data.dtype == torch.int64
    assert first.gt_sem_seg.data.shape == (1, 96, 96)
    instances = first.gt_instances
    assert type(instances.bboxes).__name__ == 'HorizontalBoxes'
    assert type(instances.masks).__name__ == 'BitmapMasks' and len(instances.masks) == len(
        instances
    )
    assert type(first.r_gt_instances.bboxes).__name__ == 'RotatedBoxes'
    assert len(first.ignored_instances) == len(first.ignored_r_instances) == 0


def test_some_of_the_tasks(trees):
    dataset = build(trees['sota'], 'sota', tasks=['rotated'], pipeline=[*LOAD, PACK[1]])
    sample = dataset[0]['data_samples']
    assert sample.tasks == ('rotated',) and len(sample.r_gt_instances) == 4
    assert 'gt_instances' not in sample and 'gt_sem_seg' not in sample
    pipeline = [LOAD[0], dict(LOAD[1], tasks=['semantic'])]
    assert 'gt_rboxes' not in build(trees['sota'], 'sota', pipeline=pipeline)[0]
    # Without a background what is no object has no label.
    without = build(trees['sota'], 'sota', background=False)
    assert without.metainfo['semantic_classes'] == SAMRS['sota']
    label = without[0]['gt_seg_map']
    assert (label == 255).mean() > 0.5 and set(label[label != 255]) == {0, 7, 14, 3}


def test_difficulty_and_degenerate_boxes(trees, tmp_path):
    (tmp_path / 'r').mkdir()
    stem = (trees['sota'] / 'train.txt').read_text().split()[0]
    (tmp_path / 'r' / f'{stem}.txt').write_text(
        '1 1 9 1 9 9 1 9 ship 2\n1 1 1 1 9 9 1 9 ship 0\n5 5 9 5 9 9 5 9 plane 0\n'
    )
    options = dict(data_prefix=dict(rotated=str(tmp_path / 'r')), tasks=['rotated'], diff_thr=1)
    sample = build(trees['sota'], 'sota', **options)[0]
    assert sample['gt_rboxes_labels'].tolist() == [5, 4]
    assert sample['gt_r_ignore_flags'].tolist() == [True, False]
    kept = build(trees['sota'], 'sota', skip_degenerate=False, **options)[0]
    assert len(kept['gt_rboxes']) == 3


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (dict(tasks=['boxes']), ConfigError, r"tasks are some of .*got \['boxes'\]"),
        (dict(tasks=[]), ConfigError, 'tasks are some of'),
        (dict(name='town'), ConfigError, "'town' is none of .*metainfo"),
        (dict(metainfo=dict(classes=['x'] * 254)), ConfigError, '1 to 253 classes'),
        (dict(data_prefix=dict(rotated='none')), DatasetNotFoundError, "task 'rotated'"),
        (dict(data_prefix=dict(seg='none')), DatasetNotFoundError, "task 'semantic'"),
        (dict(data_prefix=dict(img='none')), DatasetNotFoundError, "data_prefix\\['img'\\]"),
        (dict(ann_file='none.json'), DatasetNotFoundError, 'samrs_pkl_to_coco.py'),
        (dict(ann_file='none.txt'), DatasetNotFoundError, 'list of names'),
        (dict(ann_file='train.txt', data_prefix=dict(ins='none')), DatasetNotFoundError, 'ins'),
        (dict(ann_file='train.txt', filter_cfg=dict(filter_empty_gt=True)), ConfigError, 'json'),
        (dict(metainfo=dict(classes=['ship'])), DataError, 'other classes'),
        (dict(metainfo=dict(classes='ship')), ConfigError, "several names, got the text 'ship'"),
    ],
)
def test_what_is_wrong_with_a_config(trees, options, error, message):
    register_scope('mmdet')
    given = dict(
        type='mmrsfm.SAMRSDataset', name='sota', data_root=str(trees['sota']), pipeline=LOAD,
        ann_file='sota_rbb_train_ins_segmentation.json',
    )  # fmt: skip
    with pytest.raises(error, match=message):
        DATASETS.build({**given, **options})


class TestOwnImagery:
    """Thirteen bands of 16 bits, no rotated boxes, no masks, images in folders of their own."""

    SIZE = (70, 90)

    @pytest.fixture
    def root(self, tmp_path):
        height, width = self.SIZE
        content: dict = {'images': [], 'annotations': [], 'categories': [{'id': 5, 'name': 'hut'}]}
        rng = np.random.default_rng(0)
        for number, folder in enumerate('ab'):
            left = 20 + 30 * number
            label = np.full((height, width), 255, np.uint8)
            label[10:30, left : left + 15] = 0
            image = rng.integers(1, 3000, (13, height, width)).astype(np.uint16)
            image[:, label == 0] += 5000
            image[:, :4] = 0  # no data
            for kind, array in (('img', image), ('seg', label[None])):
                path = tmp_path / kind / folder / '1.tif'  # the same name in both
                path.parent.mkdir(parents=True)
                with rasterio.open(
                    path, 'w', driver='GTiff', height=height, width=width, count=len(array),
                    dtype=array.dtype, nodata=0 if kind == 'img' else None, crs='EPSG:32618',
                    transform=rasterio.transform.from_origin(0, 0, 10, 10),
                ) as file:  # fmt: skip
                    file.write(array)
            image_info = dict(id=number, file_name=f'{folder}/1.tif', height=height, width=width)
            content['images'].append(image_info)
            content['annotations'].append(
                dict(id=number, image_id=number, category_id=5, bbox=[left, 10, 15, 20], area=300)
            )
        (tmp_path / 'own.json').write_text(json.dumps(content))
        return tmp_path

    def build(self, root, steps=(), **load):
        register_scope('mmdet')
        first = dict(type='mmrsfm.LoadMultiBandImage', to_float32=False, **load)
        pack = dict(type='mmrsfm.PackMultiTaskInputs')
        return DATASETS.build(
            dict(
                type='mmrsfm.SAMRSDataset', name='own', data_root=str(root), ann_file='own.json',
                metainfo=dict(classes=('hut',)), tasks=['semantic', 'instance'],
                data_prefix=dict(img='img', seg='seg'), seg_map_suffix='.tif',
                pipeline=[first, LOAD[1], *steps, pack],
            )
        )  # fmt: skip

    def test_labels_and_bands_move_together(self, root):
        steps = [{**one, 'size': 64} if 'size' in one else one for one in CHAIN]
        steps[1] = dict(steps[1], scale=(64, 64))
        plain = dict(saturation=None, max_value=1e4, brightness=100)
        steps.append(dict(type='mmrsfm.PhotometricDistortion', **plain))
        dataset = AddressedDataset(self.build(root, steps), seed=2)
        items = [dataset[SampleAddress(i, epoch=e)] for e in range(3) for i in range(2)]
        assert all(one['inputs'].dtype == torch.uint16 for one in items)
        preprocessor = MODELS.build(
            dict(type='mmrsfm.MTPDataPreprocessor', size=64, mean=[0.0] * 13, std=[1.0] * 13)
        )
        batch = {key: [one[key] for one in items] for key in ('inputs', 'data_samples')}
        batch = preprocessor(batch, training=True)
        assert batch['inputs'].shape == (6, 13, 64, 64) and batch['inputs'].isfinite().all()
        for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
            label = sample.gt_sem_seg.data[0]
            assert (label[~sample.valid_mask.any(dim=0)] == 255).all()
            hut = label == 1
            if hut.sum() > 20:
                assert image[:, hut].mean() > 2 * image[:, label == 0].mean()
            assert 'masks' not in sample.gt_instances and 'r_gt_instances' not in sample
            for left, top, right, bottom in sample.gt_instances.bboxes.round().int():
                there = hut[top:bottom, left:right]
                assert there.sum() >= 0.9 * hut.sum() or len(sample.gt_instances) > 1

    def test_names_recur_in_folders(self, root):
        columns = [self.build(root)[k]['data_samples'].gt_sem_seg.data[0] == 1 for k in range(2)]
        assert [int(one.any(dim=0).nonzero().min()) for one in columns] == [20, 50]

    def test_what_the_loader_scaled_is_compared_with_the_contract(self, root):
        options = dict(type='mmrsfm.MTPDataPreprocessor', mean=[0.1] * 13, std=[0.1] * 13)
        preprocessor = MODELS.build(dict(options, scale=1e-4))
        item = self.build(root, scale=1e-4)[0]
        batch = {key: [item[key]] for key in ('inputs', 'data_samples')}
        assert preprocessor(batch)['inputs'].max() < 10
        item = self.build(root)[0]
        with pytest.raises(ContractError, match=r'scaled by 1\.0'):
            preprocessor({key: [item[key]] for key in ('inputs', 'data_samples')})


class TestBrokenFiles:
    """Files are read in the workers: each error names its file."""

    @pytest.fixture
    def root(self, tmp_path):
        return MAKERS['samrs_sota'](tmp_path, count=1)

    def file(self, root, kind) -> Path:
        segments, rotated = FOLDERS['sota'][2:]
        stem = (root / 'train.txt').read_text().split()[0]
        return {
            'seg': root / segments / 'gray' / f'{stem}.png',
            'ins': root / segments / 'ins' / f'{stem}.pkl',
            'rotated': root / rotated / f'{stem}.txt',
        }[kind]

    def fails(self, root, error, message, list_=False):
        with pytest.raises(error, match=message):
            build(root, 'sota', list_=list_)[0]

    def test_label_maps(self, root):
        path = self.file(root, 'seg')
        label = np.array(Image.open(path))
        Image.fromarray(label[:, :-1]).save(path)
        self.fails(root, ImageSizeError, f'{path.name}.*64 x 63')
        label[3, 3] = 77
        Image.fromarray(label).save(path)
        self.fails(root, DataError, rf'{path.name}: the label map holds \[77\]')
        Image.fromarray(np.stack([label] * 3, axis=2)).save(path)
        self.fails(root, BandMismatchError, 'one band of 8 bits, got 3')
        path.unlink()
        self.fails(root, DataError, path.name)

    def test_rotated_boxes(self, root):
        path = self.file(root, 'rotated')
        path.write_text('1 2 3 4 5 6 7 8 rocket 0\n')
        self.fails(root, DataError, f"{path.name}: line 1 names the class 'rocket'")
        path.write_text('1 2 3\n')
        self.fails(root, DataError, f'{path.name}: line 1')
        path.unlink()
        self.fails(root, DatasetNotFoundError, path.name)

    def test_instances(self, root):
        path = self.file(root, 'ins')
        found = pickle.loads(path.read_bytes())
        found[0]['mask']['counts'] = 'oooo'
        path.write_bytes(pickle.dumps(found))
        self.fails(root, DataError, f'{path.name}: object 0: the counts', list_=True)
        json_path = root / 'sota_rbb_train_ins_segmentation.json'
        text = json_path.read_text()
        counts = text.split('"counts": "')[1].split('"')[0]
        json_path.write_text(text.replace(counts, counts[:-1] + '0', 1))
        self.fails(root, DataError, 'do not fill|no text of runs')

    def edit(self, root, change):
        path = root / 'sota_rbb_train_ins_segmentation.json'
        content = json.loads(path.read_text())
        changed = change(content)
        path.write_text(json.dumps(content if changed is None else changed))
        return path

    @pytest.mark.parametrize(
        'change',
        [
            lambda c: [1],
            lambda c: c['annotations'][0].update(bbox=[1, 2, 3]),
            lambda c: c['annotations'][1].update(id=0),
            lambda c: c.update(images=[]),
            lambda c: c['images'][0].pop('file_name') and None,
        ],
    )
    def test_lists_of_instances(self, root, change):
        path = self.edit(root, change)
        self.fails(root, DataError, f'{path.name}: (is no COCO|lists no images)')

    def test_empty_list(self, root):
        (root / 'train.txt').write_text('\n')
        self.fails(root, DataError, 'train.txt: lists no images', list_=True)

    @pytest.mark.parametrize(
        ('change', 'message'),
        [
            # The first two end a process that gives them to pycocotools.
            (dict(segmentation=[[float('nan'), 2, 3, 4, 5, 6]]), 'far outside of the image'),
            (dict(segmentation=[[1e9, 2, 3, 4, 5, 6]]), 'far outside of the image'),
            (dict(segmentation=[[1, 2, 3, 4]]), 'three or more corners'),
            (dict(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), 'three or more corners'),
            (dict(segmentation=[['a', 2, 3, 4, 5, 6]]), 'could not convert'),
            (dict(segmentation='oo'), 'no run-length encoding'),
            (dict(segmentation=None), '1 of its 4 instances have no mask'),
            (dict(bbox=[1, 1, float('inf'), 5]), 'a box of its instances is not finite'),
        ],
    )
    def test_masks_and_boxes_of_a_json(self, root, change, message):
        self.edit(root, lambda c: c['annotations'][0].update(change))
        self.fails(root, DataError, message)

    def test_size_of_a_json(self, root):
        self.edit(root, lambda c: c['images'][0].update(height=9, width=9))
        self.fails(root, ImageSizeError, '9 x 9 pixels .* the image has 64 x 64')

    def test_images(self, root):
        images, suffix = FOLDERS['sota'][:2]
        stem = (root / 'train.txt').read_text().split()[0]
        path = root / images / f'{stem}{suffix}'
        whole = path.read_bytes()
        for content in (whole[: len(whole) // 2], b''):
            path.write_bytes(content)
            self.fails(root, CorruptImageError, path.name)
            # mmcv's loader asserts, or OpenCV raises an error of its own: the runs name the file.
            pipeline = [dict(type='LoadImageFromFile'), LOAD[1]]
            with pytest.raises(CorruptImageError, match=path.name):
                AddressedDataset(build(root, 'sota', pipeline=pipeline))[0]

    def test_polygons_of_a_json_are_masks(self, root):
        path = root / 'sota_rbb_train_ins_segmentation.json'
        content = json.loads(path.read_text())
        content['annotations'] = content['annotations'][:1]
        polygon = [4.0, 6.0, 14.0, 6.0, 14.0, 20.0, 4.0, 20.0]
        content['annotations'][0].update(segmentation=[polygon], bbox=[4, 6, 10, 14], area=140)
        path.write_text(json.dumps(content))
        sample = build(root, 'sota')[0]
        assert sample['gt_masks'].areas.tolist() == [140]
        assert sample['gt_masks'].boxes().tolist() == [[4, 6, 14, 20]]
