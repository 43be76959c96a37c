# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What goes into a model for one tile, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mmrsfm.apis.scene.grid import Tile
from mmrsfm.datasets.raster import Raster


@dataclass
class TileInput:
    """The pixels of one tile.

    Attributes:
        arrays: For each input of the model (H, W, C) in the stored type, the bands in the model's
            order; ``None`` for an input that is missing.
        valid: (H, W) bool: where any scene has data, so that the result means something. False in
            the padding of a tile that reaches over the scene.
        tile: Where it is.
        band_names: For each input the names of its bands, where they are known.
        nodata: For each input the no-data value of each band; ``None``: no band has one.
        masks: For each input (H, W) bool, False where it has no data; ``None``: data everywhere.
    """

    arrays: tuple[np.ndarray | None, ...]
    valid: np.ndarray
    tile: Tile
    band_names: tuple[tuple[str, ...] | None, ...] | None = None
    nodata: tuple[tuple[float | None, ...] | None, ...] | None = None
    masks: tuple[np.ndarray | None, ...] | None = None

    def rasters(self) -> list[Raster | None]:
        """The inputs, as a reader of files returns them."""
        return [self._raster(number, array) for number, array in enumerate(self.arrays)]

    def _raster(self, number: int, array: np.ndarray | None) -> Raster | None:
        if array is None:
            return None
        names = None if self.band_names is None else self.band_names[number]
        nodata = None if self.nodata is None else self.nodata[number]
        if self.masks is not None:
            mask = self.masks[number]
        else:
            mask = None if self.valid.all() else self.valid
        return Raster(array, names, nodata or (None,) * array.shape[2], mask, None, array.shape[:2])


@dataclass
class TilePrediction:
    """The result for one tile; on the CPU. Only what belongs to the task is there.

    Attributes:
        tile: Where it is.
        logits: Dense tasks: (K, H, W) float32 at the size of the tile; class scores before softmax
            or, with one channel, sigmoid; heights; the values of a translated image.
        scores: Classification: (K,) float32 in [0, 1].
        features: Features: (C, h, w) float32, h and w the tile's divided by the stride.
        instances: Objects: mmengine's InstanceData with ``bboxes``, ``scores``, ``labels`` and
            perhaps ``masks``, in pixels of the tile.
    """

    tile: Tile
    logits: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    features: torch.Tensor | None = None
    instances: Any = None
