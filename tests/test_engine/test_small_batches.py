# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Published configs (SyncBN, eight GPUs) on one device, with one image, and on CPUs."""

import os
import socket
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmseg')

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

CONFIG = """
default_scope = 'mmseg'
custom_imports = dict(imports=['mmrsfm'])
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=(32, 32)),
    backbone=dict(
        type='ResNetV1c', depth=18, stem_channels=8, base_channels=8,
        norm_cfg=norm_cfg),
    decode_head=dict(
        type='UPerHead', in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3], channels=8,
        pool_scales=(1, 2), num_classes=2, norm_cfg=norm_cfg,
        loss_decode=dict(type='CrossEntropyLoss')),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
train_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type='InfiniteSampler'),
    dataset=dict(
        type='BaseSegDataset', metainfo=dict(classes=('a', 'b')), data_root='data',
        data_prefix=dict(img_path='img', seg_map_path='ann'), img_suffix='.png',
        pipeline=[
            dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')
        ]))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1e-2))
custom_hooks = [dict(type='mmrsfm.BatchNormHook')]
default_hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2))
log_processor = dict(by_epoch=False)
work_dir = 'work'
"""

RANK = """
from mmengine.config import Config
from mmrsfm.engine import launch
from mmengine.runner import Runner

cfg = Config.fromfile('config.py')
launch.configure_distributed(cfg, launch.init_distributed('pytorch'), 'pytorch')
runner = Runner.from_cfg(cfg)
runner.train()
print('TRAINED', runner.iter)
launch.shut_down()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, shape, high in (('img', (32, 32, 3), 256), ('ann', (32, 32), 2)):
        (tmp_path / 'data' / name).mkdir(parents=True)
        for number in range(2):
            values = rng.integers(0, high, shape, dtype=np.uint8)
            Image.fromarray(values).save(tmp_path / 'data' / name / f'{number}.png')
    (tmp_path / 'config.py').write_text(CONFIG)
    return tmp_path


@pytest.mark.filterwarnings('ignore:For binary', 'ignore:Default ``avg')
def test_one_image_behind_a_pool_of_one_pixel(folder):
    cfg = Config.fromfile('config.py')
    without = cfg.copy()
    without.custom_hooks, without.experiment_name = [], 'without'
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        Runner.from_cfg(without).train()
    cfg.experiment_name = 'with'
    runner = Runner.from_cfg(ConfigDict(cfg.to_dict()))
    runner.train()
    assert runner.iter == 2
    pooled = runner.model.decode_head.psp_modules[0][1].bn
    wider = runner.model.decode_head.psp_modules[1][1].bn
    assert pooled.num_batches_tracked == 0 and wider.num_batches_tracked == 2
    assert pooled.training


@pytest.mark.slow
def test_two_ranks_on_cpus(folder):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-c', textwrap.dedent(RANK)],
            env=os.environ
            | {
                'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': '2',
                'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port), 'OMP_NUM_THREADS': '1',
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]
        assert 'TRAINED 2' in output
    assert 'SyncBN runs on GPUs only' in outputs[0]
