# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""LoadMultiBandImage and LoadSegLabel: bands, units, no-data, sizes, classes."""

import numpy as np
import pytest
from mmengine.dataset import Compose

from mmrsfm.errors import (
    BandMismatchError,
    ConfigError,
    CorruptImageError,
    DataError,
    ImageSizeError,
)
from mmrsfm.registry import TRANSFORMS
from tests.test_datasets.imagery import numbers, write_tif

NAMES = ('B02', 'B03', 'B04', 'B08')


def load(path, **options) -> dict:
    given = {key: options.pop(key) for key in ('window', 'names') if key in options}
    results = {'img_path': path}
    if 'window' in given:
        results['window'] = given['window']
    if 'names' in given:
        results['band_names'] = given['names']
    return TRANSFORMS.build(dict(type='mmrsfm.LoadMultiBandImage', **options))(results)


@pytest.fixture
def tif(tmp_path):
    return write_tif(tmp_path / 'a.tif', numbers(), NAMES)


def test_keys(tif):
    results = load(tif, bands=['B08', 'B02'])
    assert results['img'].dtype == np.float32
    assert np.array_equal(results['img'], numbers()[[3, 0]].transpose(1, 2, 0))
    assert results['band_names'] == ('B08', 'B02')
    assert results['img_shape'] == results['ori_shape'] == (24, 20)
    assert results['value_scale'] == 1.0
    assert results['value_offset'] == 0.0
    assert results['geo']['crs'] == 'EPSG:32618'
    assert 'valid_mask' not in results


def test_names_of_argument_dataset_and_file(tmp_path, tif):
    assert load(tif)['band_names'] == NAMES
    assert load(tif, names=('a', 'b', 'c', 'd'), bands=['d'])['band_names'] == ('d',)
    given = load(tif, names=('a', 'b', 'c', 'd'), band_names=['p', 'q', 'r', 's'])
    assert given['band_names'] == ('p', 'q', 'r', 's')
    assert 'band_names' not in load(write_tif(tmp_path / 'b.tif', numbers()))
    with pytest.raises(BandMismatchError, match='4 bands, but 3 band names'):
        load(tif, names=('a', 'b', 'c'))


def test_integers_stay_integers_on_request(tif, tmp_path):
    assert load(tif, to_float32=False)['img'].dtype == np.uint16
    for dtype, expected in [('uint8', 'uint8'), ('int32', 'int32'), ('uint32', 'float32'),
                            ('float64', 'float32')]:  # fmt: skip
        path = write_tif(tmp_path / f'{dtype}.tif', numbers(dtype=dtype))
        assert load(path, to_float32=False)['img'].dtype == expected


def test_scale_and_offset(tif):
    stored = numbers().transpose(1, 2, 0)
    results = load(tif, scale=1e-4, offset=-0.1, to_float32=False)
    assert np.allclose(results['img'], stored * 1e-4 - 0.1, atol=1e-6)
    assert results['value_scale'] == 1e-4
    assert results['value_offset'] == -0.1
    results = load(tif, bands=[1, 3], scale=[1.0, 0.5], offset=[0, 10])
    assert np.allclose(results['img'], stored[..., [0, 2]] * [1, 0.5] + [0, 10])
    assert results['value_scale'] == (1.0, 0.5)
    assert results['value_offset'] == (0, 10)
    with pytest.raises(BandMismatchError, match=r'4 bands are loaded, but scale has 2'):
        load(tif, scale=[1.0, 0.5])


def test_windows(tif):
    results = load(tif, window=(2, 3, 8, 6))
    assert np.array_equal(results['img'], numbers()[:, 2:10, 3:9].transpose(1, 2, 0))
    assert results['ori_shape'] == (8, 6)
    by_argument = TRANSFORMS.build(dict(type='mmrsfm.LoadMultiBandImage', window=[2, 3, 8, 6]))
    assert np.array_equal(by_argument({'img_path': tif})['img'], results['img'])


def test_expected_size(tif):
    assert load(tif, expected_size=[24, 20])['img_shape'] == (24, 20)
    with pytest.raises(ImageSizeError, match=r'24 x 20 pixels .* expected 64 x 64'):
        load(tif, expected_size=[64, 64])


@pytest.mark.parametrize('options', [
    {'backend': 'pil'}, {'nodata': 'file'}, {'npy_order': 'WHC'}, {'bands': 'B02'},
])  # fmt: skip
def test_contradictory_arguments(options):
    with pytest.raises(ConfigError):
        TRANSFORMS.build(dict(type='mmrsfm.LoadMultiBandImage', **options))


# -- no-data ---------------------------------------------------------------------------------------


def test_nodata_of_the_file(tmp_path):
    array = numbers()
    array[:, :5] = 0
    path = write_tif(tmp_path / 'a.tif', array, nodata=0)
    for to_float32 in (True, False):
        results = load(path, to_float32=to_float32)
        assert np.array_equal(results['valid_mask'], array.transpose(1, 2, 0) != 0)
        filled = results['img'][:5, :, 1]
        assert np.allclose(filled, array[1][5:].mean(), atol=0.5)  # and not zero
    assert 'valid_mask' not in load(path, nodata=None)
    window = load(path, window=(10, 0, 5, 5))
    assert 'valid_mask' not in window


def test_nodata_by_argument(tmp_path):
    array = numbers()
    path = write_tif(tmp_path / 'a.tif', array)
    results = load(path, nodata=30)
    assert (~results['valid_mask']).sum() == 1
    assert not results['valid_mask'][1, 10, 0]
    results = load(path, bands=[1, 2], nodata=[None, 500])
    assert results['valid_mask'][..., 0].all()
    assert (~results['valid_mask'][..., 1]).sum() == 1
    with pytest.raises(BandMismatchError, match='nodata has 2'):
        load(path, nodata=[1, 2])
    assert 'valid_mask' not in load(path, nodata=-9999)  # uint16 cannot hold it
    assert 'valid_mask' not in load(path, nodata=0.5)


@pytest.mark.parametrize('nodata', ['auto', None])
def test_what_is_not_finite_is_always_invalid(tmp_path, nodata):
    array = numbers(dtype='float32')
    array[0, 0, 0], array[1, 2, 3], array[3, 4, 5] = np.nan, np.inf, -np.inf
    results = load(write_tif(tmp_path / 'a.tif', array), nodata=nodata, scale=2.0)
    assert np.array_equal(~results['valid_mask'], ~np.isfinite(array).transpose(1, 2, 0))
    assert np.isfinite(results['img']).all()


def test_nodata_that_float32_cannot_hold_exactly(tmp_path):
    array = numbers(dtype='float32')
    array[2, :3] = np.float32(-3.4028234663852886e38)
    path = write_tif(tmp_path / 'a.tif', array, nodata=-3.4028234663852886e38)
    results = load(path)
    assert not results['valid_mask'][:3, :, 2].any()
    assert results['img'].min() > -1
    np.save(tmp_path / 'a.npy', array.transpose(1, 2, 0))
    assert load(str(tmp_path / 'a.npy'), nodata=-3.4028235e38)['img'].min() > -1


def test_numbers_beyond_float32_are_invalid_even_undeclared(tmp_path):
    array = numbers(dtype='float64')
    array[2, :3] = -1.7976931348623157e308
    results = load(write_tif(tmp_path / 'a.tif', array))
    assert not results['valid_mask'][:3, :, 2].any()
    assert results['valid_mask'].mean() == 1 - 3 / 24 / 4
    assert results['img'].min() > -1


def test_an_image_without_any_data(tmp_path):
    array = np.full((2, 8, 8), np.nan, 'float32')
    results = load(write_tif(tmp_path / 'a.tif', array, nodata=np.nan))
    assert not results['valid_mask'].any()
    assert (results['img'] == 0).all()
    path = write_tif(tmp_path / 'b.tif', array)
    with pytest.raises(CorruptImageError, match='nothing but NaN') as caught:
        load(path)
    assert caught.value.path == path
    array[:, :, 4:] = 1
    # A window of a scene may lie where it has no data.
    part = load(write_tif(tmp_path / 'c.tif', array), window=(0, 0, 8, 4))
    assert not part['valid_mask'].any()


# -- one file a band -------------------------------------------------------------------------------


def bands_of_a_scene(folder):
    """Bands at 10, 20 and 60 m of one scene of 50 x 64 pixels; 60 m pixels stick out of it."""
    fine = np.indices((54, 66)).sum(0).astype('uint16') * 10
    coarse = fine.reshape(27, 2, 33, 2).mean((1, 3)).astype('uint16')
    coarsest = fine.reshape(9, 6, 11, 6).mean((1, 3)).astype('uint16')
    bands = {'B02': fine[:50, :64], 'B05': coarse[:25, :32], 'B01': coarsest}
    return [write_tif(folder / f'{name}.tif', band[None]) for name, band in bands.items()], fine[
        :50, :64
    ]


def test_band_files_of_several_resolutions(tmp_path):
    paths, fine = bands_of_a_scene(tmp_path)
    results = load(paths, names=('B02', 'B05', 'B01'), bands=['B01', 'B02', 'B05'])
    assert results['img'].shape == (50, 64, 3)
    assert results['band_names'] == ('B01', 'B02', 'B05')
    assert np.array_equal(results['img'][..., 1], fine)
    inside = np.s_[6:-6, 6:-6]
    for band in (0, 2):  # a plane is what bilinear interpolation reproduces
        assert np.abs(results['img'][..., band] - fine)[inside].max() < 8
    assert results['geo']['transform'][0] == 10.0
    part = load(paths, names=('B02', 'B05', 'B01'), window=(13, 17, 20, 24))
    whole = load(paths, names=('B02', 'B05', 'B01'))
    assert np.array_equal(part['img'], whole['img'][13:33, 17:41])
    assert part['geo']['transform'][2] == whole['geo']['transform'][2] + 170


def test_band_files_of_different_scenes(tmp_path):
    paths, _ = bands_of_a_scene(tmp_path)
    other = write_tif(tmp_path / 'x.tif', numbers(1, 20, 30))
    with pytest.raises(ImageSizeError, match=r'x\.tif.*band B8.*do not cover the same ground'):
        load([paths[0], other], names=('B2', 'B8'))
    several = write_tif(tmp_path / 'y.tif', numbers(2, 50, 64))
    with pytest.raises(BandMismatchError, match=r'y\.tif: one band a file'):
        load([paths[0], several])


# -- labels ----------------------------------------------------------------------------------------


def label(tmp_path, array, options=None, given=None, **profile) -> np.ndarray:
    path = write_tif(tmp_path / 'label.tif', array[None], **profile)
    transform = TRANSFORMS.build(dict(type='mmrsfm.LoadSegLabel', **(options or {})))
    results = transform({'seg_map_path': path, **(given or {})})
    assert results['seg_fields'] == ['gt_seg_map']
    assert results['gt_seg_map'].dtype == np.uint8
    return results['gt_seg_map']


CLASSES = np.arange(24 * 20, dtype=np.uint8).reshape(24, 20) % 5


def test_label(tmp_path):
    assert np.array_equal(label(tmp_path, CLASSES, {'num_classes': 5}), CLASSES)
    assert np.array_equal(label(tmp_path, CLASSES.astype('float32')), CLASSES)


def test_label_without_classes(tmp_path):
    masked = label(tmp_path, CLASSES, {'ignore_values': [3], 'num_classes': 5}, nodata=0)
    assert np.array_equal(masked == 255, (CLASSES == 0) | (CLASSES == 3))
    holes = CLASSES.astype('float32')
    holes[4] = np.nan
    assert (label(tmp_path, holes, {'num_classes': 5})[4] == 255).all()


def test_value_map(tmp_path):
    mapped = label(tmp_path, CLASSES.astype('int16') * 300, {'value_map': {300: 0, 900: 1}})
    assert np.array_equal(mapped == 0, CLASSES == 1)
    assert np.array_equal(mapped == 1, CLASSES == 3)
    assert np.array_equal(mapped == 255, ~np.isin(CLASSES, (1, 3)))


def test_what_mmseg_datasets_ask_for(tmp_path):
    reduced = label(tmp_path, CLASSES, given={'reduce_zero_label': True, 'num_classes': 4})
    assert np.array_equal(reduced, np.where(CLASSES == 0, 255, CLASSES - 1))
    swapped = label(tmp_path, CLASSES, given={'label_map': {0: 1, 1: 0, 2: 255, 3: 2, 4: 3}})
    assert np.array_equal(swapped, np.array([1, 0, 255, 2, 3])[CLASSES])


def test_values_that_are_no_class(tmp_path):
    with pytest.raises(DataError, match=r'label\.tif: the label holds \[3, 4\], .* 0\.\.2'):
        label(tmp_path, CLASSES, given={'num_classes': 3})
    with pytest.raises(DataError, match=r'holds \[1000\]'):
        label(tmp_path, np.full((4, 4), 1000, 'uint16'))
    with pytest.raises(DataError, match=r'holds \[-1\]'):
        label(tmp_path, np.full((4, 4), -1, 'int16'))
    for number, text in ((0.5, r'whole numbers, got 0\.5'), (np.inf, 'whole numbers, got inf')):
        with pytest.raises(DataError, match=text):
            label(tmp_path, np.full((4, 4), number, 'float32'))
    for large in (2**32, 2**32 - 1):  # not class 0, not -1
        with pytest.raises(DataError, match=rf'holds \[{large}\]'):
            label(tmp_path, np.full((4, 4), large, 'int64'))


def test_label_of_another_size(tmp_path):
    given = {'img': np.zeros((24, 21, 3)), 'img_path': 'image.tif'}
    with pytest.raises(ImageSizeError, match=r'label\.tif.*24 x 20 .*image\.tif has 24 x 21'):
        label(tmp_path, CLASSES, given=given)


def test_label_of_several_bands(tmp_path):
    path = write_tif(tmp_path / 'a.tif', numbers(3))
    with pytest.raises(BandMismatchError, match='one band, got 3'):
        TRANSFORMS.build(dict(type='mmrsfm.LoadSegLabel'))({'seg_map_path': path})


def test_label_follows_the_window(tmp_path, tif):
    path = write_tif(tmp_path / 'label.tif', CLASSES[None])
    pipeline = Compose([dict(type='mmrsfm.LoadMultiBandImage'), dict(type='mmrsfm.LoadSegLabel')])
    results = pipeline({'img_path': tif, 'seg_map_path': path, 'window': (3, 4, 9, 8)})
    assert np.array_equal(results['gt_seg_map'], CLASSES[3:12, 4:12])


def test_the_scale_survives_transforms_that_use_its_name(tif):
    pipeline = [
        dict(type='mmrsfm.LoadMultiBandImage', scale=1e-4, offset=-0.1),
        dict(type='Resize', scale=(10, 12)),
    ]
    for pack in ('PackInputs', 'PackSegInputs'):
        packed = Compose([*pipeline, dict(type=f'mmrsfm.{pack}')])({'img_path': tif})
        assert packed['inputs'].shape == (4, 12, 10)
        assert packed['data_samples'].scale == 1e-4
        assert packed['data_samples'].offset == -0.1
