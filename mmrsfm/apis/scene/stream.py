# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Predictions of tiles in order, read ahead in a thread and computed in batches."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from mmrsfm.apis.scene.grid import Tile
from mmrsfm.apis.scene.tile_data import TileInput, TilePrediction

T = TypeVar('T')
_END = object()


class Predictor(Protocol):
    """What a model has to offer here."""

    def predict(self, tiles: Sequence[TileInput]) -> list[TilePrediction]:
        """Predictions of tiles of one size."""


@dataclass
class Times:
    """Where the time went, in seconds.

    Attributes:
        model: Pipeline and model.
        waiting: Waiting for data.
        writing: Blending, merging and writing.
        tiles: Tiles that were predicted.
        empty: Tiles without data, which were not.
    """

    model: float = 0.0
    waiting: float = 0.0
    writing: float = 0.0
    tiles: int = 0
    empty: int = 0

    @property
    def waiting_share(self) -> float:
        """Share of the time of model and data that was waiting for data, 0 to 1."""
        both = self.model + self.waiting
        return self.waiting / both if both else 0.0


def predict_tiles(
    model: Predictor,
    read: Callable[[Tile], TileInput],
    tiles: Iterable[Tile],
    batch_size: int,
    times: Times,
) -> Generator[tuple[TileInput, TilePrediction | None], None, None]:
    """Reads and predicts tiles.

    Args:
        model: The model.
        read: Reads a tile; called in a thread of its own, one tile after the other.
        tiles: The tiles.
        batch_size: How many the model gets at once.
        times: What is added to.

    Yields:
        In the order of the tiles: what was read, and what the model says; ``None`` for a tile
        without a valid pixel.
    """
    waiting: list[TileInput] = []
    full: list[TileInput] = []
    with contextlib.closing(read_ahead(tiles, read, 2 * batch_size, times)) as items:
        for item in items:
            waiting.append(item)
            if item.valid.any():
                full.append(item)
            else:
                times.empty += 1
            if len(full) == batch_size:
                yield from _predicted(model, waiting, full, times)
                waiting, full = [], []
        if waiting:
            yield from _predicted(model, waiting, full, times)


def _predicted(
    model: Predictor, waiting: list[TileInput], full: list[TileInput], times: Times
) -> Iterator[tuple[TileInput, TilePrediction | None]]:
    start = time.perf_counter()
    found = {one.tile.index: one for one in (model.predict(full) if full else [])}
    times.model += time.perf_counter() - start
    times.tiles += len(full)
    for item in waiting:
        yield item, found.get(item.tile.index)


def read_ahead(
    items: Iterable[Any], read: Callable[[Any], T], depth: int, times: Times
) -> Generator[T, None, None]:
    """Applies a function in a thread, a few items ahead.

    Args:
        items: What is read.
        read: The function.
        depth: How many results may wait.
        times: Its ``waiting`` gets the time for which there was none.

    Yields:
        The results, in order. An exception of ``read`` is raised here.
    """
    results: queue.Queue[Any] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(result: Any) -> bool:
        while not stop.is_set():
            try:
                results.put(result, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((read(item), None)):
                    return
        except BaseException as error:
            put((None, error))
            return
        put((_END, None))

    thread = threading.Thread(target=work, name='mmrsfm-read-ahead', daemon=True)
    thread.start()
    try:
        while True:
            start = time.perf_counter()
            result, error = results.get()
            times.waiting += time.perf_counter() - start
            if error is not None:
                raise error
            if result is _END:
                return
            yield result
    finally:
        stop.set()
        thread.join()
