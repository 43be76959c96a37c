# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Says what is installed, and checks that it works.

``python -m mmrsfm.utils.collect_env`` prints what a bug report needs.
``python -m mmrsfm.utils.collect_env --check`` prints one line for each problem, with the command
that repairs it where one is known, and exits with 1 if there is any.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib import metadata

from packaging.requirements import Requirement

from mmrsfm.utils.dependencies import MM_PACKAGES, check_package, installed_distributions

# Imports of these must work; each is named with the pip command that brings it.
_MODULES = ('mmengine', 'mmcv', 'mmcv.ops', 'mmpretrain', 'mmdet', 'mmseg', 'mmrotate', 'rasterio')
# Four wheels hold the same module cv2; one that is there satisfies a requirement for another.
_OPENCV = (
    'opencv-python',
    'opencv-python-headless',
    'opencv-contrib-python',
    'opencv-contrib-python-headless',
)


def collect_env() -> dict[str, str]:
    """Returns what is installed on this machine, name -> description, in the order to print."""
    env: dict[str, str] = {}
    try:
        from mmengine.utils.dl_utils import collect_env as collect_base_env

        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            env.update({key: str(value) for key, value in collect_base_env().items()})
    except Exception as error:  # a report on a broken installation must not break itself
        env['Python'] = sys.version.replace('\n', ' ')
        env['PyTorch'] = _attempt(lambda: str(importlib.import_module('torch').__version__))
        env['MMEngine report'] = f'failed: {_one_line(error)}'
    env['C++ compiler'] = _first_line_of('c++', '--version')
    env['CPU threads'] = _attempt(lambda: str(importlib.import_module('torch').get_num_threads()))
    for package in MM_PACKAGES:
        found = installed_distributions(package)
        have = ', '.join(f'{name} {version}' for name, version in found) or 'not installed'
        name = found[0][0] if found else package.fork
        env[package.module] = f'{have} (supported: {name}{package.range_of(name)})'
    for name in ('rasterio', 'timm', 'torchmetrics', 'numpy'):
        env[name] = _attempt(partial(metadata.version, name))
    env['mmcv operators'] = _attempt(_describe_ops)
    env['mmrsfm'] = _attempt(lambda: metadata.version('mmrsfm'))
    return env


def find_problems() -> list[str]:
    """Returns one line for each thing that does not work; an empty list if all is well."""
    problems = [problem for problem in map(check_package, MM_PACKAGES) if problem]
    for package in MM_PACKAGES:
        if not installed_distributions(package) and not _importable(package.module):
            problems.append(f'{package.module} is not installed; repair: {package.repair}')
    problems += _unmet_requirements()
    broken: set[str] = set()
    for name in _MODULES:
        if name.split('.')[0] in broken or not _importable(name.split('.')[0]):
            broken.add(name.split('.')[0])
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                importlib.import_module(name)
        except Exception as error:  # extensions raise anything: OSError, AssertionError, ...
            broken.add(name.split('.')[0])
            problems.append(f"'import {name}' fails: {_one_line(error)}{_repair_of(name)}")
    if 'mmcv' not in broken:
        for operator, run in (('nms', _run_nms), ('nms_rotated', _run_nms_rotated)):
            try:
                run()
            except Exception as error:
                problems.append(
                    f'the operator mmcv.ops.{operator} fails on the CPU: '
                    f'{_one_line(error)}{_repair_of("mmcv")}'
                )
    return problems


def _run_nms() -> None:
    import torch
    from mmcv.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
    _, kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), iou_threshold=0.5)
    if kept.tolist() != [0, 2]:
        raise RuntimeError(f'kept boxes {kept.tolist()} instead of [0, 2]')


def _run_nms_rotated() -> None:
    import torch
    from mmcv.ops import nms_rotated

    boxes = torch.tensor([[5.0, 5.0, 8.0, 4.0, 0.5], [5.2, 5, 8, 4, 0.5], [50, 50, 8, 4, 0]])
    _, kept = nms_rotated(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)
    if kept.tolist() != [0, 2]:
        raise RuntimeError(f'kept boxes {kept.tolist()} instead of [0, 2]')


def _describe_ops() -> str:
    from mmcv.ops import get_compiler_version, get_compiling_cuda_version

    _run_nms()
    return f'compiled with {get_compiler_version()}, CUDA {get_compiling_cuda_version()}'


def _unmet_requirements() -> list[str]:
    """What ``pip check`` would say, for mmrsfm and the OpenMMLab packages only."""
    owners = ['mmrsfm']
    owners += [name for package in MM_PACKAGES for name, _ in installed_distributions(package)]
    problems = []
    for owner in owners:
        try:
            lines = metadata.requires(owner) or []
        except metadata.PackageNotFoundError:
            continue  # run from a source tree that is not installed
        for line in lines:
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate({'extra': ''}):
                continue
            version = _version_of(requirement.name)
            wanted = f'{requirement.name}{requirement.specifier}'
            if version is None:
                problem = f'{owner} needs {wanted}, which is not installed'
            elif not requirement.specifier.contains(version, prereleases=True):
                problem = f'{owner} needs {wanted}, but {requirement.name} {version} is installed'
            else:
                continue
            problems.append(f"{problem}; repair: pip install '{wanted}'")
    return list(dict.fromkeys(problems))


def _version_of(distribution: str) -> str | None:
    normal = re.sub(r'[-_.]+', '-', distribution).lower()
    for name in (distribution, *(_OPENCV if normal in _OPENCV else ())):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _importable(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def _repair_of(module: str) -> str:
    for package in MM_PACKAGES:
        if package.module == module.split('.')[0]:
            # The same version again: a library built for another torch is only cured by a rebuild.
            command = package.repair.replace(
                'pip install', 'pip install --force-reinstall --no-deps'
            )
            no_cache = ' --no-cache-dir' if package.module == 'mmcv' else ''
            return f'; repair: {command}{no_cache}'
    return ''


def _one_line(error: BaseException) -> str:
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text[:300]}'


def _attempt(describe: Callable[[], str]) -> str:
    try:
        return describe()
    except Exception as error:
        return f'n/a ({_one_line(error)})'


def _first_line_of(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return 'n/a'
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return (result.stdout.splitlines() or ['n/a'])[0]


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog='python -m mmrsfm.utils.collect_env', description=__doc__)
    parser.add_argument(
        '--check', action='store_true', help='check instead: exit with 1 if something does not work'
    )
    if not parser.parse_args(argv).check:
        for name, value in collect_env().items():
            print(f'{name}: {value}')
        return 0
    problems = find_problems()
    for problem in problems:
        print(f'problem: {problem}')
    print(f'{len(problems)} problem(s) found' if problems else 'the installation works')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
