# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Training and testing under a real Slurm, with two tasks on the CPU."""

import os
import re
import subprocess
import sys

import pytest

from tests.processes import FreshPython
from tests.slurm.local_slurm import LocalSlurm, missing_programs
from tests.test_engine.toy import (
    REPO,
    TOY_IMPORTS,
    read_ranks,
    toy_environment,
    write_ranked_config,
)

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]


@pytest.fixture(scope='session')
def slurm():
    missing = missing_programs()
    if missing:
        pytest.skip(f'not installed: {", ".join(missing)} (tests/slurm/setup.sh installs them)')
    with LocalSlurm() as cluster:
        yield cluster


@pytest.fixture(scope='module')
def python():
    """Has imported what the toy config needs, which takes longer than the toy."""
    with FreshPython(TOY_IMPORTS) as fresh:
        yield fresh.executable


def environment(slurm, python, **variables):
    return (
        toy_environment()
        | {name: slurm.environ[name] for name in ('SLURM_CONF', 'PATH')}
        | dict(GPUS='0', NTASKS='2', CPUS_PER_TASK='1', PYTHON=python, **variables)
    )


def test_train_and_test(slurm, python, tmp_path):
    config = write_ranked_config(tmp_path)
    work_dir = tmp_path / 'work'
    result = slurm.run(
        'bash',
        str(REPO / 'tools/slurm_train.sh'),
        'test',
        'toy',
        str(config),
        str(work_dir),
        '--cfg-options',
        'train_cfg.max_epochs=1',
        env=environment(slurm, python),
        timeout=100,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    ranks = read_ranks(tmp_path)
    assert {rank['wrapper'] for rank in ranks} == {'MMDistributedDataParallel'}
    assert ranks[0]['weights'] == ranks[1]['weights']
    assert set(ranks[0]['seen']) | set(ranks[1]['seen']) == set(range(12))
    assert not set(ranks[0]['seen']) & set(ranks[1]['seen'])

    result = slurm.run(
        'srun',
        '--ntasks=2',
        '--kill-on-bad-exit=1',
        python,
        str(REPO / 'tools/test.py'),
        str(config),
        str(work_dir / 'epoch_1.pth'),
        '--work-dir',
        str(tmp_path / 'test'),
        '--launcher',
        'slurm',
        env=environment(slurm, python),
        timeout=100,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    # Collected from both ranks, without the padding.
    metrics = re.search(r'acc: (\S+)\s+distinct: (\S+)', result.stdout + result.stderr)
    assert metrics is not None
    assert [float(value) for value in metrics.groups()] == [4, 4]


def test_slurm_test_script_and_usage_error(slurm, python, tmp_path):
    result = slurm.run(
        'bash',
        str(REPO / 'tools/slurm_test.sh'),
        'test',
        'toy',
        str(tmp_path / 'nope.py'),
        'nope.pth',
        env=environment(slurm, python) | {'NTASKS': '1'},
        timeout=100,
        cwd=tmp_path,
    )
    assert result.returncode == 2
    assert 'does not exist' in result.stderr
    assert 'Traceback' not in result.stderr


def test_nothing_is_left_behind():
    if missing_programs():
        pytest.skip('not installed')
    with LocalSlurm() as cluster:
        script = 'import subprocess, time; subprocess.Popen(["sleep", "77"]); time.sleep(77)'
        job = subprocess.Popen(
            ['srun', '-n1', sys.executable, '-c', script],
            env=cluster.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert cluster._wait(lambda: len(cluster.job_processes()) >= 3, 20)
        daemons = [process.pid for process in cluster.processes]
    job.wait(10)
    assert not cluster.job_processes()
    assert not cluster.folder.exists()
    for pid in daemons:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
