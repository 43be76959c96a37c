# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Datasets of several modalities with labels, on data in the published forms."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rasterio.errors import NotGeoreferencedWarning

from mmrsfm.errors import ConfigError, DataError, DatasetNotFoundError
from mmrsfm.registry import DATASETS
from tests.formats import MAKERS
from tests.test_datasets.imagery import numbers, write_tif

pytestmark = pytest.mark.filterwarnings('ignore', category=NotGeoreferencedWarning)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    made = {}

    def make(name, **options):
        if name not in made:
            made[name] = MAKERS[name](tmp_path_factory.mktemp(name), size=48, **options)
        return made[name]

    return make


def build(kind, root, **options):
    return DATASETS.build(dict(type=f'mmrsfm.{kind}', data_root=str(root), **options))


def load(**modalities):
    return dict(type='mmrsfm.LoadModalities', modalities=modalities)


SEG = [dict(type='mmrsfm.LoadSegLabel'), dict(type='mmrsfm.PackSegInputs')]


class TestEarthMiss:
    def test_splits_are_cities(self, data):
        pytest.importorskip('mmseg')
        root = data('earthmiss', count=1)
        parts = {split: build('EarthMissDataset', root, split=split) for split in
                 ('train', 'val', 'test')}  # fmt: skip
        assert {split: len(part) for split, part in parts.items()} == dict(train=7, val=3, test=3)
        names = {Path(one['img_path']).parts[-4] for one in parts['test']}
        assert names == {'America-NewYork', 'Japan-Hakodate', 'Peru-Callao'}
        few = build('EarthMissDataset', root, cities=['paris', 'Nanjing'])
        assert [Path(one['img_path']).parts[-4] for one in few] == ['French-Paris', 'Nanjing']
        assert len(parts['train'].metainfo['classes']) == 8

    def test_samples(self, data):
        pytest.importorskip('mmseg')
        root = data('earthmiss', count=1)
        pipeline = [load(rgb=3, sar=1), *SEG]
        dataset = build('EarthMissDataset', root, cities=['Eugene'], pipeline=pipeline)
        (sample,) = dataset  # the second download of it is none
        assert sample['inputs'].shape == (4, 48, 48)
        label = sample['data_samples'].gt_sem_seg.data
        assert (label[:, : 48 // 12] == 255).all() and label[:, 4:].max() < 8
        stored = dataset.get_data_info(0)
        assert stored['seg_map_path'].endswith('_mask.tif')
        assert stored['modality_paths']['sar'].endswith('_SAR.tif')

    def test_without_optical_images(self, data):
        pytest.importorskip('mmseg')
        root = data('earthmiss', count=1)
        prefix = dict(sar='images/SAR', seg_map_path='masks')
        dataset = build(
            'EarthMissDataset', root, split='test', data_prefix=prefix,
            pipeline=[load(rgb=3, sar=1), *SEG],
        )  # fmt: skip
        valid = dataset[0]['data_samples'].valid_mask
        assert not valid[:3].any() and valid[3].all()

    def test_failures(self, data, tmp_path):
        pytest.importorskip('mmseg')
        root = data('earthmiss', count=1)
        for wrong in ({}, dict(split='all'), dict(split='val', cities=['Paris'])):
            with pytest.raises(ConfigError, match='give split, one of'):
                build('EarthMissDataset', root, **wrong)
        with pytest.raises(DatasetNotFoundError, match="no folders of the city 'Atlantis'"):
            build('EarthMissDataset', root, cities=['Atlantis'])
        with pytest.raises(DatasetNotFoundError, match='data_root'):
            build('EarthMissDataset', tmp_path / 'nowhere', split='val')
        with pytest.raises(DatasetNotFoundError, match=r"data_prefix\['dsm'\].*Zenodo"):
            build('EarthMissDataset', root, split='val', data_prefix=dict(dsm='images/DSM'))


class TestDFC25:
    @pytest.mark.parametrize('part', ['train', 'holdout', 'val'])
    def test_lists(self, data, part):
        pytest.importorskip('mmseg')
        root = data('dfc25', count=2)
        options = {}
        pipeline = [load(pre=3, post=1), *SEG]
        if part == 'val':  # the contest keeps its labels
            options['data_prefix'] = dict(pre='val/pre-event', post='val/post-event')
            pipeline.pop(1)
        dataset = build(
            'DFC25Dataset', root, ann_file=f'{part}_setlevel.txt', pipeline=pipeline, **options
        )
        assert len(dataset) == 2
        sample = dataset[1]
        assert sample['inputs'].shape == (4, 48, 48)
        if part != 'val':
            label = sample['data_samples'].gt_sem_seg.data.numpy()
            assert set(np.unique(label)) <= {0, 1, 2, 3}

    def test_without_a_list_all_that_have_labels(self, data):
        pytest.importorskip('mmseg')
        assert len(build('DFC25Dataset', data('dfc25', count=2))) == 4

    def test_bright_itself(self, data):
        pytest.importorskip('mmseg')
        prefix = dict(pre='pre-event', post='post-event', seg_map_path='target')
        dataset = build(
            'DFC25Dataset', data('bright', count=1), data_prefix=prefix,
            ann_file='splitname/test_set.txt',
        )  # fmt: skip
        assert len(dataset) == 1


class TestMultiModalSegDataset:
    def make(self, root, **options):
        pytest.importorskip('mmseg')
        options.setdefault('data_prefix', dict(rgb='rgb', sar='sar', seg_map_path='label'))
        return build('MultiModalSegDataset', root, **options)

    @pytest.fixture
    def root(self, tmp_path):
        for name in 'abc':
            write_tif(tmp_path / 'rgb' / f'{name}.tif', numbers(3, dtype='uint8'))
            write_tif(tmp_path / 'label' / f'{name}.tif', numbers(1, dtype='uint8') % 3)
            if name != 'b':
                write_tif(tmp_path / 'sar' / f'{name}.tif', numbers(1))
        return tmp_path

    def test_a_missing_partner(self, root, monkeypatch):
        warnings = []
        monkeypatch.setattr(
            'mmrsfm.datasets.segmentation.multi_modal_seg_dataset.print_log',
            lambda text, **_: warnings.append(text),
        )
        with pytest.raises(DatasetNotFoundError, match=r'1 of 3 places lack files.*b \(sar\)'):
            self.make(root)
        assert [Path(s['img_path']).stem for s in self.make(root, on_missing='skip')] == ['a', 'c']
        (warning,) = warnings
        assert '1 of 3 places lack images' in warning
        kept = self.make(root, on_missing='keep', pipeline=[load(rgb=3, sar=1), *SEG])
        assert kept.get_data_info(1)['modality_paths']['sar'] is None
        assert not kept[1]['data_samples'].valid_mask[3].any()
        with pytest.raises(ConfigError, match='on_missing'):
            self.make(root, on_missing='guess')

    def test_hidden_files_are_none(self, root):
        for kind in ('rgb', 'sar', 'label'):  # what macOS leaves beside each file
            (root / kind / '._a.tif').write_bytes(b'no image')
        found = self.make(root, on_missing='keep')
        assert [Path(one['img_path']).name for one in found] == ['a.tif', 'b.tif', 'c.tif']

    def test_lists_and_labels(self, root):
        (root / 'some.txt').write_text('c\n\na\n')
        chosen = self.make(root, ann_file='some.txt')
        assert [Path(one['img_path']).stem for one in chosen] == ['c', 'a']
        (root / 'label' / 'c.tif').unlink()
        with pytest.raises(DatasetNotFoundError, match=r'c \(seg_map_path\)'):
            self.make(root, ann_file='some.txt')
        (root / 'none.txt').write_text('')
        for name, sentence in (('none.txt', 'names nothing'), ('nowhere.txt', 'no such list')):
            with pytest.raises(DatasetNotFoundError, match=sentence):
                self.make(root, ann_file=name)
        unlabelled = self.make(root, data_prefix=dict(rgb='rgb'))
        assert len(unlabelled) == 3 and 'seg_map_path' not in unlabelled[0]

    def test_folders(self, root):
        with pytest.raises(ConfigError, match='names no modality'):
            self.make(root, data_prefix=dict(seg_map_path='label'))
        with pytest.raises(DatasetNotFoundError, match='no such folder'):
            self.make(root, data_prefix=dict(rgb='RGB', seg_map_path='label'))
        with pytest.raises(DatasetNotFoundError, match=r'ends in \.jp2'):
            self.make(root, file_suffix=dict(rgb='.jp2'))


class TestUBCv2:
    def pipeline(self, rgb=3, sar=1):
        return [
            dict(type='mmrsfm.LoadModalities', invalid='nan', modalities=dict(rgb=rgb, sar=sar)),
            dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='mmdet.Resize', scale=(64, 64), keep_ratio=True),
            dict(type='mmdet.RandomFlip', prob=1.0),
            dict(type='mmdet.PackDetInputs'),
        ]

    def make(self, root, **options):
        pytest.importorskip('mmdet')
        options.setdefault('data_prefix', dict(rgb='train/rgb', sar='train/sar'))
        name = 'annotations/roof_fine_train_single_category.json'
        return build('UBCv2Dataset', root, **{'ann_file': name, **options})

    def test_separate_and_merged_files_are_the_same(self, data):
        root = data('ubcv2', count=2)
        separate = self.make(root, pipeline=self.pipeline())
        merged = self.make(
            root,
            data_prefix=dict(rgb='train/merge', sar='train/merge'),
            pipeline=self.pipeline(dict(channels=3, bands=[1, 2, 3]), dict(channels=1, bands=[4])),
        )
        assert len(separate) == len(merged) == 2
        a, b = separate[0], merged[0]
        assert a['inputs'].shape == (4, 64, 64)
        torch.testing.assert_close(a['inputs'], b['inputs'])
        found = a['data_samples'].gt_instances
        assert len(found.bboxes) and found.labels.unique().tolist() == [0]
        assert found.masks.masks.any() and found.masks.height == 64

    def test_without_buildings(self, data):
        kept = self.make(data('ubcv2', count=2), filter_cfg=dict(filter_empty_gt=True))
        assert len(kept) == 1

    def test_what_is_missing_is_nan_after_the_transforms_of_mmdet(self, data):
        prefix = dict(sar='train/sar')
        dataset = self.make(data('ubcv2', count=2), data_prefix=prefix, pipeline=self.pipeline())
        image = dataset[0]['inputs']
        assert image[:3].isnan().all() and image[3].isfinite().all()

    def test_any_name_of_the_only_category(self, data, tmp_path):
        root = data('ubcv2', count=2)
        content = json.loads(
            (root / 'annotations/roof_fine_train_single_category.json').read_text()
        )
        content['categories'][0]['name'] = 'roof'
        (tmp_path / 'roof.json').write_text(json.dumps(content))
        dataset = self.make(root, ann_file=str(tmp_path / 'roof.json'))
        assert dataset.metainfo['classes'] == ('building',)
        assert any(one['instances'] for one in dataset)
        content['categories'].append(dict(id=2, name='shed'))
        (tmp_path / 'two.json').write_text(json.dumps(content))
        with pytest.raises(DataError, match='lacks the categories'):
            self.make(root, ann_file=str(tmp_path / 'two.json'))

    def test_other_names_and_failures(self, data):
        root = data('ubcv2', count=2)
        renamed = self.make(root, renamed=dict(sar=('P_', 'S_')))
        assert Path(renamed[0]['modality_paths']['sar']).name.startswith('S_')
        assert Path(renamed[0]['modality_paths']['rgb']).name.startswith('P_')
        with pytest.raises(ConfigError, match='names no modality'):
            self.make(root, data_prefix=dict(img='train/rgb'))
        with pytest.raises(DatasetNotFoundError, match=r"data_prefix\['sar'\]"):
            self.make(root, data_prefix=dict(rgb='train/rgb', sar='train/radar'))


class TestScenes:
    PACK = (load(rgb=3, sar=1), dict(type='mmrsfm.PackInputs'))

    def test_folders(self, data):
        root = data('scene_labels', count=1)
        prefix = dict(rgb='val/rgb', sar='val/sar')
        with pytest.raises(DatasetNotFoundError, match='has no sar'):
            build('ScenePairDataset', root, data_prefix=prefix)
        dataset = build(
            'ScenePairDataset', root, data_prefix=prefix, on_missing='keep',
            pipeline=list(self.PACK),
        )  # fmt: skip
        assert dataset.CLASSES == ('field', 'harbour', 'town')
        assert [one['data_samples'].gt_label.item() for one in dataset] == [0, 1, 2]
        assert not dataset[1]['data_samples'].valid_mask[3].any()
        alone = build('ScenePairDataset', root, data_prefix=dict(rgb='val/rgb'))
        assert len(alone) == 3 and set(alone[0]['modality_paths']) == {'rgb'}
        ordered = build(
            'ScenePairDataset', root, data_prefix=dict(rgb='val/rgb'),
            classes=['Town', 'harbour', 'field'],
        )  # fmt: skip
        assert [one['gt_label'] for one in ordered] == [2, 1, 0]
        with pytest.raises(DataError, match="'harbour' is none of the classes"):
            build(
                'ScenePairDataset', root, data_prefix=dict(rgb='val/rgb'),
                classes=['field', 'town'],
            )  # fmt: skip

    @pytest.mark.parametrize('form', ['json', 'names', 'columns'])
    def test_lists_of_several_classes(self, data, tmp_path, form):
        root = data('scene_multilabels', count=4)
        entries = json.loads((root / 'train.json').read_text())
        classes = entries['metainfo']['classes']
        expected = [one['gt_label'] for one in entries['data_list']]
        file = root / 'train.json'
        if form != 'json':
            file = tmp_path / 'labels.csv'
            lines = ['name,label' if form == 'names' else ','.join(['name', *classes])]
            for one in entries['data_list']:
                titles = [classes[label] for label in one['gt_label']]
                flags = [str(int(name in titles)) for name in classes]
                row = [';'.join(titles)] if form == 'names' else flags
                lines.append(','.join([Path(one['img_path']).stem, *row]))
            file.write_text('\n'.join(lines) + '\n')
        dataset = build(
            'ScenePairDataset', root, ann_file=str(file), multi_label=True, classes=classes,
            pipeline=list(self.PACK),
        )  # fmt: skip
        assert [one['data_samples'].gt_label.tolist() for one in dataset] == expected
        assert list(dataset.CLASSES) == classes

    @pytest.mark.parametrize(
        ('text', 'sentence'),
        [
            ('name\na\n', 'the first line must be'),
            ('name,label\na\n', 'line 2 has 1 fields'),
            ('name,label\nnowhere,x\n', 'there is no nowhere'),
            ('name,label\ntrain_0000,x;y\n', 'multi_label=False wants one'),
            ('name,x,y\ntrain_0000,2,0\n', 'hold 0 and 1'),
            ('name,label\n', 'names nothing'),
        ],
    )
    def test_lists_that_are_wrong(self, data, tmp_path, text, sentence):
        (tmp_path / 'bad.csv').write_text(text)
        with pytest.raises(DataError, match=sentence):
            build('ScenePairDataset', data('scene_multilabels', count=4),
                  ann_file=str(tmp_path / 'bad.csv'))  # fmt: skip

    def test_a_name_of_two_files(self, tmp_path):
        for kind in ('rgb', 'sar'):
            for name in ('a.tif', 'a.tiff', 'b.tif'):
                write_tif(tmp_path / kind / name, numbers(1))
        for line, sentence in (('a,x', 'a is more than one file'), ('a.tiff,x', '')):
            (tmp_path / 'labels.csv').write_text(f'name,label\nb,x\n{line}\n')
            if sentence:
                with pytest.raises(DataError, match=sentence):
                    build('ScenePairDataset', tmp_path, ann_file='labels.csv')
            else:
                assert len(build('ScenePairDataset', tmp_path, ann_file='labels.csv')) == 2

    def test_more_that_is_wrong(self, data, tmp_path):
        root = data('scene_multilabels', count=4)
        with pytest.raises(ConfigError, match='multi_label needs ann_file'):
            build('ScenePairDataset', root, multi_label=True)
        with pytest.raises(ConfigError, match='ann_file must be one of'):
            build('ScenePairDataset', root, ann_file='train.txt')
        with pytest.raises(DataError, match='in no folder of a class'):
            build('ScenePairDataset', root)
        (tmp_path / 'bad.json').write_text('{"data_list": [{"img_path": "a"}]}')
        with pytest.raises(DataError, match='not of the form of mmpretrain'):
            build('ScenePairDataset', root, ann_file=str(tmp_path / 'bad.json'))
        with pytest.raises(DataError, match='its classes are'):
            build('ScenePairDataset', root, ann_file='train.json', multi_label=True,
                  classes=['a', 'b', 'c'])  # fmt: skip
