# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Two ranks on the CPU, under torchrun and under MPI."""

import contextlib
import os
import shutil
import socket
import subprocess

import pytest

from tests.processes import FreshPython
from tests.test_engine.toy import (
    REPO,
    TOY_IMPORTS,
    read_ranks,
    toy_environment,
    write_ranked_config,
)

pytestmark = pytest.mark.timeout(200)


@pytest.fixture(scope='module')
def python():
    """Has imported what the toy config needs, which takes longer than the toy."""
    with FreshPython(TOY_IMPORTS) as fresh:
        yield fresh.executable


def run(command, folder, **variables):
    """Runs a command in a process group of its own, which does not outlive it."""
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=folder,
        env=toy_environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=90)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait(10)
    return process.returncode, output


def check_ranks(ranks, epochs):
    assert {rank['wrapper'] for rank in ranks} == {'MMDistributedDataParallel'}
    assert ranks[0]['weights'] == ranks[1]['weights']
    for epoch in range(epochs):
        first, second = (set(rank['seen'][6 * epoch : 6 * epoch + 6]) for rank in ranks)
        assert first | second == set(range(12))
        assert not first & second


def test_dist_train_resumed_and_dist_test(python, tmp_path):
    config = write_ranked_config(tmp_path)
    script = ['bash', REPO / 'tools/dist_train.sh', config, '2']
    options = ['--cfg-options', 'find_unused_parameters=True', 'model.leave_unused=True']
    whole = ['--work-dir', tmp_path / 'whole', *options, 'train_cfg.max_epochs=2']
    code, output = run([*script, *whole], tmp_path, PYTHON=python)
    assert code == 0, output
    ranks = read_ranks(tmp_path)
    check_ranks(ranks, 2)
    assert all(rank['find_unused'] for rank in ranks)

    first = tmp_path / 'whole/epoch_1.pth'
    code, output = run(
        [*script, '--work-dir', tmp_path / 'rest', '--resume', first, *options,
         'train_cfg.max_epochs=2'],
        tmp_path,
        PYTHON=python,
    )  # fmt: skip
    assert code == 0, output
    resumed = read_ranks(tmp_path)
    for old, new in zip(ranks, resumed, strict=True):
        assert new['seen'] == old['seen'][6:]
        assert new['weights'] == old['weights']  # to the last bit, dropout included

    code, output = run(
        ['bash', REPO / 'tools/dist_test.sh', config, tmp_path / 'rest/epoch_2.pth', '2',
         '--work-dir', tmp_path / 't', '--out', tmp_path / 'out.pkl'],
        tmp_path,
        PYTHON=python,
        PORT=str(_free_port()),
    )  # fmt: skip
    assert code == 0, output
    assert 'acc: 4.0000  distinct: 4.0000' in output  # collected, without padding
    assert (tmp_path / 'out.pkl').stat().st_size > 0


@pytest.mark.parametrize('gpus', [[], ['two'], ['0']])
@pytest.mark.parametrize('launcher', ['dist', 'mpi'])
def test_wrong_use_of_the_script(tmp_path, launcher, gpus):
    code, output = run(['bash', REPO / f'tools/{launcher}_train.sh', 'toy.py', *gpus], tmp_path)
    assert code == 2, output
    assert 'GPUS' in output
    rest = ['checkpoint.pth', *gpus]
    code, output = run(['bash', REPO / f'tools/{launcher}_test.sh', 'toy.py', *rest], tmp_path)
    assert code == 2, output
    assert 'GPUS' in output


def test_mpi_where_there_is_none(tmp_path):
    # All that the script needs but mpirun.
    for name in ('dirname', 'bash'):
        (tmp_path / name).symlink_to(shutil.which(name))
    script = ['bash', REPO / 'tools/mpi_train.sh', 'toy.py', '2']
    code, output = run(script, tmp_path, PATH=str(tmp_path))
    assert code == 2, output
    assert 'mpirun is not installed' in output


def _free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def test_mpi(python, tmp_path):
    config = write_ranked_config(tmp_path)
    options = ['--work-dir', tmp_path / 'w', '--cfg-options', 'train_cfg.max_epochs=1']
    if shutil.which('mpirun'):
        variables = {
            'PYTHON': python,
            'MPIRUN_ARGS': '--oversubscribe',
            'OMPI_ALLOW_RUN_AS_ROOT': '1',
            'OMPI_ALLOW_RUN_AS_ROOT_CONFIRM': '1',
        }
        script = ['bash', REPO / 'tools/mpi_train.sh', config, '2']
        code, output = run([*script, *options], tmp_path, **variables)
        assert code == 0, output
        code, output = run(
            ['bash', REPO / 'tools/mpi_test.sh', config, tmp_path / 'w/epoch_1.pth', '2',
             '--work-dir', tmp_path / 't'],
            tmp_path,
            **variables,
        )  # fmt: skip
        assert code == 0, output
        assert 'acc: 4.0000  distinct: 4.0000' in output  # collected, without padding
    else:  # tests/slurm/setup.sh installs it; here its variables are set by hand
        script = [python, REPO / 'tools/train.py', config]
        command = [*script, *options, '--launcher', 'mpi']
        port = str(_free_port())
        processes = [
            subprocess.Popen(
                [str(part) for part in command],
                cwd=tmp_path,
                env=toy_environment()
                | {
                    'OMPI_COMM_WORLD_RANK': str(rank),
                    'OMPI_COMM_WORLD_SIZE': '2',
                    'OMPI_COMM_WORLD_LOCAL_RANK': str(rank),
                    'OMPI_COMM_WORLD_LOCAL_SIZE': '2',
                    'MASTER_PORT': port,
                },
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for rank in range(2)
        ]
        try:
            assert [process.wait(90) for process in processes] == [0, 0]
        finally:
            for process in processes:
                process.kill()
                process.wait(10)
    check_ranks(read_ranks(tmp_path), 1)
