# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The environment script says in one sentence what is missing, before anything long starts."""

import os
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


def call(function, tmp_path, **environment):
    """Runs one function of tools/env.sh."""
    script = f'. {REPO}/tools/env.sh; PYTHON=${{PYTHON:-python3}}; {function}'
    clean = {k: v for k, v in os.environ.items() if not k.startswith(('MMRSFM_', 'CXX', 'PIP_'))}
    return subprocess.run(
        ['bash', '-c', script],
        capture_output=True,
        text=True,
        timeout=120,
        env={**clean, 'MMRSFM_VENV': str(tmp_path / 'venv'), **environment},
    )


@pytest.mark.parametrize(
    ('function', 'environment', 'sentence'),
    [
        ('find_python', {'MMRSFM_PYTHON': 'no-such-python'}, 'no usable Python 3.11 or 3.12'),
        ('find_python', {'MMRSFM_PYTHON': 'false'}, 'does not start'),
        ('check_compiler', {'CXX': 'no-such-compiler'}, 'no C++ compiler was found'),
        ('check_compiler', {'CXX': 'false'}, 'cannot build a C++17 program'),
        ('MIN_DISK_GB=100000000 check_disk', {}, 'needs about 100000000 GB'),
        ('check_network', {'PIP_NO_INDEX': '1', 'PIP_FIND_LINKS': '/nonexistent'}, 'registry'),
    ],
)
def test_one_clear_sentence(function, environment, sentence, tmp_path):
    run = call(function, tmp_path, **environment)
    assert run.returncode == 1
    errors = [line for line in run.stderr.splitlines() if 'error:' in line]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert not (tmp_path / 'venv').exists()


def test_checks_pass_here(tmp_path):
    run = call('find_python && MIN_DISK_GB=0 check_disk && check_compiler', tmp_path)
    assert run.returncode == 0, run.stderr


def test_failed_step_names_its_log_and_stops(tmp_path):
    run = call("with_progress 'a step' true false; echo went on", tmp_path)
    assert run.returncode == 1
    assert 'a step failed' in run.stderr and 'a_step.log' in run.stderr
    assert 'went on' not in run.stdout


def test_stamps_follow_their_inputs(tmp_path):
    script = 'stamp x "$(hash_of a)"; echo new > a; stamp_is x "$(hash_of a)" || echo stale'
    run = call(f'cd {tmp_path}; echo old > a; {script}', tmp_path)
    assert run.stdout.strip() == 'stale'


@pytest.mark.parametrize('script', ['quickstart.sh', 'run_tests.sh'])
def test_help(script):
    run = subprocess.run(
        ['bash', f'{REPO}/tools/{script}', '--help'], capture_output=True, text=True, timeout=30
    )
    assert run.returncode == 0
    assert 'usage:' in run.stdout


def test_unknown_argument():
    run = subprocess.run(
        ['bash', f'{REPO}/tools/quickstart.sh', '--nonsense'],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert run.returncode == 2
    assert '--nonsense' in run.stderr
