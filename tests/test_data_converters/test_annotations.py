# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What is wrong in XML, geojson or lists is named: file, line or object."""

import json

import pytest

from data_converters.dior_r_to_dota import dior_r_to_dota
from data_converters.dior_to_coco import dior_to_coco, read_boxes
from data_converters.fair1m_to_dota import class_name, dota_lines, fair1m_to_dota
from data_converters.scene_split_lists import draw_split, split_scenes
from data_converters.xview_geojson_to_coco import read_features, read_split, xview_to_coco
from mmrsfm.class_tables import FAIR1M
from mmrsfm.errors import (
    ConfigError,
    DataError,
    DatasetNotFoundError,
)
from tests import formats

pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')


class TestXML:
    BOX = (
        '<annotation><object><name> {name} </name><bndbox><xmin>{x}</xmin><ymin>2</ymin>'
        '<xmax>30.5</xmax><ymax>40</ymax></bndbox></object></annotation>'
    )

    def test_fractions_and_whole_numbers(self, tmp_path):
        path = tmp_path / 'a.xml'
        path.write_bytes(self.BOX.format(name='Ship', x='10.0').replace('><', '>\r\n<').encode())
        assert read_boxes(path) == [(13, [10, 2, 20.5, 38])]

    @pytest.mark.parametrize(
        ('text', 'message'),
        [
            (BOX.format(name='boat', x=1), "object 1: 'boat' is no class of DIOR"),
            (BOX.format(name='ship', x='one'), "object 1, xmin: 'one' is no number"),
            (BOX.format(name='ship', x='nan'), "object 1, xmin: 'nan' is no number"),
            (BOX.format(name='ship', x=''), 'object 1 has no <bndbox><xmin>'),
            (BOX[:-9], 'is not XML .*line 1'),
            ('<?xml version="1.0" encoding="gb2312"?>' + BOX, 'is not XML .*encoding'),
            ('<?xml version="1.0" encoding="klingon"?>' + BOX, 'is not XML .*klingon'),
            ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', 'is not XML .*type'),
        ],
    )
    def test_objects_are_named(self, tmp_path, text, message):
        (tmp_path / 'a.xml').write_text(text)
        with pytest.raises(DataError, match=rf'a\.xml: {message}'):
            read_boxes(tmp_path / 'a.xml')

    def test_missing_files(self, tmp_path):
        root = formats.SOURCES['dior'](tmp_path)
        (root / 'Annotations/Horizontal Bounding Boxes/00002.xml').unlink()
        with pytest.raises(DatasetNotFoundError, match=r'00002\.xml'):
            dior_to_coco(root, quiet=True)
        (root / 'Annotations/Oriented Bounding Boxes/00001.xml').write_text('<annotation>')
        with pytest.raises(DataError, match=r'00001\.xml: is not XML'):
            dior_r_to_dota(root, tmp_path / 'txt', workers=3, quiet=True)

    @pytest.mark.parametrize('name', FAIR1M)
    def test_class_names_of_fair1m(self, name):
        for spelling in (name, name.replace('-', ' '), name.replace('-', '_'), f' {name.lower()} '):
            assert class_name(spelling) == name

    @pytest.mark.parametrize(
        ('old', 'new', 'message'),
        [
            ('<name>Van</name>', '<name>Lorry</name>', "object 1: 'Lorry' is no class of FAIR1M"),
            ('<point>1,2</point>', '', 'object 1: a polygon of 3 points'),
            ('<point>1,2</point>', '<point>1;2</point>', 'object 1: the point'),
        ],
    )
    def test_objects_of_fair1m_are_named(self, tmp_path, old, new, message):
        points = ''.join(f'<point>{x},{y}</point>' for x, y in ((1, 2), (9, 2), (9, 8), (1, 8)))
        text = (
            '<annotation><objects><object><possibleresult><name>Van</name></possibleresult>'
            f'<points>{points}</points></object></objects></annotation>'
        )
        path = tmp_path / 'a.xml'
        path.write_text(text)
        assert dota_lines(path) == ['1 2 9 2 9 8 1 8 Van 0']
        path.write_text(text.replace(old, new))
        with pytest.raises(DataError, match=message):
            dota_lines(path)

    def test_images_of_fair1m_without_partner(self, tmp_path):
        train = formats.SOURCES['fair1m'](tmp_path) / 'train'
        (train / 'images/1.tif').unlink()
        with pytest.raises(DatasetNotFoundError, match='1 images or annotations have no partner'):
            fair1m_to_dota(train / 'labelXml', tmp_path / 'out', [train / 'images'], quiet=True)
        with pytest.raises(ConfigError, match='use a prefix'):
            fair1m_to_dota(None, tmp_path / 'out', [train / 'images'] * 2, quiet=True)
        with pytest.raises(ConfigError, match='is a folder of the source'):
            fair1m_to_dota(None, train, [train / 'images'], quiet=True)


class TestXView:
    @pytest.mark.parametrize(
        ('text', 'message'),
        [
            ('{"type": "Feature"}', 'has no list of features'),
            ('{"features": [{"a": 1}, {"a": ', 'feature 1 cannot be read'),
            ('{"features": [{"a": 1} {"a": 2}]}', 'feature 0 cannot be read'),
        ],
    )
    def test_broken_geojson(self, tmp_path, text, message):
        (tmp_path / 'x.geojson').write_text(text)
        with pytest.raises(DataError, match=rf'x\.geojson: {message}'):
            list(read_features(tmp_path / 'x.geojson'))

    def test_features_as_of_the_parser(self, tmp_path):
        source = formats.SOURCES['xview'](tmp_path) / 'xView_train.geojson'
        content = json.loads(source.read_text())
        assert list(read_features(source)) == content['features']
        source.write_text(json.dumps(content, indent=2))
        assert list(read_features(source)) == content['features']
        source.write_text('{"features": [ ]}')
        assert list(read_features(source)) == []

    def test_splits(self, tmp_path):
        source = formats.SOURCES['xview'](tmp_path / 'source')
        data = (source / 'xView_train.geojson', source / 'train_images', tmp_path / 'out')
        with pytest.raises(ConfigError, match=r'700 of 3 images .*train-count'):
            xview_to_coco(*data, quiet=True)
        with pytest.raises(DatasetNotFoundError, match='999'):
            xview_to_coco(*data, {'train': ['999'], 'val': []}, quiet=True)
        with pytest.raises(ConfigError, match='names 100 2 times'):
            xview_to_coco(*data, {'train': ['100'], 'val': ['100']}, quiet=True)
        assert not (tmp_path / 'out').exists()
        (tmp_path / 'split.json').write_text('{"train": ["100.tif"], "val": ["111"]}')
        xview_to_coco(*data, read_split(tmp_path / 'split.json'), quiet=True)
        with pytest.raises(ConfigError, match='another conversion, such as 100_0'):
            xview_to_coco(*data, {'train': ['111'], 'val': ['100']}, quiet=True)

    @pytest.mark.parametrize('text', ['', '[]', '{"train": "100"}', '{"train": [100]}'])
    def test_splits_of_another_form(self, tmp_path, text):
        (tmp_path / 'split.json').write_text(text)
        with pytest.raises(DataError, match=r'split\.json: is no'):
            read_split(tmp_path / 'split.json')


class TestScenes:
    def test_the_split_does_not_depend_on_order_or_suffix(self, tmp_path):
        paths = [tmp_path / f'{index}.jpg' for index in range(50)]
        shares = {'train': 0.5, 'val': 0.3}
        first = draw_split({'a': paths}, shares)
        assert {split: len(pairs) for split, pairs in first.items()} == {'train': 25, 'val': 15}
        other = draw_split({'a': [path.with_suffix('.tif') for path in reversed(paths)]}, shares)
        for split, pairs in first.items():
            assert [path.stem for _, path in pairs] == [path.stem for _, path in other[split]]
        assert draw_split({'a': paths}, shares, seed=1) != first

    def test_lists_of_others(self, tmp_path):
        source = formats.SOURCES['eurosat'](tmp_path / 'source')
        (source / 'Forest/._Forest_1.jpg').write_bytes(b'of a Mac')
        (source / 'empty').mkdir()
        lists = {'train': tmp_path / 'train.txt', 'val': tmp_path / 'val.txt'}
        lists['train'].write_text('Forest_1.jpg\nRiver/River_2.jpg\n')
        lists['val'].write_text('Forest_3\n')
        counts = split_scenes(source, tmp_path / 'out', 'folders', lists=lists, quiet=True)
        assert counts == {'train': 2, 'val': 1}
        assert (tmp_path / 'out/val/Forest/Forest_3.jpg').is_file()
        lists['val'].write_text('Forest_1\n')
        with pytest.raises(ConfigError, match='in the lists of train and of val'):
            split_scenes(source, tmp_path / 'out', 'folders', lists=lists, quiet=True)
        lists['val'].write_text('Forest_99\n')
        with pytest.raises(DatasetNotFoundError, match=r'val\.txt: Forest_99 is no image'):
            split_scenes(source, tmp_path / 'out', 'folders', lists=lists, quiet=True)

    def test_another_split_does_not_mix(self, tmp_path):
        source = formats.SOURCES['eurosat'](tmp_path / 'source')
        for seed in (0, 0):
            split_scenes(source, tmp_path / 'o', 'folders', {'train': 0.5}, seed=seed, quiet=True)
        with pytest.raises(ConfigError, match='another conversion'):
            split_scenes(source, tmp_path / 'o', 'folders', {'train': 0.5}, seed=1, quiet=True)
        with pytest.raises(ConfigError, match='positive parts of 1'):
            split_scenes(source, tmp_path / 'p', 'folders', {'train': 0.8, 'val': 0.4}, quiet=True)
        with pytest.raises(ConfigError, match='is a folder of the source'):
            split_scenes(source, source, 'lists', {'train': 0.8}, quiet=True)
        with pytest.raises(ConfigError, match='give one of them'):
            split_scenes(source, tmp_path / 'p', 'folders', quiet=True)
        with pytest.raises(DatasetNotFoundError, match='no folder of images for each class'):
            split_scenes(tmp_path, tmp_path / 'p', 'folders', {'train': 0.8}, quiet=True)
