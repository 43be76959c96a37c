# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Geometric transforms: aligned fields, the reference's numbers, and no-data that stays no-data."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import functional as TF

from mmrsfm.datasets.transforms import geometry
from mmrsfm.errors import ConfigError, ImageSizeError
from mmrsfm.registry import TRANSFORMS


def build(name, **options):
    return TRANSFORMS.build(dict(type=f'mmrsfm.{name}', **options))


def sample(bands=5, height=12, width=17, dtype='float32', invalid=True) -> dict:
    """Every pixel has an identity, from which mask and label follow."""
    identity = np.arange(height * width).reshape(height, width)
    image = np.stack([identity * bands + band for band in range(bands)], axis=2).astype(dtype)
    results = {
        'img': image,
        'gt_seg_map': (identity % 251).astype(np.uint8),
        'seg_fields': ['gt_seg_map'],
        'geo': {'crs': 'EPSG:32618', 'transform': (10.0, 0.0, 500000.0, 0.0, -10.0, 4200000.0)},
        'img_path': 'a.tif',
        'img_shape': (height, width),
    }
    if invalid:
        results['valid_mask'] = image % 7 != 3
    return results


def assert_aligned(results, bands=5):
    identity = results['img'][..., 0] / bands
    for band in range(bands):
        assert np.array_equal(results['img'][..., band], identity * bands + band)
    assert np.array_equal(results['gt_seg_map'], identity % 251)
    assert np.array_equal(results['valid_mask'], results['img'] % 7 != 3)
    assert results['img_shape'] == results['img'].shape[:2] == results['gt_seg_map'].shape


def assert_georeferenced(results, width=17, bands=5):
    """The centre of every pixel is where it was in the source."""
    a, b, c, d, e, f = results['geo']['transform']
    rows, columns = np.indices(results['img'].shape[:2]) + 0.5
    identity = results['img'][..., 0] / bands
    source_row, source_column = identity // width + 0.5, identity % width + 0.5
    assert np.allclose(a * columns + b * rows + c, 500000.0 + 10 * source_column)
    assert np.allclose(d * columns + e * rows + f, 4200000.0 - 10 * source_row)


@pytest.mark.parametrize(
    'transform',
    [
        build('RandomFlip', prob=1.0, direction='horizontal'),
        build('RandomFlip', prob=1.0, direction='vertical'),
        build('RandomFlip', prob=1.0, direction='diagonal'),
        build('RandomRot90', prob=1.0),
        build('RandomCrop', size=(7, 5)),
        build('CenterCrop', size=(7, 4)),
    ],
    ids=repr,
)
def test_rearranging_transforms_keep_everything_aligned(transform):
    for seed in range(8):
        np.random.seed(seed)
        results = transform(sample())
        assert_aligned(results)
        assert_georeferenced(results)


def test_all_quarter_turns_are_drawn():
    transform = build('RandomRot90')
    turns = [transform(sample())['rot90'] for _ in range(200)]
    counts = np.bincount(turns, minlength=4)
    assert (counts > 25).all()
    results = build('RandomRot90', prob=0.0)(sample())
    assert results['rot90'] == 0
    assert_aligned(results)


def test_flip_keeps_mmcv_semantics():
    results = build('RandomFlip', prob=1.0)(sample(invalid=False))
    assert results['flip'] is True
    assert results['flip_direction'] == 'horizontal'
    assert np.array_equal(results['img'], sample()['img'][:, ::-1])
    assert build('RandomFlip', prob=0.0)(sample())['flip'] is False


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32'])
@pytest.mark.parametrize('bands', [1, 2, 4, 13])
def test_any_bands_and_types(bands, dtype):
    pipeline = [
        build('RandomFlip', prob=1.0),
        build('RandomRot90', prob=1.0),
        build('RandomResizedCrop', size=8),
        build('Pad', divisor=3),
        build('CenterCrop', size=8),
        build('PackInputs'),
    ]
    results = sample(bands, dtype=dtype)
    for transform in pipeline:
        results = transform(results)
    assert results['inputs'].shape == (bands, 8, 8)
    assert results['inputs'].is_contiguous()
    assert results['data_samples'].valid_mask.shape == (bands, 8, 8)


# -- resampling ------------------------------------------------------------------------------------


@pytest.mark.parametrize('antialias', [True, False])
@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('size', [(8, 8), (30, 40), (12, 9)])
def test_resize_is_torchs_interpolation(size, interpolation, antialias):
    results = sample(invalid=False)
    planes = torch.from_numpy(results['img'].transpose(2, 0, 1))[None]
    expected = F.interpolate(
        planes, size, mode=interpolation, align_corners=False, antialias=antialias
    )
    transform = build('Resize', size=size, interpolation=interpolation, antialias=antialias)
    results = transform(results)
    assert np.array_equal(results['img'], expected[0].permute(1, 2, 0).numpy())
    assert results['img_shape'] == size
    assert results['scale_factor'] == (size[1] / 17, size[0] / 12)
    a, _, c, _, e, _ = results['geo']['transform']
    assert np.isclose(a * size[1], 170)
    assert np.isclose(e * size[0], -120)
    assert c == 500000.0


def test_random_resized_crop_is_torchvisions():
    transform = build('RandomResizedCrop', size=16, scale=(0.25, 1.0))
    for seed in range(5):
        np.random.seed(seed)
        results = transform(sample(invalid=False, height=40, width=50))
        planes = torch.from_numpy(sample(height=40, width=50)['img'].transpose(2, 0, 1))
        expected = TF.resized_crop(
            planes, *results['crop_box'], [16, 16], TF.InterpolationMode.BICUBIC, antialias=True
        )
        assert np.allclose(results['img'], expected.permute(1, 2, 0), rtol=1e-6, atol=1e-2)


def test_crop_rectangles_have_the_distribution_of_torchvision():
    ranges = ((0.25, 0.5), (3 / 4, 4 / 3))
    boxes = np.array([geometry.draw_crop(100, 80, *ranges) for _ in range(3000)])
    top, left, height, width = boxes.T
    assert (top + height <= 100).all()
    assert (left + width <= 80).all()
    area, aspect = height * width / 8000, np.log(width / height)
    assert 0.24 < area.min() < 0.27
    assert 0.48 < area.max() < 0.51
    assert abs(area.mean() - 0.375) < 0.01
    assert abs(aspect.mean()) < 0.02  # log-uniform around 0
    assert np.isclose(aspect.max(), np.log(4 / 3), atol=0.03)


def test_crop_falls_back_to_the_centre():
    # No rectangle of more than the whole area fits.
    assert geometry.draw_crop(50, 50, (4.0, 4.0), (3 / 4, 4 / 3)) == (0, 0, 50, 50)
    assert geometry.draw_crop(30, 90, (4.0, 4.0), (3 / 4, 4 / 3)) == (0, 25, 30, 40)
    assert geometry.draw_crop(90, 30, (4.0, 4.0), (3 / 4, 4 / 3)) == (25, 0, 40, 30)


def test_normalising_and_cropping_commute():
    image = np.random.rand(40, 40, 3).astype('float32') * 255
    mean, std = np.array([110, 111, 103], 'float32'), np.array([50, 49, 49], 'float32')
    transform = build('RandomResizedCrop', size=16)
    np.random.seed(3)
    after = (transform({'img': image})['img'] - mean) / std
    np.random.seed(3)
    before = transform({'img': (image - mean) / std})['img']
    assert np.allclose(after, before, atol=1e-5)


def test_keep_dtype_rounds_and_clips():
    image = np.zeros((8, 8, 1), np.uint8)
    image[::2] = 255
    results = build('Resize', size=20, keep_dtype=True)({'img': image})
    assert results['img'].dtype == np.uint8
    exact = build('Resize', size=20)({'img': image})['img']
    assert exact.min() < 0  # bicubic overshoots
    assert np.array_equal(results['img'], np.clip(np.rint(exact), 0, 255))


def test_the_type_does_not_depend_on_the_size_that_is_drawn():
    # A crop that happened to have the wanted size stayed uint8: a batch of two types, no batch.
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    for keep, expected in ((False, np.float32), (True, np.uint8)):
        for name, options in (('Resize', {}), ('RandomResizedCrop', {'scale': (1.0, 1.0)})):
            transform = build(name, size=(4, 4), keep_dtype=keep, **options)
            if options:
                transform.ratio = (1.0, 1.0)
            found = transform({'img': image})['img']
            assert found.dtype == expected and np.array_equal(found, image)


@pytest.mark.parametrize(
    ('shape', 'options', 'expected'),
    [
        ((100, 200), {'size': 146}, (146, 292)),
        ((200, 100), {'size': 146}, (292, 146)),
        ((100, 200), {'size': (50, 60)}, (50, 60)),
        ((100, 200), {'factor': 0.125}, (12, 25)),
        ((4, 4), {'factor': 0.01}, (1, 1)),
    ],
)
def test_resize_targets(shape, options, expected):
    assert build('Resize', **options)({'img': np.zeros((*shape, 2))})['img_shape'] == expected


def test_labels_are_resampled_to_the_nearest_and_stay_centred():
    label = np.arange(16).reshape(4, 4).astype(np.uint8)
    enlarged = geometry.resample_nearest(label, (8, 8))
    assert np.array_equal(enlarged, label.repeat(2, 0).repeat(2, 1))
    assert np.array_equal(geometry.resample_nearest(enlarged, (4, 4)), label)
    exact = F.interpolate(torch.from_numpy(label)[None, None].float(), (7, 3), mode='nearest-exact')
    assert np.array_equal(geometry.resample_nearest(label, (7, 3)), exact[0, 0].numpy())


@pytest.mark.parametrize('antialias', [True, False])
@pytest.mark.parametrize('interpolation', ['nearest', 'bilinear', 'bicubic'])
@pytest.mark.parametrize('size', [(5, 6), (12, 17), (12, 9), (25, 40), (11, 16)])
def test_valid_is_what_no_invalid_pixel_touches(size, interpolation, antialias):
    """Exactly: changing the invalid pixels changes no valid one, and every invalid one."""
    rng = np.random.default_rng(0)
    for density in (0.01, 0.1):
        valid = rng.random((12, 17, 2)) > density
        image = rng.random((12, 17, 2)).astype('float32')
        changed = image + (~valid) * rng.uniform(1e3, 2e3, image.shape).astype('float32')
        after = geometry.resample_valid(valid, size, interpolation, antialias)
        a, b = (
            geometry.resample_image(one, size, interpolation, antialias) for one in (image, changed)
        )
        differs = np.abs(a - b) > 1e-2
        assert not differs[after].any()
        # Not all: kernels are zero at whole distances.
        assert differs[~after].sum() >= 0.9 * (~after).sum()


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, -9999.0])
@pytest.mark.parametrize('name', ['RandomResizedCrop', 'Resize'])
def test_nothing_invalid_spreads(name, value):
    image = np.random.rand(20, 20, 3).astype('float32')
    valid = np.ones(image.shape, bool)
    valid[4:9, 5:11, 1] = False
    image[~valid] = value
    results = build(name, size=13)({'img': image, 'valid_mask': valid})
    assert results['valid_mask'].shape == (13, 13, 3)
    assert not results['valid_mask'][..., 1].all()
    assert results['valid_mask'][..., [0, 2]].all()
    assert np.isfinite(results['img']).all()
    assert results['img'].min() > -1


def test_a_band_without_any_data_becomes_zero():
    image = np.full((4, 4, 2), np.nan, 'float32')
    image[..., 0] = 5
    filled = geometry.fill_invalid(image, np.isfinite(image))
    assert (filled[..., 0] == 5).all()
    assert (filled[..., 1] == 0).all()


# -- padding, cropping, refusing -------------------------------------------------------------------


def test_padding_is_invalid_and_unlabelled():
    results = build('Pad', size=(15, 20))(sample(invalid=False))
    assert results['img'].shape == (15, 20, 5)
    assert results['valid_mask'][:12, :17].all()
    assert not results['valid_mask'][12:].any()
    assert not results['valid_mask'][:, 17:].any()
    assert (results['gt_seg_map'][12:] == 255).all()
    untouched = build('Pad', divisor=1)(sample(invalid=False))
    assert 'valid_mask' not in untouched
    assert untouched['pad_shape'] == (12, 17)


def test_random_crop_avoids_no_data():
    results = sample(height=40, width=40)
    results['valid_mask'] = np.zeros((40, 40, 5), bool)
    results['valid_mask'][20:, 20:] = True
    transform = build('RandomCrop', size=15, min_valid=0.8, attempts=300)
    assert transform(results)['valid_mask'].mean() >= 0.8
    unlabelled = sample(height=40, width=40, invalid=False)
    unlabelled['gt_seg_map'][:, :20] = 255
    transform = build('RandomCrop', size=15, min_valid=0.9, attempts=300)
    assert (transform(unlabelled)['gt_seg_map'] != 255).mean() >= 0.9


@pytest.mark.parametrize('name', ['RandomCrop', 'CenterCrop'])
def test_image_smaller_than_the_crop(name):
    with pytest.raises(ImageSizeError, match=r'a\.tif: 12 x 17 pixels .* 13 x 5.*mmrsfm\.Pad'):
        build(name, size=(13, 5))(sample())


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('RandomFlip', {'prob': 1.0}),
        ('RandomRot90', {}),
        ('RandomCrop', {'size': 4}),
        ('CenterCrop', {'size': 4}),
        ('RandomResizedCrop', {'size': 4}),
        ('Resize', {'size': 4}),
        ('Pad', {'size': 40}),
    ],
)
def test_boxes_are_refused(name, options):
    with pytest.raises(ConfigError, match=rf'mmrsfm\.{name} .*gt_bboxes.*mmdet'):
        build(name, **options)({**sample(), 'gt_bboxes': np.zeros((1, 4))})


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('Resize', {}),
        ('Resize', {'size': 4, 'factor': 2}),
        ('Resize', {'factor': 0}),
        ('Resize', {'size': 4, 'interpolation': 'lanczos'}),
        ('RandomResizedCrop', {'size': 0}),
        ('RandomResizedCrop', {'size': 4, 'scale': (0.5, 0.2)}),
        ('RandomResizedCrop', {'size': (1, 2, 3)}),
        ('RandomRot90', {'prob': 2}),
        ('RandomCrop', {'size': 3, 'min_valid': 2}),
        ('Pad', {}),
        ('DrawMaskNoise', {'patch_size': 0}),
    ],
)
def test_contradictory_arguments(name, options):
    with pytest.raises(ConfigError, match=name):
        build(name, **options)


# -- masks and packing -----------------------------------------------------------------------------


def test_mask_noise():
    results = build('DrawMaskNoise', patch_size=4)({'img': np.zeros((8, 12, 3))})
    noise = results['mask_noise']
    assert noise.shape == (2, 6)
    assert noise.dtype == torch.float32
    assert not torch.equal(noise[0], noise[1])
    shared = build('DrawMaskNoise', patch_size=4, num_views=3, same_for_views=True)
    noise = shared({'img': np.zeros((8, 8, 3))})['mask_noise']
    assert torch.equal(noise[0], noise[2])
    with pytest.raises(ImageSizeError, match='not a whole number of patches of 5'):
        build('DrawMaskNoise', patch_size=5)({'img': np.zeros((8, 8, 3)), 'img_path': 'a.tif'})


def test_packing_carries_what_was_drawn():
    results = sample(dtype='uint16')
    results.update(band_names=('a', 'b', 'c', 'd', 'e'), gt_label=3, sample_idx=7)
    results.update(value_scale=1.0, value_offset=-0.1)
    results = build('DrawMaskNoise', patch_size=1)(results)
    results = build('DrawScaleCrop')(results)
    packed = build('PackInputs')(results)
    assert packed['inputs'].dtype == torch.uint16
    assert np.array_equal(packed['inputs'].numpy(), results['img'].transpose(2, 0, 1))
    data = packed['data_samples']
    assert data.valid_mask.dtype == torch.bool
    assert np.array_equal(data.valid_mask.numpy(), results['valid_mask'].transpose(2, 0, 1))
    assert data.mask_noise.shape == (2, 12 * 17)
    top, left, height, width = data.scale_crop.tolist()
    assert top + height <= 12
    assert left + width <= 17
    assert data.band_names == ('a', 'b', 'c', 'd', 'e')
    assert data.scale == 1.0
    assert data.offset == -0.1
    assert data.gt_label.item() == 3


def test_packing_costs_no_copy_where_nothing_changed():
    planes = np.zeros((3, 8, 8), 'float32')
    packed = build('PackInputs')({'img': planes.transpose(1, 2, 0)})
    assert packed['inputs'].data_ptr() == planes.ctypes.data


def test_a_mask_without_invalid_pixels_is_not_packed():
    results = sample(invalid=False)
    results['valid_mask'] = np.ones(results['img'].shape, bool)
    assert 'valid_mask' not in build('PackInputs')(results)['data_samples']


def test_a_transform_that_lost_the_mask_is_found():
    results = sample()
    results['img'] = results['img'][:4]
    with pytest.raises(ConfigError, match=r'a\.tif.*validity mask has shape \(12, 17, 5\)'):
        build('PackInputs')(results)


def test_views_are_packed_one_by_one():
    packed = build('PackInputs')({'img': [np.zeros((4, 4, 5)), np.zeros((6, 6, 5))]})
    assert [tuple(view.shape) for view in packed['inputs']] == [(5, 4, 4), (5, 6, 6)]


def test_segmentation_packing_ignores_pixels_without_data():
    results = sample()
    results['valid_mask'][2, 3] = False
    results['valid_mask'][4, 5, 1:] = False
    results['valid_mask'][4, 5, 0] = True
    for ignore, expected in (('all', 255), ('never', None)):
        packed = build('PackSegInputs', ignore_invalid=ignore)({**results})
        label = packed['data_samples'].gt_sem_seg.data[0]
        assert label[2, 3] == (expected or 2 * 17 + 3)
        assert label[4, 5] == 4 * 17 + 5
    packed = build('PackSegInputs', ignore_invalid='any')({**results})
    assert packed['data_samples'].gt_sem_seg.data[0, 4, 5] == 255
    assert packed['data_samples'].valid_mask.shape == (5, 12, 17)
    assert packed['inputs'].shape == (5, 12, 17)
