# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Reads the tables that come with BigEarthNet: official metadata, and lists of patches."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrsfm.errors import DataError, DatasetNotFoundError, MissingDependencyError

SPLITS = ('train', 'val', 'test')
SEASONS = {'winter': (12, 1, 2), 'spring': (3, 4, 5), 'summer': (6, 7, 8), 'autumn': (9, 10, 11)}
_S1 = re.compile(r'S1[A-D]_IW_GRDH_1S\w\w_(\d{8})T\d{6}_\w+')
_S2 = re.compile(r'S2[A-D]_MSIL2A_(\d{8})T\d{6}_\w+')
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_SPLIT_NAMES = {'train': 'train', 'validation': 'val', 'val': 'val', 'test': 'test'}


@dataclass(frozen=True)
class Patch:
    """One row: names are of folders; what the table does not say is ``None``.

    Attributes:
        s1: Name of the Sentinel-1 patch.
        s2: Name of the Sentinel-2 patch.
        s2_v1: Its name in version 1.
        labels: Names of the classes.
        split: One of :data:`SPLITS`.
        country: As the table writes it.
    """

    s1: str | None = None
    s2: str | None = None
    s2_v1: str | None = None
    labels: tuple[str, ...] | None = None
    split: str | None = None
    country: str | None = None

    @property
    def month(self) -> int | None:
        """Month of the acquisition, 1 to 12: of Sentinel-2, which the labels are matched with."""
        for name, pattern in ((self.s2 or self.s2_v1, _S2), (self.s1, _S1)):
            match = pattern.fullmatch(name or '')
            if match:
                return int(match[1][4:6])
        return None


def season_of(month: int) -> str:
    """The meteorological season of a month, 1 to 12, on the northern half of the earth."""
    return next(season for season, months in SEASONS.items() if month in months)


def is_s1(name: str) -> bool:
    """Whether a name is that of a Sentinel-1 patch."""
    return _S1.fullmatch(name) is not None


def is_s2(name: str) -> bool:
    """Whether a name is that of a Sentinel-2 patch, of either version."""
    return _S2.fullmatch(name) is not None


def read_table(path: str | Path) -> list[Patch]:
    """Reads the patches of a table.

    * ``.parquet``: the official metadata of version 2 (``patch_id, labels, split, country, s1_name,
      s2v1_name``), which needs pyarrow.
    * ``.csv`` with a header: the same columns, in any order; labels are the text of a list, as
      Python or NumPy writes one. (``metadata.csv`` and the lists of SAR-W-MixMAE.)
    * ``.csv`` or ``.txt`` without a header: names of patches in any column; the order of the
      columns does not matter, since names begin with their sensor. (The lists of version 1.)

    Raises:
        DatasetNotFoundError: There is no such file, or it holds no patches.
        DataError: With the line, for a row that names no patch, or labels that are no list of
            quoted names; or the file is of another kind.
        MissingDependencyError: For a parquet file without pyarrow.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetNotFoundError('no such table of patches (ann_file)', path=path)
    rows = _parquet_rows(path) if path.suffix.lower() == '.parquet' else _csv_rows(path)
    try:
        patches = [_patch(row, number, path) for number, row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f'is no table in text ({error})', path=path) from error
    if not patches:
        raise DatasetNotFoundError('names no patches', path=path)
    return patches


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError(
            f'{path}: reading parquet needs the package pyarrow (pip install pyarrow). Without it '
            'give the same table as .csv, which pandas writes wherever both are installed: '
            f"pandas.read_parquet('{path.name}').to_csv('{path.stem}.csv', index=False)"
        ) from error
    try:
        table = parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:  # of these are pyarrow's own
        raise DataError(f'cannot be read as parquet ({error})', path=path) from error
    return ((number, row) for number, row in enumerate(table, start=1))


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(newline='', encoding='utf-8-sig') as file:
        reader = csv.reader(file)
        header: list[str] | None = None
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            number = reader.line_num
            if header is None:
                # The first line is a header unless it names a patch.
                named = any(is_s1(cell) or is_s2(cell) for cell in cells)
                header = [] if named else [cell.lower() for cell in cells]
                if header:
                    continue
            if len(cells) < len(header):
                raise DataError(
                    f'line {number} has {len(cells)} columns, the first line {len(header)}',
                    path=path,
                    hint='Is the file whole?',
                )
            # Last: pandas leaves the title of its index empty.
            yield number, {**dict(zip(header, cells, strict=False)), '': cells}


def _patch(row: dict[str, Any], number: int, path: Path) -> Patch:
    cells: Sequence[Any] = row.get('') or [one for one in row.values() if isinstance(one, str)]
    text = [cell for cell in cells if isinstance(cell, str)]
    s1 = row.get('s1_name') or next((cell for cell in text if is_s1(cell)), None)
    s2 = row.get('patch_id') if is_s2(str(row.get('patch_id', ''))) else None
    s2_v1 = row.get('s2v1_name') or None
    if s2 is None:
        s2 = next((cell for cell in text if is_s2(cell) and cell != s2_v1), None)
    if not s1 and not s2:
        raise DataError(
            f'line {number}: names no Sentinel-1 or Sentinel-2 patch ({", ".join(text[:3])[:80]})',
            path=path,
            hint='A patch is named like S1A_IW_GRDH_1SDV_20170613T165043_33UUP_61_39',
        )
    labels = row.get('labels')
    if labels is None:
        labels = next((cell for cell in text if cell.startswith('[')), None)
    split = row.get('split') or next((cell for cell in text if cell in _SPLIT_NAMES), None)
    if split is not None and split not in _SPLIT_NAMES:
        raise DataError(f'line {number}: {split!r} is no split ({", ".join(SPLITS)})', path=path)
    return Patch(
        s1=s1 or None,
        s2=s2,
        s2_v1=s2_v1,
        labels=None if labels is None else tuple(_label_names(labels, number, path)),
        split=None if split is None else _SPLIT_NAMES[split],
        country=row.get('country') or None,
    )


def _label_names(labels: str | Iterable[str], number: int, path: Path) -> list[str]:
    if not isinstance(labels, str):
        return [str(name) for name in labels]
    # NumPy breaks long lists into lines.
    names = [' '.join((one or two).split()) for one, two in _QUOTED.findall(labels)]
    # Some tools quote only the names that hold a comma: the others would be lost.
    if _QUOTED.sub('', labels).strip('[](), \r\n\t'):
        raise DataError(f'line {number}: {labels[:60]!r} is no list of class names', path=path)
    return names
