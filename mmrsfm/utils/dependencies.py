# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Which versions of the OpenMMLab packages mmrsfm works with, and the check at ``import mmrsfm``.

:data:`MM_PACKAGES` is the one place that holds the ranges; a test compares it with
``requirements/mminstall.txt``. The check reads installed metadata only: it imports none of the
packages, so it costs milliseconds and cannot fail on a broken installation.
"""

from __future__ import annotations

import shlex
import warnings
from dataclasses import dataclass
from importlib import metadata

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from mmrsfm.errors import MissingDependencyError


@dataclass(frozen=True)
class MMPackage:
    """One OpenMMLab package, under the two names by which it can be installed.

    Attributes:
        module: The name that is imported.
        fork: Distribution name of the maintained fork, the one that mmrsfm is tested with.
        fork_range: The versions of the fork that work.
        upstream: Distribution name of the original project.
        upstream_range: The releases of the original whose API is the same. mmrsfm uses nothing
            that only the fork has, but these are not part of its own tests.
        required: Whether mmrsfm cannot be imported without it.
    """

    module: str
    fork: str
    fork_range: str
    upstream: str
    upstream_range: str
    required: bool = False

    def range_of(self, distribution: str) -> str:
        """Returns the supported range for ``distribution``, one of the two names."""
        return self.fork_range if distribution == self.fork else self.upstream_range

    @property
    def repair(self) -> str:
        """The command that installs a version that works."""
        # The fork's build files refuse pip's isolated build environment.
        return f'pip install --no-build-isolation {shlex.quote(self.fork + self.fork_range)}'


MM_PACKAGES: tuple[MMPackage, ...] = (
    MMPackage('mmengine', 'onedl-mmengine', '>=0.10.12,<0.11', 'mmengine', '>=0.10,<0.11', True),
    MMPackage('mmcv', 'onedl-mmcv', '>=2.3.6,<2.4', 'mmcv', '>=2.1,<2.3'),
    MMPackage('mmdet', 'onedl-mmdetection', '>=3.5.1,<3.6', 'mmdet', '>=3.3,<3.4'),
    MMPackage('mmseg', 'onedl-mmsegmentation', '>=1.4.2,<1.5', 'mmsegmentation', '>=1.2,<1.3'),
    MMPackage('mmpretrain', 'onedl-mmpretrain', '>=1.3.6,<1.4', 'mmpretrain', '>=1.2,<1.3'),
    MMPackage('mmrotate', 'onedl-mmrotate', '>=1.2.1,<1.3', 'mmrotate', '>=1.0.0rc1,<1.1'),
)


def installed_distributions(package: MMPackage) -> list[tuple[str, str]]:
    """Returns (distribution name, version) of each installed distribution of ``package``.

    Two entries mean that the fork and the original lie over each other in one environment.
    """
    found = []
    for name in (package.fork, package.upstream):
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return found


def in_range(version: str, supported: str) -> bool:
    """Returns whether ``version`` lies in ``supported``; pre-releases and local builds count."""
    try:
        return SpecifierSet(supported).contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


def check_package(package: MMPackage) -> str | None:
    """Returns what is wrong with the installed version of ``package``, or None.

    A package that is not installed is no problem here: only some features need it.
    """
    found = installed_distributions(package)
    if len(found) > 1:
        both = ' and '.join(f'{name} {version}' for name, version in found)
        names = ' '.join(name for name, _ in found)
        return (
            f'{both} are both installed and overwrite each other as {package.module!r}; '
            f'repair: pip uninstall -y {names} && {package.repair}'
        )
    for name, version in found:
        supported = package.range_of(name)
        if not in_range(version, supported):
            return (
                f'{name} {version} is installed, but mmrsfm supports {name}{supported}; '
                f'repair: {package.repair}'
            )
    return None


def check_dependencies() -> None:
    """Checks the installed OpenMMLab packages; called by ``import mmrsfm``.

    A missing or wrong MMEngine is an error, because nothing works without it. Another version of
    a task library than the supported ones is a warning, because most of mmrsfm does not need it.

    Raises:
        MissingDependencyError: If MMEngine is missing or outside the supported range.
    """
    for package in MM_PACKAGES:
        problem = check_package(package)
        if problem is not None and not package.required:
            # Three frames up: past this function and mmrsfm/__init__.py, to the import statement.
            warnings.warn(problem, UserWarning, stacklevel=3)
        elif problem is not None:
            raise MissingDependencyError(problem)
        elif package.required and not installed_distributions(package):
            # An mmengine on PYTHONPATH has no metadata: it is left to the import to judge.
            from importlib.util import find_spec

            if find_spec(package.module) is None:
                raise MissingDependencyError(
                    f'{package.module} is not installed, and mmrsfm supports '
                    f'{package.fork}{package.fork_range}; repair: {package.repair}'
                )
