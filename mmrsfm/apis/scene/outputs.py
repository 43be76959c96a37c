# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The files of a result: those that are in the way, are there already, or would not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from mmrsfm.apis.scene.journal import digest
from mmrsfm.errors import ConfigError, DiskSpaceError

_SPARE = 64 << 20


def planned_files(out: Path, stem: str, files: Iterable[Path], page: bool) -> list[Path]:
    """All files that a run is going to write, the report last.

    Args:
        out: Folder of the results.
        stem: What they are named.
        files: Those of the product.
        page: Whether a page and a picture are written too.
    """
    pages = [out / f'{stem}.html', out / f'{stem}.png'] if page else []
    return [*files, *pages, out / f'{stem}.json']


def check_scenes_safe(files: Iterable[Path], scenes: Iterable[str | None]) -> None:
    """Refuses to write a result over a scene, whatever was asked.

    Args:
        files: What is going to be written.
        scenes: What is read.

    Raises:
        ConfigError: If one is the other.
    """
    read = {Path(one).resolve() for one in scenes if one is not None}
    for file in files:
        if file.resolve() in read:
            raise ConfigError(
                f'{file} is a scene that is read: its result would replace it. Take another '
                'folder for the results'
            )


def find_finished(
    out: Path, stem: str, files: Sequence[Path], settings: Mapping[str, Any], overwrite: bool
) -> tuple[dict[str, Path], dict[str, Any]] | None:
    """The result of an earlier run that was asked the same.

    Args:
        out: Folder of the results.
        stem: What they are named.
        files: Of :func:`planned_files`.
        settings: What is asked now.
        overwrite: Whether results of other runs are replaced.

    Returns:
        Its files by what they are, and its report; ``None``: there is none, or it is to be made
        again.

    Raises:
        ConfigError: If results of another run, or files of unknown origin, are in the way.
    """
    if overwrite:
        return None
    report = out / f'{stem}.json'
    if not report.exists():
        there = [path for path in files if path.exists()]
        if there:
            raise ConfigError(
                f'{there[0]} is there, and nothing says what of: take another folder, or '
                'overwrite=True (--overwrite)'
            )
        return None
    info = _read_report(report)
    if info is None or info['digest'] != digest(settings):
        raise ConfigError(
            f'{report} is of a run with other settings: take another folder, or overwrite=True '
            '(--overwrite)'
        )
    outputs = {key: out / name for key, name in info['outputs'].items()}
    if not all(path.exists() for path in outputs.values()):
        return None
    print_log(f'{stem}: done before, {report}', logger='current')
    return {**outputs, 'report': report}, info


def remove_stale(out: Path, stem: str, files: Iterable[Path]) -> None:
    """Removes what an earlier run of the same name wrote, and the present one does not.

    Args:
        out: Folder of the results.
        stem: What they are named; the report is still that of the earlier run.
        files: What the present run has written, or reads.
    """
    info = _read_report(out / f'{stem}.json')
    kept = {file.resolve() for file in files}
    for name in (info or {'outputs': {}})['outputs'].values():
        path = out / Path(str(name)).name
        if path.name.startswith(stem) and path.resolve() not in kept:
            path.unlink(missing_ok=True)


def check_space(out: Path, need: int) -> None:
    """Raises before anything is computed that there is no room for.

    Args:
        out: Folder of the results.
        need: Bytes of parts and results, before they are compressed.

    Raises:
        DiskSpaceError: If less is free.
    """
    need += _SPARE
    free = shutil.disk_usage(out).free
    if need > free:
        raise DiskSpaceError(
            f'{out}: the results may take {need / 1e9:.2f} GB before they are compressed (parts '
            f'and map), {free / 1e9:.2f} GB are free. Make room, choose another folder, a smaller '
            'area (aoi), or leave out probabilities'
        )


def _read_report(path: Path) -> dict[str, Any] | None:
    """A report of ours; ``None`` for any other file."""
    try:
        info = json.loads(path.read_text(encoding='utf-8'))
        return info if info['digest'] and dict(info['outputs']) is not None else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
