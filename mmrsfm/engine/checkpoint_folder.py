# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Which checkpoint of a work folder a run continues from."""

from __future__ import annotations

import re
from pathlib import Path

from mmengine.logging import print_log

from mmrsfm.checkpoints.integrity import check_integrity
from mmrsfm.errors import CheckpointError, CheckpointReadError, ConfigError

_NUMBERED = re.compile(r'(?:epoch|iter)_\d+\.pth')


def find_last_checkpoint(work_dir: str | Path) -> Path | None:
    """Returns the newest valid checkpoint of a work folder.

    That is the one that ``last_checkpoint`` names (in a folder that was moved or copied under
    another name, the file of that name within it), or one of a later step that was finished after
    ``last_checkpoint`` was written.
    A broken one is named in the log, with the reason, and the one before it is taken, by the time
    of the files. Valid means :func:`mmrsfm.checkpoints.integrity.check_integrity`.

    Args:
        work_dir: The folder.

    Returns:
        The file, or ``None`` where no run has saved anything.

    Raises:
        ConfigError: If ``last_checkpoint`` names a file that is gone, and there is no other.
        CheckpointReadError: If every checkpoint is broken.
    """
    folder = Path(work_dir)
    pointer = folder / 'last_checkpoint'
    named = pointer.read_text(errors='replace').strip() if pointer.is_file() else ''
    places = [folder / Path(named).name, Path(named)] if named else []
    if Path(named).parent.name == folder.resolve().name:  # this folder, or that of out_dir
        places.reverse()
    target = next((place for place in places if place.is_file()), None)
    others = _others(folder, named, target)
    if named and target is None:
        what = f'{pointer} names {named}, which does not exist'
        if not others:
            raise ConfigError(
                f'{what}, and there is no other checkpoint in {folder}. Give one by --resume PATH, '
                'or start anew without --resume.'
            )
        print_log(f'{what}; the newest of the others is looked for.', logger='current', level=30)
    order = others
    if target is not None:
        written = pointer.stat().st_mtime
        later = [
            file
            for file in others
            if file.stat().st_mtime > written and _is_later(file.name, target.name)
        ]
        order = [*later, target, *(file for file in others if file not in later)]
    broken = []
    for file in order:
        try:
            check_integrity(file)
        except CheckpointError as error:
            broken.append(str(error))
            print_log(f'This checkpoint is not used: {error}', logger='current', level=30)
        else:
            return file
    if broken:
        raise CheckpointReadError(
            f'none of the {len(broken)} checkpoints of {folder} is sound:\n  '
            + '\n  '.join(broken)
            + '\nGive another one by --resume PATH, or start anew without --resume.'
        )
    return None


def _others(folder: Path, named: str, target: Path | None) -> list[Path]:
    """Checkpoints to resume from beside the one that is named, the newest first."""
    folders = [folder]
    # With out_dir the checkpoints are in a folder of the same name elsewhere.
    elsewhere = Path(named).parent
    if named and elsewhere.name == folder.resolve().name and elsewhere.is_dir():
        folders.append(elsewhere)
    # A template of the config's own, by what it made.
    own = re.compile(re.sub(r'\d+', r'\\d+', re.escape(Path(named).name))) if named else _NUMBERED
    found = {
        file.resolve(): file
        for place in folders
        if place.is_dir()
        for file in place.iterdir()
        if _NUMBERED.fullmatch(file.name) or own.fullmatch(file.name)
    }
    if target is not None:
        found.pop(target.resolve(), None)
    files = [file for file in found.values() if file.is_file()]
    return sorted(files, key=lambda file: (file.stat().st_mtime, _step(file.name)), reverse=True)


def _step(name: str) -> int:
    numbers = re.findall(r'\d+', name)
    return int(numbers[-1]) if numbers else -1


def _is_later(name: str, other: str) -> bool:
    same_kind = re.sub(r'\d+', '', name) == re.sub(r'\d+', '', other)
    return same_kind and _step(name) > _step(other)
