# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The numbers that a run logged, read back, with the parts of a resumed run joined."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mmrsfm.errors import ConfigError, DataError, DatasetNotFoundError

AXES = ('iter', 'epoch', 'hours')
_LOG = Path('vis_data', 'scalars.json')  # in the folder of each start of a run
_NO_CURVES = ('iter', 'epoch', 'step')
_TIMES = ('time', 'data_time')  # which validations have too


@dataclass
class RunLog:
    """What one run logged, in the order of its steps.

    Attributes:
        name: For a legend.
        records: Numbers by name. Each has ``iter``, the step after which it was logged.
        starts: How often the run was started; above 1, it was resumed (or begun anew).
        damaged: Lines that could not be read, as the last one of a run that was killed.
    """

    name: str
    records: list[dict[str, Any]] = field(default_factory=list)
    starts: int = 1
    damaged: int = 0

    def numbers(self) -> list[str]:
        """Names of all numbers, in the order in which they came up."""
        found = dict.fromkeys(
            key
            for record in self.records
            for key, value in record.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        )
        return [key for key in found if key not in _NO_CURVES]

    def series(self, key: str, axis: str = 'iter') -> tuple[list[float], list[float]]:
        """One curve.

        Args:
            key: Name of a number.
            axis: ``'iter'``; ``'epoch'``, with parts of epochs; or ``'hours'`` of training, without
                validations and pauses.

        Returns:
            Places and values; empty where the run has none.

        Raises:
            ConfigError: By epochs, and the log has none.
        """
        places = self._places(axis)
        pairs = [
            (place, float(record[key]))
            for place, record in zip(places, self.records, strict=True)
            if isinstance(record.get(key), int | float)
        ]
        return [place for place, _ in pairs], [value for _, value in pairs]

    def _places(self, axis: str) -> list[float]:
        iters = [float(record['iter']) for record in self.records]
        if axis == 'iter':
            return iters
        if axis == 'epoch':
            # A step of epoch e is at most the last one of that epoch: e times the steps of one.
            known = [one['iter'] / one['epoch'] for one in self.records if one.get('epoch')]
            if not known:
                raise ConfigError(
                    f"{self.name} knows no epochs, its loop counts steps: axis 'iter' or 'hours'"
                )
            steps = max(known)
            return [step / steps for step in iters]
        places, seconds, last = [], 0.0, 0.0
        for record, step in zip(self.records, iters, strict=True):
            if _is_training(record):
                seconds += float(record.get('time', 0.0)) * (step - last)
                last = step
            places.append(seconds / 3600)
        return places


def read_run(path: str | Path, name: str | None = None) -> RunLog:
    """Reads the log of a run of mmrsfm, or of any library on MMEngine.

    A work folder has a folder for each start of its run. A later start replaces what an earlier one
    logged from that step on: of a run that was killed and resumed, the steps that were made twice
    count once, and a run that was begun anew in the same folder counts alone.

    Args:
        path: A work folder, the folder of one start in it, or a ``scalars.json``.
        name: For a legend; by default that of the work folder.

    Returns:
        The log.

    Raises:
        DatasetNotFoundError: There is no log; folders below that have one are named.
        DataError: It has no record of a training.
    """
    path = Path(path)
    files = _files(path)
    run = RunLog(name or _name(path), starts=0)
    for file in files:
        part, damaged = _read_part(file)
        run.damaged += damaged
        steps = [record['iter'] for record in part if _is_training(record)]
        if not steps:
            continue
        run.starts += 1
        run.records = [one for one in run.records if one['iter'] < steps[0]] + part
    if not run.records:
        raise DataError(
            f'holds no record of a training ({run.damaged} lines could not be read)', path=path
        )
    return run


def matching(keys: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The keys that fit any of the patterns (``loss_*``), in the order of the patterns."""
    found = [key for pattern in patterns for key in keys if fnmatchcase(key, pattern)]
    return list(dict.fromkeys(found))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if (path / _LOG).is_file():
        return [path / _LOG]
    # The folders are named after the time of the start.
    files = sorted(path.glob(f'*/{_LOG}'))
    if not files:
        below = sorted({str(log.parents[2]) for log in path.glob(f'**/{_LOG}')})
        raise DatasetNotFoundError(
            f'no log of a run: no {_LOG} in it, nor in the folders in it',
            path=path,
            hint=f'Runs below it: {", ".join(below[:8])}' if below else None,
        )
    return files


def _name(path: Path) -> str:
    if path.is_file():
        path = path.parent.parent if path.parent.name == _LOG.parent.name else path.parent
    path = path.resolve()
    stamp = path.name.replace('_', '')
    # 20261121_095824: the folder of one start says less than the one it is in.
    return path.parent.name if stamp.isdigit() and len(stamp) >= 14 else path.name


def _is_training(record: dict[str, Any]) -> bool:
    return bool(record.get('training'))


def _read_part(file: Path) -> tuple[list[dict[str, Any]], int]:
    records: list[dict[str, Any]] = []
    damaged, last = 0, 0
    for line in file.read_text(errors='replace').splitlines():
        try:
            found = json.loads(line) if line.strip() else None
        except ValueError:
            found, damaged = None, damaged + 1
        if not isinstance(found, dict):
            continue
        if isinstance(found.get('iter'), int | float):
            last = found['iter']
            records.append({**found, 'training': True})
        elif isinstance(found.get('step'), int | float):
            # A validation: its step is one of training, or the number of an epoch.
            named = {f'val/{key}' if key in _TIMES else key: value for key, value in found.items()}
            records.append({**named, 'iter': max(found['step'], last)})
    return records, damaged
