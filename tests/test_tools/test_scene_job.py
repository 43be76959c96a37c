# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The demonstration on whole scenes: its data, its comparison, and which scenes it makes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from mmengine.config import Config
from rasterio.transform import from_origin

from tests.test_tools.test_demo_tasks import write_atlanta

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / 'tools' / 'demo'))

import data_neon  # noqa: E402
import scene_job as job  # noqa: E402
from compare_maps import compare_maps  # noqa: E402
from data_scenes import CHANGE, build_scenes  # noqa: E402


def write_map(path, values, left=0, top=0):
    with rasterio.open(
        path, 'w', driver='GTiff', height=values.shape[0], width=values.shape[1], count=1,
        dtype='uint8', nodata=255, crs='EPSG:32618',
        transform=from_origin(4e5 + 10 * left, 4e6 - 10 * top, 10, 10),
    ) as out:  # fmt: skip
        out.write(values, 1)
    return path


def finish(folder):
    """What a finished training leaves, in a folder that was moved."""
    folder.mkdir(parents=True)
    (folder / 'last_checkpoint').write_text('/elsewhere/iter_1.pth')
    (folder / 'iter_1.pth').write_text('weights')
    (folder / '.training.done').write_text('stamp')


def test_maps_are_compared_where_there_are_labels(tmp_path):
    found = np.zeros((8, 6), np.uint8)
    found[:, 3:] = 1
    found[7] = 255
    labels = np.zeros((4, 4), np.uint8)
    labels[:, 1:] = 1  # of columns 1 to 4, rows 4 to 7: one column is 1 that the map says is 0
    labels[0, 0] = 255
    agree, scores = compare_maps(
        write_map(tmp_path / 'map.tif', found), write_map(tmp_path / 'labels.tif', labels, 1, 4)
    )
    assert agree == 8 / 11  # a row and a pixel do not count
    assert scores == {0: 2 / 5, 1: 6 / 9}


def test_the_pair_of_scenes_differs_where_the_labels_say_so(tmp_path):
    build_scenes(write_atlanta(tmp_path / 'source'), tmp_path)
    images = {}
    for name in ('atlanta', 'before', 'after'):
        with rasterio.open(tmp_path / f'{name}.tif') as source:
            assert (source.count, source.crs.to_epsg(), source.res) == (3, 32616, (0.5, 0.5))
            images[name] = source.read(1).astype(int)
    with rasterio.open(tmp_path / CHANGE) as source:
        change = source.read(1)
    assert (change[:, 300:] == 255).all()
    assert set(np.unique(change[:, :300])) == {0, 1}
    moved = np.abs(images['before'] - images['after'])[:, :300]
    assert moved[change[:, :300] == 1].mean() > 2 * moved[change[:, :300] == 0].mean()


def test_scenes_are_made_where_their_model_is(tmp_path, monkeypatch, capsys):
    every = job.scenes(tmp_path)
    assert all(scene.config.is_file() for scene in every.values())
    assert set(every) == {'sentinel2', 'hbb', 'obb', 'cd'}
    made = []

    def train(work):
        folder = work / 'quickstart' / 'pretrained_seed0'
        finish(folder)

    def make(name, scene, out, threads):
        made.append(name)
        out.mkdir(parents=True)
        report = dict(tiles=3, seconds_per_megapixel=1.5, waiting_share=0.25,
                      outputs=dict(map='scene.tif'))  # fmt: skip
        (out / 'x.json').write_text(json.dumps(report))
        return {'score': f'score of {name}', 'report': str(out / 'x.json')}

    finish(tmp_path / 'quickstart_cd' / 'train')
    stopped = tmp_path / 'quickstart_obb' / 'train'  # in the middle: no model yet
    stopped.mkdir(parents=True)
    (stopped / 'last_checkpoint').write_text('iter_2.pth')
    monkeypatch.setattr(job, 'train_sentinel2', train)
    monkeypatch.setattr(job, 'make_map', make)
    monkeypatch.setattr(job.os, 'chdir', lambda _: None)
    monkeypatch.setattr(sys, 'argv', ['scene_job.py', '--work-dir', str(tmp_path)])
    job.main()
    assert made == ['sentinel2', 'cd']
    text = capsys.readouterr().out
    assert 'score of cd' in text
    assert '25.0% waiting for data' in text
    assert 'quickstart.sh --task hbb' in text
    assert 'quickstart.sh --task obb' in text
    assert set(json.loads((tmp_path / 'quickstart_scene' / 'summary.json').read_text())) == set(
        made
    )


def test_trees_of_the_whole_scene_are_found_by_the_detector_that_saw_all_other_images(
    tmp_path, monkeypatch
):
    few = job.scenes(tmp_path)['hbb']
    assert few.model == tmp_path / 'quickstart_hbb' / 'train'
    assert '--train-trees' in few.remark
    finish(tmp_path / 'quickstart_scene_trees' / 'train')
    more = job.scenes(tmp_path)['hbb']
    assert more.model == tmp_path / 'quickstart_scene_trees' / 'train'
    assert more.config == job.TREES_CONFIG
    assert '483 boxes' in more.remark

    names = data_neon.SCENE_SPLITS
    assert set(names['train']) == {name for part in data_neon.SPLITS.values() for name in part}
    assert not set(names['train']) & set(names['test'])
    cfg = Config.fromfile(job.TREES_CONFIG)
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end == 800
    roots = {cfg[f'{part}_dataloader'].dataset.data_root for part in ('train', 'test')}
    assert roots == {f'{job.NEON.with_name("scene")}/'}
    ran = []
    monkeypatch.setattr(job, 'fetch_sample', lambda *_: tmp_path)
    monkeypatch.setattr(job, 'prepare_once', lambda target, build, *_: (target, build))
    monkeypatch.setattr(job, 'run_jobs', lambda jobs, threads: ran.extend(jobs))
    job.train_trees(tmp_path)
    assert ran[0].inputs[-1] == (job.NEON.with_name('scene'), data_neon.build_neon_scene)
    assert str(job.TREES_CONFIG) in ran[0].command


def test_a_map_is_made_by_the_command_of_a_user(tmp_path, monkeypatch):
    scene = job.scenes(tmp_path)['cd']
    finish(scene.model)
    stamp = tmp_path / 'stamp'
    stamp.write_text('1')
    ran = []
    monkeypatch.setattr(job, 'run_jobs', lambda jobs, threads: ran.extend(jobs))
    monkeypatch.setattr(
        job.subprocess, 'run',
        lambda *_, **__: subprocess.CompletedProcess([], 0, 'first\n97.0% agree\n', ''),
    )  # fmt: skip
    scene = job.Scene(**{**vars(scene), 'prepare': lambda: stamp})
    result = job.make_map('cd', scene, tmp_path / 'out', 2)
    assert result == {'score': '97.0% agree', 'report': str(tmp_path / 'out' / 'before.json')}
    words = [str(word) for word in ran[0].command]
    assert words[1].endswith('tools/infer_scene.py')
    assert words[3] == str(scene.model / 'iter_1.pth')
    assert words[4:6] == [str(path) for path in scene.files]
    assert '--page' in words


@pytest.mark.parametrize('words', [['--task', 'cd'], ['--seeds', '2']])
def test_quickstart_takes_a_scene_alone(words):
    result = subprocess.run(
        ['bash', REPO / 'tools' / 'quickstart.sh', '--scene', *words],
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 2
    assert 'not with --task or --seeds' in result.stderr
