# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""band_statistics.py: numbers against NumPy, by sensor, without what is invalid."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from mmrsfm.engine import command_line, run_config
from mmrsfm.errors import ConfigError
from tests.test_datasets.imagery import write_tif

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'analysis_tools' / 'band_statistics.py'


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('band_statistics', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def made(tmp_path):
    """A config of pairs of two sensors, and what their files hold, (N, H, W, 3) by sensor."""
    rng = np.random.default_rng(0)
    stored = {}
    for place, sensor in enumerate(('umbra', 'capella')):
        images = []
        for number in range(3):
            rgb = rng.integers(0, 255, (2, 20, 20)).astype(np.uint8)
            sar = rng.normal(1e6 * place, 3, (1, 20, 20)).astype(np.float32)
            if number == 1:
                sar[:, :9] = np.nan
            folder = tmp_path / f'{sensor.title()}_patches'
            write_tif(folder / 'rgb' / f'{number}.tif', rgb)
            write_tif(folder / 'sar' / f'{number}.tif', sar)
            images.append(np.concatenate([rgb * 0.01, sar]).transpose(1, 2, 0))
        stored[sensor] = np.stack(images).astype(np.float64)
    loader = dict(
        type='mmrsfm.LoadModalities', modalities=dict(rgb=dict(channels=2, scale=0.01), sar=1)
    )
    pipeline = [loader, dict(type='mmrsfm.RandomFlip', prob=0.5), dict(type='mmrsfm.PackInputs')]
    dataset = dict(type='mmrsfm.MaRS16M', data_root=str(tmp_path), pipeline=pipeline)
    config = tmp_path / 'config.py'
    config.write_text(
        f"default_scope = 'mmpretrain'\ncustom_imports = dict(imports=['mmrsfm'])\n"
        f'train_dataloader = dict(dataset={dataset!r})\n'
    )
    return config, stored


def test_numbers(tool, made):
    config, stored = made
    found = tool.measure(run_config.load_config(config), 100, quiet=True)
    assert set(found) == set(stored)
    for sensor, images in stored.items():
        flat = images.reshape(-1, 3)
        one = found[sensor]
        assert one.names == ('rgb1', 'rgb2', 'sar')
        assert np.allclose(one.mean, np.nanmean(flat, axis=0), rtol=1e-6)
        # 1e6 +- 3: what sums of squares in float32 would not know.
        assert np.allclose(one.std, np.nanstd(flat, axis=0), rtol=1e-5)
        assert np.allclose(one.low, np.nanmin(flat, axis=0), rtol=1e-6)
        assert np.allclose(one.high, np.nanmax(flat, axis=0), rtol=1e-6)
        assert one.count.tolist() == [1200, 1200, 1020]
        assert one.seen == 1200


def test_what_it_prints_goes_into_a_config(tool, made, capsys):
    config, stored = made
    argv = [str(config), '--samples', '6']
    assert command_line.run_command(tool.main, tool.build_parser(), argv) == 0
    printed = capsys.readouterr().out.splitlines()
    assert re.search(r'sar .* 85\.0%', printed[4])
    sensors = eval(f'dict({printed[-1]})')['sensors']
    assert list(sensors) == list(stored)
    assert np.allclose(sensors['umbra']['std'][:2], stored['umbra'].std((0, 1, 2))[:2], rtol=1e-4)
    root = config.parent / 'Capella_patches'
    one = "train_dataloader.dataset.sensors=['capella']"
    argv += ['--cfg-options', one]
    assert command_line.run_command(tool.main, tool.build_parser(), argv) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith('mean=[')
    (root / 'rgb' / '1.tif').unlink()
    assert command_line.run_command(tool.main, tool.build_parser(), argv) == 2


def test_datasets_inside_of_others(tool, made):
    config, stored = made
    cfg = run_config.load_config(config)
    one = cfg.train_dataloader.dataset
    parts = [dict(one, sensors=[name]) for name in stored]
    repeated = dict(type='RepeatDataset', times=3, dataset=parts[1])
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[parts[0], repeated])
    found = tool.measure(cfg, 100, quiet=True)
    assert {name: part.seen for name, part in found.items()} == dict.fromkeys(stored, 1200)
    assert tool.measure(cfg, 1, quiet=True)['umbra'].seen == 400


def test_scale_on_the_device(tool, made):
    config, stored = made
    cfg = run_config.load_config(
        config, {'data_preprocessor': dict(scale_on_device=True, scale=[2.0, 1.0, 1.0], offset=5.0)}
    )
    found = tool.measure(cfg, 100, quiet=True)['umbra']
    expected = np.nanmean(stored['umbra'].reshape(-1, 3), axis=0) * [2, 1, 1] + 5
    assert np.allclose(found.mean, expected)
    with pytest.raises(ConfigError, match='train_dataloader'):
        tool.measure(run_config.load_config(config, {'train_dataloader': None}), 1)
