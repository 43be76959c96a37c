# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""ConvNeXtV2 and its UNet head inside mmseg: any size, training, failure paths."""

import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmrsfm.errors import ConfigError
from mmrsfm.models.segmentation import ConvNeXtUNetHead

pytestmark = pytest.mark.filterwarnings('ignore:For binary', 'ignore:Default ``avg')


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmseg')


def segmentor(stem, patch=16):
    original = stem == 'original'
    widths = [4, 8, 16, 32]
    return MODELS.build(
        dict(
            type='EncoderDecoder',
            backbone=dict(
                type='mmrsfm.ConvNeXtV2',
                arch=dict(depths=[1, 1, 1, 1], channels=widths),
                in_channels=5,
                patch_size=patch,
                stem=stem,
                out_indices=(1, 2, 3),
                stem_maps=True,
            ),
            decode_head=dict(
                type='mmrsfm.ConvNeXtUNetHead',
                in_channels=widths if original else [4, *widths],
                last_scale=patch // 8 if original else None,
                num_classes=3,
                loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
            ),
            test_cfg=ConfigDict(mode='whole'),
        )
    )


@pytest.mark.parametrize('stem', ['mmearth', 'original'])
def test_logits_have_the_size_of_the_image_and_everything_learns(stem):
    torch.manual_seed(0)
    model = segmentor(stem)
    model.init_weights()
    size = (37, 52) if stem == 'mmearth' else (32, 48)
    x = torch.randn(2, 5, *size)
    assert model.decode_head(model.extract_feat(x)).shape == (2, 3, *size)
    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size))
        sample.gt_sem_seg = PixelData(data=torch.randint(3, (1, *size)))
        samples.append(sample)
    losses = model.loss(x, samples)
    losses['decode.loss_ce'].backward()
    # The first stage is no skip, but comes before those that are: all of the encoder learns.
    assert all(p.grad is not None for p in model.parameters())
    predicted = model.eval().predict(x, samples)
    assert predicted[0].pred_sem_seg.data.shape == (1, *size)


def test_half_the_channels_of_the_finest_map_are_classified():
    head = ConvNeXtUNetHead([6, 6, 12], num_classes=4)
    assert head.conv_seg.weight.shape == (4, 3, 1, 1)
    maps = [torch.randn(1, 6, 16, 16), torch.randn(1, 6, 8, 8), torch.randn(1, 12, 4, 4)]
    assert head.decode(maps).shape == (1, 3, 16, 16)


def test_one_map_is_no_unet():
    with pytest.raises(ConfigError, match='two maps at least'):
        ConvNeXtUNetHead([6], num_classes=4)
