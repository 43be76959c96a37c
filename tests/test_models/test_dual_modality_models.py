# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The dual-modality backbone in models of every task library: a step, a test without optical."""

import math

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData

NAN = math.nan
SIZE = (65, 52)  # no multiple of anything
BACKBONE = dict(
    type='mmrsfm.DualModalityBackbone',
    backbone=dict(
        type='mmrsfm.SwinV2', window_size=4, drop_path_rate=0.0,
        arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
    ),
    modalities=dict(rgb=3, sar=1),
)  # fmt: skip
WIDTHS = [8, 16, 32, 64]
NORMALISE = dict(mean=[100.0] * 3 + [3.0], std=[50.0] * 3 + [2.0], invalid='nan')

pytestmark = pytest.mark.filterwarnings(
    'ignore:Default ``avg', 'ignore:For binary', 'ignore:torch.meshgrid', 'ignore:__floordiv__'
)


def image(height=SIZE[0], width=SIZE[1]):
    return torch.cat([torch.rand(3, height, width) * 255, torch.rand(1, height, width) * 8])


def pair():
    """An image without SAR, and a smaller one with a swath: they are padded."""
    one, other = image(), image(SIZE[0] - 9)
    one[3] = NAN
    other[3, :, :20] = NAN
    return [one, other]


def build(scope, **config):
    init_default_scope(scope)
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(config))
    model.init_weights()
    return model


def step(model, data):
    """Losses and gradients are finite, and no trained parameter is left out: what DDP asks for."""
    model.train()
    batch = model.data_preprocessor(data, training=True)
    assert batch['inputs'][0, 3].isnan().all()
    losses, _ = model.parse_losses(model(**batch, mode='loss'))
    losses.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and 'scale' not in name:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    return losses


class TestDetectors:
    def config(self, **head):
        return dict(
            data_preprocessor=dict(
                type='mmrsfm.MultiBandDetDataPreprocessor', pad_size_divisor=32, **NORMALISE
            ),
            backbone=BACKBONE,
            neck=dict(type='mmdet.FPN', in_channels=WIDTHS, out_channels=8, num_outs=4),
            bbox_head=dict(
                type='mmdet.RetinaHead', num_classes=2, in_channels=8, feat_channels=8,
                stacked_convs=1,
                loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True),
                loss_bbox=dict(type='mmdet.L1Loss'),
                **head,
            ),
            test_cfg=dict(nms_pre=50, score_thr=0.0, max_per_img=5, min_bbox_size=0),
        )  # fmt: skip

    def run(self, model, samples):
        step(model, dict(inputs=pair(), data_samples=samples))
        alone = image()
        alone[:3] = NAN
        samples[0].set_metainfo(dict(ori_shape=SIZE, img_shape=SIZE, scale_factor=(1.0, 1.0)))
        model.eval()
        (found,) = model.test_step(dict(inputs=[alone], data_samples=samples[:1]))
        scores = found.pred_instances.scores
        assert len(scores) and scores.isfinite().all()

    def test_mmdet(self):
        pytest.importorskip('mmdet')
        from mmdet.structures import DetDataSample

        config = self.config(
            anchor_generator=dict(
                type='mmdet.AnchorGenerator', scales=[4], ratios=[1.0], strides=[4, 8, 16, 32]
            ),
            bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder'),
        )
        config['train_cfg'] = dict(
            assigner=dict(
                type='mmdet.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0
            ),
            sampler=dict(type='mmdet.PseudoSampler'),
            allowed_border=-1,
            pos_weight=-1,
        )
        config['test_cfg']['nms'] = dict(type='nms', iou_threshold=0.5)
        model = build('mmdet', type='mmdet.RetinaNet', **config)
        boxes = torch.tensor([[4.0, 6.0, 24.0, 28.0], [20.0, 10.0, 44.0, 40.0]])
        samples = []
        for one in pair():
            sample = DetDataSample(metainfo=dict(img_shape=one.shape[1:]))
            sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]))
            samples.append(sample)
        self.run(model, samples)

    def test_mmrotate(self):
        pytest.importorskip('mmrotate')
        from mmdet.structures import DetDataSample
        from mmrotate.structures import RotatedBoxes

        config = self.config(
            anchor_generator=dict(
                type='mmrotate.FakeRotatedAnchorGenerator', angle_version='le90', scales=[4],
                ratios=[1.0], strides=[4, 8, 16, 32],
            ),
            bbox_coder=dict(
                type='mmrotate.DeltaXYWHTRBBoxCoder', angle_version='le90',
                target_means=(0.0,) * 5, target_stds=(1.0,) * 5,
            ),
        )  # fmt: skip
        config['train_cfg'] = dict(
            assigner=dict(
                type='mmdet.MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0,
                iou_calculator=dict(type='mmrotate.RBboxOverlaps2D'),
            ),
            sampler=dict(type='mmdet.PseudoSampler'),
            allowed_border=-1,
            pos_weight=-1,
        )  # fmt: skip
        config['test_cfg']['nms'] = dict(type='nms_rotated', iou_threshold=0.1)
        config['data_preprocessor']['boxtype2tensor'] = False
        model = build('mmrotate', type='mmdet.RetinaNet', **config)
        boxes = torch.tensor([[14.0, 17.0, 20.0, 12.0, 0.3], [30.0, 25.0, 24.0, 18.0, -0.5]])
        samples = []
        for one in pair():
            sample = DetDataSample(metainfo=dict(img_shape=one.shape[1:]))
            sample.gt_instances = InstanceData(
                bboxes=RotatedBoxes(boxes), labels=torch.tensor([0, 1])
            )
            samples.append(sample)
        self.run(model, samples)


class TestSegmentors:
    head = dict(
        type='mmseg.UPerHead', in_channels=WIDTHS, in_index=[0, 1, 2, 3], channels=8,
        pool_scales=(1, 2), num_classes=3, norm_cfg=dict(type='BN'), align_corners=False,
        loss_decode=dict(type='mmseg.CrossEntropyLoss'),
    )  # fmt: skip

    def samples(self, images):
        from mmseg.structures import SegDataSample

        made = []
        for one in images:
            shape = tuple(one.shape[1:])
            sample = SegDataSample(metainfo=dict(img_shape=shape, ori_shape=shape))
            sample.gt_sem_seg = PixelData(data=torch.randint(0, 3, (1, *shape)))
            made.append(sample)
        return made

    def preprocessor(self):
        return dict(type='mmrsfm.MultiBandSegDataPreprocessor', size=SIZE, **NORMALISE)

    @pytest.mark.parametrize('mode', ['whole', 'slide'])
    def test_mmseg(self, mode):
        pytest.importorskip('mmseg')
        model = build(
            'mmseg', type='mmseg.EncoderDecoder', data_preprocessor=self.preprocessor(),
            backbone={**BACKBONE, 'modality_dropout': 0.5}, decode_head=self.head,
            test_cfg=dict(mode=mode, crop_size=(32, 32), stride=(24, 24)),
        )  # fmt: skip
        images = pair()
        step(model, dict(inputs=images, data_samples=self.samples(images)))
        model.eval()
        alone = image()
        alone[:3] = NAN
        (found,) = model.test_step(dict(inputs=[alone], data_samples=self.samples([alone])))
        assert found.seg_logits.data.isfinite().all()
        assert found.pred_sem_seg.data.shape == (1, *SIZE)
        # What was in the channels that are missing does not matter.
        for absent in (math.inf, -math.inf):
            alone[:3] = absent
            (again,) = model.test_step(dict(inputs=[alone], data_samples=self.samples([alone])))
            assert torch.equal(again.seg_logits.data, found.seg_logits.data)

    @pytest.mark.parametrize('fusion', ['concat', 'abs_diff'])
    def test_pseudo_siamese(self, fusion):
        """Two dates, two sensors, two encoders, in an ordinary segmentor."""
        pytest.importorskip('mmseg')
        widths = [2 * width for width in WIDTHS] if fusion == 'concat' else WIDTHS
        model = build(
            'mmseg', type='mmseg.EncoderDecoder', data_preprocessor=self.preprocessor(),
            backbone={**BACKBONE, 'modalities': dict(pre=3, post=1), 'fusion': fusion},
            decode_head={**self.head, 'in_channels': widths}, test_cfg=dict(mode='whole'),
        )  # fmt: skip
        images = pair()
        step(model, dict(inputs=images, data_samples=self.samples(images)))

    @pytest.mark.parametrize('kind', ['SiamEncoderDecoder', 'DIEncoderDecoder'])
    def test_opencd(self, kind):
        pytest.importorskip('mmseg')
        import mmrsfm.compat.opencd.models  # noqa: F401

        config = dict(
            type=f'opencd.{kind}', data_preprocessor=self.preprocessor(), backbone=BACKBONE,
            decode_head=self.head, test_cfg=dict(mode='whole'),
        )  # fmt: skip
        if kind == 'SiamEncoderDecoder':  # both dates have both sensors
            config['backbone_inchannels'] = 4
            config['neck'] = dict(type='opencd.FeatureFusionNeck', policy='abs_diff')
            for key in ('mean', 'std'):
                config['data_preprocessor'][key] = NORMALISE[key] * 2
            images = [torch.cat([one, one.roll(3, 1)]) for one in pair()]
        else:  # each date has a sensor of its own, as many bands
            config['backbone'] = {**BACKBONE, 'modalities': dict(before=2, after=2)}
            config['backbone_inchannels'] = 2
            images = pair()
        model = build('opencd', **config)
        step(model, dict(inputs=images, data_samples=self.samples(images)))
        (found,) = model.eval().test_step(
            dict(inputs=images[:1], data_samples=self.samples(images[:1]))
        )
        assert found.seg_logits.data.isfinite().all()


def test_mmpretrain():
    from mmpretrain.structures import DataSample

    model = build(
        'mmpretrain', type='mmpretrain.ImageClassifier',
        data_preprocessor=dict(
            type='mmrsfm.MultiBandDataPreprocessor', num_classes=3, **NORMALISE
        ),
        backbone={**BACKBONE, 'fusion': [*['mean'] * 3, dict(attention=dict(num_heads=2))]},
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(
            type='mmpretrain.LinearClsHead', num_classes=3, in_channels=64, topk=(1,),
            loss=dict(type='mmpretrain.CrossEntropyLoss'),
        ),
    )  # fmt: skip
    samples = [DataSample().set_gt_label(label) for label in (0, 2)]
    step(model, dict(inputs=pair(), data_samples=samples))
    alone = image()
    alone[:3] = NAN
    (found,) = model.eval().test_step(dict(inputs=[alone], data_samples=samples[:1]))
    assert found.pred_score.isfinite().all()
