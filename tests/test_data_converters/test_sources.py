# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""From what is downloaded to what the datasets read: source formats, converters, datasets.

The sources are written by ``tests/formats``, by somebody else and from the published descriptions.
"""

import hashlib
import json
from collections import Counter

import cv2
import numpy as np
import pytest

from data_converters.cd_patches import cut_folders, cut_pair
from data_converters.dior_r_to_dota import dior_r_to_dota
from data_converters.dior_to_coco import dior_to_coco
from data_converters.fair1m_to_dota import fair1m_to_dota
from data_converters.loveda_merge import loveda_merge
from data_converters.oscd_to_rgb import oscd_to_rgb
from data_converters.samrs_pkl_to_coco import samrs_to_coco
from data_converters.scene_split_lists import split_scenes
from data_converters.spacenet_to_masks import spacenet_to_masks
from data_converters.split_dota import SplitSettings, read_dota_labels, split_dota
from data_converters.xview_geojson_to_coco import xview_to_coco
from mmrsfm.class_tables import DIOR, FAIR1M, XVIEW
from tests import formats

pytestmark = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')


def digest(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def twice(convert, root):
    """Runs a conversion, and again over its result: nothing may change, nothing may be left."""
    result = convert()
    files = digest(root)
    assert convert() == result
    assert digest(root) == files
    assert not [name for name in files if '.partial' in name]
    return result


def build(kind, **options):
    from mmengine.registry import init_default_scope

    from mmrsfm.registry import DATASETS

    init_default_scope(options.pop('scope', 'mmrsfm'))
    return DATASETS.build({'type': kind, 'pipeline': [], **options})


def on_object(image, points):
    """Whether a polygon lies on something that the generator painted, which is bright."""
    x, y = np.clip(np.asarray(points, float).reshape(-1, 2).mean(0), 0, None)
    return int(image[min(int(y), image.shape[0] - 1), min(int(x), image.shape[1] - 1)].min()) > 100


def boxes_on_objects(dataset, least):
    """Share of the boxes that lie on objects; horizontal (4) or oriented (8)."""
    hits = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        image = cv2.imread(str(info['img_path']))
        for one in info['instances']:
            box = np.asarray(one['bbox'], float)
            if one['ignore_flag'] == 0 and len(box):
                hits.append(on_object(image, box))
    assert hits and np.mean(hits) >= least, np.mean(hits)


def test_dior(tmp_path):
    root = formats.SOURCES['dior'](tmp_path)
    counts = twice(lambda: dior_to_coco(root, workers=2, quiet=True), root)
    # What the same author writes as the benchmark's own json, but for two faults he adds.
    theirs = formats.MAKERS['dior'](tmp_path / 'ready')
    for split in ('trainval', 'test'):
        ours, expected = (
            json.loads((place / f'DIOR_{split}_coco.json').read_text()) for place in (root, theirs)
        )
        assert ours['images'] == expected['images'] and ours['categories'] == expected['categories']
        keep = [
            [one['image_id'], one['bbox'], one['category_id'], one['area']]
            for one in expected['annotations']
        ]
        found = [
            [one['image_id'], one['bbox'], one['category_id'], one['area']]
            for one in ours['annotations']
        ]
        assert all(one in keep for one in found) and len(keep) - len(found) == 2
        assert counts[split] == (len(ours['images']), len(found))
    dataset = build(
        'mmrsfm.DIORDataset', data_root=str(root), ann_file='DIOR_trainval_coco.json',
        data_prefix=dict(img='JPEGImages-trainval'),
    )  # fmt: skip
    assert len(dataset) == 4 and dataset.metainfo['classes'] == DIOR
    boxes_on_objects(dataset, 0.9)


def test_dior_without_a_list_of_trainval(tmp_path):
    root = formats.SOURCES['dior'](tmp_path)
    whole = dior_to_coco(root, quiet=True)
    (root / 'ImageSets/Main/trainval.txt').unlink()
    assert dior_to_coco(root, quiet=True) == whole


def test_dior_r(tmp_path):
    root = formats.SOURCES['dior'](tmp_path)
    target = root / 'annfiles'
    images, objects = twice(lambda: dior_r_to_dota(root, target, quiet=True), target)
    dataset = build(
        'mmrsfm.DIORRDataset', data_root=str(root), ann_file='ImageSets/Main/train.txt',
        data_prefix=dict(img_path='JPEGImages-trainval'),
    )  # fmt: skip
    assert images == 6 and objects > 10
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        labels = read_dota_labels(target / f'{info["img_id"]}.txt')
        # The dataset leaves out polygons whose neighbouring corners coincide.
        corners = [c for c in labels.corners if len(np.unique(c.reshape(4, 2), axis=0)) == 4]
        np.testing.assert_array_equal(corners, [one['bbox'] for one in info['instances']])
    assert set(labels.names) <= set(DIOR)
    difficulties = [read_dota_labels(path).difficulties for path in target.iterdir()]
    assert Counter(value for some in difficulties for value in some)[1] > 0
    assert dior_r_to_dota(root, tmp_path / 'test', ['test'], quiet=True)[0] == 2


def test_fair1m(tmp_path):
    source = formats.SOURCES['fair1m'](tmp_path / 'source')
    for split, prefix in (('train', ''), ('validation', 'val_')):
        folder = source / split
        target = tmp_path / 'whole' / split

        def convert(folder=folder, target=target, prefix=prefix):
            return fair1m_to_dota(
                folder / 'labelXml', target, [folder / 'images'], prefix, quiet=True
            )

        assert twice(convert, target)[0] == 2
    names = {
        name
        for path in (tmp_path / 'whole').rglob('*.txt')
        for name in read_dota_labels(path).names
    }
    assert names <= set(FAIR1M) and {'other-airplane', 'other-ship', 'other-vehicle'} <= names
    parts = [tmp_path / 'whole' / split for split in ('train', 'validation')]
    settings = SplitSettings(size=96, gap=20)
    data = tmp_path / 'data' / 'trainval'
    images, labels = ([part / kind for part in parts] for kind in ('images', 'annfiles'))
    count, patches = twice(lambda: split_dota(images, data, labels, settings, quiet=True), data)
    assert count == 4 and patches > 8
    assert fair1m_to_dota(None, tmp_path / 'test', [source / 'test/images'], quiet=True) == (2, 0)
    dataset = build(
        'mmrsfm.FAIR1MDataset', data_root=str(data), ann_file='annfiles/',
        data_prefix=dict(img_path='images/'),
    )  # fmt: skip
    assert len(dataset) == patches
    boxes_on_objects(dataset, 0.9)


@pytest.mark.parametrize('version', ['v1', 'v2'])
def test_dota(tmp_path, version):
    source = formats.SOURCES['dota'](tmp_path / 'source', version=version)
    settings = SplitSettings(size=128, gap=64, rates=(0.5, 1.0, 1.5))
    target = tmp_path / 'data/trainval'
    images, labels = (
        [source / split / kind for split in ('train', 'val')] for kind in ('images', 'labelTxt')
    )
    count, patches = twice(
        lambda: split_dota(images, target, labels, settings, workers=2, quiet=True), target
    )
    assert count == 4
    kind = 'mmrsfm.DOTADataset' if version == 'v1' else 'mmrsfm.DOTAv2Dataset'
    dataset = build(
        kind, data_root=str(target), ann_file='annfiles/', data_prefix=dict(img_path='images/')
    )
    assert len(dataset) == patches
    boxes_on_objects(dataset, 0.9)
    split_dota([source / 'test/images'], tmp_path / 'data/test', settings=settings, quiet=True)
    dataset = build(
        kind, data_root=str(tmp_path / 'data/test'), data_prefix=dict(img_path='images/'),
        test_mode=True,
    )  # fmt: skip
    assert len(dataset) and not (tmp_path / 'data/test/annfiles').exists()


def test_xview(tmp_path):
    source = formats.SOURCES['xview'](tmp_path / 'source', size=450)
    target = tmp_path / 'data'

    def convert():
        return xview_to_coco(
            source / 'xView_train.geojson', source / 'train_images', target, train_count=2,
            workers=2, quiet=True,
        )  # fmt: skip

    counts = twice(convert, target)
    for split in ('train', 'val'):
        dataset = build(
            'mmrsfm.XViewDataset', data_root=str(target),
            ann_file=f'xview_{split}_coco_format.json', data_prefix=dict(img=f'{split}/images'),
        )  # fmt: skip
        assert len(dataset) == counts[split][0] > 0
        assert dataset.metainfo['classes'] == XVIEW
        boxes_on_objects(dataset, 0.9)


def test_xview_scene_smaller_than_a_tile(tmp_path):
    source = formats.SOURCES['xview'](tmp_path / 'source')
    xview_to_coco(
        source / 'xView_train.geojson', source / 'train_images', tmp_path / 'data', train_count=2,
        quiet=True,
    )  # fmt: skip
    dataset = build(
        'mmrsfm.XViewDataset', data_root=str(tmp_path / 'data'),
        ann_file='xview_train_coco_format.json', data_prefix=dict(img='train/images'),
    )  # fmt: skip
    boxes_on_objects(dataset, 0.9)


def test_samrs(tmp_path):
    root = formats.SOURCES['samrs'](tmp_path / 'source')
    target = tmp_path / 'json'
    counts = twice(
        lambda: samrs_to_coco(
            root, target, 'sota', images='trainval/images',
            masks='trainval/rhbox_segs_init/ins', workers=2, quiet=True,
        ),
        target,
    )  # fmt: skip
    content = json.loads((target / 'sota_rbb_train_ins_segmentation.json').read_text())
    assert counts['train'] == (len(content['images']), len(content['annotations']))
    for one in content['annotations']:
        x, y, width, height = one['bbox']
        image = content['images'][one['image_id']]
        picture = cv2.imread(str(root / 'trainval/images' / image['file_name']))
        assert on_object(picture, [[x, y], [x + width, y + height]])


def test_spacenet(tmp_path):
    source = formats.SOURCES['spacenet_v1'](tmp_path / 'source', count=5)
    for folder, prefix in (('3band', '3band_'), ('geojson', 'Geo_')):  # a gap in the numbers
        next((source / folder).glob(f'{prefix}AOI_1_RIO_img2.*')).unlink()
    target = tmp_path / 'data'
    counts = twice(
        lambda: spacenet_to_masks(
            source / '3band', source / 'geojson', target, 0.5, workers=2, quiet=True
        ),
        target,
    )
    assert counts == {'train': 2, 'val': 2}
    seen = set()
    for split in counts:
        dataset = build(
            'mmrsfm.SpaceNetV1Dataset', data_root=str(target),
            data_prefix=dict(img_path=f'{split}/images', seg_map_path=f'{split}/labels'),
        )  # fmt: skip
        assert len(dataset) == counts[split]
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            mask = cv2.imread(str(info['seg_map_path']), cv2.IMREAD_UNCHANGED)
            image = cv2.imread(str(info['img_path'])).min(axis=-1)
            assert image.shape == mask.shape
            seen |= set(np.unique(mask).tolist())
            if mask.any():
                # Buildings are painted brighter than all else.
                assert np.mean((image > 100) == (mask == 1)) > 0.95
    assert seen == {0, 1}


def test_loveda(tmp_path):
    source = formats.SOURCES['loveda'](tmp_path / 'source')
    target = tmp_path / 'data'
    for how in ('copy', 'hardlink', 'symlink'):
        counts = twice(lambda how=how: loveda_merge(source, target, how=how, quiet=True), target)
        assert counts == {'trainval': 8, 'test': 4}
    dataset = build(
        'mmseg.LoveDADataset', data_root=str(target), scope='mmseg',
        data_prefix=dict(img_path='trainval/images', seg_map_path='trainval/labels'),
    )  # fmt: skip
    assert len(dataset) == 8
    assert loveda_merge(source, tmp_path / 'apart', separate=True, quiet=True) == {
        'train': 4, 'val': 4, 'test': 4,
    }  # fmt: skip


def check_changes(kind, root, split, count):
    dataset = build(
        f'opencd.{kind}', scope='opencd', data_root=str(root),
        data_prefix=dict(
            img_path_from=f'{split}/A', img_path_to=f'{split}/B', seg_map_path=f'{split}/label'
        ),
    )  # fmt: skip
    assert len(dataset) == count
    agree = []
    for index in range(count):
        info = dataset.get_data_info(index)
        before, after = (cv2.imread(str(path)).astype(int) for path in info['img_path'])
        label = cv2.imread(str(info['seg_map_path']), cv2.IMREAD_UNCHANGED)
        assert label.dtype == np.uint8 and set(np.unique(label)) <= {0, 255}
        if label.any() and not label.all():
            difference = np.abs(before - after).max(axis=-1)
            agree.append(difference[label == 255].mean() > difference[label == 0].mean() + 20)
    return agree


def test_levir_cd(tmp_path):
    source = formats.SOURCES['levir_cd'](tmp_path / 'source')
    target = tmp_path / 'data'
    counts = twice(lambda: cut_folders(source, target, 64, workers=2, quiet=True), target)
    assert counts == {'train': 8, 'val': 8, 'test': 8}
    assert (target / 'train/A/train_1_0064_0000.png').exists()
    whole, patch = (
        cv2.imread(str(path))
        for path in (source / 'test/B/test_2.png', target / 'test/B/test_2_0000_0064.png')
    )
    np.testing.assert_array_equal(patch, whole[:64, 64:128])
    agree = check_changes('LEVIR_CD_Dataset', target, 'train', 8)
    assert agree and all(agree)


@pytest.mark.parametrize('layout', ['before_after', 'two_period'])
def test_whu_cd(tmp_path, layout):
    source = formats.SOURCES['whu_cd'](tmp_path / 'source', layout=layout)
    target = tmp_path / 'data'

    def convert():
        if layout == 'before_after':
            names = ('before/before.tif', 'after/after.tif', 'change label/change_label.tif')
            return cut_pair(*(source / name for name in names), target, size=32)
        counts = {}
        for part, shares in (('train', {'train': 0.8, 'val': 0.2}), ('test', {'test': 1.0})):
            names = [f'{y}/whole_image/{part}/image/{y}_{part}.tif' for y in (2012, 2016)]
            names.append(f'change_label/{part}/change_label.tif')
            counts |= cut_pair(*(source / name for name in names), target, shares, size=32)
        return counts

    counts = twice(convert, target)
    if layout == 'before_after':
        # 103 rows and 253 columns: 4 x 8 patches, of which the last are filled up.
        assert sum(counts.values()) == 32
    agree = check_changes('WHU_CD_Dataset', target, 'train', counts['train'])
    assert agree and np.mean(agree) > 0.8


def test_oscd(tmp_path):
    source = formats.SOURCES['oscd'](tmp_path / 'source')
    title = 'Onera Satellite Change Detection dataset - '
    folders = [source / f'{title}{part}' for part in ('Images', 'Train Labels', 'Test Labels')]
    whole, target = tmp_path / 'whole', tmp_path / 'data'
    assert twice(
        lambda: oscd_to_rgb(folders[0], whole, *folders[1:], workers=2, quiet=True), whole
    ) == {'train': 2, 'test': 2}
    counts = twice(lambda: cut_folders(whole, target, 96, quiet=True), target)
    assert counts == {'train': 8, 'test': 8}
    agree = check_changes('OSCD_RGB_CD_Dataset', target, 'test', 8)
    assert agree and np.mean(agree) > 0.8
    # Red is red: the publisher's own picture has the same colours.
    city = folders[0] / 'beirut'
    if not city.exists():
        city = min(path for path in folders[0].iterdir() if path.is_dir())
    split = 'train' if (whole / f'train/A/{city.name}.png').exists() else 'test'
    ours = cv2.imread(str(whole / split / 'A' / f'{city.name}.png')).reshape(-1, 3).astype(float)
    theirs = cv2.imread(str(city / 'pair/img1.png')).reshape(-1, 3).astype(float)
    for channel in range(3):
        assert np.corrcoef(ours[:, channel], theirs[:, channel])[0, 1] > 0.9


def test_eurosat(tmp_path):
    source = formats.SOURCES['eurosat'](tmp_path / 'source', count=5)
    target = tmp_path / 'data'
    shares = {'train': 0.6, 'val': 0.2}
    counts = twice(
        lambda: split_scenes(source, target, 'folders', shares, workers=2, quiet=True), target
    )
    assert counts == {'train': 30, 'val': 10}
    for split, per_class in (('train', 3), ('val', 1)):
        dataset = build('mmpretrain.CustomDataset', data_root=str(target / split))
        assert Counter(dataset.get_gt_labels().tolist()) == dict.fromkeys(range(10), per_class)
    assert not {p.name for p in target.glob('train/*/*')} & {p.name for p in target.glob('val/*/*')}


def test_resisc45(tmp_path):
    source = formats.SOURCES['resisc45'](tmp_path / 'source')
    target = tmp_path / 'data'
    shares = {'train': 0.2, 'valid': 0.8}
    counts = twice(
        lambda: split_scenes(source, target, 'lists', shares, how='hardlink', quiet=True), target
    )
    assert counts == {'train': 45, 'valid': 180}
    dataset = build(
        'mmpretrain.CustomDataset', data_root=str(target), data_prefix='all_img',
        ann_file='mtp/train_labels_28_mtp.txt',
    )  # fmt: skip
    assert Counter(dataset.get_gt_labels().tolist()) == dict.fromkeys(range(45), 1)
    classes = sorted(path.name for path in source.iterdir())
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        name = info['img_path'].rsplit('/', 1)[1].rsplit('_', 1)[0]
        assert classes[info['gt_label']] == name
