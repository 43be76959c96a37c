# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""An exported model, as a function from tiles to predictions; needs onnxruntime, and no config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmrsfm.apis.exporting.graph import open_session
from mmrsfm.apis.exporting.metadata import OnnxMetadata
from mmrsfm.apis.exporting.preprocessing import to_images
from mmrsfm.apis.scene.tile_data import TileInput, TilePrediction
from mmrsfm.contract import ImageryContract, band_keys
from mmrsfm.errors import BandMismatchError, CheckpointReadError, ConfigError, UnknownLayoutError


class OnnxModel:
    """A file that ``tools/export.py`` wrote, ready to take tiles.

    It has the interface of :class:`mmrsfm.apis.scene.model.SceneModel`; all that one takes from a
    config stands in the metadata of the file.

    Args:
        checkpoint: The file, or its content.
        device: For example ``'cpu'`` or ``'cuda:0'``; a GPU needs onnxruntime-gpu.
        amp: Not with ONNX: it computes as it was exported.
        features: Of an exported backbone, the number of the map (-1: the last); ``None``: the last.
        tile_size: Side of the tiles in pixels; ``None``: the size of the export, which is the only
            one unless it was exported for others.
        image_size: Not with ONNX.

    Attributes:
        metadata: What the file says of itself.
        task: As of :class:`mmrsfm.apis.scene.model.SceneModel`, and so are ``inputs``, ``classes``,
            ``palette``, ``contract``, ``tile_size``, ``threshold``, ``multi_label``,
            ``file_bands``, ``channels``, ``checkpoint``, ``device`` and ``amp``.

    Raises:
        CheckpointReadError: If the file is not there, or is no model of ONNX.
        UnknownLayoutError: If ``tools/export.py`` did not write it.
        ConfigError: For options that such a file cannot follow.
        MissingDependencyError: Without onnxruntime.
    """

    def __init__(
        self,
        checkpoint: str | Path | bytes,
        device: str = 'cpu',
        amp: bool = False,
        features: int | None = None,
        tile_size: int | None = None,
        image_size: int | None = None,
    ) -> None:
        content = isinstance(checkpoint, bytes)
        self.checkpoint = 'the model' if content else str(checkpoint)
        if not content and not Path(self.checkpoint).is_file():
            raise CheckpointReadError(f'{self.checkpoint}: no such file')
        if amp:
            raise ConfigError(f'{self.checkpoint}: a model in ONNX computes as it was exported')
        if image_size is not None:
            raise ConfigError(
                f'{self.checkpoint}: the size of the images is part of a model in ONNX'
            )
        self.device = torch.device(device)
        self.amp = False
        try:
            self._session: Any = open_session(
                checkpoint if isinstance(checkpoint, bytes) else self.checkpoint, device
            )
        except RuntimeError as error:
            if type(error).__module__.startswith('mmrsfm'):
                raise
            raise CheckpointReadError(_unreadable(self.checkpoint, error)) from error
        except Exception as error:  # onnxruntime's errors have no common base class
            if type(error).__module__.startswith('mmrsfm'):
                raise
            raise CheckpointReadError(_unreadable(self.checkpoint, error)) from error
        properties = self._session.get_modelmeta().custom_metadata_map
        self.metadata = OnnxMetadata.from_file(properties, self.checkpoint)
        data = self.metadata
        if not data.stored_values:
            raise ConfigError(
                f'{self.checkpoint} takes normalised values, for programs that normalise as its '
                'pipeline does; for scenes export it with --input stored'
            )
        self.task = data.task
        self.inputs = data.specs()
        self._names = [one.name for one in self._session.get_inputs()]
        self._outputs = [one.name for one in self._session.get_outputs()]
        self._check_graph()
        self.level = self._find_level(features)
        self.tile_size = self._find_size(tile_size)
        self.classes = None if data.classes is None else list(data.classes)
        self.palette = None if data.palette is None else list(data.palette)
        self.contract = ImageryContract.from_dict(data.contract or {})
        self.threshold = data.threshold
        self.multi_label = data.multi_label
        self.file_bands = data.file_bands
        self.channels = None if self.task in ('classification', 'features') else data.channels

    def _check_graph(self) -> None:
        """Raises an UnknownLayoutError where the metadata are not those of this graph."""
        data = self.metadata
        inputs = [(one.name, [data.batch, one.count, None, None]) for one in self.inputs]
        if data.size_divisor is None:
            inputs = [(name, [*shape[:2], data.size, data.size]) for name, shape in inputs]
        stated = [*inputs, (self._outputs[-1], [data.batch, data.channels])]
        found = [*self._session.get_inputs(), self._session.get_outputs()[-1]]
        fits = len(stated) == len(found) and all(
            name == one.name and all(
                side in (None, actual) or not isinstance(actual, int)
                for side, actual in zip(shape, one.shape, strict=False)
            )
            for (name, shape), one in zip(stated, found, strict=True)
        )  # fmt: skip
        if not fits:
            raise UnknownLayoutError(
                f'{self.checkpoint}: its metadata are damaged: they speak of {stated}, the graph '
                f'has {[(one.name, one.shape) for one in found]}'
            )

    def _find_level(self, features: int | None) -> int:
        count = len(self._outputs)
        if self.task != 'features':
            if features is not None:
                raise ConfigError(
                    f'{self.checkpoint} is a model for {self.task}; for features export the '
                    'backbone (--part backbone)'
                )
            return 0
        level = -1 if features is None else features
        if not -count <= level < count:
            raise ConfigError(f'{self.checkpoint} has {count} maps, asked for {level}')
        return level

    def _find_size(self, tile_size: int | None) -> int:
        data = self.metadata
        if tile_size is None or tile_size == data.size:
            return data.size
        if data.size_divisor is None:
            raise ConfigError(
                f'{self.checkpoint} was exported for tiles of {data.size} pixels, got {tile_size}: '
                f'export it with --size {tile_size}, or for several with --size-divisor'
            )
        if tile_size < 1 or tile_size % data.size_divisor:
            raise ConfigError(
                f'{self.checkpoint} takes tiles of multiples of {data.size_divisor} pixels, got '
                f'{tile_size}'
            )
        return tile_size

    @property
    def num_inputs(self) -> int:
        """How many scenes the model takes, 1 or 2."""
        return len(self.inputs)

    @property
    def band_names(self) -> tuple[tuple[str | int, ...] | None, ...]:
        """The bands of each input, by name or one-based number; ``None``: all of the file."""
        return tuple(one.bands for one in self.inputs)

    @property
    def settings(self) -> dict[str, Any]:
        """All that predictions depend on besides the file, as JSON can hold it."""
        return {'level': self.level}

    def predict(self, tiles: Sequence[TileInput]) -> list[TilePrediction]:
        """Runs the model on tiles of one size.

        Args:
            tiles: The tiles.

        Returns:
            A prediction for each of them.

        Raises:
            BandMismatchError: If the bands are not those of the model.
        """
        plain = [one.eight_bit or not self.metadata.masked for one in self.inputs]
        parts = []
        for tile in tiles:
            self._check(tile)
            parts.append([image.numpy() for image in to_images(self._filled(tile), plain)])
        images = [np.concatenate(together) for together in zip(*parts, strict=True)]
        found: list[np.ndarray] = []
        step = self.metadata.batch or len(tiles)
        for start in range(0, len(tiles), step):
            batch = [one[start : start + step] for one in images]
            missing = (self.metadata.batch or 0) - len(batch[0])
            if missing > 0:  # the graph takes no fewer
                batch = [np.concatenate([x, np.repeat(x[-1:], missing, 0)]) for x in batch]
            feed = dict(zip(self._names, batch, strict=True))
            output = self._session.run([self._outputs[self.level]], feed)[0]
            found.extend(output[: len(tiles) - start])
        return [
            self._prediction(tile, torch.from_numpy(np.ascontiguousarray(one)).float())
            for tile, one in zip(tiles, found, strict=True)
        ]

    def _filled(self, tile: TileInput) -> TileInput:
        """With NaN for an input that is missing."""
        if all(array is not None for array in tile.arrays):
            return tile
        arrays = tuple(
            np.full((*tile.valid.shape, spec.count or 0), np.nan, np.float32)
            if array is None
            else array
            for spec, array in zip(self.inputs, tile.arrays, strict=True)
        )
        return replace(tile, arrays=arrays)

    def _prediction(self, tile: TileInput, values: torch.Tensor) -> TilePrediction:
        if self.task == 'classification':
            return TilePrediction(tile.tile, scores=values)
        if self.task == 'features':
            if values.ndim != 3:
                raise ConfigError(
                    f'{self.checkpoint} gives a vector of {values.shape[0]} numbers, no map: '
                    "export it from a config with model.backbone.out_type='featmap'"
                )
            return TilePrediction(tile.tile, features=values)
        return TilePrediction(tile.tile, logits=values)

    def _check(self, tile: TileInput) -> None:
        if len(tile.arrays) != len(self.inputs):
            raise BandMismatchError(
                f'the model takes {len(self.inputs)} image(s), got {len(tile.arrays)}',
                path=self.checkpoint,
            )
        for number, (spec, array) in enumerate(zip(self.inputs, tile.arrays, strict=True)):
            if array is None and spec.optional and self.metadata.masked:
                continue
            if array is None:
                raise BandMismatchError(
                    f'the model needs its input {spec.name!r}', path=self.checkpoint
                )
            names = None if tile.band_names is None else tile.band_names[number]
            stated = None if spec.bands is None else [str(band) for band in spec.bands]
            wrong = (
                names is not None
                and spec.bands is not None
                and all(isinstance(band, str) for band in spec.bands)
                and band_keys(names) != band_keys(stated or ())
            )
            if wrong or array.shape[2] != spec.count:
                raise BandMismatchError(
                    f'the input {spec.name!r} has {array.shape[2]} band(s) '
                    f'{list(names) if names else ""}, the model takes {spec.count} {stated or ""}',
                    path=self.checkpoint,
                    hint='Choose its bands in that order (bands=[...], --bands)',
                )


def _unreadable(path: str, error: Exception) -> str:
    line = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return f'{path} cannot be read as a model of ONNX: {line}'
