# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What a scene is made into: in units that are computed, and kept, one after the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine

from mmrsfm.apis.scene.area import Region
from mmrsfm.apis.scene.grid import Tile, TileGrid
from mmrsfm.apis.scene.journal import Journal
from mmrsfm.apis.scene.objects import SceneObjects
from mmrsfm.apis.scene.source import SceneSource
from mmrsfm.apis.scene.stream import Times
from mmrsfm.apis.scene.tile_data import TileInput, TilePrediction

Stream = Iterator[tuple[TileInput, TilePrediction | None]]


class Product(ABC):
    """A kind of result.

    Args:
        model: The :class:`mmrsfm.apis.scene.model.SceneModel`.
        source: The scene.
        overlap: Pixels that tiles share.
        align: First rows and columns of tiles are multiples of this.

    Attributes:
        region: Where results are wanted, in pixels of the scene.
        grid: The tiles: of the region, and around it as far as an object or a blend reaches.
        units: Numbers of the units.
        nbytes: Bytes of the results before compression.
        settings: What of the results is asked, for the digest of the run.
        info: What is reported of them.
        notes: What a unit has to say of itself, for the report.
        objects: Once they are written, what can be outlined in a picture; ``None``: nothing.
        names: Names of the classes; where nobody says them, numbers, once they are known.
    """

    units: list[int]
    nbytes: int
    objects: SceneObjects | None = None

    def __init__(self, model: Any, source: SceneSource, overlap: int, align: int = 1) -> None:
        self.model, self.source = model, source
        self.names: list[str] = list(model.classes or ())
        self.scene = Region(0, 0, source.height, source.width)
        wanted = self.scene if source.area is None else source.area.region
        row, col = wanted.row // align * align, wanted.col // align * align
        bottom, right = wanted.row + wanted.height, wanted.col + wanted.width
        self.region = Region(row, col, bottom - row, right - col)
        margin = -(-(overlap // 2) // align) * align
        # A region smaller than a tile lies in the middle of one, which does not leave the scene.
        grown = self.region.grown(margin, self.scene).widened(model.tile_size, self.scene, align)
        self.grid = TileGrid(
            grown.height, grown.width, model.tile_size, overlap, align, (grown.row, grown.col)
        )
        self.settings: dict[str, Any] = {}
        self.info: dict[str, Any] = {}
        self.notes: list[dict[str, Any]] = []

    def transform(self, stride: int = 1) -> Affine:
        """From (column, row) of the results to (x, y).

        Args:
            stride: Pixels of the scene that a pixel of the results is wide.
        """
        moved = self.source.transform @ Affine.translation(self.region.col, self.region.row)
        return moved @ Affine.scale(stride) if stride > 1 else moved

    @abstractmethod
    def begin(self, units: Sequence[int]) -> list[Tile]:
        """Prepares for units, in this order, and returns the tiles that they need."""

    @abstractmethod
    def compute(self, unit: int, stream: Stream, times: Times) -> dict[str, np.ndarray]:
        """Makes a unit out of the next predictions.

        Args:
            unit: Its number.
            stream: Predictions of the tiles of :meth:`begin`.
            times: Its ``writing`` gets the time for what is not predicting.
        """

    @abstractmethod
    def files(self, out: Path, stem: str) -> dict[str, Path]:
        """The files of the results."""

    @abstractmethod
    def write(self, journal: Journal, out: Path, stem: str) -> dict[str, Path]:
        """Writes the results out of all units, and returns their files."""


class RowProduct(Product):
    """A kind of result whose units are rows of tiles that know nothing of each other."""

    def __init__(self, model: Any, source: SceneSource, overlap: int) -> None:
        super().__init__(model, source, overlap)
        self.units = list(range(len(self.grid.rows)))
        self.nbytes = len(self.grid) << 14

    def begin(self, units: Sequence[int]) -> list[Tile]:
        """The tiles of rows; see :class:`Product`."""
        return list(self.grid.tiles(units, range(len(self.grid.cols))))

    def next_row(self, stream: Stream) -> list[tuple[TileInput, TilePrediction | None]]:
        """The predictions of one row of tiles."""
        return [next(stream) for _ in self.grid.cols]
