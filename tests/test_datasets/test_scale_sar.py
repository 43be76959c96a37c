# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""ScaleSAR: numbers of each method, limits, what is invalid."""

import numpy as np
import pytest

from mmrsfm.errors import ConfigError
from mmrsfm.registry import TRANSFORMS


def scale(image, valid=None, modalities=None, **options) -> dict:
    results = {'img': image, 'value_scale': 1.0, 'value_offset': 0.0}
    if modalities is None:
        options.setdefault('channels', [0])
    else:
        results['modalities'] = modalities
    if valid is not None:
        results['valid_mask'] = valid
    return TRANSFORMS.build(dict(type='mmrsfm.ScaleSAR', **options))(results)


@pytest.fixture
def image():
    values = np.random.default_rng(0).pareto(1.5, (40, 50, 1)) * 300
    return values.astype(np.uint16)


@pytest.mark.parametrize(
    ('method', 'quantity', 'expected'),
    [
        ('linear', 'amplitude', lambda x: x),
        ('sqrt', 'amplitude', np.sqrt),
        ('log', 'amplitude', lambda x: np.log(1 + x)),
        ('db', 'amplitude', lambda x: 20 * np.log10(np.maximum(x, 1e-6))),
        ('db', 'power', lambda x: 10 * np.log10(np.maximum(x, 1e-6))),
    ],
)
def test_methods(image, method, quantity, expected):
    options = dict(percentiles=None, out_range=None, quantity=quantity)
    results = scale(image, method=method, **options)
    assert results['img'].dtype == np.float32
    assert np.allclose(results['img'], expected(image.astype(float)), rtol=1e-5)
    assert 'value_scale' not in results
    assert 'value_offset' not in results
    negative = scale(np.full((2, 2, 1), -5.0, np.float32), method=method, **options)['img']
    floor = -5.0 if method == 'linear' else expected(np.zeros(1))[0]
    assert np.allclose(negative, floor)


def test_fixed_limits_are_the_same_for_all_images(image):
    options = dict(method='db', limits=(20, 60), out_range=(0, 255))
    whole = scale(image, **options)['img']
    part = scale(image[:5], **options)['img']
    assert np.array_equal(part, whole[:5])
    expected = (np.clip(20 * np.log10(np.maximum(image, 1e-6)), 20, 60) - 20) / 40 * 255
    assert np.allclose(whole, expected, atol=1e-3)


def test_percentiles_tame_the_tail(image):
    out = scale(image, method='linear', percentiles=(2, 98), out_range=(0, 1))['img']
    low, high = np.percentile(image, (2, 98))
    assert np.allclose(out, (np.clip(image, low, high) - low) / (high - low), atol=1e-6)
    assert out.min() == 0
    assert out.max() == pytest.approx(1)
    kept = scale(image, method='linear', percentiles=None, out_range=(0, 1))['img']
    assert np.allclose(kept, (image - image.min()) / np.ptp(image), atol=1e-6)


def test_what_is_invalid_is_not_counted_and_stays(image):
    floats = image.astype(np.float32)
    alone = scale(floats[:30])['img']
    floats[30:] = 1e9
    valid = np.ones(floats.shape, bool)
    valid[30:] = False
    masked = scale(floats, valid)
    assert np.array_equal(masked['img'][:30], alone)
    assert masked['valid_mask'] is valid
    floats[30:] = np.nan
    nan = scale(floats)['img']
    assert np.array_equal(nan[:30], alone)
    assert np.isnan(nan[30:]).all()
    assert np.isnan(scale(np.full((3, 3, 1), np.nan, np.float32))['img']).all()
    assert np.isfinite(scale(np.zeros((3, 3, 1)), np.zeros((3, 3, 1), bool))['img']).all()
    assert (scale(np.full((3, 3, 1), 7), out_range=(2, 9))['img'] == 2).all()


def test_only_the_channels_of_the_modality(image):
    both = np.concatenate([np.full((40, 50, 3), 100, np.uint16), image], axis=2)
    out = scale(both, modalities=dict(rgb=3, sar=1))['img']
    assert (out[..., :3] == 100).all()
    assert np.array_equal(out[..., 3:], scale(image)['img'])
    assert (both[..., :3] == 100).all()
    with pytest.raises(ConfigError, match="no modality 'vv', only"):
        scale(both, modalities=dict(rgb=3, sar=1), modality='vv')
    with pytest.raises(ConfigError, match='give channels'):
        scale(both, modalities={})
    with pytest.raises(ConfigError, match='of an image of 4'):
        scale(both, channels=[4])


@pytest.mark.parametrize(
    'options',
    [
        {'method': 'power'}, {'quantity': 'phase'}, {'limits': (1,)}, {'limits': (2, 1)},
        {'percentiles': (-1, 50)}, {'percentiles': (99, 1)}, {'out_range': (0, 0)},
    ],
)  # fmt: skip
def test_contradictory_arguments(options):
    with pytest.raises(ConfigError):
        TRANSFORMS.build(dict(type='mmrsfm.ScaleSAR', **options))
