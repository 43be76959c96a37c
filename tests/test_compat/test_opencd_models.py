# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The siamese segmentor and its parts, beyond the fixtures."""

import pytest
import torch
from torch import nn

pytest.importorskip('mmseg')

from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmrsfm.compat.opencd.models import FeatureFusionNeck
from mmrsfm.compat.opencd.registry import MODELS as OPENCD_MODELS
from mmrsfm.errors import BandMismatchError, ConfigError, ImageSizeError


class Small(BaseModule):
    """Two maps, at strides 4 and 8; counts how often it is called."""

    def __init__(self, norm='BN', channels=3, both=False):
        super().__init__()
        self.first = nn.Conv2d(channels * (2 if both else 1), 4, 4, 4)
        self.norm = {'BN': nn.BatchNorm2d, 'LN': lambda c: nn.GroupNorm(1, c)}[norm](4)
        self.second = nn.Conv2d(4, 6, 2, 2)
        self.calls = 0

    def forward(self, *images):
        self.calls += 1
        x = self.norm(self.first(torch.cat(images, dim=1)))
        return x, self.second(x)


@pytest.fixture(autouse=True)
def _scope():
    OPENCD_MODELS.register_module(module=Small, force=True)
    init_default_scope('opencd')
    yield
    del OPENCD_MODELS.module_dict['Small']


def config(**changes):
    cfg = {
        'type': 'SiamEncoderDecoder',
        'data_preprocessor': {
            'type': 'DualInputSegDataPreProcessor', 'mean': [10.0] * 6, 'std': [5.0] * 6,
            'size_divisor': 8, 'test_cfg': {'size_divisor': 8},
        },
        'backbone': {'type': 'Small'},
        'neck': {'type': 'FeatureFusionNeck', 'policy': 'abs_diff', 'out_indices': (0, 1)},
        'decode_head': {
            'type': 'UNetHead', 'num_classes': 2, 'encoder_channels': [4, 6],
            'decoder_channels': [8, 4], 'n_blocks': 2, 'loss_decode': {
                'type': 'mmseg.CrossEntropyLoss',
            },
        },
        'train_cfg': {},
        'test_cfg': {'mode': 'whole'},
    }  # fmt: skip
    return ConfigDict({**cfg, **changes})


def sample(height, width, label=None):
    shape = (height, width)
    made = SegDataSample(metainfo={'img_shape': shape, 'ori_shape': shape, 'img_path': ['a', 'b']})
    data = torch.randint(0, 2, (1, *shape)) if label is None else label
    made.gt_sem_seg = PixelData(data=data)
    return made


def batch(count, height=20, width=28):
    return {
        'inputs': [torch.randint(0, 256, (6, height, width), dtype=torch.uint8)] * count,
        'data_samples': [sample(height, width) for _ in range(count)],
    }


pytestmark = pytest.mark.filterwarnings('ignore:For binary', 'ignore:Default ``avg')


class TestSiamEncoderDecoder:
    @pytest.mark.parametrize(
        ('norm', 'training', 'calls'),
        [('BN', False, 1), ('BN', True, 2), ('LN', True, 1), ('LN', False, 1)],
    )
    def test_dates_go_together_where_the_numbers_are_the_same(self, norm, training, calls):
        model = MODELS.build(config(backbone={'type': 'Small', 'norm': norm})).train(training)
        inputs = torch.randn(3, 6, 16, 16)
        if norm == 'BN':
            model.backbone.norm.running_mean.normal_()
        fused = model.extract_feat(inputs)
        assert model.backbone.calls == calls
        for ours, one, other in zip(
            fused, model.backbone(inputs[:, :3]), model.backbone(inputs[:, 3:]), strict=True
        ):
            torch.testing.assert_close(ours, (other - one).abs(), rtol=1e-5, atol=1e-6)

    def test_order_of_the_dates(self):
        neck = {'type': 'FeatureFusionNeck', 'policy': 'diff', 'out_indices': (0, 1)}
        model = MODELS.build(config(neck=neck)).eval()
        inputs = torch.randn(2, 6, 16, 16)
        forth, back = model.extract_feat(inputs), model.extract_feat(inputs.roll(3, dims=1))
        torch.testing.assert_close(forth[1], -back[1])

    @pytest.mark.parametrize('mode', ['whole', 'slide'])
    def test_batches_are_predicted_like_single_pairs(self, mode):
        test_cfg = {'mode': mode, 'crop_size': (16, 16), 'stride': (12, 12)}
        model = MODELS.build(config(test_cfg=test_cfg)).eval()
        data = batch(2)
        data['inputs'][1] = data['inputs'][1].flip(-1)
        together = model.test_step(data)
        assert [tuple(one.pred_sem_seg.shape) for one in together] == [(20, 28)] * 2
        for index in range(2):
            (alone,) = model.test_step({key: data[key][index : index + 1] for key in data})
            torch.testing.assert_close(
                alone.seg_logits.data, together[index].seg_logits.data, rtol=1e-4, atol=1e-5
            )

    def test_without_data_samples(self):
        model = MODELS.build(config()).eval()
        (one,) = model.test_step({'inputs': batch(1)['inputs']})
        assert one.pred_sem_seg.shape == (20, 28)  # without the padding

    def test_trains_with_one_pair_and_an_auxiliary_head(self):
        auxiliary = {
            'type': 'mmseg.FCNHead', 'in_channels': 6, 'in_index': 1, 'channels': 4, 'num_convs': 1,
            'num_classes': 2, 'concat_input': False,
            'loss_decode': {'type': 'mmseg.CrossEntropyLoss'},
        }  # fmt: skip
        model = MODELS.build(config(auxiliary_head=auxiliary))
        data = model.data_preprocessor(batch(1), training=True)
        losses = model(**data, mode='loss')
        assert set(losses) == {'decode.loss_ce', 'decode.acc_seg', 'aux.loss_ce', 'aux.acc_seg'}
        (losses['decode.loss_ce'] + losses['aux.loss_ce']).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())

    def test_one_output_and_a_threshold(self):
        head = {**config().decode_head, 'out_channels': 1, 'threshold': 0.5}
        head['loss_decode'] = {'type': 'mmseg.CrossEntropyLoss', 'use_sigmoid': True}
        model = MODELS.build(config(decode_head=head)).eval()
        (one,) = model.test_step(batch(1))
        assert set(one.pred_sem_seg.data.unique().tolist()) <= {0.0, 1.0}

    def test_failures_speak(self):
        with pytest.raises(ConfigError, match='needs a neck that fuses'):
            MODELS.build(config(neck=None))
        model = MODELS.build(config(data_preprocessor=None)).eval()
        with pytest.raises(BandMismatchError, match=r'two dates of 3 channels each.*got 3'):
            model.extract_feat(torch.randn(1, 3, 16, 16))


def test_dual_input_backbones():
    cfg = config(type='DIEncoderDecoder', backbone={'type': 'Small', 'both': True})
    cfg.pop('neck')
    model = MODELS.build(cfg).eval()
    (one,) = model.test_step(batch(1))
    assert one.pred_sem_seg.shape == (20, 28) and model.backbone.calls == 1


class TestFeatureFusionNeck:
    @pytest.mark.parametrize(
        ('policy', 'expected'),
        [('concat', [1.0, 5.0]), ('sum', [6.0]), ('diff', [4.0]), ('abs_diff', [4.0])],
    )
    def test_policies(self, policy, expected):
        maps = [torch.full((1, 1, 2, 2), value) for value in (1.0, 5.0)]
        (fused,) = FeatureFusionNeck(policy, out_indices=[0])([maps[0]], [maps[1]])
        assert fused[0, :, 0, 0].tolist() == expected
        if policy in ('diff', 'abs_diff'):
            (back,) = FeatureFusionNeck(policy, out_indices=[0])([maps[1]], [maps[0]])
            assert back[0, 0, 0, 0].item() == (4.0 if policy == 'abs_diff' else -4.0)

    def test_levels(self):
        maps = [torch.full((1, 1, 1, 1), float(level)) for level in range(3)]
        fused = FeatureFusionNeck('sum', out_indices=(2, 0))(maps, maps)
        assert [one.item() for one in fused] == [4.0, 0.0]
        with pytest.raises(ConfigError, match='returns 3 maps'):
            FeatureFusionNeck('sum')(maps, maps)
        with pytest.raises(ConfigError, match='policy is one of concat'):
            FeatureFusionNeck('product')


class TestDataPreprocessor:
    def build(self, **options):
        return MODELS.build({'type': 'DualInputSegDataPreProcessor', **options})

    def test_channels_are_swapped_within_each_date(self):
        preprocess = self.build(bgr_to_rgb=True, size_divisor=1)
        image = torch.arange(6, dtype=torch.uint8).view(6, 1, 1).expand(6, 2, 2)
        out = preprocess({'inputs': [image], 'data_samples': [sample(2, 2)]}, training=True)
        assert out['inputs'][0, :, 0, 0].tolist() == [2, 1, 0, 5, 4, 3]

    def test_pairs_of_other_bands_are_normalised_not_swapped(self):
        preprocess = self.build(mean=[1.0] * 8, std=[2.0] * 8, bgr_to_rgb=True)
        out = preprocess({'inputs': [torch.full((8, 2, 2), 5.0)]})
        assert out['inputs'].unique().tolist() == [2.0]

    def test_padding_is_the_mean_and_unlabelled(self):
        preprocess = self.build(mean=[9.0] * 6, std=[1.0] * 6, size=(4, 5), seg_pad_val=255)
        data = {'inputs': [torch.full((6, 3, 4), 10.0)], 'data_samples': [sample(3, 4)]}
        out = preprocess(data, training=True)
        assert out['inputs'].shape == (1, 6, 4, 5)
        assert out['inputs'][0, 0, 3].tolist() == [0.0] * 5
        assert out['data_samples'][0].gt_sem_seg.data[0, 3].tolist() == [255] * 5
        assert out['data_samples'][0].metainfo['padding_size'] == (0, 1, 0, 1)

    def test_smaller_labels_only_where_nothing_is_padded(self):
        # OSCD: images of 224 pixels, labels of 96.
        preprocess = self.build(size_divisor=8)
        label = torch.zeros(1, 4, 4, dtype=torch.long)
        fits = {'inputs': [torch.zeros(6, 8, 8)], 'data_samples': [sample(8, 8, label)]}
        out = preprocess(fits, training=True)
        assert out['data_samples'][0].gt_sem_seg.shape == (4, 4)
        padded = {'inputs': [torch.zeros(6, 9, 8)], 'data_samples': [sample(9, 8, label)]}
        with pytest.raises(ImageSizeError, match='the label is 4 x 4, the image 9 x 8'):
            preprocess(padded, training=True)

    @pytest.mark.parametrize(
        ('options', 'sentence'),
        [
            ({'size': (4, 4), 'size_divisor': 4}, 'size or size_divisor, not both'),
            ({'mean': [1.0] * 6}, 'same number of values'),
            ({'mean': [1.0] * 6, 'std': [1.0] * 3}, 'same number of values'),
            ({'bgr_to_rgb': True, 'rgb_to_bgr': True}, 'the same swap'),
        ],
    )
    def test_contradictions(self, options, sentence):
        with pytest.raises(ConfigError, match=sentence):
            self.build(**options)

    def test_wrong_input(self):
        preprocess = self.build(mean=[1.0] * 3, std=[1.0] * 3)
        with pytest.raises(BandMismatchError, match='6 channels, mean and std 3 values'):
            preprocess({'inputs': [torch.zeros(6, 4, 4)]})
        with pytest.raises(ImageSizeError, match='Use batch_size=1'):
            self.build()({'inputs': [torch.zeros(6, 4, 4), torch.zeros(6, 4, 5)]})
