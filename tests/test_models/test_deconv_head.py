# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Heads of deconvolutions: sizes, losses worked out by hand, heights with missing pixels."""

import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmrsfm.errors import ConfigError
from mmrsfm.models.losses import DiceLoss, RegressionLoss
from mmrsfm.models.segmentation import DeconvHead, HeightHead

NAN = float('nan')


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmseg')


def labelled(values, key='gt_sem_seg', **metainfo):
    sample = SegDataSample(metainfo=dict(img_path='x.tif', **metainfo))
    sample.set_data({key: PixelData(data=torch.as_tensor(values)[None])})
    return sample


@pytest.mark.parametrize(
    ('options', 'times'),
    [
        (dict(block_channels=(16, 8, 4, 4), last_channels=8, last_convs=1), 32),
        (dict(block_channels=(32, 16, 8, 8, 8), fuse_channels=64), 32),
        (dict(block_channels=(8,)), 2),
    ],
)
def test_sizes(options, times):
    head = DeconvHead(in_channels=32, num_classes=2, **options)
    maps = [torch.zeros(2, 3, 9, 9), torch.randn(2, 32, 2, 3)]
    logits = head(maps)
    assert logits.shape == (2, 2, 2 * times, 3 * times)
    logits.square().sum().backward()
    assert all(weight.grad is not None for weight in head.parameters())
    with pytest.raises(ConfigError, match='in_channels=32, but map -1 has 3 channels'):
        head(maps[:1])


@pytest.mark.parametrize(
    'options',
    [
        dict(block_channels=()),
        dict(block_channels=(2, 8)),
        dict(block_channels=(8,), channels=9),
    ],
)
def test_channels_that_make_no_decoder(options):
    with pytest.raises(ConfigError):
        DeconvHead(in_channels=32, num_classes=2, **options)


def test_last_convolution_is_initialised_as_torch_does():
    head = DeconvHead(in_channels=32, block_channels=(32,), num_classes=2)
    head.init_weights()
    assert 0.08 < float(head.conv_seg.weight.detach().std()) < 0.13  # uniform, up to 1 / sqrt(32)
    small = dict(type='Normal', std=0.001, override=dict(name='conv_seg'))
    head = DeconvHead(in_channels=32, block_channels=(32,), num_classes=2, init_cfg=small)
    head.init_weights()
    assert float(head.conv_seg.weight.detach().std()) < 0.01


def test_binary_head_says_how_many_pixels_are_right():
    head = DeconvHead(
        in_channels=8, block_channels=(4,), num_classes=2, out_channels=1, threshold=0.5,
        loss_decode=dict(type='mmrsfm.DiceLoss'),
    )  # fmt: skip
    logits = torch.tensor([[[[2.0, -1.0], [-3.0, 1.0]]]])
    losses = head.loss_by_feat(logits, [labelled(torch.tensor([[1, 1], [0, 255]]))])
    assert float(losses['acc_seg']) == pytest.approx(100 * 2 / 3)


def test_dice_of_one_output_is_that_of_class_one():
    logits = torch.tensor([[[[2.0, -1.0], [-3.0, 1.0]]]])
    label = torch.tensor([[[1, 0], [1, 255]]])
    p = logits.sigmoid().flatten()[:3]
    expected = 1 - (2 * (p[0] + p[2]) + 1) / (p.sum() + 2 + 1)
    assert float(DiceLoss()(logits, label)) == pytest.approx(float(expected))
    # mmseg's compares with the background.
    theirs = MODELS.build(dict(type='mmseg.DiceLoss', naive_dice=True, eps=1.0))
    assert float(theirs(logits, label)) != pytest.approx(float(expected), abs=0.05)


def test_dice_of_classes_is_mmsegs_per_class_where_all_is_labelled():
    logits, label = torch.randn(2, 3, 5, 4), torch.randint(0, 3, (2, 5, 4))
    p = logits.softmax(1)
    each = []
    for number in range(3):
        t = (label == number).float()
        each.append(1 - (2 * (p[:, number] * t).sum() + 1) / (p[:, number].sum() + t.sum() + 1))
    expected = torch.stack(each)
    torch.testing.assert_close(DiceLoss()(logits, label), expected.mean())
    without = DiceLoss(include_background=False, loss_weight=0.5)(logits, label)
    torch.testing.assert_close(without, expected[1:].mean() / 2)


def test_dice_without_a_labelled_pixel_is_finite():
    logits = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = DiceLoss(per_image=True)(logits, torch.full((1, 3, 3), 255))
    loss.backward()
    assert float(loss) == 0
    assert not logits.grad.any()
    with pytest.raises(ConfigError):
        DiceLoss(smooth=0)


@pytest.mark.parametrize(('kind', 'expected'), [('l1', 1.5), ('l2', 2.5), ('smooth_l1', 1.0)])
def test_regression_passes_over_missing_targets(kind, expected):
    pred = torch.tensor([1.0, 5.0, 7.0, 1.0], requires_grad=True)
    target = torch.tensor([2.0, 3.0, NAN, float('inf')])
    loss = RegressionLoss(kind)(pred, target)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(expected)
    assert torch.isfinite(pred.grad).all()
    assert not pred.grad[2:].any()
    nothing = RegressionLoss(kind)(pred, torch.full((4,), NAN))
    assert float(nothing.detach()) == 0
    with pytest.raises(ConfigError):
        RegressionLoss('l3')


def test_heights_are_scaled_in_the_loss_and_in_metres_outside():
    head = HeightHead(in_channels=64, height_scale=50.0)
    assert [block.conv3.out_channels for block in head.upsample_blocks] == [32, 16, 8, 4]
    output = torch.full((1, 1, 2, 2), 0.5)  # 25 m
    heights = torch.tensor([[20.0, 30.0], [NAN, 25.0]])
    losses = head.loss_by_feat(output, [labelled(heights, 'gt_depth_map')])
    assert float(losses['loss_l1']) == pytest.approx((5 + 5 + 0) / 50 / 3)
    assert float(losses['mae']) == pytest.approx(10 / 3)
    predicted = head.predict_by_feat(output, [dict(img_shape=(4, 4))])
    torch.testing.assert_close(predicted, torch.full((1, 1, 4, 4), 25.0))


def test_padding_of_the_preprocessor_has_no_height():
    head = HeightHead(in_channels=64)
    padded = torch.full((4, 4), 255.0)  # mmseg pads with a class number
    padded[:3, :2] = 1
    sample = labelled(padded, 'gt_depth_map', padding_size=(0, 2, 0, 1))
    losses = head.loss_by_feat(torch.zeros(1, 1, 4, 4), [sample])
    assert float(losses['mae']) == 1


def test_a_sample_without_heights_is_an_error():
    head = HeightHead(in_channels=64)
    with pytest.raises(ConfigError, match='LoadHeightMap'):
        head.loss_by_feat(torch.zeros(1, 1, 4, 4), [labelled(torch.zeros(4, 4).long())])
    with pytest.raises(ConfigError):
        HeightHead(in_channels=64, height_scale=0)


def build_estimator(test_cfg):
    model = dict(
        type='mmrsfm.HeightEstimator',
        backbone=dict(
            type='mmrsfm.SwinV2',
            arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
            window_size=2,
        ),
        decode_head=dict(type='mmrsfm.HeightHead', in_channels=64, height_scale=10.0),
        test_cfg=ConfigDict(test_cfg),
    )
    torch.manual_seed(0)
    return MODELS.build(model).eval()


@torch.no_grad()
def test_windows_are_what_comes_out():
    image = torch.randn(1, 3, 32, 64)
    slide = build_estimator(dict(mode='slide', crop_size=(32, 32), stride=(32, 32)))
    metas = [dict(img_shape=(32, 64), ori_shape=(32, 64))]
    found = slide.inference(image, [dict(metas[0])])
    whole = build_estimator(dict(mode='whole'))
    halves = [
        whole.inference(half, [dict(img_shape=(32, 32), ori_shape=(32, 32))])
        for half in image.chunk(2, dim=3)
    ]
    torch.testing.assert_close(found, torch.cat(halves, dim=3))
    assert not torch.allclose(found, whole.inference(image, metas))  # what mmseg's returns
    with pytest.raises(ConfigError):
        build_estimator(dict(mode='windows'))
