# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Data preprocessors: numbers, no-data, contradictions, padding, batch augmentations."""

import pytest
import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.structures import PixelData
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample

from mmrsfm.contract import ImageryContract
from mmrsfm.errors import BandMismatchError, ConfigError, ContractError, ImageSizeError
from mmrsfm.registry import MODELS

BANDS = [f'B{number:02d}' for number in range(13)]
KINDS = ['MultiBandDataPreprocessor', 'MultiBandSegDataPreprocessor']


def build(kind=KINDS[0], **options):
    return MODELS.build(dict(type=f'mmrsfm.{kind}', **options))


def item(bands=13, size=(8, 8), dtype=torch.float32, seg=False, valid=None, **meta) -> dict:
    image = torch.rand(bands, *size) * 1000
    sample = SegDataSample() if seg else DataSample()
    sample.set_metainfo({'img_path': 'a.tif', 'img_shape': size, **meta})
    if seg:
        sample.gt_sem_seg = PixelData(data=torch.zeros(1, *size, dtype=torch.int64))
    if valid is not None:
        sample.valid_mask = valid
    return {'inputs': image.to(dtype), 'data_samples': sample}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('bands', [1, 2, 3, 4, 13])
@pytest.mark.parametrize('dtype', [torch.uint8, torch.uint16, torch.int16, torch.float32])
def test_normalises_any_bands_and_types(kind, bands, dtype):
    mean, std = torch.rand(bands) * 100, torch.rand(bands) + 50
    preprocessor = build(kind, mean=mean.tolist(), std=std.tolist())
    items = [item(bands, dtype=dtype, seg=kind == KINDS[1]) for _ in range(3)]
    before = [one['inputs'].clone() for one in items]
    batch = preprocessor(pseudo_collate(items), training=True)
    assert batch['inputs'].dtype == torch.float32
    for image, source, one in zip(batch['inputs'], before, items, strict=True):
        expected = (source.double() - mean[:, None, None]) / std[:, None, None]
        assert torch.allclose(image.double(), expected, atol=1e-5)
        assert torch.equal(one['inputs'].float(), source.float())  # the sample is not written to


@pytest.mark.parametrize('collate', [default_collate, pseudo_collate])
def test_agrees_with_mmpretrain_on_three_bands(collate):
    options = dict(mean=[123.0, 116.0, 103.0], std=[58.0, 57.0, 55.0], to_rgb=True)
    items = [item(3) for _ in range(2)]
    ours = build(**options)(collate(items))
    theirs = ClsDataPreprocessor(**options)(collate(items))
    assert torch.allclose(ours['inputs'], theirs['inputs'], atol=1e-6)


def test_contract_and_state_dict():
    preprocessor = build(
        mean=[0.1] * 13, std=[0.05] * 13, band_names=BANDS, sensor='Sentinel-2 L1C',
        scale=[1e-4] * 13, offset=-0.1, gsd=10, licence='CC0',
    )  # fmt: skip
    assert preprocessor.contract == ImageryContract(
        tuple(BANDS), 'Sentinel-2 L1C', 1e-4, -0.1, 10, (0.1,) * 13, (0.05,) * 13, 'CC0'
    )
    assert preprocessor.state_dict() == {}
    assert preprocessor.mean.shape == (13, 1, 1)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    'options',
    [
        {'mean': [0.0]},
        {'mean': [0.0], 'std': [0.0]},
        {'mean': [0.0], 'std': [float('nan')]},
        {'mean': [0.0] * 2, 'std': [1.0] * 3},
        {'mean': [0.0] * 2, 'std': [1.0] * 2, 'band_names': ['a']},
        {'band_names': ['a', 'a']},
        {'scale_on_device': True},
        {'mean': [0.0] * 3, 'std': [1.0] * 3, 'offset': [0.0, -0.1]},
        {'offset': 'high'},
    ],
)
def test_contradictory_arguments(kind, options):
    with pytest.raises(ConfigError):
        build(kind, **options)


@pytest.mark.parametrize('kind', KINDS)
def test_contradictory_samples(kind):
    seg = kind == KINDS[1]
    preprocessor = build(
        kind, mean=[0.0] * 13, std=[1.0] * 13, band_names=BANDS, scale=1e-4, sensor='S2'
    )
    good = item(seg=seg, band_names=tuple(BANDS), scale=1e-4)
    preprocessor(pseudo_collate([good, item(seg=seg)]), True)  # silence is no contradiction
    with pytest.raises(BandMismatchError, match=r'a\.tif: the image has 4 channel.* expects 13'):
        preprocessor(pseudo_collate([item(4, seg=seg)]), True)
    turned = tuple(reversed(BANDS))
    with pytest.raises(BandMismatchError, match=r'its bands are \[B12, B11') as caught:
        preprocessor(pseudo_collate([good, item(seg=seg, band_names=turned)]), True)
    assert caught.value.path == 'a.tif'
    with pytest.raises(ContractError, match=r'a\.tif: the loader scaled by 1\.0'):
        preprocessor(pseudo_collate([item(seg=seg, scale=1.0)]), True)
    with pytest.raises(ContractError, match='scaled by'):
        preprocessor(pseudo_collate([item(seg=seg, scale=(1e-4,) * 12 + (1e-3,))]), True)


@pytest.mark.parametrize('kind', KINDS)
def test_scale_on_the_device(kind):
    seg = kind == KINDS[1]
    options = dict(mean=[0.1] * 13, std=[0.05] * 13, scale=1e-4)
    stored = item(seg=seg, dtype=torch.uint16, scale=1.0)
    batch = build(kind, scale_on_device=True, **options)(pseudo_collate([stored]), True)
    expected = (stored['inputs'].double() * 1e-4 - 0.1) / 0.05
    assert torch.allclose(batch['inputs'][0].double(), expected, atol=1e-5)
    with pytest.raises(ContractError, match='on the device'):
        build(kind, scale_on_device=True, **options)(
            pseudo_collate([item(seg=seg, scale=1e-4)]), True
        )


@pytest.mark.parametrize('kind', KINDS)
def test_offset_that_the_loader_added(kind):
    seg = kind == KINDS[1]
    new = build(kind, scale=1e-4, offset=-0.1)  # a Sentinel-2 baseline with an offset
    new(pseudo_collate([item(seg=seg, scale=1e-4, offset=-0.1), item(seg=seg, scale=1e-4)]), True)
    for applied in (0.0, [-0.1] * 12 + [0.0]):
        with pytest.raises(ContractError, match=r'a\.tif: the loader added .* Set offset=-0\.1 in'):
            new(pseudo_collate([item(seg=seg, scale=1e-4, offset=applied)]), True)
    old = build(kind, scale=1e-4, offset=0.0)  # 0 is a statement
    with pytest.raises(ContractError, match=r'the loader added -0\.1'):
        old(pseudo_collate([item(seg=seg, scale=1e-4, offset=-0.1)]), True)
    silent = build(kind, scale=1e-4)
    silent(pseudo_collate([item(seg=seg, scale=1e-4, offset=-0.1)]), True)
    by_band = build(kind, scale=[1e-4, 1.0], offset=[-0.1, 0.0])
    by_band(pseudo_collate([item(2, seg=seg, scale=(1e-4, 1.0), offset=(-0.1, 0.0))]), True)
    with pytest.raises(ContractError, match='scaled by'):
        by_band(pseudo_collate([item(2, seg=seg, scale=1e-4, offset=(-0.1, 0.0))]), True)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(('scale', 'offset'), [(1e-4, -0.1), ([1e-4, 1.0], [-0.1, 5.0])])
@pytest.mark.parametrize('dtype', [torch.uint16, torch.float32])
def test_scale_and_offset_on_the_device(kind, scale, offset, dtype):
    seg = kind == KINDS[1]
    options = dict(mean=[0.1, 0.2], std=[0.05, 2.0], scale=scale, offset=offset)
    preprocessor = build(kind, scale_on_device=True, **options)
    stored = item(2, seg=seg, dtype=dtype, scale=1.0, offset=0.0)
    before = stored['inputs'].clone()
    batch = preprocessor(pseudo_collate([stored]), True)

    def column(values):
        return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)

    value = before.double() * column(scale) + column(offset)
    expected = (value - column([0.1, 0.2])) / column([0.05, 2.0])
    assert torch.allclose(batch['inputs'][0].double(), expected, atol=1e-4)
    assert torch.equal(stored['inputs'].float(), before.float())
    with pytest.raises(ContractError, match='on the device'):
        preprocessor(pseudo_collate([item(2, seg=seg, scale=1.0, offset=-0.1)]), True)


def test_without_an_offset_on_the_device_it_is_known_to_be_0():
    assert build(scale=1e-4, scale_on_device=True).contract.offset == 0.0
    assert build(scale=1e-4).contract.offset is None


@pytest.mark.parametrize('collate', [default_collate, pseudo_collate])
@pytest.mark.parametrize('kind', KINDS)
def test_invalid_pixels_become_the_mean(kind, collate):
    seg = kind == KINDS[1]
    preprocessor = build(kind, mean=[500.0, 400.0], std=[10.0, 10.0])
    valid = torch.ones(2, 8, 8, dtype=torch.bool)
    valid[0, :3] = False
    items = [item(2, seg=seg, valid=valid), item(2, seg=seg), item(2, seg=seg, dtype=torch.uint16)]
    items = items[:2] if collate is default_collate else items
    batch = preprocessor(collate(items), True)
    assert (batch['inputs'][0][~valid] == 0).all()
    assert (batch['inputs'][0][valid] != 0).all()
    assert torch.equal(batch['data_samples'][0].valid_mask, valid)
    assert 'valid_mask' not in batch['data_samples'][1]


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('collate', [default_collate, pseudo_collate])
@pytest.mark.parametrize('kind', KINDS)
def test_what_is_not_finite_is_invalid_without_a_mask(kind, collate, value):
    seg = kind == KINDS[1]
    preprocessor = build(kind, mean=[500.0, 400.0], std=[10.0, 10.0])
    items = [item(2, seg=seg), item(2, seg=seg)]
    items[1]['inputs'][1, 2, 3] = value
    valid = torch.ones(2, 8, 8, dtype=torch.bool)
    valid[0, 0, 0] = False
    items[1]['data_samples'].valid_mask = valid.clone()
    batch = preprocessor(collate(items), True)
    assert torch.isfinite(batch['inputs']).all()
    valid[1, 2, 3] = False
    assert torch.equal(batch['data_samples'][1].valid_mask, valid)
    assert (batch['inputs'][1][~valid] == 0).all()
    assert 'valid_mask' not in batch['data_samples'][0]


@pytest.mark.parametrize('collate', [default_collate, pseudo_collate])
@pytest.mark.parametrize('kind', KINDS)
def test_invalid_pixels_stay_nan(kind, collate):
    seg = kind == KINDS[1]
    options = dict(mean=[500.0, 400.0], std=[10.0, 10.0])
    valid = torch.ones(2, 8, 8, dtype=torch.bool)
    valid[0, :3] = False
    items = [item(2, seg=seg, valid=valid), item(2, seg=seg)]
    items[1]['inputs'][1, 2, 3] = torch.inf
    before = [one['inputs'].clone() for one in items]
    batch = build(kind, invalid='nan', **options)(collate(items), True)
    filled = build(kind, **options)(
        collate([{**one, 'inputs': x} for one, x in zip(items, before, strict=True)]), True
    )
    assert torch.equal(batch['inputs'].isnan(), ~torch.stack(
        [sample.valid_mask for sample in batch['data_samples']]
    ))  # fmt: skip
    assert batch['inputs'].isnan().sum() == 3 * 8 + 1
    assert torch.equal(batch['inputs'].nan_to_num(0.0), filled['inputs'])
    assert torch.equal(items[0]['inputs'], before[0])  # the sample is not written to


def test_a_missing_modality_is_missing_in_its_padding_too():
    missing = torch.ones(2, 6, 8, dtype=torch.bool)
    missing[1] = False
    for kind, options in zip(KINDS, ({'pad_size_divisor': 8}, {'size_divisor': 8}), strict=True):
        seg = kind == KINDS[1]
        items = [item(2, (6, 8), seg=seg, valid=missing), item(2, (8, 16), seg=seg)]
        batch = build(kind, invalid='nan', **options)(pseudo_collate(items), True)
        assert batch['inputs'].shape == (2, 2, 8, 16)
        assert batch['inputs'][0, 1].isnan().all()
        assert torch.equal(batch['inputs'][0, 0].isnan(), ~batch['data_samples'][0].valid_mask[0])
        assert not batch['inputs'][1].isnan().any()


@pytest.mark.parametrize('kind', KINDS)
def test_what_invalid_pixels_become_is_checked(kind):
    with pytest.raises(ConfigError, match="one of \\('mean', 'nan'\\), got 'zero'"):
        build(kind, invalid='zero')
    padding = 'pad_val' if kind == KINDS[1] else 'pad_value'
    with pytest.raises(ConfigError, match='contradicts'):
        build(kind, invalid='nan', **{padding: 1.0})
    build(kind, invalid='nan', **{padding: float('nan')})


SENSORS = dict(
    umbra=dict(mean=[10.0, 20.0], std=[2.0, 4.0]), capella=dict(mean=[10.0, 900.0], std=[2.0, 99.0])
)


@pytest.mark.parametrize('collate', [default_collate, pseudo_collate])
@pytest.mark.parametrize('kind', KINDS)
def test_statistics_by_sensor(kind, collate):
    seg = kind == KINDS[1]
    preprocessor = build(kind, sensors=SENSORS, invalid='nan')
    for names in (['umbra', 'capella', 'umbra'], ['capella'] * 2):
        items = [item(2, seg=seg, sensor=name) for name in names]
        items[0]['data_samples'].valid_mask = torch.ones(2, 8, 8, dtype=torch.bool)
        items[0]['data_samples'].valid_mask[1] = False
        before = [one['inputs'].clone() for one in items]
        batch = preprocessor(collate(items), True)
        for image, source, name in zip(batch['inputs'], before, names, strict=True):
            mean, std = (torch.tensor(SENSORS[name][key])[:, None, None] for key in ('mean', 'std'))
            expected = (source - mean) / std
            assert torch.allclose(image[0], expected[0], atol=1e-4)
            assert image[1].isnan().all() or torch.allclose(image[1], expected[1], atol=1e-4)
        assert batch['inputs'].isnan().sum() == 64
    for meta in ({'sensor': 'iceye'}, {}):
        with pytest.raises(ContractError, match=r"its sensor is .* for \['umbra', 'capella'\]"):
            preprocessor(collate([item(2, seg=seg, **meta)]), True)


def test_contract_of_several_sensors():
    several = build(sensors=SENSORS, scale=1.0).contract
    assert several.num_bands == 2
    assert ImageryContract.from_dict(several.to_dict()) == several
    assert several.to_dict()['sensors']['umbra'] == SENSORS['umbra']
    one = dict(scale=1.0, sensor='umbra')
    assert not several.differences(ImageryContract(**one, **SENSORS['umbra']))
    assert set(several.differences(ImageryContract(**one, **SENSORS['capella']))) == {'mean', 'std'}
    other = ImageryContract(**{**one, 'sensor': 'iceye'}, **SENSORS['umbra'])
    assert several.differences(other) == {'sensor': ('umbra or capella', 'iceye')}
    assert other.differences(several) == {'sensor': ('iceye', 'umbra or capella')}
    part = ImageryContract(sensors={'umbra': SENSORS['umbra']})
    assert not several.differences(part)
    assert set(part.differences(several)) == {'sensors'}
    assert not several.differences(ImageryContract(mean=[0.0, 0.0], std=[1.0, 1.0]))


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    'options',
    [
        {'sensors': {}},
        {'sensors': {'a': {'mean': [0.0]}}},
        {'sensors': {'a': {'mean': 0.0, 'std': 1.0}}},
        {'sensors': {'a': {'mean': [0.0], 'std': [0.0]}}},
        {'sensors': {'a': {'mean': [0.0], 'std': [1.0, 1.0]}}},
        {'sensors': SENSORS, 'band_names': ['x']},
        {'sensors': SENSORS, 'mean': [0.0, 0.0], 'std': [1.0, 1.0]},
    ],
)
def test_contradictory_sensors(kind, options):
    with pytest.raises(ConfigError):
        build(kind, **options)


def test_finite_numbers_whose_sum_overflows_are_valid():
    images = torch.full((1, 2, 4, 4), 3e38)
    out = build()({'inputs': images, 'data_samples': [DataSample()]})
    assert torch.equal(out['inputs'], images)


def test_images_of_several_sizes_are_padded_and_padding_is_invalid():
    preprocessor = build(mean=[500.0] * 2, std=[10.0] * 2, pad_size_divisor=4)
    batch = preprocessor(pseudo_collate([item(2, (6, 8)), item(2, (8, 8)), item(2, (5, 7))]))
    assert batch['inputs'].shape == (3, 2, 8, 8)
    samples = batch['data_samples']
    assert samples[0].valid_mask.shape == (2, 8, 8)
    assert samples[0].valid_mask[:, :6].all()
    assert not samples[0].valid_mask[:, 6:].any()
    assert 'valid_mask' not in samples[1]
    assert not samples[2].valid_mask[:, 5:].any()
    assert (batch['inputs'][2][~samples[2].valid_mask] == 0).all()


def test_segmentation_is_padded_with_its_labels_and_masks():
    preprocessor = build(KINDS[1], mean=[500.0] * 4, std=[10.0] * 4, size_divisor=8)
    batch = preprocessor(
        pseudo_collate([item(4, (6, 12), seg=True), item(4, (8, 16), seg=True)]), True
    )
    assert batch['inputs'].shape == (2, 4, 8, 16)
    first, second = batch['data_samples']
    label = first.gt_sem_seg.data
    assert label.shape == (1, 8, 16)
    assert (label[:, 6:] == 255).all()
    assert (label[:, :6, :12] == 0).all()
    assert torch.equal(first.valid_mask[0], label[0] != 255)
    assert 'valid_mask' not in second


def test_segmentation_without_training():
    preprocessor = build(KINDS[1], test_cfg={'size_divisor': 16})
    batch = preprocessor(pseudo_collate([item(4, (6, 12), seg=True)]))
    assert batch['inputs'].shape == (1, 4, 16, 16)
    plain = build(KINDS[1])(pseudo_collate([item(4, (6, 12), seg=True)]))
    assert plain['inputs'].shape == (1, 4, 6, 12)
    with pytest.raises(ImageSizeError, match='differ in size'):
        build(KINDS[1])(pseudo_collate([item(4, (6, 12), seg=True), item(4, (8, 8), seg=True)]))
    assert build(KINDS[1])({'inputs': [torch.rand(4, 8, 8)]})['inputs'].shape == (1, 4, 8, 8)


@pytest.mark.parametrize('collate', [default_collate, pseudo_collate])
def test_views(collate):
    preprocessor = build(mean=[500.0] * 5, std=[10.0] * 5)
    items = [item(5) for _ in range(3)]
    for one in items:
        one['inputs'] = [one['inputs'], torch.rand(5, 4, 4)]
    batch = preprocessor(collate(items), True)
    assert [tuple(view.shape) for view in batch['inputs']] == [(3, 5, 8, 8), (3, 5, 4, 4)]
    expected = (items[2]['inputs'][1] - 500) / 10
    assert torch.allclose(batch['inputs'][1][2], expected)
    with pytest.raises(BandMismatchError, match='5 channel'):
        build(mean=[0.0], std=[1.0])(collate(items))


def test_batch_augmentations():
    augments = [dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
    preprocessor = build(
        mean=[500.0] * 6, std=[10.0] * 6, num_classes=4, batch_augments=dict(augments=augments)
    )
    items = [item(6) for _ in range(8)]
    for number, one in enumerate(items):
        one['data_samples'].set_gt_label(number % 4)
    batch = preprocessor(default_collate(items), True)
    scores = torch.stack([sample.gt_score for sample in batch['data_samples']])
    assert scores.shape == (8, 4)
    assert torch.allclose(scores.sum(1), torch.ones(8))
    assert ((scores > 0) & (scores < 1)).any()


def test_what_was_drawn_is_moved_together():
    items = [item(2) for _ in range(3)]
    for one in items:
        one['data_samples'].set_field(torch.rand(2, 4), 'mask_noise')
    noise = [one['data_samples'].mask_noise.clone() for one in items]
    batch = build()(default_collate(items))
    for sample, expected in zip(batch['data_samples'], noise, strict=True):
        assert torch.equal(sample.mask_noise, expected)
    items[0]['data_samples'].set_field(torch.rand(2, 5), 'mask_noise')
    with pytest.raises(ConfigError, match='mask_noise of different shapes'):
        build()(default_collate(items))


def test_without_data_samples():
    batch = build(mean=[0.0] * 2, std=[2.0] * 2)({'inputs': torch.ones(3, 2, 4, 4)})
    assert torch.equal(batch['inputs'], torch.full((3, 2, 4, 4), 0.5))
    assert batch['data_samples'] is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU: run on a machine with CUDA')
@pytest.mark.parametrize('kind', KINDS)
def test_on_a_gpu(kind):
    seg = kind == KINDS[1]
    preprocessor = build(kind, mean=[500.0] * 2, std=[10.0] * 2, scale=1.0).cuda()
    valid = torch.ones(2, 8, 8, dtype=torch.bool)
    valid[0, :3] = False
    items = [item(2, seg=seg, dtype=torch.uint16, valid=valid), item(2, seg=seg)]
    items[1]['inputs'] = items[0]['inputs'].clone()
    batch = preprocessor(pseudo_collate(items), True)
    assert batch['inputs'].is_cuda
    assert batch['data_samples'][0].valid_mask.is_cuda
    expected = build(kind, mean=[500.0] * 2, std=[10.0] * 2)(pseudo_collate(items), True)
    assert torch.allclose(batch['inputs'].cpu(), expected['inputs'], atol=1e-5)
