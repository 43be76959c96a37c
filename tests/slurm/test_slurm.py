# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Training and testing under a real Slurm, with two tasks on the CPU."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmrsfm.engine.preemption import SignalWatch
from tests.processes import FreshPython
from tests.slurm.local_slurm import LocalSlurm, missing_programs
from tests.test_engine.toy import (
    REPO,
    TOY_IMPORTS,
    read_ranks,
    toy_environment,
    write_ranked_config,
)

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(400)]


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
        | dict(GPUS='0', NTASKS='2', CPUS_PER_TASK='1', PYTHON=python)
        | variables
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


@HOOKS.register_module()
class Troubles(Hook):
    """In its first start the job loses its nodes in step 2; in its second, rank 1 in step 5."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        restarts = int(os.environ.get('SLURM_RESTART_COUNT', '0'))
        step = runner.iter + 1
        (self.folder / f'start{restarts}').touch()
        if (restarts, step) == (0, 2):
            (self.folder / 'reached').touch()
            wait_for(lambda: SignalWatch._active.received, 90)
        if (restarts, step, get_rank()) == (1, 5, 1):
            os.kill(os.getpid(), signal.SIGKILL)


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def has_ended(slurm, job):
    """Whether a job has; one that waits to be started again is started."""
    # Slurm itself would wait for two minutes.
    slurm.run('scontrol', 'update', f'jobid={job}', 'starttime=now')
    found = slurm.run('squeue', '--noheader', f'--jobs={job}', '--format=%T')
    # COMPLETING is also what comes before it waits.
    return found.returncode == 0 and not found.stdout.strip()


def test_requeued_after_preemption_and_a_killed_rank(slurm, python, tmp_path):
    """Real pre-emption, by a job of a partition that goes first; a rank that dies; the same end."""
    config = write_ranked_config(tmp_path)
    with config.open('a') as file:
        file.write(
            "custom_imports['imports'].append('tests.slurm.test_slurm')\n"
            f"custom_hooks.append(dict(type='Troubles', folder='{tmp_path}'))\n"
        )
    variables = environment(slurm, python, MAX_FAILURES='1')
    script = ['bash', str(REPO / 'tools/slurm_train.sh')]

    def train(*flags, work_dir, **more):
        result = slurm.run(
            *script, *flags, 'test', 'toy', str(config), str(tmp_path / work_dir),
            env=variables | more, timeout=100, cwd=tmp_path,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    train(work_dir='whole', SLURM_RESTART_COUNT='9')
    whole = read_ranks(tmp_path)

    log = tmp_path / 'job.log'
    job = re.findall(r'\d+', train('--requeue', work_dir='cut', SRUN_ARGS=f'--output={log}'))[-1]
    wait_for((tmp_path / 'reached').exists)
    urgent = ['--partition=urgent', '--exclusive', '--output=/dev/null', '--wrap=sleep 1']
    slurm.run('sbatch', *urgent, cwd=tmp_path)
    wait_for(lambda: has_ended(slurm, job), 170)
    text = log.read_text()
    assert 'SIGTERM (to rank' in text, text
    assert 'status 75, restart 1: the job is queued again' in text, text
    assert 'status 137, restart 2: the job is queued again' in text, text
    assert 'status 0 after 2 restarts' in text, text
    assert text.count('--resume auto: continues from') >= 2
    assert all((tmp_path / f'start{number}').exists() for number in range(3))
    resumed = read_ranks(tmp_path)
    for old, new in zip(whole, resumed, strict=True):
        assert new['weights'] == old['weights']
        assert new['seen'] == old['seen'][-len(new['seen']) :]
    files = sorted(path.stem for path in (tmp_path / 'cut').glob('*.pth'))
    assert files == ['epoch_1', 'epoch_2', 'epoch_3']


@pytest.mark.slow  # Slurm knows time limits of whole minutes
def test_requeued_before_its_time_is_over(slurm, python, tmp_path):
    """By Slurm's own ``--signal``; without a folder on the command line."""
    config = write_ranked_config(tmp_path)
    with config.open('a') as file:
        file.write(
            "custom_imports['imports'].append('tests.slurm.test_slurm')\n"
            f"custom_hooks.append(dict(type='Troubles', folder='{tmp_path}'))\n"
        )
    log = tmp_path / 'job.log'
    more = dict(SECONDS_TO_SAVE='20', SRUN_ARGS=f'--time=1 --output={log}', MAX_FAILURES='1')
    script = ['bash', str(REPO / 'tools/slurm_train.sh'), '--requeue', 'test', 'toy', str(config)]
    result = slurm.run(*script, env=environment(slurm, python, **more), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    wait_for(lambda: has_ended(slurm, re.findall(r'\d+', result.stdout)[-1]), 380)
    text = log.read_text()
    assert 'SIGUSR1 (to rank 0, 1): the run ends after step 2' in text, text
    assert 'status 75, restart 1: the job is queued again' in text, text
    assert len(list((tmp_path / 'work_dirs').rglob('epoch_3.pth'))) == 1


def test_errors_are_not_requeued(slurm, python, tmp_path):
    """A wrong option, a config that is not there; how a job would continue is its own matter.

    Of two processes srun ends one when the other has ended, and then tells the status of that one.
    """
    script = ['bash', str(REPO / 'tools/slurm_train.sh'), '--requeue', 'test', 'toy']
    result = slurm.run(
        *script, 'toy.py', '--resume', 'x.pth', env=environment(slurm, python), cwd=tmp_path
    )
    assert result.returncode == 2
    assert 'load_from' in result.stderr
    log = tmp_path / 'job.log'
    variables = environment(slurm, python, SRUN_ARGS=f'--output={log}')
    result = slurm.run(*script, 'nope.py', env=variables, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    wait_for(lambda: has_ended(slurm, re.findall(r'\d+', result.stdout)[-1]))
    text = log.read_text()
    assert 'nope.py does not exist' in text, text
    assert 'status 2 after 0 restarts; the job ends' in text, text


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
