# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The environment script says in one sentence what is missing, before anything long starts."""

import os
import signal
import subprocess
import time
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
        ('check_place', {'MMRSFM_VENV': str(REPO / 'tools')}, 'was not made by this script'),
        ('make_venv', {'MMRSFM_VENV': str(REPO / 'README.md')}, 'was not made by this script'),
        (
            'check_network python3',
            {'PIP_NO_INDEX': '1', 'PIP_FIND_LINKS': '/nonexistent'},
            'registry',
        ),
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


def _default_signals():
    # A shell cannot trap what was ignored when it began, as HUP is under nohup.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize('name', ['INT', 'TERM', 'HUP'])
def test_interrupted_step_leaves_no_process(tmp_path, name):
    # The step is a function, as those of the set-up are: a shell with a child.
    script = (
        f'. {REPO}/tools/env.sh; '
        f'step() {{ bash -c "echo \\$\\$ >{tmp_path}/pid; exec sleep 100"; echo went on; }}; '
        "with_progress 'a step' true step"
    )
    process = subprocess.Popen(
        ['bash', '-c', script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, 'MMRSFM_VENV': str(tmp_path / 'a venv')},
        preexec_fn=_default_signals,
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / 'pid').exists() or not (tmp_path / 'pid').read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(getattr(signal, f'SIG{name}'))
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert 'run the same command again' in out
    stat = Path('/proc', (tmp_path / 'pid').read_text().strip(), 'stat')
    assert not stat.exists() or ') Z ' in stat.read_text()  # some containers keep zombies


def test_an_interrupted_environment_is_made_anew_and_others_are_not_touched(tmp_path):
    venv = tmp_path / 'a venv'
    (venv / '.mmrsfm').mkdir(parents=True)
    (venv / 'half').touch()
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').touch()
    # In place of the real module, which takes seconds.
    fake = 'PYTHON=fake; fake() { mkdir -p "$3/bin"; }; make_venv'
    assert call(fake, tmp_path, MMRSFM_VENV=str(venv)).returncode == 0
    assert sorted(path.name for path in venv.iterdir()) == ['.mmrsfm', 'bin']
    assert call(fake, tmp_path, MMRSFM_VENV=str(tmp_path / 'mine')).returncode == 1
    assert (tmp_path / 'mine' / 'thesis.txt').exists()


def test_relative_place_is_where_the_user_is(tmp_path):
    run = call(f'cd {tmp_path}; MMRSFM_VENV=sub . {REPO}/tools/env.sh; echo "$VENV"', tmp_path)
    assert run.stdout.strip() == f'{tmp_path}/sub'


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


@pytest.mark.parametrize('arguments', [['--nonsense'], ['--seeds'], ['--seeds', '0'], ['--venv']])
def test_wrong_arguments_are_refused_before_anything_starts(arguments):
    run = subprocess.run(
        ['sh', f'{REPO}/tools/quickstart.sh', *arguments],  # sh: it hands over to bash
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert run.returncode == 2
    assert arguments[0] in run.stderr
    assert not run.stdout
