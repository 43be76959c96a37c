# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The environment report and the check that the set-up script ends with."""

import subprocess
import sys
from importlib import metadata

import pytest

from mmrsfm.utils import collect_env as module


def test_the_command_reports_and_checks(tmp_path):
    command = [sys.executable, '-W', 'error::RuntimeWarning', '-m', 'mmrsfm.utils.collect_env']
    result = subprocess.run([*command, '--check'], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout == 'the installation works\n'


def test_the_report_names_every_package():
    report = module.collect_env()
    for name in ('Python', 'PyTorch', 'C++ compiler', 'rasterio', 'mmcv operators', 'mmrsfm'):
        assert name in report
    for package in module.MM_PACKAGES:
        assert metadata.version(package.fork) in report[package.module]
        assert package.fork_range in report[package.module]
    assert not report['mmcv operators'].startswith('n/a')


def test_a_broken_operator_is_one_line_with_the_repair(monkeypatch, capsys):
    def fail():
        raise RuntimeError('undefined symbol:\n_ZN3c10')

    monkeypatch.setattr(module, '_run_nms_rotated', fail)
    assert module.main(['--check']) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        'problem: the operator mmcv.ops.nms_rotated fails on the CPU: '
        'RuntimeError: undefined symbol: _ZN3c10; repair: pip install --force-reinstall'
    )
    assert len(lines) == 2


def test_a_broken_import_is_named_once(monkeypatch):
    real = module.importlib.import_module

    def import_module(name, *args):
        if name.startswith('mmcv'):
            raise OSError('libGL.so.1: cannot open shared object file')
        return real(name, *args)

    monkeypatch.setattr(module.importlib, 'import_module', import_module)
    (problem,) = [line for line in module.find_problems() if 'libGL' in line]
    assert problem.startswith("'import mmcv' fails: OSError: libGL.so.1")


def test_requirements_are_checked_like_pip_does(monkeypatch):
    monkeypatch.setattr(module, 'MM_PACKAGES', ())
    monkeypatch.setattr(
        module.metadata,
        'requires',
        lambda name: [
            'numpy<1.0',
            'no-such-thing-anywhere',
            'pytest>=1',
            "no-extra; extra == 'x'",
            "no-windows; sys_platform == 'win32'",
        ],
    )
    numpy = metadata.version('numpy')
    assert module._unmet_requirements() == [
        f"mmrsfm needs numpy<1.0, but numpy {numpy} is installed; repair: pip install 'numpy<1.0'",
        'mmrsfm needs no-such-thing-anywhere, which is not installed; '
        "repair: pip install 'no-such-thing-anywhere'",
    ]


def test_any_opencv_wheel_will_do(monkeypatch):
    def version(name):
        if name == 'opencv-python-headless':
            return '4.12.0.88'
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(module.metadata, 'version', version)
    assert module._version_of('opencv_python') == '4.12.0.88'
    assert module._version_of('numpy') is None


def test_unknown_arguments_are_refused():
    with pytest.raises(SystemExit):
        module.main(['--chek'])
