# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The datasets of the fine-tuning benchmarks: class tables, true formats, and what is wrong."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS

from mmrsfm.engine.run_config import register_scope
from mmrsfm.errors import DataError, DatasetNotFoundError
from tests.formats import MAKERS
from tests.parity import parity_files

# Name in class_tables.json -> the class that our configs name, and its scope.
CLASSES = {
    'XviewDataset': ('mmrsfm.XViewDataset', 'mmdet'),
    'DIORDataset(hbb)': ('mmrsfm.DIORDataset', 'mmdet'),
    'DIORDataset(obb)': ('mmrsfm.DIORRDataset', 'mmrotate'),
    'FAIR1Mv2Dataset': ('mmrsfm.FAIR1MDataset', 'mmrotate'),
    'DOTADataset': ('mmrsfm.DOTADataset', 'mmrotate'),
    'DOTAv15Dataset': ('mmrotate.DOTAv15Dataset', 'mmrotate'),
    'DOTAv2Dataset': ('mmrsfm.DOTAv2Dataset', 'mmrotate'),
    'SpaceNetV1Dataset': ('mmrsfm.SpaceNetV1Dataset', 'mmseg'),
    'LoveDADataset': ('mmseg.LoveDADataset', 'mmseg'),
    'OSCD_RGB_CD_Dataset': ('opencd.OSCD_RGB_CD_Dataset', 'mmseg'),
    'WHU_CD_Dataset': ('opencd.WHU_CD_Dataset', 'mmseg'),
    'LEVIR_CD_Dataset': ('opencd.LEVIR_CD_Dataset', 'mmseg'),
    'SVCD_Dataset': ('opencd.SVCD_Dataset', 'mmseg'),
}


def build(name: str, scope: str = 'mmrotate', **options):
    register_scope(scope)
    return DATASETS.build(dict(type=name, **options))


@pytest.mark.parametrize('path', parity_files('class_tables.json'))
def test_parity_classes_and_palettes(path):
    tables = json.loads(path.read_text())
    datasets = {name for name in tables if not name.startswith(('SAMRS', 'xview_type'))}
    assert datasets == set(CLASSES)
    for name, (ours, scope) in CLASSES.items():
        register_scope(scope)
        meta = DATASETS.get(ours).METAINFO
        assert list(meta['classes']) == tables[name]['classes'], name
        assert [list(colour) for colour in meta['palette']] == tables[name]['palette'], name


def horizontal(kind: str, root: Path, **options):
    file, images = {
        'xview': ('xview_train_coco_format.json', 'train/images'),
        'dior': ('DIOR_trainval_coco.json', 'JPEGImages-trainval'),
    }[kind]
    name = {'xview': 'mmrsfm.XViewDataset', 'dior': 'mmrsfm.DIORDataset'}[kind]
    options = {'ann_file': file, 'data_prefix': dict(img=images), **options}
    return build(name, 'mmdet', data_root=str(root), **options)


@pytest.mark.parametrize('kind', ['xview', 'dior'])
def test_coco_files_are_read_as_they_are_written(kind, tmp_path):
    root = MAKERS[kind](tmp_path / kind, count=3)
    dataset = horizontal(kind, root, test_mode=True)
    written = json.loads(Path(dataset.ann_file).read_text())
    names = {one['id']: one['name'] for one in written['categories']}
    sizes = {one['id']: (one['width'], one['height']) for one in written['images']}
    assert len(dataset) == len(sizes)
    boxes = 0
    for info in (dataset.get_data_info(number) for number in range(len(dataset))):
        assert Path(info['img_path']).is_file()
        assert (info['width'], info['height']) == sizes[info['img_id']]
        wanted = [
            (names[one['category_id']], *one['bbox'])
            for one in written['annotations']
            if one['image_id'] == info['img_id'] and min(one['bbox'][2:]) >= 1
        ]
        found = [
            (
                dataset.metainfo['classes'][one['bbox_label']],
                *one['bbox'][:2],
                one['bbox'][2] - one['bbox'][0],
                one['bbox'][3] - one['bbox'][1],
            )
            for one in info['instances']
        ]
        assert len(found) == len(wanted)
        for one, other in zip(sorted(found), sorted(wanted), strict=True):
            assert one[0] == other[0]
            assert np.allclose(one[1:], other[1:])
        boxes += len(found)
    assert boxes > 0


def test_categories_that_are_not_the_classes(tmp_path):
    root = MAKERS['dior'](tmp_path / 'dior', count=2)
    path = root / 'DIOR_trainval_coco.json'
    text = path.read_text()
    content = json.loads(text)
    content['categories'].reverse()
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match='in another order') as caught:
        horizontal('dior', root)
    assert caught.value.path == str(path)
    content['categories'] = [one for one in content['categories'] if one['name'] != 'ship'][::-1]
    content['annotations'] = []
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"lacks the categories \['ship'\]"):
        horizontal('dior', root)
    # A part of the classes, on purpose.
    part = tuple(one['name'] for one in content['categories'])
    assert horizontal('dior', root, metainfo=dict(classes=part)).metainfo['classes'] == part
    path.write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match='no COCO annotation file'):
        horizontal('dior', root)


def test_missing_parts_of_coco_datasets_are_named(tmp_path):
    root = MAKERS['xview'](tmp_path / 'xview')
    with pytest.raises(DatasetNotFoundError, match='no such folder') as caught:
        horizontal('xview', root, data_prefix=dict(img='train/pictures'))
    assert caught.value.path == str(root / 'train/pictures')
    with pytest.raises(DatasetNotFoundError, match='xview_geojson_to_coco'):
        horizontal('xview', root / 'elsewhere')


def rotated(root: Path, name: str = 'DOTADataset', part: str = 'trainval', **options):
    options = {
        'ann_file': f'{part}/annfiles/',
        'data_prefix': dict(img_path=f'{part}/images/'),
        **options,
    }
    return build(f'mmrsfm.{name}', data_root=str(root), **options)


def infos(dataset) -> list[dict]:
    return [dataset.get_data_info(number) for number in range(len(dataset))]


@pytest.mark.parametrize(
    ('kind', 'name'),
    [('dota1', 'DOTADataset'), ('dota2', 'DOTAv2Dataset'), ('fair1m', 'FAIR1MDataset')],
)
def test_patches_are_read_as_they_are_written(kind, name, tmp_path):
    root = MAKERS[kind](tmp_path / kind, count=4)
    dataset = rotated(root, name, test_mode=True)
    stems = sorted(path.stem for path in (root / 'trainval' / 'annfiles').glob('*.txt'))
    found = infos(dataset)
    assert [info['img_id'] for info in found] == stems
    for info in found:
        assert Path(info['img_path']).is_file()
        lines = (root / 'trainval' / 'annfiles' / f'{info["img_id"]}.txt').read_text().splitlines()
        words = [line.split() for line in lines]
        # FAIR1M: without those of which neighbouring corners coincide.
        words = [one for one in words if kind != 'fair1m' or one[:2] != one[2:4]]
        assert [one['bbox'] for one in info['instances']] == [
            [float(word) for word in one[:8]] for one in words
        ]
        assert [dataset.metainfo['classes'][one['bbox_label']] for one in info['instances']] == [
            one[8] for one in words
        ]
    # Patches without objects are not trained on.
    filled = rotated(root, name, filter_cfg=dict(filter_empty_gt=True))
    assert len(filled) == sum(bool(info['instances']) for info in found)
    # Without labels: all images, in the order of their names.
    test = rotated(root, name, 'test', ann_file='', test_mode=True)
    images = sorted((root / 'test' / 'images').glob('*.png'))
    assert [Path(info['img_path']) for info in infos(test)] == images


def test_dota_lines_as_they_occur(tmp_path):
    root = MAKERS['dota1'](tmp_path / 'dota', count=1)
    (text,) = (root / 'trainval' / 'annfiles').glob('*.txt')
    square = '1 1 9 1 9 9 1 9'
    # The published header, blank lines, no difficulty, line ends of Windows, a byte order mark.
    text.write_bytes(
        '\ufeffimagesource:GoogleEarth\r\ngsd:0.146343590398\r\n\r\n'
        f'{square} plane 0\r\n{square} ship\r\n{square} harbor 2\r\n   \r\n'.encode()
    )
    (info,) = infos(rotated(root, diff_thr=1))
    assert [one['bbox_label'] for one in info['instances']] == [0, 6, 12]
    assert [one['ignore_flag'] for one in info['instances']] == [0, 0, 1]
    for line, message in (
        (f'{square} Plane 0', "line 2 names the class 'Plane'"),
        ('1 1 9 1 9 9 plane 0', 'line 2 is not "x1 y1'),
        (f'{square}', 'line 2 is not "x1 y1'),
        (f'{square} plane hard', 'line 2 is not "x1 y1'),
        ('nan 1 9 1 9 9 1 9 plane 0', 'line 2 is not "x1 y1'),
    ):
        text.write_text(f'{square} plane 0\n{line}\n')
        with pytest.raises(DataError, match=message) as caught:
            rotated(root)
        assert caught.value.path == str(text)


def test_degenerate_boxes(tmp_path):
    root = MAKERS['dota1'](tmp_path / 'dota', count=1)
    (text,) = (root / 'trainval' / 'annfiles').glob('*.txt')
    text.write_text('1 1 9 1 9 9 1 1 plane 0\n1 1 1.01 1 9 9 1 9 plane 0\n')
    assert len(infos(rotated(root))[0]['instances']) == 2
    assert len(infos(rotated(root, skip_degenerate=True))[0]['instances']) == 1


def test_missing_parts_of_patches_are_named(tmp_path):
    root = MAKERS['dota1'](tmp_path / 'dota')
    with pytest.raises(DatasetNotFoundError, match='split_dota'):
        rotated(tmp_path / 'elsewhere')
    shutil.rmtree(root / 'val' / 'annfiles')
    with pytest.raises(DatasetNotFoundError, match=r'no such folder \(ann_file\)'):
        rotated(root, part='val')
    (root / 'val' / 'annfiles').mkdir()
    with pytest.raises(DatasetNotFoundError, match=r'holds no \*.txt'):
        rotated(root, part='val')
    with pytest.raises(DatasetNotFoundError, match=r'holds no \*.tif'):
        rotated(root, part='test', ann_file='', img_suffix='tif')


def dior_r(root: Path, split: str = 'train', **options):
    return build(
        'mmrsfm.DIORRDataset',
        data_root=str(root),
        ann_file=f'ImageSets/Main/{split}.txt',
        data_prefix=dict(img_path=f'JPEGImages-{"test" if split == "test" else "trainval"}'),
        **options,
    )


def test_dior_r_is_read_as_published(tmp_path):
    root = MAKERS['dior_r'](tmp_path / 'dior', count=3)
    for split in ('train', 'val', 'test'):
        dataset = dior_r(root, split, test_mode=True)
        ids = (root / 'ImageSets' / 'Main' / f'{split}.txt').read_text().split()
        found = infos(dataset)
        assert [info['img_id'] for info in found] == ids
        assert all(Path(info['img_path']).is_file() for info in found)
        if split == 'train':
            assert any(info['instances'] for info in found)
        for info in found:
            for one in info['instances']:
                assert one['bbox'].shape == (8,)
                assert one['bbox'].max() <= info['width']


def test_dior_r_files_as_they_occur(tmp_path):
    root = MAKERS['dior_r'](tmp_path / 'dior', count=2)
    names = root / 'ImageSets' / 'Main' / 'train.txt'
    first = names.read_text().split()[0]
    names.write_text(f'\n{first}\n\n')
    xml = root / 'Annotations' / 'Oriented Bounding Boxes' / f'{first}.xml'

    def box(x2: float) -> str:
        corners = dict(left_top=(1, 2), right_top=(x2, 2), right_bottom=(x2, 8), left_bottom=(1, 8))
        values = ''.join(
            f'<{axis}_{at}>{value}</{axis}_{at}>'
            for at, point in corners.items()
            for axis, value in zip('xy', point, strict=True)
        )
        return f'<object><name>Expressway-Service-area</name><robndbox>{values}</robndbox></object>'

    # Without <size>: width and height of the image, in this order.
    image = root / 'JPEGImages-trainval' / f'{first}.jpg'
    from PIL import Image

    Image.new('RGB', (40, 24)).save(image)
    xml.write_text(f'<annotation>{box(9)}{box(1)}{box(31)}</annotation>')
    (info,) = infos(dior_r(root))
    assert (info['width'], info['height']) == (40, 24)
    # The second one has no width.
    assert [one['bbox'][2] for one in info['instances']] == [9, 31]
    assert {one['bbox_label'] for one in info['instances']} == {6}
    (info,) = infos(dior_r(root, filter_cfg=dict(bbox_min_size=7)))
    assert [one['ignore_flag'] for one in info['instances']] == [1, 1]
    (info,) = infos(dior_r(root, filter_cfg=dict(bbox_min_size=6)))
    assert [one['ignore_flag'] for one in info['instances']] == [0, 0]
    for content, message in (
        (box(9).replace('Expressway-Service-area', 'castle'), "names the class 'castle'"),
        ('<object><name>ship</name></object>', 'an object without <robndbox>'),
        ('<object><name>ship</name>', 'is no annotation of DIOR-R'),
        (box(9).replace('<x_left_top>1</x_left_top>', ''), 'no <x_left_top> in <robndbox>'),
    ):
        xml.write_text(f'<annotation>{content}</annotation>')
        with pytest.raises(DataError, match=message) as caught:
            dior_r(root)
        assert caught.value.path == str(xml)
    xml.unlink()
    with pytest.raises(DatasetNotFoundError, match='is missing, but'):
        dior_r(root)
    with pytest.raises(DatasetNotFoundError, match='no such list of images'):
        dior_r(tmp_path / 'elsewhere')


def test_spacenet_and_what_is_missing_of_it(tmp_path):
    root = MAKERS['spacenet_v1'](tmp_path / 'spacenet', count=2)
    options = dict(
        data_root=str(root), data_prefix=dict(img_path='val/images', seg_map_path='val/labels')
    )
    dataset = build('mmrsfm.SpaceNetV1Dataset', 'mmseg', **options)
    assert len(dataset) == 2
    assert (dataset.ignore_index, dataset.reduce_zero_label) == (255, False)
    next((root / 'val' / 'labels').iterdir()).unlink()
    with pytest.raises(DatasetNotFoundError, match='the first is this'):
        build('mmrsfm.SpaceNetV1Dataset', 'mmseg', **options)
    options['data_root'] = str(tmp_path / 'elsewhere')
    with pytest.raises(DatasetNotFoundError, match='spacenet_to_masks'):
        build('mmrsfm.SpaceNetV1Dataset', 'mmseg', **options)


def test_converters_that_are_named_exist():
    folder = Path(__file__).resolve().parents[2] / 'data_converters'
    named = set()
    for ours, scope in CLASSES.values():
        register_scope(scope)
        for word in getattr(DATASETS.get(ours), 'converter', '').replace(',', '').split():
            if word.endswith('.py'):
                assert (folder / Path(word).name).is_file(), word
                named.add(word)
    assert len(named) >= 4
