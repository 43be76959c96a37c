# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What the pipeline and the data preprocessor of a config do to a tile, as a part of a graph.

It is found out by trying, not by reading configs: tiles of known values go in, and what comes out
must be a multiple of them plus a constant, channel by channel. A pipeline that does more (decibels,
another size) is found out as well, and named.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmrsfm.apis.scene.grid import Tile
from mmrsfm.apis.scene.model import SceneModel
from mmrsfm.apis.scene.tile_data import TileInput
from mmrsfm.errors import ConfigError, ExportError

_TOLERANCE = 1e-4
# Steps that clip, or take a number for no data, do nothing to values that are usual for a model.
_UNUSUAL = (-1e6, -32768.0, -9999.0, -1.0, 0.0, 1.0, 255.0, 9999.0, 32767.0, 65535.0, 1e6)


class StoredValues(nn.Module):
    """Normalises stored numbers: ``(x - mean) / std`` of chosen channels, and fills NaN.

    Args:
        order: For each channel of the result that of the input.
        mean: One value a channel of the result, in stored numbers.
        std: Likewise.
        fill: What NaN becomes, normalised; NaN: it stays, for a model that knows it; ``None``:
            pixels without data are unknown.
        split: In how many equal parts the result is cut; 1: it is one tensor.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, order: list[int], mean: Tensor, std: Tensor, fill: float | None, split: int = 1
    ) -> None:
        super().__init__()
        self.order = order
        self.fill = fill
        self.split = split
        self.register_buffer('mean', mean.float().view(-1, 1, 1))
        self.register_buffer('std', std.float().view(-1, 1, 1))

    def forward(self, *images: Tensor) -> Tensor | list[Tensor]:
        """Normalises.

        Args:
            *images: One for each input, (B, C, H, W) float32.

        Returns:
            (B, C', H, W), or its parts.
        """
        x = torch.cat(images, 1) if len(images) > 1 else images[0]
        if self.order != list(range(x.shape[1])):
            x = x[:, self.order]
        y = (x - self.mean) / self.std
        if self.fill is not None and not math.isnan(self.fill):
            y = torch.where(torch.isnan(y), torch.full_like(y, self.fill), y)
        return y if self.split == 1 else list(y.chunk(self.split, 1))


def preprocessed(scene: SceneModel, tiles: list[TileInput]) -> list[Tensor]:
    """What the network of a model gets for some tiles.

    Args:
        scene: The model.
        tiles: The tiles, of one size.

    Returns:
        The tensors (B, C, H, W): one, or one for each input.
    """
    samples = [scene.pipeline(tile.rasters(), 'a tile for the export') for tile in tiles]
    with DefaultScope.overwrite_default_scope(scene.cfg.get('default_scope') or 'mmengine'):
        data = scene.model.data_preprocessor(pseudo_collate(samples), False)
    inputs = data['inputs']
    return [inputs] if isinstance(inputs, Tensor) else list(inputs)


def random_tile(scene: SceneModel, size: int, seed: int = 0, holes: bool = False) -> TileInput:
    """A tile of noise over the values that the model is for.

    Args:
        scene: The model.
        size: Side in pixels.
        seed: Of the noise.
        holes: Whether a corner has no data.

    Raises:
        ExportError: If the model does not say how many bands it takes.
    """
    rng = np.random.default_rng(seed)
    arrays, used = [], 0
    low, high = _value_range(scene)
    for spec in scene.inputs:
        count = bands_of(spec)
        part = slice(used, used + count) if len(low) > count else slice(0, count)
        used += count
        values = rng.uniform(low[part], high[part], (size, size, count))
        arrays.append(values.astype(np.uint8 if spec.eight_bit else np.float32))
    valid = np.ones((size, size), bool)
    if holes:
        valid[: size // 4, : size // 3] = False
    names = tuple(_names(spec) for spec in scene.inputs)
    return TileInput(tuple(arrays), valid, Tile(0, 0, 0, size, size), names)


def bands_of(spec: Any) -> int:
    """How many bands an input has.

    Raises:
        ExportError: If nobody says.
    """
    count = spec.count if spec.bands is None else len(spec.bands)
    if count is None:
        raise ExportError(
            f'the config does not say how many bands the input {spec.name!r} has: state them in '
            'the loading step (bands=[...]) or in the data preprocessor (band_names=[...])'
        )
    return int(count)


def measure_preprocessing(scene: SceneModel, size: int) -> StoredValues:
    """Finds the normalisation of a model by trying it.

    Args:
        scene: The model.
        size: Side of the tiles in pixels.

    Raises:
        ExportError: If pipeline and data preprocessor do more than choose, scale and shift
            channels.
    """
    example = random_tile(scene, size)
    counts = [bands_of(spec) for spec in scene.inputs]
    steps = [type(step).__name__ for step in scene.pipeline._rest.transforms]
    where = f'the pipeline of the config (after loading: {", ".join(steps) or "nothing"})'

    def run(tile: TileInput) -> tuple[Tensor, int]:
        found = preprocessed(scene, [tile])
        for x in found:
            if x.shape[2:] != (size, size):
                raise ExportError(
                    f'{where} makes {x.shape[2]} x {x.shape[3]} pixels of a tile of {size}: that '
                    f'is no part of a graph. {_ELSE}'
                )
        return torch.cat(found, 1)[0], len(found)

    def tile(*values: float) -> TileInput:
        parts = np.split(np.array(values), np.cumsum(counts)[:-1])
        arrays = [
            np.broadcast_to(part, (size, size, len(part))).astype(np.asarray(array).dtype)
            for part, array in zip(parts, example.arrays, strict=True)
        ]
        return TileInput(tuple(arrays), example.valid, example.tile, example.band_names)

    total = sum(counts)
    zero, split = run(tile(*[0.0] * total))
    base = zero[:, 0, 0].double()
    high = _value_range(scene)[1]
    order, factor = [-1] * len(base), torch.ones(len(base), dtype=torch.float64)
    for channel in range(total):
        values = [0.0] * total
        values[channel] = float(np.floor(high[channel % len(high)])) or 1.0
        response = run(tile(*values))[0][:, 0, 0].double() - base
        for row in response.nonzero().flatten().tolist():
            if order[row] != -1:
                raise ExportError(f'{where} mixes channels: a graph of it is not supported')
            order[row], factor[row] = channel, response[row] / values[channel]
    if -1 in order or not torch.isfinite(base).all():
        raise ExportError(
            f'{where} and the data preprocessor do more than scale and shift: what comes out for '
            'zeros is not finite, or some channels do not depend on the input. ' + _ELSE
        )
    fill = _fill(scene, size, run)
    graph = StoredValues(order, -base / factor, 1 / factor, fill, split)
    plain = [spec.eight_bit or fill is None for spec in scene.inputs]
    for number, one in enumerate((example, _unusual(example))):
        wanted = run(one)[0]
        found = graph(*to_images(one, plain))
        got = torch.cat(found, 1)[0] if isinstance(found, list) else found[0]
        # Each by itself: what is clipped would be small beside the largest.
        errors = (got - wanted).abs() / wanted.abs().clamp(min=1)
        error = float(errors.max())
        if not error <= _TOLERANCE:
            place = divmod(int(errors.nan_to_num(torch.inf).flatten(1).amax(0).argmax()), size)
            values = [array[place].tolist() for array in one.arrays if array is not None]
            raise ExportError(
                f'{where} and the data preprocessor do more than scale and shift channels: for the '
                f'stored values {values} they differ from that by {error:.1e}'
                + (' (is something clipped, or a number no data?)' if number else '')
                + f'. {_ELSE}'
            )
    return graph


def _unusual(tile: TileInput) -> TileInput:
    """A tile of values that models rarely see, where the type has them."""
    arrays = []
    for array in tile.arrays:
        assert array is not None
        if array.dtype == np.uint8:
            arrays.append(array)  # noise over all values
            continue
        values = np.resize(np.array(_UNUSUAL, array.dtype), array.shape[0] * array.shape[1])
        arrays.append(np.broadcast_to(values.reshape(*array.shape[:2], 1), array.shape).copy())
    return TileInput(tuple(arrays), tile.valid, tile.tile, tile.band_names)


_ELSE = (
    "With input='normalized' (--input normalized) the graph takes what they make, for programs "
    'that do the same.'
)


def to_images(tile: TileInput, plain: list[bool]) -> list[Tensor]:
    """The inputs of a graph for a tile.

    Args:
        tile: The tile.
        plain: For each input whether missing pixels are pixels as any; else they become NaN.

    Returns:
        (1, C, H, W) float32 for each input.
    """
    images = []
    for raster, unmasked in zip(tile.rasters(), plain, strict=True):
        assert raster is not None
        array = raster.array.astype(np.float32)
        if not unmasked:
            for band, value in enumerate(raster.nodata):
                if value is not None:
                    array[..., band][raster.array[..., band] == value] = np.nan
            if raster.mask is not None:
                array[~raster.mask] = np.nan
            array[~np.isfinite(array)] = np.nan
        images.append(torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))[None])
    return images


def _fill(scene: SceneModel, size: int, run: Any) -> float | None:
    """What pixels without data become; ``None`` where the model does not know of them."""
    if any(spec.eight_bit for spec in scene.inputs):
        return None
    tile = random_tile(scene, size, holes=True)
    holes = run(tile)[0][:, ~tile.valid]
    if torch.equal(holes, run(random_tile(scene, size))[0][:, ~tile.valid]):
        return None
    if holes.isnan().all():
        return math.nan
    found = holes.unique()
    if len(found) != 1 or not torch.isfinite(found).all():
        raise ExportError(f'pixels without data become more than one value. {_ELSE}')
    return float(found)


def _names(spec: Any) -> tuple[str, ...] | None:
    named = spec.bands is not None and all(isinstance(band, str) for band in spec.bands)
    return tuple(spec.bands) if named else None


def _value_range(scene: SceneModel) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest stored values to try, for each channel of all inputs, or of one."""
    contract = scene.contract
    if any(spec.eight_bit for spec in scene.inputs) or contract.mean is None:
        count = sum(bands_of(spec) for spec in scene.inputs)
        return np.zeros(count), np.full(count, 255.0)
    scale = np.asarray(contract.scale or 1.0, float)
    offset = np.asarray(contract.offset or 0.0, float)
    mean, std = np.asarray(contract.mean), np.asarray(contract.std)
    low, high = (mean - 2 * std - offset) / scale, (mean + 2 * std - offset) / scale
    if not np.isfinite(high).all() or not (high > low).all():
        raise ConfigError(f'the contract has no values to try: {contract}')
    return low, high
