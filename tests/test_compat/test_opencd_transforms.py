# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Transforms of pairs: both dates and the map stay together, and wrong input speaks."""

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('mmseg')

from mmengine.registry import TRANSFORMS, init_default_scope

from mmrsfm.errors import (
    ConfigError,
    CorruptImageError,
    DataError,
    ImageNotFoundError,
    ImageSizeError,
)

HEIGHT, WIDTH = 12, 18


def build(kind, **options):
    return TRANSFORMS.build({'type': f'opencd.MultiImg{kind}', **options})


def numbered():
    """A pair and a map whose values say where a pixel came from."""
    place = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    images = [np.repeat(place[..., None] + shift, 3, axis=2) for shift in (0, 1)]
    return {
        'img': images,
        'gt_seg_map': place.copy(),
        'seg_fields': ['gt_seg_map'],
        'img_shape': (HEIGHT, WIDTH),
        'ori_shape': (HEIGHT, WIDTH),
        'img_path': ['a/1.png', 'b/1.png'],
    }


@pytest.mark.parametrize(
    ('kind', 'options'),
    [
        ('RandomFlip', {'prob': 1.0, 'direction': 'horizontal'}),
        ('RandomFlip', {'prob': [0.5, 0.5], 'direction': ['vertical', 'diagonal']}),
        ('RandomRotFlip', {'rotate_prob': 0.0, 'flip_prob': 1.0}),
        ('RandomCrop', {'crop_size': (5, 7)}),
        ('RandomCrop', {'crop_size': [5, 7], 'cat_max_ratio': 0.75}),
        ('RandomRotate', {'prob': 0.0, 'degree': 10}),
        ('Pad', {'size_divisor': 16}),
        ('Resize', {'scale': (9, 6), 'interpolation': 'nearest'}),
        ('Resize', {'scale_factor': 2.0, 'interpolation': 'nearest', 'keep_ratio': True}),
        (
            'RandomResize',
            {'scale': (36, 24), 'ratio_range': (0.5, 2.0), 'interpolation': 'nearest'},
        ),
    ],
)
def test_dates_and_map_move_together(kind, options):
    transform = build(kind, **options)
    for seed in range(4):
        np.random.seed(seed)
        results = transform(numbered())
        first, second = results['img']
        inside = results['gt_seg_map'] != 255 if kind == 'Pad' else ...
        assert results['img_shape'] == first.shape[:2] == results['gt_seg_map'].shape
        assert (first[..., 0] == results['gt_seg_map'])[inside].all()
        assert (second[..., 0] == results['gt_seg_map'] + 1)[inside].all()
        assert results['seg_fields'] == ['gt_seg_map']


def test_rotation_invents_no_classes_and_marks_what_comes_from_outside():
    results = numbered()
    results['gt_seg_map'] = (results['gt_seg_map'] > 99).astype(np.uint8)
    np.random.seed(0)
    rotated = build('RandomRotFlip', rotate_prob=1.0, degree=(20, 21))(results)
    assert set(np.unique(rotated['gt_seg_map'])) == {0, 1, 255}
    assert all(image[0, 0].tolist() == [0, 0, 0] for image in rotated['img'])


def test_dates_are_distorted_each_in_its_own_way_unless_one_mode_is_wanted():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.random.seed(3)
    results = build('PhotoMetricDistortion')({'img': [image, image.copy()]})
    assert not np.array_equal(*results['img'])
    np.random.seed(3)
    results = build(
        'PhotoMetricDistortion', brightness_delta=0, contrast_range=(1, 1),
        saturation_range=(1, 1), hue_delta=1, consistent_contrast_mode=True,
    )({'img': [image, image.copy()]})  # fmt: skip
    assert all(one.dtype == np.uint8 for one in results['img'])


def test_normalised_like_one_image():
    results = build('Normalize', mean=[1, 2, 3], std=[2, 2, 2], to_rgb=True)(numbered())
    expected = (numbered()['img'][1][..., ::-1].astype(np.float32) - [1, 2, 3]) / 2
    np.testing.assert_allclose(results['img'][1], expected, rtol=1e-6)


def test_exchange_also_moves_the_maps_of_each_date():
    results = {'img': ['a', 'b'], 'gt_seg_map_from': 1, 'gt_seg_map_to': 2}
    exchanged = build('ExchangeTime', prob=1.0)(dict(results))
    assert exchanged == {'img': ['b', 'a'], 'gt_seg_map_from': 2, 'gt_seg_map_to': 1}
    assert build('ExchangeTime', prob=0.0)(dict(results)) == results
    with pytest.raises(ConfigError, match=r'prob must lie in \[0, 1\]'):
        build('ExchangeTime', prob=2)


def test_packed_first_date_first():
    packed = build('PackSegInputs')(numbered())
    assert packed['inputs'].shape == (6, HEIGHT, WIDTH)
    assert packed['inputs'].dtype == torch.uint8
    assert (packed['inputs'][3:] - packed['inputs'][:3] == 1).all()
    sample = packed['data_samples']
    assert sample.gt_sem_seg.data.shape == (1, HEIGHT, WIDTH)
    assert sample.gt_sem_seg.data.dtype == torch.int64
    assert sample.img_path == ['a/1.png', 'b/1.png'] and sample.ori_shape == (HEIGHT, WIDTH)


def test_test_time_augmentation_turns_predictions_back(tmp_path):
    """The tta_pipeline of Open-CD's base configs."""
    init_default_scope('opencd')
    for name, array in zip('ab', numbered()['img'], strict=True):
        Image.fromarray(array).save(tmp_path / f'{name}.png')
    Image.fromarray(numbered()['gt_seg_map']).save(tmp_path / 'l.png')
    scales = [
        {'type': 'MultiImgResize', 'scale_factor': ratio, 'keep_ratio': True}
        for ratio in (1.0, 2.0)
    ]
    flips = [
        {'type': 'MultiImgRandomFlip', 'prob': prob, 'direction': 'horizontal'}
        for prob in (0.0, 1.0)
    ]
    ends = [[{'type': 'MultiImgLoadAnnotations'}], [{'type': 'MultiImgPackSegInputs'}]]
    pipeline = [
        {'type': 'MultiImgLoadImageFromFile', 'backend_args': None},
        {'type': 'TestTimeAug', 'transforms': [scales, flips, *ends]},
    ]
    results = {
        'img_path': [str(tmp_path / 'a.png'), str(tmp_path / 'b.png')],
        'seg_map_path': str(tmp_path / 'l.png'),
        'seg_fields': [],
    }
    for transform in pipeline:
        results = TRANSFORMS.build(transform)(results)
    assert [tuple(view.shape) for view in results['inputs']] == [
        (6, HEIGHT, WIDTH), (6, HEIGHT, WIDTH), (6, 2 * HEIGHT, 2 * WIDTH),
        (6, 2 * HEIGHT, 2 * WIDTH),
    ]  # fmt: skip
    assert [sample.flip for sample in results['data_samples']] == [False, True] * 2
    assert {tuple(s.gt_sem_seg.shape) for s in results['data_samples']} == {(HEIGHT, WIDTH)}


class TestFailures:
    @pytest.fixture
    def files(self, tmp_path):
        for name, size in (('a', (6, 4)), ('b', (6, 4)), ('larger', (8, 4))):
            Image.new('RGB', size).save(tmp_path / f'{name}.png')
            Image.new('L', size, 255).save(tmp_path / f'label_{name}.png')
        (tmp_path / 'broken.png').write_bytes(b'not an image')
        return tmp_path

    def load(self, folder, first, second):
        return build('LoadImageFromFile')(
            {'img_path': [str(folder / f'{name}.png') for name in (first, second)]}
        )

    def label(self, folder, name, **extra):
        results = self.load(folder, 'a', 'b') | {'format_seg_map': 'to_binary', 'seg_fields': []}
        if name is not None:
            results['seg_map_path'] = str(folder / f'{name}.png')
        return build('LoadAnnotations')(results | extra)

    def test_sizes_of_the_dates(self, files):
        with pytest.raises(ImageSizeError, match=r'\(4, 6, 3\) and \(4, 8, 3\)') as caught:
            self.load(files, 'a', 'larger')
        assert 'a.png' in str(caught.value) and 'larger.png' in str(caught.value)

    def test_files_that_cannot_be_read(self, files):
        with pytest.raises(ImageNotFoundError, match=r'none\.png: no such image'):
            self.load(files, 'a', 'none')
        with pytest.raises(CorruptImageError, match=r'broken\.png: cannot be decoded'):
            self.load(files, 'broken', 'b')
        with pytest.raises(ImageNotFoundError, match='no such map of change'):
            self.label(files, 'none')
        with pytest.raises(CorruptImageError, match=r'broken\.png'):
            self.label(files, 'broken')

    def test_maps(self, files):
        assert self.label(files, 'label_a')['gt_seg_map'].tolist() == [[1] * 6] * 4
        with pytest.raises(ImageSizeError, match='4 x 8, its images are 4 x 6'):
            self.label(files, 'label_larger')
        with pytest.raises(DataError, match='there is no map of change'):
            self.label(files, None)

    def test_values(self, files):
        path = files / 'label.png'
        Image.fromarray(np.array([[0, 1] * 3] * 4, np.uint8)).save(path)
        with pytest.raises(DataError, match='holds 0 and 1, but'):
            self.label(files, 'label')
        plain = {'format_seg_map': None, 'num_classes': 2}
        assert self.label(files, 'label', **plain)['gt_seg_map'].max() == 1
        Image.fromarray(np.array([[0, 128, 255] * 2] * 4, np.uint8)).save(path)
        with pytest.raises(DataError, match=r'holds \[128\].*to_binary'):
            self.label(files, 'label', **plain)

    def test_classes_that_a_config_selects(self, files):
        results = self.label(files, 'label_a', label_map={0: 255, 1: 0})
        assert set(np.unique(results['gt_seg_map'])) == {0}

    def test_crops(self):
        with pytest.raises(ConfigError, match='put MultiImgLoadAnnotations before it'):
            build('RandomCrop', crop_size=(4, 4), cat_max_ratio=0.5)({'img': numbered()['img']})
        results = numbered()
        results['gt_seg_map'] = results['gt_seg_map'][::2, ::2]
        with pytest.raises(ImageSizeError, match='different places'):
            build('RandomCrop', crop_size=(4, 4))(results)
        # OSCD: the images are enlarged before the map is read, and the crop takes all.
        whole = build('RandomCrop', crop_size=(HEIGHT, WIDTH))(results)
        assert whole['img_shape'] == (HEIGHT, WIDTH)
        assert whole['gt_seg_map'].shape == (HEIGHT // 2, WIDTH // 2)

    def test_packing_of_different_sizes(self):
        results = numbered()
        results['img'][1] = results['img'][1][:-1]
        with pytest.raises(ImageSizeError, match='differ in size'):
            build('PackSegInputs')(results)


def test_albumentations_see_one_draw_for_all(monkeypatch):
    """With a stand-in for albumentations, which is optional."""
    import mmseg.datasets.transforms.transforms as mmseg_transforms

    class Compose:
        def __init__(self, transforms, additional_targets):
            assert additional_targets == {'image_to': 'image'}

        def __call__(self, image, image_to, masks):
            return {'image': image[::-1], 'image_to': image_to[::-1], 'masks': [masks[0][::-1]]}

    monkeypatch.setattr(mmseg_transforms, 'ALBU_INSTALLED', True)
    monkeypatch.setattr(mmseg_transforms, 'Compose', Compose, raising=False)
    results = build('Albu', transforms=[])(numbered())
    given = numbered()
    for ours, image in zip(results['img'], given['img'], strict=True):
        assert np.array_equal(ours, image[::-1])
    assert np.array_equal(results['gt_seg_map'], given['gt_seg_map'][::-1])
