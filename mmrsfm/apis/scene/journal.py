# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What of a scene is finished: part files that a killed run leaves for the next one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmrsfm.engine.atomic_io import atomic_write
from mmrsfm.errors import ConfigError, DataError

_MANIFEST = 'manifest.json'
_NOTES = '_notes'
_FAILED = 'rank_{}_failed.txt'


def digest(settings: Mapping[str, Any]) -> str:
    """SHA-256 of settings that JSON can hold, independent of their order."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class Journal:
    """The finished blocks of one scene, in a folder beside the results.

    Each block is a file that is whole or not there; a manifest holds what the run was asked, so
    that blocks of two different runs are never mixed. Ranks may write at the same time.

    Args:
        folder: The folder; :meth:`open` makes it.
        settings: Everything that the values of a block depend on.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.settings = json.loads(json.dumps(settings, default=str))

    def open(self, restart: bool = False) -> None:
        """Makes the folder, or finds that of a run that was asked the same.

        Args:
            restart: Whether blocks of a run that was asked something else are dropped.

        Raises:
            ConfigError: If it holds blocks of another run.
            OSError: If it cannot be written.
        """
        manifest = self.folder / _MANIFEST
        same = False
        if manifest.exists():
            try:
                there = json.loads(manifest.read_text(encoding='utf-8'))
            except ValueError:
                there = {}
            same = there == self.settings
            if not same and not restart:
                different = sorted(
                    key
                    for key in {*there, *self.settings}
                    if there.get(key) != self.settings.get(key)
                )
                raise ConfigError(
                    f'{self.folder} holds parts of a run with other settings '
                    f'({", ".join(different)}): continue that run, take another folder for the '
                    'results, or drop them (overwrite=True, --overwrite)'
                )
        if not same and self.folder.exists():
            shutil.rmtree(self.folder)
        if not manifest.exists():
            text = json.dumps(self.settings, indent=1, sort_keys=True)
            atomic_write(manifest, text.encode())
        for pattern in ('.*.incomplete', _FAILED.format('*')):
            for leftover in self.folder.glob(pattern):
                leftover.unlink(missing_ok=True)

    def has(self, index: int) -> bool:
        """Whether a block is finished."""
        return self._path(index).is_file()

    def write(
        self,
        index: int,
        arrays: Mapping[str, np.ndarray],
        notes: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Keeps a block.

        Args:
            index: Its number.
            arrays: Its content, by name.
            notes: What is to be said of it, as JSON can hold it.

        Raises:
            OSError: If it cannot be written.
        """
        path = self._path(index)
        temporary = path.with_name(f'.{path.name}.{os.getpid()}.incomplete')
        try:
            with temporary.open('wb') as file:
                text = np.array(json.dumps(list(notes)))
                np.savez(file, **arrays, **{_NOTES: text})  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def read(self, index: int, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Returns a block.

        Args:
            index: Its number.
            names: What of it; ``None``: all.

        Raises:
            DataError: If it is damaged.
        """
        path = self._path(index)
        try:
            with np.load(path, allow_pickle=False) as content:
                chosen = names or [name for name in content.files if name != _NOTES]
                return {name: content[name] for name in chosen}
        except (
            OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error,
        ) as error:  # fmt: skip
            raise DataError(
                f'cannot be read ({error})', path=path, hint='Delete it: it is computed again'
            ) from error

    def notes(self, indexes: Iterable[int]) -> list[dict[str, Any]]:
        """The notes of blocks, each once."""
        found = {}
        for index in indexes:
            for note in json.loads(str(self.read(index, [_NOTES])[_NOTES])):
                found[json.dumps(note, sort_keys=True)] = note
        return list(found.values())

    def fail(self, rank: int, error: Exception) -> None:
        """Tells the rank that waits for the blocks of this one that they will not come.

        Args:
            rank: This rank.
            error: Why.
        """
        with contextlib.suppress(OSError):
            text = f'{type(error).__name__}: {error}'
            atomic_write(self.folder / _FAILED.format(rank), text.encode())

    def wait_for(self, indexes: Iterable[int], interval: float = 0.5) -> None:
        """Waits until other ranks have finished their blocks.

        Args:
            indexes: The blocks.
            interval: Seconds between two looks.

        Raises:
            DataError: If one of them has failed.
        """
        for index in indexes:
            while not self.has(index):
                for path in self.folder.glob(_FAILED.format('*')):
                    raise DataError(f'{path.stem}: {path.read_text(encoding="utf-8")}')
                time.sleep(interval)

    def remove(self) -> None:
        """Drops everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, index: int) -> Path:
        return self.folder / f'block_{index:06d}.npz'
