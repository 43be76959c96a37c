# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""One line of progress with the time that is left, on a terminal and in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TextIO, TypeVar

T = TypeVar('T')


def progress(
    items: Iterable[T],
    what: str,
    total: int | None = None,
    stream: TextIO | None = None,
) -> Iterator[T]:
    """Yields the items and reports how far the loop is.

    On a terminal one line is rewritten; elsewhere a line is printed at most every ten percent and
    every two seconds, so that log files stay short.

    Args:
        items: What to iterate over.
        what: Name of the work, the beginning of the line.
        total: Number of items; needed where ``items`` has no length.
        stream: Where to write. Defaults to standard error.

    Yields:
        The items, unchanged.
    """
    stream = stream or sys.stderr
    if total is None and isinstance(items, Sized):
        total = len(items)
    terminal = stream.isatty()
    start = last = time.monotonic()
    shown = 0
    try:
        for done, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            tenth = 10 * done // total if total else done // 100
            if terminal and (now - last > 0.2 or done == total):
                stream.write('\r' + _line(what, done, total, now - start) + '\x1b[K')
                last = now
            elif not terminal and (done == total or (tenth != shown and now - last > 2)):
                stream.write(_line(what, done, total, now - start) + '\n')
                last, shown = now, tenth
            stream.flush()
    finally:
        # After an error too, whose message needs a line of its own.
        if terminal:
            stream.write('\n')
            stream.flush()


def _line(what: str, done: int, total: int | None, seconds: float) -> str:
    if not total:
        return f'{what}: {done} in {duration(seconds)}'
    left = seconds / done * (total - done)
    return f'{what}: {done}/{total}, {duration(seconds)} elapsed, {duration(left)} left'


def duration(seconds: float) -> str:
    """Formats a time in seconds as ``12 s``, ``3 min 05 s`` or ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f'{whole} s'
    if whole < 3600:
        return f'{whole // 60} min {whole % 60:02d} s'
    return f'{whole // 3600} h {whole % 3600 // 60:02d} min'
