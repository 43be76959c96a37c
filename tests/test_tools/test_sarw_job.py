# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The demonstration of SAR-W-MixMAE on made-up imagery: data, training, numbers, pictures."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from mmengine.runner import Runner
from rasterio.transform import from_origin

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / 'tools' / 'demo'))

import data_sarw  # noqa: E402
import sarw_job as job  # noqa: E402

from mmrsfm.engine import run_config  # noqa: E402


@pytest.fixture
def strips(tmp_path, monkeypatch):
    """A scene, and what is cut from it, where the config looks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'source').mkdir()
    rng = np.random.default_rng(0)
    sar = rng.normal(-12, 5, (4, 200, 200)).astype(np.float32)
    sar[:, :80] = np.nan
    with rasterio.open(
        tmp_path / 'source' / data_sarw.SCENE, 'w', driver='GTiff', count=4, width=200, height=200,
        dtype='float32', crs='EPSG:32631', transform=from_origin(592317, 5750102, 4.5, 4.5),
    ) as out:  # fmt: skip
        out.write(sar)
    data_sarw.build_strips(tmp_path / 'source', job.DATA / 'sar')
    return sar


def test_areas_are_apart_and_bands_are_named(strips):
    columns = []
    for area, window in data_sarw.AREAS.items():
        with rasterio.open(job.DATA / 'sar' / area / 'strip.tif') as strip:
            assert strip.descriptions == ('VH', 'VV')
            rows, cols = window.toslices()
            np.testing.assert_array_equal(strip.read(), strips[2:][:, rows, cols])
            left = round((strip.bounds.left - 592317) / 4.5)
            columns.append((left, left + strip.width))
    assert columns == [(0, 148), (152, 200)]


@pytest.mark.filterwarnings('ignore')
def test_trains_measures_and_draws(strips, tmp_path, capsys):
    cfg = run_config.load_config(
        job.CONFIG,
        {
            'train_cfg.max_iters': 2,
            'train_dataloader.batch_size': 4,
            'default_hooks.checkpoint.interval': 2,
            'default_hooks.logger.interval': 1,
            'work_dir': str(tmp_path / 'work'),
        },
    )
    run_config.set_dataloader_defaults(cfg)
    Runner.from_cfg(cfg).train()
    first, last = job.losses(tmp_path / 'work', 1)
    assert first > 0 and last > 0
    checkpoint = job.latest_checkpoint(tmp_path / 'work')
    results = {
        'random': [job.measure(None, 0, tmp_path / 'test')],
        'pretrained': [job.measure(checkpoint, 0, tmp_path / 'test')],
        'training area': [job.measure(checkpoint, 0, tmp_path / 'test', on_train=True)],
    }
    assert results['random'] != results['pretrained'] != results['training area']
    job.print_numbers(results, [(first, last)])
    shown = capsys.readouterr().out
    assert 'VV, of what is no grey level (%)' in shown
    assert 'NOT Sentinel-1' in shown
    picture = job.draw(checkpoint, 0, tmp_path / 'test', tmp_path / 'out' / 'picture.png')
    assert cv2.imread(str(picture)).shape[1] > 1000


@pytest.mark.parametrize(('detail', 'says'), [(3.0, '2 of 2 seed(s) predict more'), (-1.0, '0 of')])
def test_the_verdict_is_what_the_numbers_say(detail, says):
    row = {f'{band}/explained_detail': detail for band in data_sarw.BANDS}
    text = job.verdict({'pretrained': [row] * 2})
    assert says in text
    assert ('The others' in text) == (detail < 0)
