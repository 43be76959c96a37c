# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Files that are whole or not there: written beside their place, flushed, then renamed.

Checkpoints get a digest beside them, by which damage shows that comes later.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from mmrsfm.checkpoints.integrity import digest_line, digest_path

ATOMIC_BACKEND = 'mmrsfm_atomic'
_SUFFIX = '.incomplete'


def atomic_write(path: str | Path, data: bytes) -> None:
    """Writes a file so that a reader, or a crash, sees the old content or the new, never a part.

    The temporary file lies in the same folder (a rename does not cross file systems), its content
    reaches the disk before the rename, and the rename before the return.

    Args:
        path: The file. Its folder is made.
        data: The content.

    Raises:
        OSError: If it cannot be written; the former file is then untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}{_SUFFIX}')
    try:
        with temporary.open('wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_with_digest(path: str | Path, data: bytes) -> None:
    """Writes a file and then its SHA-256 beside it, each atomically.

    The digest of a former file of that name goes first, so that there is no moment in which a whole
    file lies beside another's digest.

    Args:
        path: The file. Its folder is made.
        data: The content.

    Raises:
        OSError: If one of them cannot be written.
    """
    digest_path(path).unlink(missing_ok=True)
    atomic_write(path, data)
    atomic_write(digest_path(path), digest_line(path, data))


def remove_with_digest(path: str | Path) -> None:
    """Removes a file and the digest beside it, whichever of them is there."""
    Path(path).unlink(missing_ok=True)
    digest_path(path).unlink(missing_ok=True)


def check_writable(folder: str | Path) -> None:
    """Writes a little into a folder, which is made, and takes it away.

    Args:
        folder: The folder.

    Raises:
        OSError: If that cannot be done: no permission, read-only, full.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    trial = folder / f'.trial.{os.getpid()}{_SUFFIX}'
    try:
        trial.write_bytes(bytes(4096))
    finally:
        with contextlib.suppress(OSError):
            trial.unlink(missing_ok=True)


def remove_incomplete(folder: str | Path) -> list[Path]:
    """Removes what killed processes left of :func:`atomic_write` in a folder.

    Args:
        folder: The folder; nothing else may be writing to it.

    Returns:
        The files that were removed.
    """
    leftovers = sorted(Path(folder).glob(f'.*{_SUFFIX}'))
    for file in leftovers:
        file.unlink(missing_ok=True)
    return leftovers


@register_backend(ATOMIC_BACKEND, force=True)
class AtomicLocalBackend(LocalBackend):
    """MMEngine's backend for local files, with atomic writes, and digests of what is binary."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes bytes atomically, and their digest; see :func:`write_with_digest`."""
        write_with_digest(filepath, obj)

    def remove(self, filepath: str | Path) -> None:
        """Removes a file and its digest; see :func:`remove_with_digest`."""
        remove_with_digest(filepath)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Writes text atomically; see :func:`atomic_write`."""
        atomic_write(filepath, obj.encode(encoding))


def _sync_folder(folder: Path) -> None:
    # Some network file systems cannot sync a folder; the rename is done all the same.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
