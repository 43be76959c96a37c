# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""LoadModalities and DropModality: channels, missing modalities, sizes, masks."""

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose

from mmrsfm.errors import (
    BandMismatchError,
    ConfigError,
    CorruptImageError,
    DataError,
    ImageNotFoundError,
    ImageSizeError,
)
from mmrsfm.registry import TRANSFORMS
from tests.test_datasets.imagery import numbers, truncate, write_tif

PAIR = dict(rgb=3, sar=1)


def load(paths, modalities=PAIR, **options) -> dict:
    transform = TRANSFORMS.build(
        dict(type='mmrsfm.LoadModalities', modalities=modalities, **options)
    )
    results = {'modality_paths': paths}
    if isinstance(paths, tuple):
        results = {'modality_paths': paths[0], 'window': paths[1]}
    return transform(results)


@pytest.fixture
def pair(tmp_path):
    return {
        'sar': write_tif(tmp_path / 'sar.tif', numbers(1) + 7),
        'rgb': write_tif(tmp_path / 'rgb.tif', numbers(3, dtype='uint8')),
    }


def test_channels_follow_each_other_in_the_order_of_the_config(pair):
    results = load(pair)
    assert results['img'].shape == (24, 20, 4)
    assert results['img'].dtype == np.float32
    assert np.array_equal(results['img'][..., :3], numbers(3, dtype='uint8').transpose(1, 2, 0))
    assert np.array_equal(results['img'][..., 3], numbers(1)[0] + 7)
    assert results['band_names'] == ('rgb1', 'rgb2', 'rgb3', 'sar')
    assert results['modalities'] == PAIR
    assert results['img_path'] == pair['rgb']
    assert results['geo']['crs'] == 'EPSG:32618'
    assert results['value_scale'] == 1.0
    assert results['img_shape'] == results['ori_shape'] == (24, 20)
    assert 'valid_mask' not in results
    turned = load(pair, dict(sar=1, rgb=3))
    assert np.array_equal(turned['img'], results['img'][..., [3, 0, 1, 2]])


def test_options_by_modality(pair):
    pair['rgb'] = write_tif(pair['rgb'], numbers(4), ('R', 'G', 'B', 'N'))
    results = load(
        pair,
        dict(
            rgb=dict(channels=2, bands=['N', 'R'], names=['near', 'red'], scale=0.5, nodata=0),
            sar=dict(channels=1, scale=[2.0], offset=-14.0),
        ),
    )
    assert results['band_names'] == ('near', 'red', 'sar')
    assert results['value_scale'] == (0.5, 0.5, 2.0)
    assert results['value_offset'] == (0.0, 0.0, -14.0)
    assert np.array_equal(results['img'][..., 2], 2 * numbers(1)[0])
    assert np.array_equal(results['img'][..., 0], 0.5 * numbers(4)[3])
    assert np.argwhere(~results['valid_mask']).tolist() == [[0, 0, 1]]


def test_windows_and_types(pair):
    results = load((pair, (2, 3, 5, 7)), to_float32=False)
    assert results['img'].dtype == np.uint16
    assert np.array_equal(results['img'][..., 3], numbers(1)[0, 2:7, 3:10] + 7)
    assert load({'rgb': pair['rgb']}, to_float32=False)['img'].dtype == np.uint8
    # 8 bits, or no radar, beside 16 bits: what is to be one batch is of one type.
    wide = load({'rgb': pair['rgb']}, to_float32=False, dtype='uint16')['img']
    assert wide.dtype == np.uint16
    assert np.array_equal(wide, load({'rgb': pair['rgb']})['img'])
    with pytest.raises(CorruptImageError, match=r'does not hold its uint16'):
        load(pair, to_float32=False, dtype='uint8')
    floats = {'a': pair['sar'], 'b': write_tif(pair['rgb'], numbers(1, dtype='float32'))}
    assert load(floats, dict(a=1, b=1), to_float32=False)['img'].dtype == np.float32


@pytest.mark.parametrize('missing', ['rgb', 'sar'])
@pytest.mark.parametrize('absent', [True, False])
def test_a_missing_modality_is_wholly_invalid(pair, missing, absent):
    whole = load(pair)
    paths = {key: path for key, path in pair.items() if key != missing}
    results = load(paths if absent else {**paths, missing: None})
    gone = slice(0, 3) if missing == 'rgb' else slice(3, 4)
    expected = np.ones((24, 20, 4), bool)
    expected[..., gone] = False
    assert np.array_equal(results['valid_mask'], expected)
    assert np.array_equal(results['img'][expected], whole['img'][expected])
    assert (results['img'][~expected] == 0).all()
    assert results['band_names'] == whole['band_names']
    with pytest.raises(DataError, match=f'the sample has no {missing}'):
        load(paths, allow_missing=False)


@pytest.mark.parametrize('invalid', ['mean', 'nan'])
@pytest.mark.parametrize('missing', ['rgb', 'sar'])
def test_a_file_of_nothing_but_nan_is_a_missing_modality(tmp_path, pair, missing, invalid, capsys):
    """Beside the swath of a radar, say; nobody has to declare a no-data value."""
    count = PAIR[missing]
    blank = np.full((count, 24, 20), np.nan, 'float32')
    expected = load({**pair, missing: None}, invalid=invalid)
    paths = {**pair, missing: write_tif(tmp_path / 'blank' / 'a.tif', blank)}
    found = load(paths, invalid=invalid)
    assert np.array_equal(found['img'], expected['img'], equal_nan=True)
    assert ('valid_mask' in found) == ('valid_mask' in expected) == (invalid == 'mean')
    if invalid == 'mean':
        assert np.array_equal(found['valid_mask'], expected['valid_mask'])
    # Said once, so that a conversion that failed for every file is seen.
    assert capsys.readouterr().out.count('blank/a.tif holds nothing but NaN') == 1
    load(paths)
    assert 'nothing but NaN' not in capsys.readouterr().out
    for strict in (
        dict(allow_missing=False),
        dict(modalities={**PAIR, missing: dict(channels=count, all_nan='error')}),
    ):
        with pytest.raises(CorruptImageError, match=r'blank.a\.tif: holds nothing but NaN'):
            load(paths, **strict)


def test_a_sample_without_any_number_is_an_error(tmp_path, pair):
    rgb, sar = (np.full((count, 24, 20), np.nan, 'float32') for count in (3, 1))
    blank = {'rgb': write_tif(tmp_path / 'x.tif', rgb), 'sar': write_tif(tmp_path / 'y.tif', sar)}
    for paths in (blank, {'sar': blank['sar']}):
        with pytest.raises(CorruptImageError, match='nothing but NaN') as caught:
            load(paths)
        assert caught.value.path == next(iter(paths.values()))
    assert not load((blank, (0, 0, 4, 4)))['valid_mask'].any()  # a window of a scene
    blank['rgb'] = write_tif(tmp_path / 'declared.tif', rgb, nodata=np.nan)
    assert not load(blank)['valid_mask'].any()
    # Of files of one band each, one without numbers is a band without data.
    bands = [write_tif(tmp_path / f'{i}.tif', numbers(1, dtype='float32')) for i in range(2)]
    found = load({**pair, 'rgb': [blank['sar'], *bands]})
    assert found['valid_mask'].all(axis=(0, 1)).tolist() == [False, True, True, True]
    with pytest.raises(CorruptImageError, match=r'y\.tif'):
        load({'rgb': [blank['sar']] * 3})


def test_no_data_of_one_modality(tmp_path, pair):
    array = numbers(1, dtype='float32')
    array[0, :4] = np.nan
    pair['sar'] = write_tif(tmp_path / 'nan.tif', array)
    masked = load(pair)
    assert np.isfinite(masked['img']).all()
    assert masked['valid_mask'][..., :3].all()
    assert np.array_equal(masked['valid_mask'][..., 3], np.isfinite(array[0]))
    nan = load(pair, invalid='nan')
    assert 'valid_mask' not in nan
    assert np.array_equal(np.isnan(nan['img']), ~masked['valid_mask'])
    assert np.isnan(load({'rgb': pair['rgb']}, invalid='nan')['img'][..., 3]).all()


def test_other_sizes(tmp_path, pair):
    small = numbers(1, 12, 10, dtype='float32')
    small[0, 0, 0] = np.nan
    pair['sar'] = write_tif(tmp_path / 'small.tif', small)
    with pytest.raises(ImageSizeError, match=r'small\.tif: 12 x 10 .* has 24 x 20.*interpolation'):
        load(pair)
    results = load(pair, interpolation='nearest')
    assert results['img'].shape == (24, 20, 4)
    assert not results['valid_mask'][:2, :2, 3].any()
    assert results['valid_mask'].sum() == 24 * 20 * 4 - 4
    assert np.array_equal(results['img'][2::2, ::2, 3], small[0, 1:])
    assert load({'sar': pair['sar']})['img'].shape == (12, 10, 4)  # it gives the size itself


def test_unusable_files_are_named(tmp_path, pair):
    four = write_tif(tmp_path / 'four.tif', numbers(4, dtype='uint8'))
    with pytest.raises(BandMismatchError, match=r'four\.tif: 4 band.*bands=\[1, 2, 3\]'):
        load({**pair, 'rgb': four})
    with pytest.raises(BandMismatchError, match=r"four\.tif: 4 band.*'sar' has 1 .*bands=\[1\]"):
        load({**pair, 'sar': four})
    with pytest.raises(ImageNotFoundError, match='gone'):
        load({**pair, 'sar': str(tmp_path / 'gone.tif')})
    broken = truncate(write_tif(tmp_path / 'c.tif', numbers(1, 200, 200)), tmp_path / 'broken.tif')
    with pytest.raises(CorruptImageError, match=r'broken\.tif'):
        load({**pair, 'sar': broken})
    waves = write_tif(tmp_path / 'complex.tif', numbers(1).astype('complex64'))
    with pytest.raises(BandMismatchError, match=r'complex values .* amplitude'):
        load({**pair, 'sar': waves})
    with pytest.raises(DataError, match=r"none of the modalities .* only \['dem'\]"):
        load({'dem': four, 'rgb': None})
    with pytest.raises(ConfigError, match='no modality_paths'):
        TRANSFORMS.build(dict(type='mmrsfm.LoadModalities', modalities=PAIR))({'img_path': four})


@pytest.mark.parametrize(
    'options',
    [
        {'modalities': {}},
        {'modalities': dict(rgb=0)},
        {'modalities': dict(rgb=dict(bands=[1]))},
        {'modalities': dict(rgb=dict(channels=2, names=['a']))},
        {'modalities': dict(a=dict(channels=1, names=['x']), b=dict(channels=1, names=['x']))},
        {'modalities': dict(rgb=dict(channels=1, unknown=1))},
        {'modalities': PAIR, 'interpolation': 'cubic'},
        {'modalities': PAIR, 'invalid': 'zero'},
        {'modalities': PAIR, 'invalid': 'nan', 'to_float32': False},
        {'modalities': PAIR, 'dtype': 'uint16'},
        {'modalities': PAIR, 'dtype': 'float32', 'to_float32': False},
    ],
)
def test_contradictory_arguments(options):
    with pytest.raises(ConfigError):
        TRANSFORMS.build(dict(type='mmrsfm.LoadModalities', **options))


def drop(results, names=('sar',), **options) -> dict:
    transform = TRANSFORMS.build(dict(type='mmrsfm.DropModality', names=names, **options))
    return transform(dict(results))


def test_drop_is_what_a_missing_modality_is(pair):
    whole, missing = load(pair), load({'rgb': pair['rgb']})
    dropped = drop(whole, prob=1)
    assert np.array_equal(dropped['valid_mask'], missing['valid_mask'])
    assert 'valid_mask' not in whole
    nan = drop(whole, prob=1, invalid='nan')
    assert np.array_equal(np.isnan(nan['img']), ~missing['valid_mask'])
    assert np.isfinite(whole['img']).all()
    assert 'valid_mask' not in drop(whole, prob=0)


def test_the_last_modality_is_kept_unless_told_otherwise(pair):
    for options in ({}, {'invalid': 'nan'}):
        how = 'nan' if options else 'mean'
        alone = load({'rgb': pair['rgb']}, invalid=how)
        kept = drop(alone, 'rgb', prob=1, **options)
        assert np.array_equal(kept['img'], alone['img'], equal_nan=True)
        assert np.array_equal(kept.get('valid_mask'), alone.get('valid_mask'))
        gone = drop(alone, 'rgb', prob=1, keep_one=False, **options)
        nothing = np.isnan(gone['img']) if options else ~gone['valid_mask']
        assert nothing.all()


def test_share_and_choice_of_what_is_dropped():
    results = {'img': np.zeros((2, 2, 4), np.float32), 'modalities': PAIR}
    counts = {None: 0, 'rgb': 0, 'sar': 0}
    for _ in range(400):
        valid = drop(results, ['rgb', 'sar'], prob=0.5).get('valid_mask')
        counts[None if valid is None else 'sar' if valid[0, 0, 0] else 'rgb'] += 1
    assert 160 < counts[None] < 240
    assert min(counts['rgb'], counts['sar']) > 65
    merged = {'img': np.zeros((2, 2, 4), np.uint8)}
    valid = drop(merged, 'a', prob=1, modalities=dict(b=3, a=1))['valid_mask']
    assert np.array_equal(valid[0, 0], [True, True, True, False])


def test_drop_refuses_what_it_does_not_know(pair):
    whole = load(pair)
    for options in ({'names': 'dem'}, {'modalities': dict(rgb=3)}, {'names': []}, {'prob': 2},
                    {'invalid': 'zero'}):  # fmt: skip
        with pytest.raises(ConfigError):
            drop(whole, **options)
    with pytest.raises(ConfigError, match=r'mmrsfm\.LoadModalities, or give modalities'):
        drop({'img': whole['img']})


@pytest.mark.parametrize('pack', ['PackInputs', 'PackSegInputs'])
def test_a_whole_pipeline_keeps_the_mask_aligned(pair, pack):
    pipeline = Compose(
        [
            dict(type='mmrsfm.LoadModalities', modalities=PAIR),
            dict(type='mmrsfm.DropModality', names=['sar'], prob=1),
            dict(type='mmrsfm.RandomResizedCrop', size=16, interpolation='bilinear'),
            dict(type='mmrsfm.RandomFlip', prob=0.5),
            dict(type=f'mmrsfm.{pack}'),
        ]
    )
    packed = pipeline({'modality_paths': pair, 'sensor': 'umbra'})
    sample = packed['data_samples']
    assert packed['inputs'].shape == (4, 16, 16)
    expected = torch.tensor([True, True, True, False])[:, None, None].expand(4, 16, 16)
    assert torch.equal(sample.valid_mask, expected)
    assert sample.band_names == ('rgb1', 'rgb2', 'rgb3', 'sar')
    assert sample.sensor == 'umbra'
    assert sample.scale == 1.0
