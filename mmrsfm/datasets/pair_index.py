# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Which files of several folders belong together, kept in a file for large datasets.

Listing the folders of a dataset of millions of files takes minutes on a network file system. The
index holds the names, which folders they are in, and the times of change of the folders, which
every file that is added, removed or renamed alters. It says nothing of what the files hold, so that
a file which is replaced by another of the same name needs no new index.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_distributed, is_main_process
from mmengine.logging import print_log

from mmrsfm.engine.atomic_io import atomic_write
from mmrsfm.errors import DatasetNotFoundError

FORMAT = 'mmrsfm pair index 1'
# A folder that changed this long before it was listed may change again without another time: some
# file systems count in steps of two seconds.
_UNSETTLED_NS = 3_000_000_000


@dataclass(frozen=True)
class PairRules:
    """How files are matched.

    Attributes:
        suffixes: By modality, what follows the common part of the names: one or several endings,
            in small letters where several are given. Hidden files never match.
        whole_name: Whether the files of a pair have the same name, suffix included.
        recursive: Whether to look into folders below; their names are part of the name.
    """

    suffixes: Mapping[str, tuple[str, ...]]
    whole_name: bool
    recursive: bool

    def key_of(self, modality: str, name: str) -> str | None:
        """The common part of a file's name, or ``None`` for a file that is no image."""
        if name.rpartition('/')[2].startswith('.'):
            return None
        lower = name.lower()
        for suffix in self.suffixes[modality]:
            if self.whole_name:
                if lower.endswith(suffix):
                    return name
            elif name.endswith(suffix):
                return name[: -len(suffix)]
        return None


@dataclass
class PairIndex:
    """Names and what is missing.

    Attributes:
        keys: Common parts of the names, sorted.
        incomplete: For each key of which files are missing, the modalities that it lacks.
        states: By modality, the folders that were listed, relative, and their times in ns.
        listed_at: When, in ns since the epoch.
        rules: Text that says in which folders, and how, files were matched.
    """

    keys: list[str]
    incomplete: dict[str, tuple[str, ...]]
    states: dict[str, dict[str, int]]
    listed_at: int
    rules: str

    def is_current(self, folders: Mapping[str, Path], rules: PairRules) -> bool:
        """Whether the folders are as they were when they were listed."""
        if self.rules != _described(folders, rules) or set(self.states) != set(folders):
            return False
        for modality, states in self.states.items():
            for relative, changed in states.items():
                if changed > self.listed_at - _UNSETTLED_NS:
                    return False
                try:
                    if (folders[modality] / relative).stat().st_mtime_ns != changed:
                        return False
                except OSError:
                    return False
        return True


def build_index(folders: Mapping[str, Path], rules: PairRules) -> PairIndex:
    """Lists the folders.

    Args:
        folders: From modality to folder.
        rules: How files are matched.

    Raises:
        DatasetNotFoundError: A folder is missing, or a name cannot be kept in a list.
    """
    listed_at = time.time_ns()
    states: dict[str, dict[str, int]] = {}
    found: dict[str, set[str]] = {}
    for modality, folder in folders.items():
        states[modality] = {}
        keys = found[modality] = set()
        pending = ['']
        while pending:
            relative = pending.pop()
            here = folder / relative
            try:
                # Before it is listed: what is added meanwhile makes the index old.
                states[modality][relative] = here.stat().st_mtime_ns
                entries = list(os.scandir(here))
            except (FileNotFoundError, NotADirectoryError):
                raise DatasetNotFoundError(
                    f'no such folder for the modality {modality!r}', path=here
                ) from None
            for entry in entries:
                name = f'{relative}/{entry.name}' if relative else entry.name
                if rules.recursive and entry.is_dir() and not entry.name.startswith('.'):
                    pending.append(name)
                    continue
                key = rules.key_of(modality, name)
                if key is None or not entry.is_file():
                    continue
                if '\t' in key or '\n' in key:
                    raise DatasetNotFoundError('has a tab or a line break in its name', here / key)
                keys.add(key)
    everything = sorted(set().union(*found.values()))
    incomplete = {}
    for key in everything:
        missing = tuple(modality for modality, keys in found.items() if key not in keys)
        if missing:
            incomplete[key] = missing
    return PairIndex(everything, incomplete, states, listed_at, _described(folders, rules))


def _described(folders: Mapping[str, Path], rules: PairRules) -> str:
    # With the folders: those of two data sets may have been unpacked with one and the same time.
    return repr(({name: str(folder) for name, folder in folders.items()}, rules))


def load_index(
    groups: Sequence[Mapping[str, Path]], rules: PairRules, file: Path | None
) -> list[PairIndex]:
    """The index of groups of folders, from its file where that is current.

    With several processes the first one lists the folders and writes the file, whole or not at all;
    the others wait and read it. One that cannot see that file, or another one of that name, lists
    the folders itself.

    Args:
        groups: For each group, from modality to folder.
        rules: How files are matched.
        file: The index file; ``None``: every process lists the folders.

    Raises:
        DatasetNotFoundError: A folder is missing; on every process.
    """
    if file is None:
        return [build_index(folders, rules) for folders in groups]
    outcome: list[Any] = [None]
    result = None
    if is_main_process():
        result = read_index(file, groups, rules)
        if result is None:
            try:
                result = [build_index(folders, rules) for folders in groups]
            except DatasetNotFoundError as error:
                outcome = [error]
            else:
                _try_write(file, result)
                outcome = [_times(result)]
        else:
            outcome = [_times(result)]
    if is_distributed():
        broadcast_object_list(outcome)
    if isinstance(outcome[0], DatasetNotFoundError):
        raise outcome[0]
    if result is None:
        result = read_index(file, groups, rules, trust=True)
        if result is not None and _times(result) != outcome[0]:
            result = None  # a file of an earlier run, on a disk that the first process does not see
    if result is None:
        result = [build_index(folders, rules) for folders in groups]
    return result


def _times(result: Sequence[PairIndex]) -> list[int]:
    return [one.listed_at for one in result]


def _try_write(file: Path, result: Sequence[PairIndex]) -> None:
    try:
        write_index(file, result)
    except OSError as error:
        print_log(
            f'the index {file} cannot be written ({error}); the folders will be listed again by '
            'every run. Name a place that can be written to: index_file=...',
            logger='current',
            level=logging.WARNING,
        )


def write_index(file: Path, result: Sequence[PairIndex]) -> None:
    """Writes indices: a line of JSON a group, followed by a line a name.

    Raises:
        OSError: If it cannot be written.
    """
    lines = []
    for one in result:
        head = {
            'format': FORMAT,
            'count': len(one.keys),
            'states': one.states,
            'listed_at': one.listed_at,
            'rules': one.rules,
        }
        lines.append(json.dumps(head))
        for key in one.keys:
            lines.append('\t'.join([key, *one.incomplete.get(key, ())]))
    atomic_write(file, ''.join(f'{line}\n' for line in lines).encode('utf-8', 'surrogateescape'))


def read_index(
    file: Path, groups: Sequence[Mapping[str, Path]], rules: PairRules, trust: bool = False
) -> list[PairIndex] | None:
    """Reads indices; ``None`` if there are none, or the folders have changed since.

    Args:
        file: The index file.
        groups: For each group, from modality to folder.
        rules: How files are matched.
        trust: Do not compare the times of the folders: another process has just done so.
    """
    try:
        lines = file.read_bytes().decode('utf-8', 'surrogateescape').split('\n')
        result, place = [], 0
        for folders in groups:
            head = json.loads(lines[place])
            if head['format'] != FORMAT or head['rules'] != _described(folders, rules):
                return None
            rows = lines[place + 1 : place + 1 + head['count']]
            if len(rows) != head['count'] or '' in rows:
                return None
            place += 1 + head['count']
            incomplete = {}
            keys = []
            for row in rows:
                key, *missing = row.split('\t')
                keys.append(key)
                if missing:
                    incomplete[key] = tuple(missing)
            one = PairIndex(keys, incomplete, head['states'], head['listed_at'], head['rules'])
            if set(one.states) != set(folders) or not (trust or one.is_current(folders, rules)):
                return None
            result.append(one)
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None  # not there, or damaged: it is made again
    return result if lines[place:] == [''] else None
