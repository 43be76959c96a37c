# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Registration and translation on GUSO, made small: training, test, files, pictures."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from mmrsfm.engine.run_config import load_config
from mmrsfm.registry import DATASETS
from tests.formats import make_guso
from tests.test_tools.test_train_and_test import tool  # noqa: F401

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'mars' / 'guso'
TINY = dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])


def tiny(tmp_path, config, data):
    """A published config with small encoders without weights, and crops of 64 pixels."""
    (config,) = CONFIGS.glob(config)
    cfg = load_config(config)
    encoders = cfg.model.backbone
    for encoder in encoders.values() if 'rgb' in encoders else [encoders]:
        encoder.update(arch=TINY, init_cfg=None)
    cfg.model.neck.update(in_channels=[16, 32, 64, 128], channels=16)
    if 'decoder' in cfg.model:
        cfg.model.decoder.update(in_channels=16, channels=16)
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        loader.update(num_workers=0, persistent_workers=False, pin_memory=False)
        loader.dataset.data_root = str(data)
    cfg.train_dataloader.batch_size = 2
    assert cfg.train_dataloader.dataset.pipeline[1]['type'] == 'mmrsfm.RandomCrop'
    cfg.train_dataloader.dataset.pipeline[1]['size'] = 64
    cfg.train_cfg.max_epochs = 1
    cfg.param_scheduler = None
    cfg.default_hooks.logger.interval = 1
    path = tmp_path / 'tiny.py'
    cfg.dump(path)
    return path


def run_both(tool, tmp_path, config):  # noqa: F811
    data = make_guso(tmp_path / 'data', count=2, size=64)
    for path in sorted(data.glob('disaster-test/*/disaster_000001.png')):
        path.rename(path.with_name('urban_000001.png'))  # a name that another part has too
    child = tiny(tmp_path, config, data)
    work = tmp_path / 'work'
    assert tool('train', child, '--work-dir', work) == 0
    code = tool(
        'test', child, work / 'epoch_1.pth', '--work-dir', work / 'test', '--out',
        tmp_path / 'out', '--show-dir', tmp_path / 'shown',
    )  # fmt: skip
    assert code == 0
    metrics = json.loads(next((work / 'test').glob('*/*.json')).read_text())
    pictures = sorted(path.name for path in (tmp_path / 'shown').glob('*.png'))
    assert len(pictures) == 4  # two of urban-test, two of disaster-test
    assert pictures[0].startswith('00000_disaster_')
    return metrics, Image.open(tmp_path / 'shown' / pictures[0])


def test_registration(tool, tmp_path):  # noqa: F811
    metrics, picture = run_both(tool, tmp_path, '*matcher*.py')
    assert 0 <= metrics['registration/rmse'] <= 5
    assert picture.size[0] > 4 * 3 * 64  # four panels, three times as large
    table = (tmp_path / 'out' / 'registrations.csv').read_text().splitlines()
    assert len(table) == 5
    for name in (row.split(',')[1] for row in table[1:]):
        assert name == '' or np.loadtxt(tmp_path / 'out' / name).shape == (3, 3)


@pytest.mark.parametrize(('direction', 'bands'), [('sar2rgb', 3), ('rgb2sar', 1)])
def test_translation(tool, tmp_path, direction, bands):  # noqa: F811
    metrics, picture = run_both(tool, tmp_path, f'*{direction}*.py')
    assert math.isfinite(metrics['translation/psnr'])
    assert -1 <= metrics['translation/ssim'] <= 1
    assert picture.size[0] > 3 * 3 * 64
    written = sorted((tmp_path / 'out').rglob('*.tif'))
    assert len(written) == 4
    assert written[0].parts[-3] == 'disaster-test'
    with rasterio.open(written[0]) as file:
        assert (file.count, file.height, file.width, file.dtypes[0]) == (bands, 64, 64, 'uint8')


def test_all_parts_of_a_split_are_read(tmp_path):
    data = make_guso(tmp_path, count=1, size=64)
    dataset = DATASETS.build(
        dict(type='mmrsfm.GUSODataset', data_root=str(data), parts=['*-test', 'urban-val'])
    )
    names = [Path(dataset.get_data_info(n)['img_path']).parts[-3] for n in range(len(dataset))]
    assert names == ['disaster-test', 'urban-test', 'urban-val']
