# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What the data converters share: whole files or none, lists, XML, threads, no strays."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

from mmrsfm.errors import ConfigError, DataError, DatasetNotFoundError, MMRSFMError
from mmrsfm.utils.progress import progress

T = TypeVar('T')
R = TypeVar('R')
PLACEMENTS = ('copy', 'hardlink', 'symlink')


@contextlib.contextmanager
def errors_end_command() -> Iterator[None]:
    """Ends a command with one sentence for what its user can mend, a full disk included.

    Raises:
        SystemExit: With the message of a :class:`~mmrsfm.errors.MMRSFMError` or an ``OSError``.
    """
    try:
        yield
    except (MMRSFMError, OSError) as error:
        raise SystemExit(f'error: {error}') from None


def write_whole(path: str | Path, data: bytes) -> None:
    """Writes a file under a hidden name beside its place and renames it.

    A reader, or a run that was killed, never sees a part. The hidden name is always the same, so
    that the next run replaces what a killed one left. Not flushed to the disk one by one, as
    checkpoints are: a converter writes a hundred thousand files, and can be run again.

    Args:
        path: The file; its folder is made.
        data: The content.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.partial')
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A place to write a file to, which gets its name at the end; an error leaves nothing.

    Args:
        path: The file; its folder is made.

    Yields:
        The path to write to, hidden, beside ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}.partial')
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def write_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Writes lines of text, each with a newline; none gives an empty file."""
    write_whole(path, ''.join(f'{line}\n' for line in lines).encode())


def write_json(path: str | Path, content: Any) -> None:
    """Writes JSON on one line, as COCO files are."""
    write_whole(path, json.dumps(content, ensure_ascii=False, allow_nan=False).encode())


def place(source: str | Path, target: str | Path, how: str = 'copy') -> None:
    """Puts a file at another place.

    Args:
        source: The file.
        target: Where it is wanted; replaced if it exists.
        how: ``'copy'``, ``'hardlink'`` or ``'symlink'`` (to the absolute path).

    Raises:
        ConfigError: For another ``how``.
    """
    source, target = Path(source), Path(target)
    if how not in PLACEMENTS:
        raise ConfigError(f'files are placed by {PLACEMENTS}, not by {how!r}')
    if source.resolve() == target.parent.resolve() / target.name:
        return  # The file itself: a link in its place would lead to nothing.
    if _is_placed(source, target, how):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f'.{target.name}.partial')
    partial.unlink(missing_ok=True)
    if how == 'copy':
        shutil.copyfile(source, partial)
    elif how == 'hardlink':
        os.link(source, partial)
    else:
        partial.symlink_to(source.resolve())
    partial.replace(target)
    # A hard link renamed onto its twin is left by POSIX.
    partial.unlink(missing_ok=True)


def _is_placed(source: Path, target: Path, how: str) -> bool:
    if how == 'copy' or not target.exists() or not target.samefile(source):
        return False
    return target.is_symlink() == (how == 'symlink')


def each(
    function: Callable[[T], R], items: Sequence[T], what: str, workers: int = 1, quiet: bool = False
) -> list[R]:
    """Calls a function for every item, in threads, with progress; the first error ends it.

    Threads, not processes: decoding, encoding, rasterio, shapely and files release the lock of the
    interpreter, and errors arrive as they are.

    Args:
        function: Called with one item.
        items: The items.
        what: Name of the work.
        workers: Number of threads; 0 and 1 are the calling one alone.
        quiet: No progress line.

    Returns:
        The results, in the order of the items.
    """
    pool = ThreadPoolExecutor(max(workers, 1))
    try:
        results = pool.map(function, items) if workers > 1 else map(function, items)
        return list(results if quiet or not items else progress(results, what, len(items)))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_text(path: str | Path, what: str) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Args:
        path: The file.
        what: What it should be, for the message, e.g. ``'list of names'``.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DataError: If it is not UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetNotFoundError(f'there is no such {what}', path=path)
    try:
        return path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise DataError(f'is no text in UTF-8 ({error})', path=path) from error


def read_rows(path: str | Path, what: str) -> list[list[str]]:
    """The rows of a CSV file in UTF-8, those that are blank left out.

    Args:
        path: The file.
        what: What it should be, for the message.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DataError: If it is no text, or no CSV.
    """
    try:
        lines = io.StringIO(read_text(path, what), newline='')
        return [row for row in csv.reader(lines) if row]
    except csv.Error as error:
        raise DataError(f'is no {what} ({error})', path=path) from error


def read_names(path: str | Path) -> list[str]:
    """Reads a list of names, one a line; blank lines, blanks around and CRLF do not matter.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DataError: If a name stands there twice.
    """
    path = Path(path)
    seen: dict[str, int] = {}
    for number, line in enumerate(read_text(path, 'list of names').splitlines(), start=1):
        name = line.strip()
        if not name:
            continue
        if name in seen:
            raise DataError(f'line {number}: {name} stands in line {seen[name]} already', path=path)
        seen[name] = number
    return list(seen)


def files_of(folder: str | Path, *suffixes: str) -> list[Path]:
    """Files of a folder with one of the suffixes (small letters), by name, without hidden ones.

    Raises:
        DatasetNotFoundError: If the folder is missing or holds none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetNotFoundError('there is no such folder', path=folder)
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith('.') and path.is_file()
    )
    if not found:
        raise DatasetNotFoundError(f'holds no file with {" or ".join(suffixes)}', path=folder)
    return found


def refuse_source(target: str | Path, sources: Iterable[str | Path]) -> None:
    """Raises if a folder that will be filled is one that is read, whose files would be replaced.

    Raises:
        ConfigError: With the folder.
    """
    target = Path(target)
    if target.resolve() in {Path(source).resolve() for source in sources}:
        raise ConfigError(f'{target} is a folder of the source; give another target')


def refuse_strays(folder: str | Path, planned: Iterable[str]) -> None:
    """Raises if a folder holds files that this conversion does not write.

    They would be read as part of the dataset: what is left of another source, split or tile size.

    Args:
        folder: A folder that will be filled; it may not exist yet.
        planned: Names of the files that will be written there.

    Raises:
        ConfigError: With the number of strays and one of them.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return
    names = set(planned)
    strays = sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in names and not path.name.startswith('.')
    )
    if strays:
        raise ConfigError(
            f'{folder} holds {len(strays)} files of another conversion, such as {strays[0]}. '
            'Name another target, or remove the folder if you need nothing in it.'
        )


class _PlainTree(ElementTree.TreeBuilder):
    """Refuses a document type, in which entities are defined that grow without bounds."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError(f'it defines the document type {name!r}, which annotations do not need')


def read_xml(path: str | Path) -> ElementTree.Element:
    """The root element of an XML file.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DataError: If it is not XML, with line and column; if it is in an encoding that the parser
            does not know, or has a document type.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetNotFoundError('there is no such annotation file', path=path)
    try:
        return ElementTree.fromstring(path.read_bytes(), ElementTree.XMLParser(target=_PlainTree()))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f'is not XML ({error})', path=path) from error


def xml_text(element: ElementTree.Element, tag: str, path: str | Path, where: str) -> str:
    """Text below an element, without blanks around.

    Args:
        element: Where to look.
        tag: Path of tags below it.
        path: The file, for the message.
        where: What the element is, for the message, e.g. ``'object 3'``.

    Raises:
        DataError: If it is missing or empty.
    """
    text = (element.findtext(tag) or '').strip()
    if not text:
        raise DataError(f'{where} has no <{tag.replace("/", "><")}>', path=path)
    return text


def number(text: str, path: str | Path, where: str) -> int | float:
    """A finite number, as ``int`` where it is a whole one.

    Raises:
        DataError: If the text is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f'{where}: {text!r} is no number', path=path)
    return int(value) if value.is_integer() else value
