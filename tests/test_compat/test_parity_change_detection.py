# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Data preprocessor, segmentor, neck, transforms and label reading against the reference."""

import json

import cv2
import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip('mmseg')

from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from mmengine.registry import MODELS, TRANSFORMS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmrsfm.compat.opencd.registry import MODELS as OPENCD_MODELS
from tests.parity import PARITY_DIR, Fixture, assert_parity, parity_files


class ToyPyramid(BaseModule):
    """The backbone of the fixtures: convolutions 4x4/4, then 2x2/2, ReLU between them."""

    def __init__(self, chs):
        super().__init__()
        sizes = [4] + [2] * (len(chs) - 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, size, size)
            for before, after, size in zip([3, *chs], chs, sizes, strict=False)
        )

    def forward(self, x):
        maps = []
        for index, conv in enumerate(self.convs):
            x = conv(torch.relu(x) if index else x)
            maps.append(x)
        return tuple(maps)


@pytest.fixture
def opencd_scope():
    OPENCD_MODELS.register_module(module=ToyPyramid, force=True)
    init_default_scope('opencd')
    yield
    del OPENCD_MODELS.module_dict['ToyPyramid']


def sample_of(label, shape, **meta):
    sample = SegDataSample(
        metainfo={'ori_shape': shape, 'img_shape': shape, 'img_path': ['a', 'b'], **meta}
    )
    sample.gt_sem_seg = PixelData(data=label.clone())
    return sample


@pytest.mark.filterwarnings('ignore:For binary segmentation')
@pytest.mark.parametrize('path', parity_files('cd_siam_unet_*.npz'))
def test_parity_siam_unet(path, opencd_scope):
    fixture = Fixture(path)
    expected_meta = fixture.json('meta_json')['metainfo_after_test_preproc']
    model = MODELS.build(ConfigDict(fixture.json())).eval()
    model.load_state_dict(fixture.group('sd'))  # strictly
    image, label = fixture.tensor('input'), fixture.tensor('label').long()
    shape = tuple(image.shape[1:])
    ours = {}
    with torch.no_grad():
        batch = model.data_preprocessor(
            {'inputs': [image], 'data_samples': [sample_of(label, shape)]}, training=False
        )
        ours['out/preproc_test'] = batch['inputs']
        meta = dict(batch['data_samples'][0].metainfo)
        for key, value in model_maps(model, batch['inputs']).items():
            ours[f'mid/{key}'] = value
        (predicted,) = model(**batch, mode='predict')
        ours['out/seg_logits'] = predicted.seg_logits.data
        ours['out/pred_sem_seg'] = predicted.pred_sem_seg.data
        batch = model.data_preprocessor(
            {
                'inputs': [image, image.flip(-1)],
                'data_samples': [sample_of(label, shape), sample_of(label, shape)],
            },
            training=True,
        )
        ours['out/preproc_train_shape'] = torch.tensor(batch['inputs'].shape)
        ours['out/train_label_padded'] = batch['data_samples'][0].gt_sem_seg.data
        losses = model(**batch, mode='loss')
        ours |= {f'out/{key}': value for key, value in losses.items()}
    for key, value in expected_meta.items():
        assert list(meta[key]) == list(value), key
    for key in [key for key in fixture.arrays if key.startswith(('mid/', 'out/'))]:
        assert_parity(ours[key], fixture.tensor(key), key)
    assert fixture.unused == []


def model_maps(model, inputs):
    return {f'fused{index}': fused for index, fused in enumerate(model.extract_feat(inputs))}


# The fixtures hold the results, not the arguments; sizes follow from the results.
def transform_of(kind, height, width):
    return {
        'rotflip': {'type': 'MultiImgRandomRotFlip'},
        'crop': {
            'type': 'MultiImgRandomCrop', 'crop_size': (height, width), 'cat_max_ratio': 0.75,
        },
        'exchange': {'type': 'MultiImgExchangeTime'},
        'photo': {
            'type': 'MultiImgPhotoMetricDistortion', 'brightness_delta': 10,
            'contrast_range': (0.8, 1.2), 'saturation_range': (0.8, 1.2), 'hue_delta': 10,
        },
        'resize_keep': {'type': 'MultiImgResize', 'scale': (width, height), 'keep_ratio': True},
        'resize_nokeep': {'type': 'MultiImgResize', 'scale': (width, height)},
        'flip': {'type': 'MultiImgRandomFlip', 'prob': 0.5},
    }[kind]  # fmt: skip


@pytest.mark.parametrize('path', parity_files('cd_transforms_*.npz'))
def test_parity_transforms(path, opencd_scope):
    fixture = Fixture(path)
    meta = fixture.json('meta_json')
    cases = sorted({name.split('/')[0] for name in fixture.arrays if '/' in name} - {'input'})
    assert cases
    for case in cases:
        kind, _, seed = case.partition('_seed')
        expected = fixture.group(case)
        transform = TRANSFORMS.build(transform_of(kind, *expected['a'].shape[:2]))
        given = {key: np.array(value) for key, value in fixture.group('input').items()}
        results = {
            'img': [given['a'], given['b']],
            'gt_seg_map': given['seg'],
            'seg_fields': ['gt_seg_map'],
            'img_shape': given['a'].shape[:2],
        }
        if seed:
            np.random.seed(int(seed))
        results = transform(results)
        ours = dict(zip('ab', results['img'], strict=True)) | {'seg': results['gt_seg_map']}
        for key in expected:
            compare(ours[key], expected[key].numpy(), f'{case}/{key}', kind == 'rotflip')
        for key, value in meta.get(case, {}).items():
            assert list(results[key]) == pytest.approx(value), f'{case}: {key}'
    assert fixture.unused == []


def compare(ours, reference, what, rotated):
    assert ours.dtype == reference.dtype, what
    assert ours.shape == reference.shape, what
    difference = np.abs(ours.astype(int) - reference)
    if rotated and not what.endswith('seg') and int(cv2.__version__.split('.')[0]) < 5:
        # The fixtures were made by OpenCV 5, which interpolates exactly; before it, warpAffine
        # rounds positions to 1/32 of a pixel: half of that, at the steepest edges, in both axes.
        assert difference.max() <= 8 and difference.mean() < 0.5, what
    else:
        assert difference.max() == 0, what


EXPECTED_LABELS = PARITY_DIR / 'cd_label_loading' / 'expected.json'
LABELS = json.loads(EXPECTED_LABELS.read_text()) if EXPECTED_LABELS.is_file() else {}


@pytest.mark.skipif(not LABELS, reason=f'no {EXPECTED_LABELS}')
def test_parity_label_loading(opencd_scope):
    load = TRANSFORMS.build({'type': 'MultiImgLoadAnnotations'})
    for case, expected in LABELS.items():
        name, kind = case.split('|')
        results = {
            'img_path': ['a', 'b'],
            'seg_map_path': str(EXPECTED_LABELS.parent / name),
            'format_seg_map': None if kind == 'None' else kind,
            'label_map': None,
            'reduce_zero_label': False,
            'seg_fields': [],
        }
        results = load(results)
        assert results['gt_seg_map'].dtype == np.uint8
        assert results['gt_seg_map'].tolist() == expected, case
        assert results['seg_fields'] == ['gt_seg_map']
