# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Whether a checkpoint is the file that was written: a digest beside it, and its structure."""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path

from mmrsfm.checkpoints.reading import read_checkpoint
from mmrsfm.errors import CheckpointReadError, DigestMismatchError

_SUFFIX = '.sha256'


def digest_path(path: str | Path) -> Path:
    """Where the digest of a file is: ``epoch_3.pth`` -> ``epoch_3.pth.sha256``."""
    path = Path(path)
    return path.with_name(path.name + _SUFFIX)


def digest_line(path: str | Path, data: bytes) -> bytes:
    """The contents of a digest file, as ``sha256sum -c`` reads it."""
    return f'{hashlib.sha256(data).hexdigest()}  {Path(path).name}\n'.encode()


def stated_digest(path: str | Path) -> str | None:
    """The SHA-256 that is stated beside a file.

    Args:
        path: The file, not its digest.

    Returns:
        64 hexadecimal digits, or ``None`` where nothing is stated.

    Raises:
        DigestMismatchError: If the file of the digest holds none.
    """
    beside = digest_path(path)
    try:
        text = beside.read_text(errors='replace')
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DigestMismatchError(f'{beside}: cannot be read ({error})') from error
    found = re.match(r'[0-9a-f]{64}(?=\s|$)', text)
    if found is None:
        raise DigestMismatchError(
            f'{beside}: holds no SHA-256. If {Path(path).name} is known to be sound, delete it'
        )
    return found[0]


def check_digest(path: str | Path) -> bool:
    """Compares a file with the digest beside it.

    Args:
        path: The file.

    Returns:
        Whether there is a digest.

    Raises:
        DigestMismatchError: If the file has another.
        CheckpointReadError: If it cannot be read.
    """
    stated = stated_digest(path)
    if stated is None:
        return False
    try:
        with Path(path).open('rb') as file:
            actual = hashlib.file_digest(file, 'sha256').hexdigest()
    except OSError as error:
        raise CheckpointReadError(f'{path}: cannot be read ({error})') from error
    if actual != stated:
        raise DigestMismatchError(
            f'{path}: damaged: its SHA-256 is {actual[:12]}..., {digest_path(path).name} states '
            f'{stated[:12]}...'
        )
    return True


def check_integrity(path: str | Path) -> None:
    """Checks that a checkpoint is whole, and readable; its tensors are not loaded.

    With a digest beside it, all bytes are what was written. Without one (written by other programs,
    or killed in the moment between the two) the checksums within the file are tested. Either way
    its structure is read, safely.

    Args:
        path: A local file.

    Raises:
        CheckpointError: If it is missing, damaged, truncated, or refused by the safe reader.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointReadError(f'{path}: does not exist')
    if path.stat().st_size == 0:
        raise CheckpointReadError(f'{path}: is empty')
    if not check_digest(path):
        _check_members(path)
    # No memory for tensors, no time for their bytes.
    read_checkpoint(path, map_location='meta')


def _check_members(path: Path) -> None:
    """Tests the checksums in the zip format of torch; other formats have none."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (OSError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise CheckpointReadError(f'{path}: damaged or truncated ({error})') from error
    except Exception as error:  # zlib.error and others, by what the damage hit
        raise CheckpointReadError(f'{path}: damaged ({type(error).__name__}: {error})') from error
    if bad is not None:
        raise CheckpointReadError(f'{path}: damaged: the checksum of {bad} in it is wrong')
