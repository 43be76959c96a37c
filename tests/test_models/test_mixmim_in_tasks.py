# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""MixMIM under the heads of every task library: a step, and a test on an image of another size."""

import pytest
import torch
from mmengine.structures import InstanceData

from tests.test_models import test_dual_modality_models as dual

BACKBONE = dict(
    type='mmrsfm.MixMIM', img_size=64, out_indices=(0, 1, 2, 3),
    arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
)  # fmt: skip
NORMALISE = dict(mean=[-19.2, -12.5], std=[5.5, 5.0])  # VH, VV in dB

pytestmark = dual.pytestmark


def image(height, width):
    return torch.randn(2, height, width) * 5 - 15


def run(model, images, samples, alone):
    model.train()
    batch = model.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)
    losses, _ = model.parse_losses(model(**batch, mode='loss'))
    losses.backward()
    for name, parameter in model.backbone.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    model.eval()
    with torch.no_grad():
        (found,) = model.test_step(dict(inputs=[image(*alone.img_shape)], data_samples=[alone]))
    return found


def test_mmseg():
    pytest.importorskip('mmseg')
    from mmseg.structures import SegDataSample

    model = dual.build(
        'mmseg', type='mmseg.EncoderDecoder', backbone=BACKBONE,
        data_preprocessor=dict(
            type='mmrsfm.MultiBandSegDataPreprocessor', size=(64, 64), **NORMALISE
        ),
        decode_head=dual.TestSegmentors.head, test_cfg=dict(mode='whole'),
    )  # fmt: skip
    samples = dual.TestSegmentors().samples([image(64, 64)] * 2)
    alone = SegDataSample(metainfo=dict(img_shape=(83, 100), ori_shape=(83, 100)))
    found = run(model, [image(64, 64)] * 2, samples, alone)
    assert found.seg_logits.data.isfinite().all()
    assert found.pred_sem_seg.data.shape == (1, 83, 100)


@pytest.mark.parametrize('library', ['mmdet', 'mmrotate'])
def test_detectors(library):
    pytest.importorskip(library)
    from mmdet.structures import DetDataSample

    rotated = library == 'mmrotate'
    config = dual.TestDetectors().config(
        anchor_generator=dict(
            type='mmrotate.FakeRotatedAnchorGenerator' if rotated else 'mmdet.AnchorGenerator',
            scales=[4], ratios=[1.0], strides=[4, 8, 16, 32],
            **(dict(angle_version='le90') if rotated else {}),
        ),
        bbox_coder=dict(type='mmrotate.DeltaXYWHTRBBoxCoder', angle_version='le90')
        if rotated else dict(type='mmdet.DeltaXYWHBBoxCoder'),
    )  # fmt: skip
    config['backbone'] = BACKBONE
    config['data_preprocessor'] = dict(
        type='mmrsfm.MultiBandDetDataPreprocessor', pad_size_divisor=32, **NORMALISE,
        **(dict(boxtype2tensor=False) if rotated else {}),
    )  # fmt: skip
    assigner = dict(type='mmdet.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0)
    if rotated:
        config['bbox_head']['bbox_coder'].update(target_means=(0.0,) * 5, target_stds=(1.0,) * 5)
        assigner['iou_calculator'] = dict(type='mmrotate.RBboxOverlaps2D')
    config['train_cfg'] = dict(
        assigner=assigner, sampler=dict(type='mmdet.PseudoSampler'), allowed_border=-1,
        pos_weight=-1,
    )  # fmt: skip
    config['test_cfg']['nms'] = (
        dict(type='nms_rotated', iou_threshold=0.1)
        if rotated
        else dict(type='nms', iou_threshold=0.5)
    )
    model = dual.build(library, type='mmdet.RetinaNet', **config)
    boxes = torch.tensor([[4.0, 6.0, 24.0, 28.0], [20.0, 10.0, 44.0, 40.0]])
    if rotated:
        from mmrotate.structures import RotatedBoxes

        boxes = RotatedBoxes(torch.tensor([[14.0, 17.0, 20.0, 12.0, 0.3]] * 2))
    images, samples = [image(64, 64), image(52, 64)], []
    for one in images:
        sample = DetDataSample(metainfo=dict(img_shape=one.shape[1:]))
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]))
        samples.append(sample)
    shape = (70, 90)
    alone = DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0)))
    found = run(model, images, samples, alone)
    assert found.pred_instances.scores.isfinite().all()
