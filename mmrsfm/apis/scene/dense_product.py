# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Maps with a value for each pixel: classes, changes, heights, translated images, features."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmrsfm.apis.scene.area import Region
from mmrsfm.apis.scene.blending import Blender, Block, plan_blocks
from mmrsfm.apis.scene.grid import Tile
from mmrsfm.apis.scene.journal import Journal
from mmrsfm.apis.scene.products import Product, Stream
from mmrsfm.apis.scene.rasters import MapLayout, write_map
from mmrsfm.apis.scene.source import SceneSource
from mmrsfm.apis.scene.stream import Times
from mmrsfm.apis.scene.tile_data import TilePrediction
from mmrsfm.errors import ConfigError
from mmrsfm.version import __version__
from mmrsfm.visualization.panels import distinct_colours

_CLASS_TASKS = ('segmentation', 'change_detection')


class DenseProduct(Product):
    """GeoTIFFs on the grid of the scene; of features on one that is coarser by their stride.

    Args:
        model: The model.
        source: The scene.
        overlap: Pixels that tiles share.
        memory: Bytes that blended maps may take.
        with_probabilities: Whether classes come with their probabilities.

    Raises:
        ConfigError: If the feature maps do not divide the tiles.
    """

    def __init__(
        self,
        model: Any,
        source: SceneSource,
        overlap: int,
        memory: int,
        with_probabilities: bool = False,
    ) -> None:
        self.stride, channels = 1, model.channels
        if model.task == 'features':
            self.stride, channels = _probe(model, source)
        super().__init__(model, source, overlap, self.stride)
        self.channels = channels
        self.by_class = model.task in _CLASS_TASKS
        self.with_probabilities = with_probabilities and self.by_class
        self.height = -(-self.region.height // self.stride)
        self.width = -(-self.region.width // self.stride)
        tile, step = model.tile_size // self.stride, (model.tile_size - overlap) // self.stride
        self.file_block = 256 if self.stride == 1 else 64
        self.blocks = plan_blocks(
            self.height, self.width, channels or 1, tile, step, self.file_block, memory
        )
        self.units = [block.index for block in self.blocks]
        classes = max(channels or 1, 2)
        self.nodata = 255 if classes <= 255 else 65535
        self.layouts = self._layouts(classes)
        self.nbytes = sum(layout.nbytes for layout in self.layouts.values())
        self.blender = Blender(self.grid, self.region, self.stride, (source.height, source.width))
        self._tiles: dict[int, int] = {}
        blocks = [(one.region.height, one.region.width) for one in self.blocks[:1]]
        self.settings = {'probabilities': self.with_probabilities, 'blocks': blocks}
        self.info = {'map_size': [self.height, self.width], 'stride': self.stride}
        if self.by_class:
            self.info['nodata'] = self.nodata

    def begin(self, units: Sequence[int]) -> list[Tile]:
        """The tiles of blocks; see :class:`Product`."""
        tiles: list[Tile] = []
        before: Block | None = None
        for unit in units:
            found = self.blender.tiles_of(self.blocks[unit], before)
            self._tiles[unit] = len(found)
            tiles += found
            before = self.blocks[unit]
        return tiles

    def compute(self, unit: int, stream: Stream, times: Times) -> dict[str, np.ndarray]:
        """Blends a block; see :class:`Product`."""
        block = self.blocks[unit]
        self.blender.begin(block, self.channels)
        for _ in range(self._tiles[unit]):
            item, prediction = next(stream)
            start = time.perf_counter()
            values = None if prediction is None else self._values(prediction)
            self.blender.add(item.tile, values, item.valid)
            times.writing += time.perf_counter() - start
        start = time.perf_counter()
        mean, valid = self.blender.finish()
        if mean is not None:
            wrong = mean.isnan().any(0) & valid
            if count := int(wrong.sum()):  # of these a class would be a made-up one
                self.notes.append({'unit': unit, 'not_a_number': count})
                valid = valid & ~wrong
        arrays = self._finished(mean, valid)
        times.writing += time.perf_counter() - start
        return arrays

    def files(self, out: Path, stem: str) -> dict[str, Path]:
        """See :class:`Product`."""
        suffix = {'map': '', 'probabilities': '_probabilities'}
        return {name: out / f'{stem}{suffix[name]}.tif' for name in self.layouts}

    def write(self, journal: Journal, out: Path, stem: str) -> dict[str, Path]:
        """See :class:`Product`."""
        files = self.files(out, stem)
        for name, path in files.items():
            write_map(path, self.layouts[name], self._parts(journal, name))
        return files

    def _parts(self, journal: Journal, name: str) -> Iterator[tuple[Region, np.ndarray]]:
        for block in self.blocks:
            yield block.region, journal.read(block.index, [name])[name]

    def _values(self, prediction: TilePrediction) -> torch.Tensor:
        values = prediction.features if self.stride > 1 else prediction.logits
        values = prediction.features if values is None else values
        size = self.model.tile_size // self.stride
        if values is None or values.shape[1:] != (size, size):
            shape = None if values is None else tuple(values.shape)
            raise ConfigError(
                f'for tiles of {self.model.tile_size} pixels the model gives {shape}, not maps of '
                f'{size} x {size}'
            )
        if self.channels is None:
            self.channels = len(values)
        return values

    def _finished(self, mean: torch.Tensor | None, valid: torch.Tensor) -> dict[str, np.ndarray]:
        """The arrays of a block, in the types of the files."""
        arrays = {}
        for name, layout in self.layouts.items():
            if mean is None:
                shape = (layout.bands, *valid.shape)
                arrays[name] = np.full(shape, layout.nodata, layout.dtype)
            elif name == 'probabilities':
                arrays[name] = _probabilities(mean, valid)
            elif self.by_class:
                arrays[name] = self._classes(mean, valid)
            else:
                values = mean.clone()
                values[:, ~valid] = float('nan')
                arrays[name] = values.numpy()
        return arrays

    def _classes(self, logits: torch.Tensor, valid: torch.Tensor) -> np.ndarray:
        if len(logits) == 1:
            found = logits[0].sigmoid() > self.model.threshold
        else:
            found = logits.argmax(0)
        result = found.numpy().astype(self.layouts['map'].dtype)
        result[~valid.numpy()] = self.nodata
        return result[None]

    def _layouts(self, classes: int) -> dict[str, MapLayout]:
        tags = {
            'TIFFTAG_SOFTWARE': f'mmrsfm {__version__}',
            'mmrsfm_task': self.model.task,
            'mmrsfm_checkpoint': Path(self.model.checkpoint).name,
        }
        names = self.model.classes
        shared: dict[str, Any] = {
            'height': self.height, 'width': self.width, 'crs': self.source.crs,
            'transform': self.transform(self.stride), 'block': self.file_block,
        }  # fmt: skip
        if not self.by_class:
            described = [self.model.task] if self.model.task == 'height' else None
            bands = self.channels or 1
            return {
                'map': MapLayout(
                    bands=bands, dtype='float32', nodata=float('nan'), descriptions=described,
                    tags=tags, **shared,
                )
            }  # fmt: skip
        if names is not None:
            tags['classes'] = ','.join(names)
        colours = self.model.palette or distinct_colours(classes)
        kind = 'uint8' if self.nodata == 255 else 'uint16'
        layouts = {
            'map': MapLayout(
                bands=1, dtype=kind, nodata=self.nodata, colours=colours[:classes], tags=tags,
                **shared,
            )
        }  # fmt: skip
        if self.with_probabilities:
            bands = self.channels or 1
            described = list(names)[-bands:] if names is not None else None
            layouts['probabilities'] = MapLayout(
                bands=bands, dtype='float32', nodata=float('nan'), descriptions=described,
                tags=tags, **shared,
            )  # fmt: skip
        return layouts


def _probabilities(logits: torch.Tensor, valid: torch.Tensor) -> np.ndarray:
    """(K, h, w) float32, NaN where not valid; one channel: of the second of two classes."""
    values = logits.sigmoid() if len(logits) == 1 else logits.softmax(0)
    values[:, ~valid] = float('nan')
    return values.numpy()


def _probe(model: Any, source: SceneSource) -> tuple[int, int]:
    """Stride and channels of the feature maps, by one tile."""
    size = model.tile_size
    region = Region(0, 0, 0, 0) if source.area is None else source.area.region
    tile = source.read(Tile(0, region.row, region.col, size, size))
    features = model.predict([tile])[0].features
    channels, height, width = features.shape
    if size % height or height != width:
        raise ConfigError(
            f'tiles of {size} pixels have features of {height} x {width}: take tiles whose side is '
            'a multiple of the stride of the backbone'
        )
    return size // height, channels
