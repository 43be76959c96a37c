# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What the decoders of a multi-task pretraining have in common.

"MTP: Advancing Remote Sensing Foundation Model via Multi-Task Pretraining" (Wang et al., JSTARS
2024, arXiv 2403.13430): one decoder a task for all data sets, and last layers for each of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from mmengine.dist import get_world_size
from mmengine.model import BaseModule, ModuleDict
from torch import Tensor, nn

from mmrsfm.errors import ConfigError, DataError

Maps = tuple[Tensor, ...]


@dataclass(frozen=True)
class Group:
    """Consecutive images of one data set.

    Attributes:
        name: The data set.
        part: Where they stand in the batch.
    """

    name: str
    part: slice


@dataclass
class TaskLosses:
    """What a decoder makes of a batch.

    Attributes:
        terms: For each data set of the batch, losses and accuracies by their names in its library.
        zero: A scalar of value 0 that depends on what no loss depends on in this batch, or
            ``None``.
    """

    terms: dict[str, dict[str, Any]] = field(default_factory=dict)
    zero: Tensor | None = None

    def touch(self, value: Tensor) -> None:
        """Lets the losses depend on a tensor, with a gradient of 0."""
        term = value.float().sum() * 0
        self.zero = term if self.zero is None else self.zero + term


class TaskDecoder(BaseModule, ABC):
    """A decoder that all data sets share, and its last layers, one set for each data set.

    Args:
        init_cfg: MMEngine's initialisation config.

    Attributes:
        scope: The task library in whose scope its parts are built, so that types without a scope
            (also those that its classes have as defaults) are those of that library.
        last_layers: By the name of the data set.
    """

    scope: ClassVar[str]
    last_layers: ModuleDict

    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__(init_cfg=init_cfg)

    @abstractmethod
    def loss(self, maps: Maps, samples: Sequence[Any], groups: Sequence[Group]) -> TaskLosses:
        """Computes the losses of images that all have labels of this kind.

        Args:
            maps: Maps of the encoder, each (B, C, h, w).
            samples: B data samples.
            groups: The data sets of the images; together they are all B.

        Returns:
            The losses of each group, each averaged over the group as its library averages over a
            batch. With B = 0 only what other ranks wait for is computed.
        """

    @abstractmethod
    def predict(
        self, maps: Maps, samples: Sequence[Any], groups: Sequence[Group], rescale: bool = True
    ) -> None:
        """Writes predictions into the samples.

        Args:
            maps: Maps of the encoder, each (B, C, h, w).
            samples: B data samples.
            groups: The data sets of the images.
            rescale: Whether they are for the original images, or for the inputs.
        """

    def waits_for_ranks(self) -> bool:
        """Whether its layers exchange statistics with other ranks, and so must run on all."""
        return get_world_size() > 1 and any(
            isinstance(module, nn.SyncBatchNorm) and module.training for module in self.modules()
        )

    def idle_parameters(self, names: Sequence[str], ran: bool) -> list[nn.Parameter]:
        """What the losses of a batch do not depend on.

        Args:
            names: The data sets of the batch.
            ran: Whether the shared part ran.

        Returns:
            Trained parameters.
        """
        if not ran:
            idle = list(self.parameters())
        else:
            idle = [
                parameter
                for name, layers in self.last_layers.items()
                if name not in names
                for parameter in layers.parameters()
            ]
        return [parameter for parameter in idle if parameter.requires_grad]


def check_labels(labels: Tensor, classes: int, what: str, ignored: int | None = None) -> None:
    """Refuses labels that a classifier does not have.

    On a GPU such labels would end the run without a hint at the reason.

    Args:
        labels: Any shape, int64.
        classes: Number of classes.
        what: Whose labels they are, for the message.
        ignored: A label that stands for no class.

    Raises:
        DataError: If there is another label.
    """
    wrong = (labels < 0) | (labels >= classes)
    if ignored is not None:
        wrong &= labels != ignored
    if bool(wrong.any()):
        found = sorted(set(labels[wrong].tolist()))[:5]
        raise DataError(
            f'{what}: labels {found} occur, but the model has {classes} classes for them',
            hint='Compare the classes of the dataset with those in `datasets` of the model',
        )


def check_strides(
    maps: Maps, strides: Sequence[Sequence[int]], size: Sequence[int], task: str
) -> None:
    """Refuses maps of other strides than those that the anchors stand at.

    Nothing else would notice: the anchors would be spread over a part of the image, or beyond it.

    Args:
        maps: Each (B, C, h, w).
        strides: Rows and columns of pixels for each cell of a map, one pair a map.
        size: Height and width of the images in pixels.
        task: Whose anchors they are, for the message.

    Raises:
        ConfigError: If a side of a map is longer or shorter by more than a quarter, and a cell.
    """
    found = [tuple(x.shape[-2:]) for x in maps]
    wanted = [[side / step for side, step in zip(size, pair, strict=True)] for pair in strides]
    fits = len(found) == len(wanted) and all(
        abs(here - there) <= max(1, there / 4)  # a last, partial cell may be there or not
        for shape, sides in zip(found, wanted, strict=True)
        for here, there in zip(shape, sides, strict=True)
    )
    if not fits:
        raise ConfigError(
            f'{task!r}: the anchors have strides of {[tuple(pair) for pair in strides]}, but an '
            f'image of {size[0]} x {size[1]} pixels becomes maps of {found}: give the strides of '
            'the backbone to anchor_generator of rpn_head and featmap_strides of the RoI extractors'
        )


def label_of(sample: Any, key: str, task: str) -> Any:
    """A label of a sample.

    Raises:
        DataError: If it has none.
    """
    if key not in sample:
        raise DataError(
            f'a sample of {sample.get("dataset_name")!r} has no {key}, which {task!r} needs',
            path=sample.get('img_path'),
            hint="Load it, or leave the task out of the sample's `tasks`",
        )
    return getattr(sample, key)


def metas_of(samples: Sequence[Any]) -> list[dict[str, Any]]:
    """Meta information of samples, with what detectors ask for."""
    metas = []
    for sample in samples:
        meta = dict(sample.metainfo)
        meta.setdefault('scale_factor', (1.0, 1.0))
        meta.setdefault('ori_shape', meta.get('img_shape'))
        metas.append(meta)
    return metas


def full_precision(values: Any) -> Any:
    """Tensors, also in lists, in float32: losses and boxes need it under autocast too."""
    if isinstance(values, Tensor):
        return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    return type(values)(full_precision(value) for value in values)


def section(values: Any, part: slice) -> Any:
    """The images ``part`` of tensors (B, ...), also in lists."""
    if isinstance(values, Tensor):
        return values[part]
    return [section(value, part) for value in values]


def without(config: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """A copy of a config, less some entries."""
    return {key: value for key, value in config.items() if key not in keys}


def need(config: Any, what: str) -> dict[str, Any]:
    """A config that must be there, and be one.

    Raises:
        ConfigError: If it is something else.
    """
    if not isinstance(config, Mapping):
        raise ConfigError(f'{what} must be one config (a dict), got {type(config).__name__}')
    return dict(config)
