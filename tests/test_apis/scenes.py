# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Models for tests of scenes, whose right answers can be computed without tiles."""

from __future__ import annotations

import os
import signal

import numpy as np
import rasterio
import torch
from torch.nn import functional

from mmrsfm.apis.scene.pipeline import InputSpec
from mmrsfm.apis.scene.tile_data import TilePrediction


class ToyModel:
    """Of every task: what it says of a pixel depends on it and ``reach`` pixels around it.

    Args:
        task: The task.
        tile_size: Side of the tiles.
        reach: See above.
        inputs: What is read.
        fail_after: Tiles after which it breaks down.
        kill: Whether the process is killed then.
    """

    checkpoint, palette, contract, file_bands = 'toy', None, None, None
    threshold, multi_label, amp, device = 0.5, False, False, torch.device('cpu')

    def __init__(
        self, task='segmentation', tile_size=64, reach=0, inputs=None, fail_after=None, kill=False
    ):
        self.task, self.tile_size, self.reach = task, tile_size, reach
        self.inputs = tuple(inputs or [InputSpec('image')])
        self.classes = ['low', 'middle', 'high']
        self.channels = {'height': 1, 'features': None, 'classification': None}.get(task, 3)
        self.settings = {'reach': reach}
        self.fail_after, self.kill, self.seen = fail_after, kill, []

    def logits(self, arrays):
        """(K, H, W) of whole images, the truth that tiles are compared with."""
        arrays = [array for array in arrays if array is not None]
        image = torch.from_numpy(sum(a.astype(np.float32).mean(2) * (n + 1)
                                     for n, a in enumerate(arrays)))  # fmt: skip
        if self.reach:
            side = 2 * self.reach + 1
            image = functional.avg_pool2d(image[None, None], side, 1, self.reach)[0, 0]
        if self.task == 'height':
            return image[None]
        return torch.stack([-(image - centre).abs() / 50 for centre in (40.0, 128.0, 220.0)])

    def predict(self, tiles):
        found = []
        for tile in tiles:
            if self.fail_after is not None and len(self.seen) >= self.fail_after:
                if self.kill:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise RuntimeError('killed')
            self.seen.append(tile.tile.index)
            values = self.logits(tile.arrays)
            if self.task == 'classification':
                found.append(TilePrediction(tile.tile, scores=values.mean((1, 2)).softmax(0)))
            elif self.task == 'features':
                pooled = functional.avg_pool2d(values[None], 4)[0]
                found.append(TilePrediction(tile.tile, features=pooled))
            else:
                found.append(TilePrediction(tile.tile, logits=values))
        return found


def read(path):
    """(C, H, W) of a file."""
    with rasterio.open(path) as file:
        return file.read()


def picture(height, width, bands=3, dtype='uint8', seed=0):
    """(C, H, W) with structures of eight pixels."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (bands, -(-height // 8), -(-width // 8)))
    return small.repeat(8, 1).repeat(8, 2)[:, :height, :width].astype(dtype)
