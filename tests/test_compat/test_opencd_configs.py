# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Configs written for Open-CD, in a foreign folder, by MMEngine's own runner.

Nothing of mmrsfm is imported but by ``custom_imports``, in a process of its own.
"""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.formats.change_detection import make_levir_cd

# As Open-CD's base configs are written, with a backbone of mmseg and MTP's head.
CONFIG = """
default_scope = 'opencd'
custom_imports = dict(imports=['mmrsfm'], allow_failed_imports=False)
norm_cfg = dict(type='SyncBN', requires_grad=True)
data_preprocessor = dict(
    type='DualInputSegDataPreProcessor',
    mean=[123.675, 116.28, 103.53] * 2,
    std=[58.395, 57.12, 57.375] * 2,
    bgr_to_rgb=True,
    size_divisor=32,
    pad_val=0,
    seg_pad_val=255,
    test_cfg=dict(size_divisor=32))
model = dict(
    type='SiamEncoderDecoder',
    data_preprocessor=data_preprocessor,
    pretrained=None,
    backbone=dict(
        type='mmseg.ResNetV1c', depth=18, stem_channels=8, base_channels=8, norm_cfg=norm_cfg),
    neck=dict(type='FeatureFusionNeck', policy='abs_diff', out_indices=[0, 1, 2, 3]),
    decode_head=dict(
        type='UNetHead',
        num_classes=2,
        ignore_index=255,
        in_channels=[8, 16, 32, 64],
        in_index=[0, 1, 2, 3],
        channels=8,
        dropout_ratio=0.1,
        encoder_channels=[8, 16, 32, 64],
        decoder_channels=[16, 16, 8, 8],
        n_blocks=4,
        use_batchnorm=True,
        center=False,
        attention_type=None,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='mmseg.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
train_pipeline = [
    dict(type='MultiImgLoadImageFromFile'),
    dict(type='MultiImgLoadAnnotations'),
    dict(type='MultiImgRandomRotFlip', rotate_prob=0.5, flip_prob=0.5, degree=(-20, 20)),
    dict(type='MultiImgRandomCrop', crop_size=(48, 48), cat_max_ratio=0.75),
    dict(type='MultiImgExchangeTime', prob=0.5),
    dict(
        type='MultiImgPhotoMetricDistortion',
        brightness_delta=10,
        contrast_range=(0.8, 1.2),
        saturation_range=(0.8, 1.2),
        hue_delta=10),
    dict(type='MultiImgPackSegInputs')]
test_pipeline = [
    dict(type='MultiImgLoadImageFromFile'),
    dict(type='MultiImgResize', scale=(96, 96), keep_ratio=True),
    dict(type='MultiImgLoadAnnotations'),
    dict(type='MultiImgPackSegInputs')]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='LEVIR_CD_Dataset',
        data_root='data',
        data_prefix=dict(
            img_path_from='train/A', img_path_to='train/B', seg_map_path='train/label'),
        pipeline=train_pipeline))
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='LEVIR_CD_Dataset',
        data_root='data',
        data_prefix=dict(img_path_from='test/A', img_path_to='test/B', seg_map_path='test/label'),
        pipeline=test_pipeline))
val_dataloader = test_dataloader
val_evaluator = dict(type='mmseg.IoUMetric', iou_metrics=['mFscore', 'mIoU'])
test_evaluator = [val_evaluator, dict(type='mmrsfm.CDMetric')]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2, save_best='mIoU'),
    visualization=dict(type='CDVisualizationHook', interval=1, img_shape=(256, 256, 3), draw=True))
vis_backends = [dict(type='CDLocalVisBackend')]
visualizer = dict(
    type='CDLocalVisualizer', vis_backends=vis_backends, name='visualizer', alpha=1.0)
log_processor = dict(by_epoch=False)
log_level = 'INFO'
work_dir = 'work'
"""

RUN = """
from mmengine.config import Config
from mmengine.runner import Runner

runner = Runner.from_cfg(Config.fromfile('config.py'))
runner.train()
metrics = runner.test()
import json
print('METRICS', json.dumps({key: float(value) for key, value in metrics.items()}))
print('CLASSES', type(runner.model).__module__, type(runner.model.decode_head).__module__)
"""


def prefixed(text):
    names = r'(DualInput|Siam|FeatureFusion|UNetHead|MultiImg|LEVIR_CD|CDVis|CDLocal)'
    return re.sub(rf"type='{names}", r"type='opencd.\1", text)


@pytest.mark.parametrize(
    'write',
    [pytest.param(str, id='bare'), pytest.param(prefixed, id='prefixed', marks=pytest.mark.slow)],
)
def test_trains_and_tests_by_the_runner_of_mmengine(write, tmp_path):
    text = write(CONFIG)
    assert (text.count("'opencd.") > 10) == (write is prefixed)
    make_levir_cd(tmp_path / 'data', count=2, size=70)
    (tmp_path / 'config.py').write_text(text)
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', RUN],
        cwd=tmp_path,
        env=environment | {'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-3000:]
    # MMEngine looks for a package of this name, for every object that it builds.
    assert 'opencd.registry' not in output
    assert 'CLASSES mmrsfm.compat.opencd.models' in output
    (checkpoint,) = (tmp_path / 'work').glob('iter_*.pth')
    assert checkpoint.name == 'iter_2.pth'
    metrics = json.loads(output.split('METRICS ')[1].splitlines()[0])
    assert {'mIoU', 'mFscore', 'F1', 'IoU', 'OA', 'kappa'} <= set(metrics)
    # One picture for each pair, of its size and with its name, nothing but black and white.
    names = {path.stem for path in (tmp_path / 'data' / 'test' / 'A').iterdir()}
    (folder,) = (tmp_path / 'work').glob('*/vis_data/vis_image')
    assert {path.stem for path in folder.glob('*.png')} == names
    for path in folder.glob('*.png'):
        picture = np.array(Image.open(path))
        assert picture.shape == (70, 70, 3)
        assert set(np.unique(picture)) <= {0, 255}
