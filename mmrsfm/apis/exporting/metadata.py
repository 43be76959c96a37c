# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What an exported file says of itself: enough to run it on a scene without its config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from mmrsfm.apis.scene.pipeline import InputSpec
from mmrsfm.contract import ImageryContract
from mmrsfm.errors import MMRSFMError, UnknownLayoutError

METADATA_KEY = 'mmrsfm'
FORMAT = 1
TASKS = ('segmentation', 'change_detection', 'height', 'classification', 'features')
_LARGEST = 2**16


@dataclass(frozen=True)
class OnnxMetadata:
    """The metadata of a model in ONNX; stored as JSON under the key ``mmrsfm``.

    Attributes:
        task: ``'segmentation'``, ``'change_detection'``, ``'height'``, ``'classification'`` or
            ``'features'``.
        model: Names of the classes of the model and its backbone, for people.
        inputs: For each scene ``dict(name, bands, count, eight_bit, optional)``, see
            :class:`mmrsfm.apis.scene.pipeline.InputSpec`. Each is an input of the graph, float32
            (B, bands, H, W), the red band first where bands have no names.
        stored_values: Whether the graph takes the numbers that files hold, and normalises them
            itself, NaN where there are no data; else it takes normalised values.
        masked: Whether missing pixels are known to the model; else they are pixels as any.
        size: Side of the images in pixels, H = W. With ``size_divisor`` of the example only.
        size_divisor: H and W may be any multiples of this; ``None``: they are ``size``.
        batch: Images in a batch; ``None``: any number.
        levels: Features: the numbers of the maps, -1 for the last, in the order of the outputs.
        channels: Channels of the output, of the last one of several.
        classes: Names of the classes.
        palette: A colour (red, green, blue, 0 to 255) for each class.
        contract: The imagery, see :class:`mmrsfm.contract.ImageryContract`.
        mean: Mean of each channel in stored numbers, the inputs behind each other: what is
            subtracted in the graph.
        std: Likewise, what is divided by.
        threshold: Segmentation with one channel: the probability from which on a pixel is 1.
        multi_label: Classification: whether several classes may hold.
        file_bands: Names of all bands of the files of the data set, for scenes that name none.
        checkpoint: SHA-256 of the checkpoint that was exported; ``None``: random weights.
        error: Largest difference from PyTorch, ``max|a - b| / max(1, max|b|)``.
        version: Of mmrsfm.
        format: Of this metadata.
    """

    task: str
    model: str
    inputs: tuple[dict[str, Any], ...]
    size: int
    stored_values: bool = True
    masked: bool = False
    size_divisor: int | None = None
    batch: int | None = None
    levels: tuple[int, ...] = ()
    channels: int | None = None
    classes: tuple[str, ...] | None = None
    palette: tuple[tuple[int, int, int], ...] | None = None
    contract: Mapping[str, Any] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    threshold: float = 0.5
    multi_label: bool = False
    file_bands: tuple[str, ...] | None = None
    checkpoint: str | None = None
    error: float = 0.0
    version: str = ''
    format: int = FORMAT

    def to_text(self) -> str:
        """The JSON that a file holds."""
        return json.dumps({key: value for key, value in asdict(self).items() if value is not None})

    @classmethod
    def from_file(cls, properties: Mapping[str, str], path: str) -> OnnxMetadata:
        """Reads the metadata of a file.

        Args:
            properties: Its ``metadata_props``.
            path: The file, for messages.

        Raises:
            UnknownLayoutError: If there are none, or none of mmrsfm, or they are damaged.
        """
        text = properties.get(METADATA_KEY)
        if text is None:
            raise UnknownLayoutError(
                f'{path} does not say which bands it takes, how they are scaled, nor what its '
                'output means: it was not written by tools/export.py, which puts that into it'
            )
        try:
            values = json.loads(text)
            kind = values.get('format')
            if kind != FORMAT:
                raise UnknownLayoutError(
                    f'{path}: its metadata have the format {kind!r}, this version of mmrsfm '
                    f'reads {FORMAT}: export the model again'
                )
            known = {field.name for field in fields(cls)}
            result = cls(**{key: _frozen(value) for key, value in values.items() if key in known})
            result._check()
            ImageryContract.from_dict(result.contract or {})
        except UnknownLayoutError:
            raise
        except (ValueError, TypeError, AttributeError, MMRSFMError) as error:
            raise UnknownLayoutError(f'{path}: its metadata are damaged: {error}') from error
        return result

    def _check(self) -> None:
        """Raises a ValueError or TypeError where a value is none of its kind."""
        for name in ('size', 'size_divisor', 'batch', 'channels'):
            value = getattr(self, name)
            if value is None and name != 'size':
                continue
            if type(value) is not int or not 0 < value < _LARGEST:
                raise ValueError(f'{name} is {value!r}')
        if self.task not in TASKS:
            raise ValueError(f'task is {self.task!r}, not one of {TASKS}')
        for spec in self.specs():
            if type(spec.count) is not int or spec.count < 1 or not isinstance(spec.name, str):
                raise ValueError(f'an input is {spec}')
        for name in ('classes', 'file_bands'):
            if not all(isinstance(one, str) for one in _sequence(getattr(self, name))):
                raise ValueError(f'{name} are {getattr(self, name)!r}')
        for colour in _sequence(self.palette):
            if len(colour) != 3 or not all(
                type(value) is int and 0 <= value <= 255 for value in colour
            ):
                raise ValueError(f'a colour is {colour!r}')
        if type(self.threshold) not in (int, float) or not 0 <= self.threshold <= 1:
            raise ValueError(f'threshold is {self.threshold!r}')
        for name in ('stored_values', 'masked', 'multi_label'):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f'{name} is {getattr(self, name)!r}')

    def specs(self) -> tuple[InputSpec, ...]:
        """What is read of each scene."""
        return tuple(InputSpec(**one) for one in self.inputs)


def _sequence(value: Any) -> tuple[Any, ...]:
    if value is not None and not isinstance(value, tuple):
        raise ValueError(f'{value!r} is no list')
    return value or ()


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(one) for key, one in value.items()}
    return tuple(_frozen(one) for one in value) if isinstance(value, list) else value
