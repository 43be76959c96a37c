# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""``custom_imports=dict(imports=['mmrsfm'])`` in configs of the four task libraries.

Each runs in a process of its own, in a foreign folder, by the library's own runner; nothing of
mmrsfm is imported but by the config. The models are the libraries' own, with another backbone.
"""

import importlib.util
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.processes import FreshPython

BACKBONE = """dict(
    _delete_=True,
    type='mmrsfm.CrossScaleViT',
    arch=dict(embed_dims=16, num_layers=4, num_heads=2, feedforward_channels=32),
    img_size=32,
    patch_size=8,
    {},
)"""

HEADER = """
default_scope = '{scope}'
custom_imports = dict(imports=['mmrsfm'], allow_failed_imports=False)
work_dir = 'work'
"""

TRAINING = """
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='InfiniteSampler'),
    dataset=dataset,
)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
)
log_processor = dict(by_epoch=False)
"""

SEGMENTATION = (
    """
_base_ = ['CONFIGS/_base_/models/upernet_vit-b16_ln_mln.py', 'CONFIGS/_base_/default_runtime.py']
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(32, 32)),
    backbone="""
    + BACKBONE.format("out_type='pyramid'")
    + """,
    neck=None,
    decode_head=dict(in_channels=[16] * 4, channels=8, num_classes=3, norm_cfg=dict(type='BN')),
    auxiliary_head=None,
)
dataset = dict(
    type='BaseSegDataset',
    metainfo=dict(classes=('a', 'b', 'c')),
    data_root='data',
    data_prefix=dict(img_path='img', seg_map_path='ann'),
    img_suffix='.png',
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(type='mmrsfm.RandomRot90'),
        dict(type='PackSegInputs'),
    ],
)
"""
    + TRAINING
)

CLASSIFICATION = (
    """
_base_ = ['mmpretrain::_base_/models/vit-base-p16.py', 'mmpretrain::_base_/default_runtime.py']
model = dict(
    backbone="""
    + BACKBONE.format("out_type='cls_token'")
    + """,
    head=dict(num_classes=2, in_channels=16),
)
data_preprocessor = dict(num_classes=2)
dataset = dict(
    type='CustomDataset',
    data_root='data/classes',
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='mmrsfm.RandomRot90'),
        dict(type='PackInputs'),
    ],
)
"""
    + TRAINING
)

DETECTION = (
    """
_base_ = '{base}'
model = dict(
    backbone="""
    + BACKBONE.format("out_type='pyramid'").replace('{', '{{').replace('}', '}}')
    + """,
    neck=dict(in_channels=[16] * 4, out_channels=16),
    bbox_head=dict(in_channels=16, feat_channels=16),
)
train_pipeline = [dict(type='mmrsfm.RandomRot90')]
"""
)

BUILD = """
import sys
import torch
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from mmengine.runner import Runner

cfg = Config.fromfile('config.py')
runner = Runner.from_cfg(cfg)
features = runner.model.extract_feat(torch.randn(1, 3, 64, 64))
transform = TRANSFORMS.build(cfg.train_pipeline[0])
print(type(runner.model.backbone).__name__, len(features), type(transform).__module__)
"""


@pytest.fixture(scope='module')
def python():
    """Has imported MMEngine and MMCV, as each trainer does first."""
    with FreshPython() as fresh:
        yield fresh.executable


def run(command, folder):
    """Runs without this repository on the path: mmrsfm is found because it is installed."""
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    environment['OMP_NUM_THREADS'] = '1'
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


def write_images(folder, labels=False):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(2):
        shape = (32, 32) if labels else (32, 32, 3)
        values = rng.integers(0, 3 if labels else 256, shape, dtype=np.uint8)
        Image.fromarray(values).save(folder / f'{number}.png')


@pytest.mark.parametrize(
    ('library', 'text'), [('mmseg', SEGMENTATION), ('mmpretrain', CLASSIFICATION)]
)
def test_two_iterations_by_the_trainer_of_the_library(library, text, python, tmp_path):
    write_images(tmp_path / 'data' / 'img')
    write_images(tmp_path / 'data' / 'ann', labels=True)
    for name in ('field', 'town'):
        write_images(tmp_path / 'data' / 'classes' / name)
    package = Path(importlib.util.find_spec(library).origin).parent
    # Not 'mmseg::': MMEngine looks for 'mmsegmentation', the fork has another name.
    text = text.replace('CONFIGS', str(package / '.mim' / 'configs'))
    (tmp_path / 'config.py').write_text(text + HEADER.format(scope=library))
    run([python, str(package / '.mim' / 'tools' / 'train.py'), 'config.py'], tmp_path)
    (checkpoint,) = (tmp_path / 'work').glob('*.pth')
    assert checkpoint.name == 'iter_2.pth'
    (log,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    assert log.read_text().count('"loss"') == 2


@pytest.mark.parametrize(
    ('library', 'base'),
    [
        ('mmdet', 'mmdet::_base_/models/retinanet_r50_fpn.py'),
        ('mmrotate', 'mmrotate::rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota.py'),
    ],
)
def test_detectors_are_built_by_the_runner_of_the_library(library, base, python, tmp_path):
    text = DETECTION.format(base=base) + HEADER.format(scope=library)
    (tmp_path / 'config.py').write_text(text)
    # As each library's own tools/train.py starts.
    register = f'from {library}.utils import register_all_modules\n'
    register += 'register_all_modules(init_default_scope=False)\n'
    (tmp_path / 'build.py').write_text(register + BUILD)
    out = run([python, 'build.py'], tmp_path)
    assert out.split()[-3:] == ['CrossScaleViT', '5', 'mmrsfm.datasets.transforms.random_rot90']
