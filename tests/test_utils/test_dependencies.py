# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The versions that are supported, the check at import, and how light that import is."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from mmrsfm.errors import MissingDependencyError
from mmrsfm.utils import dependencies
from mmrsfm.utils.dependencies import MM_PACKAGES, check_dependencies, check_package, in_range

REPO = Path(__file__).resolve().parents[2]
BY_MODULE = {package.module: package for package in MM_PACKAGES}


@pytest.fixture
def installed(monkeypatch):
    """Pretends that exactly these distributions are installed: name -> version."""

    def pretend(versions):
        def version(name):
            if name in versions:
                return versions[name]
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(dependencies.metadata, 'version', version)

    return pretend


def good_versions():
    return {package.fork: package.fork_range[2:].split(',')[0] for package in MM_PACKAGES}


def test_ranges_agree_with_the_requirements_file():
    lines = (REPO / 'requirements' / 'mminstall.txt').read_text().splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith('#')]
    assert {requirement.name: requirement.specifier for requirement in wanted} == {
        package.fork: SpecifierSet(package.fork_range) for package in MM_PACKAGES
    }


def test_constraints_lie_in_the_ranges():
    pins = dict(
        line.split('==')
        for line in (REPO / 'requirements' / 'constraints.txt').read_text().splitlines()
        if '==' in line
    )
    for package in MM_PACKAGES:
        assert in_range(pins[package.fork], package.fork_range), package.fork


def test_this_environment_is_supported():
    assert [check_package(package) for package in MM_PACKAGES] == [None] * len(MM_PACKAGES)
    check_dependencies()


@pytest.mark.parametrize(
    ('version', 'supported', 'expected'),
    [
        ('2.3.6', '>=2.3.6,<2.4', True),
        ('2.3.6+cu128', '>=2.3.6,<2.4', True),
        ('2.4.0', '>=2.3.6,<2.4', False),
        ('1.0.0rc1', '>=1.0.0rc1,<1.1', True),
        ('0.3.4', '>=1.0.0rc1,<1.1', False),
        ('not a version', '>=1', False),
    ],
)
def test_in_range(version, supported, expected):
    assert in_range(version, supported) is expected


def test_a_wrong_task_library_is_a_warning_that_says_how_to_repair_it(installed):
    installed({**good_versions(), 'onedl-mmsegmentation': '1.2.0'})
    with pytest.warns(UserWarning) as record:
        check_dependencies()
    (warning,) = record
    text = str(warning.message)
    assert 'onedl-mmsegmentation 1.2.0 is installed' in text
    assert 'onedl-mmsegmentation>=1.4.2,<1.5' in text
    assert "pip install --no-build-isolation 'onedl-mmsegmentation>=1.4.2,<1.5'" in text


def test_upstream_names_are_known(installed):
    versions = good_versions()
    del versions['onedl-mmsegmentation']
    installed({**versions, 'mmsegmentation': '1.2.2'})
    check_dependencies()
    installed({**versions, 'mmsegmentation': '0.30.0'})
    with pytest.warns(UserWarning, match=r'mmsegmentation 0\.30\.0 .* mmsegmentation>=1\.2,<1\.3'):
        check_dependencies()


def test_fork_and_upstream_together_are_named(installed):
    installed({**good_versions(), 'mmcv': '2.2.0'})
    with pytest.warns(UserWarning, match='both installed.*pip uninstall -y onedl-mmcv mmcv &&'):
        check_dependencies()


def test_a_wrong_mmengine_is_an_error(installed):
    installed({**good_versions(), 'onedl-mmengine': '0.9.0'})
    with pytest.raises(MissingDependencyError, match=r'0\.9\.0 .*>=0\.10\.12,<0\.11.*pip install'):
        check_dependencies()


def test_absent_task_libraries_are_no_problem(installed):
    installed({'onedl-mmengine': good_versions()['onedl-mmengine']})
    check_dependencies()


def test_an_absent_mmengine_is_an_error(installed, monkeypatch):
    installed({})
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(MissingDependencyError, match='mmengine is not installed'):
        check_dependencies()


def test_importing_mmrsfm_imports_no_task_library(tmp_path):
    """In a process of its own, from a foreign folder, as a user's script would."""
    code = (
        'import json, sys, mmengine; before = set(sys.modules); import mmrsfm; '
        'print(json.dumps(sorted(set(sys.modules) - before)))'
    )
    result = subprocess.run(
        [sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    added = json.loads(result.stdout)
    heavy = {'mmdet', 'mmseg', 'mmrotate', 'mmpretrain', 'mmcv', 'timm', 'torch', 'rasterio'}
    assert 'mmrsfm.registry' in added
    assert not heavy & {name.split('.')[0] for name in added}
