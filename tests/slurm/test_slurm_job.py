# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What tools/slurm_job.sh does with a job, by programs that stand for Slurm's."""

import os
import subprocess

import pytest

from tests.test_engine.toy import REPO

PROGRAMS = {
    'srun': '[ -z "$OWN" ] || echo $OWN > "$MMRSFM_STATUS_FILE"\nexit $STATUS',
    'squeue': 'case $* in *%T*) echo $STATE ;; *%k*) cat comment ;; esac',
    'scontrol': (
        'case $1 in\n'
        'requeue) echo $2 > requeued ;;\n'
        'update) [ -n "$MUTE" ] && exit 1; echo "${3#comment=}" > comment ;;\n'
        'esac'
    ),
}


@pytest.fixture
def slurm(tmp_path):
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(f'#!/bin/bash\n{text}\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / 'comment').write_text('(null)\n')

    def run(status, own='', state='RUNNING', **more):
        (tmp_path / 'requeued').unlink(missing_ok=True)
        variables = dict(STATUS=str(status), OWN=str(own), STATE=state, SLURM_JOB_ID='7', **more)
        path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
        result = subprocess.run(
            ['bash', str(REPO / 'tools/slurm_job.sh'), 'train'],
            env={'PATH': path, **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        again = (tmp_path / 'requeued').exists()
        assert not list(tmp_path.glob('.slurm*'))
        assert result.returncode == (0 if again else int(own or status)), result.stderr
        return again

    run.comment = tmp_path / 'comment'
    return run


def test_what_is_queued_again(slurm):
    assert not slurm(0)
    assert not slurm(1)
    for _ in range(5):
        assert slurm(75)
    # Processes that srun has ended do not hide why.
    assert slurm(143, own=75)
    assert slurm(137, own=75)
    assert not slurm(143, own=1)
    assert not slurm(137, own=2)
    assert not slurm(75, state='CANCELLED')
    assert slurm.comment.read_text() == '(null)\n'


def test_kills_have_a_limit(slurm):
    assert not slurm(137, MAX_FAILURES='0')
    assert not slurm(143, state='COMPLETING')  # Slurm's own: no failure
    assert [slurm(137) for _ in range(5)] == [True, True, True, False, False]
    assert slurm(75)
    assert slurm.comment.read_text() == 'failures: 3\n'
    slurm.comment.write_text('9 lives\n')  # somebody else's
    assert slurm(139)


def test_kills_have_a_limit_where_no_comment_can_be_kept(slurm):
    restarts = [slurm(137, MUTE='1', SLURM_RESTART_COUNT=str(count)) for count in range(5)]
    assert restarts == [True, True, True, False, False]
