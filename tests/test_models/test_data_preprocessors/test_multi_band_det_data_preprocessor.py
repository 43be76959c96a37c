# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Detection with any number of bands."""

import math

import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData

from mmrsfm.errors import BandMismatchError, ConfigError
from mmrsfm.registry import MODELS


def build(**options):
    return MODELS.build(dict(type='mmrsfm.MultiBandDetDataPreprocessor', **options))


def sample(height, width, **meta):
    made = DetDataSample(metainfo=dict(img_shape=(height, width), **meta))
    masks = BitmapMasks(torch.ones(1, height, width).numpy(), height, width)
    made.gt_instances = InstanceData(bboxes=torch.tensor([[0.0, 0, 4, 4]]), masks=masks)
    return made


def test_normalises_pads_and_says_so():
    preprocess = build(
        mean=[1.0, 2, 3, 4], std=[2.0] * 4, pad_size_divisor=16, pad_value=7.0, pad_mask=True
    )
    images = [torch.full((4, 20, 12), 5, dtype=torch.uint8), torch.full((4, 9, 30), 5.0)]
    images[1][0, 0, 0] = math.nan
    data = dict(inputs=images, data_samples=[sample(20, 12), sample(9, 30)])
    out = preprocess(data, training=True)
    assert out['inputs'].shape == (2, 4, 32, 32)
    assert out['inputs'][0, :, 0, 0].tolist() == [2.0, 1.5, 1.0, 0.5]
    assert out['inputs'][1, :, 0, 0].tolist() == [0.0, 1.5, 1.0, 0.5]  # NaN is the mean
    assert out['inputs'][0, :, 20:].unique().tolist() == [7.0]
    for one in out['data_samples']:
        assert one.batch_input_shape == (32, 32)
        assert one.gt_instances.masks.masks.shape == (1, 32, 32)
    assert preprocess.contract.mean == (1.0, 2.0, 3.0, 4.0)
    assert images[0].unique().tolist() == [5]  # the caller's images are as they were


def test_missing_stays_nan_and_so_does_padding():
    preprocess = build(mean=[1.0] * 2, std=[2.0] * 2, invalid='nan', pad_size_divisor=8)
    image = torch.zeros(2, 5, 8)
    image[1] = math.inf
    out = preprocess(dict(inputs=[image], data_samples=[sample(5, 8)]))
    assert out['inputs'][0, 0, :5].unique().tolist() == [-0.5]
    assert out['inputs'][0, 0, 5:].isnan().all() and out['inputs'][0, 1].isnan().all()


def test_three_bands_in_the_other_order():
    preprocess = build(bgr_to_rgb=True)
    image = torch.arange(3.0).view(3, 1, 1).expand(3, 4, 4)
    assert preprocess(dict(inputs=[image]))['inputs'][0, :, 0, 0].tolist() == [2.0, 1.0, 0.0]


def test_failures():
    with pytest.raises(ConfigError, match='both mean and std'):
        build(mean=[1.0])
    with pytest.raises(ConfigError, match='pads with NaN'):
        build(invalid='nan', pad_value=1.0)
    preprocess = build(mean=[0.0] * 4, std=[1.0] * 4, band_names=['r', 'g', 'b', 'sar'])
    with pytest.raises(BandMismatchError, match='has 3 channel'):
        preprocess(dict(inputs=[torch.zeros(3, 4, 4)]))
    with pytest.raises(BandMismatchError, match='its bands are'):
        wrong = sample(4, 4, band_names=('r', 'g', 'b', 'nir'))
        preprocess(dict(inputs=[torch.zeros(4, 4, 4)], data_samples=[wrong]))
