# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Modalities that a pretraining predicts: how a config declares them, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.models.losses.modality_losses import REGRESSIONS

MAPS = ('map', 'class_map')
TYPES = (*MAPS, 'class', 'vector')
SOURCES = ('targets', 'inputs')


@dataclass(frozen=True)
class ModalityTarget:
    """One modality.

    Attributes:
        name: What the data call it.
        type: ``'map'``: numbers a pixel, float (channels, H, W), NaN or infinite where missing;
            ``'class_map'``: a class a pixel, int64 (H, W), negative where missing; ``'class'``: one
            class, int64 (), negative where missing; ``'vector'``: numbers of the whole image, float
            (channels,), NaN or infinite where missing.
        channels: Numbers a pixel, or of the image; of the types without classes.
        classes: Number of classes; of the types with classes.
        loss: Of the types without classes: ``'mse'`` or ``'mae'``.
        norm_pix: Of maps: whether each patch is normalised by its own mean and variance.
        source: ``'targets'``: it comes in the data sample's ``targets``; ``'inputs'``: it is the
            image that the encoder sees parts of.
        loss_weight: Factor of its loss.
        picture: Three channels, or one, from 0, that stand for it in pictures; of maps.
    """

    name: str
    type: str
    channels: int = 0
    classes: int = 0
    loss: str = 'mse'
    norm_pix: bool = False
    source: str = 'targets'
    loss_weight: float = 1.0
    picture: tuple[int, ...] | None = None

    @property
    def is_map(self) -> bool:
        """Whether it has a value for every pixel."""
        return self.type in MAPS

    @property
    def width(self) -> int:
        """Numbers that are predicted: a pixel of a map, else of the image."""
        return self.classes or self.channels

    def shape(self, size: Sequence[int]) -> tuple[int, ...]:
        """Of one target, for an image of the size (H, W)."""
        numbers = (self.channels,) if self.channels else ()
        return (*numbers, *size) if self.is_map else numbers

    def missing(self, size: Sequence[int]) -> Tensor:
        """A target of which everything is missing."""
        if self.classes:
            return torch.full(self.shape(size), -1, dtype=torch.int64)
        return torch.full(self.shape(size), torch.nan)

    def checked(self, value: Any, size: Sequence[int]) -> Tensor:
        """One target as it should be.

        Args:
            value: From a data sample; ``None``: missing.
            size: Height and width of the image.

        Raises:
            ConfigError: If shape, type or classes are not those that were declared.
        """
        if value is None:
            return self.missing(size)
        value = torch.as_tensor(value)
        if tuple(value.shape) != self.shape(size):
            raise ConfigError(
                f'target {self.name!r} has shape {tuple(value.shape)}, but a {self.type} of an '
                f'image of {size[0]}x{size[1]} pixels must have {self.shape(size)}'
            )
        if not self.classes:
            return value.float()
        if value.is_floating_point() or value.dtype == torch.bool:
            raise ConfigError(f'target {self.name!r} holds classes: integers, got {value.dtype}')
        # Here, where it is still in the memory of the CPU: on a GPU it would end the process.
        if value.device.type == 'cpu' and value.numel() and int(value.max()) >= self.classes:
            raise ConfigError(
                f'target {self.name!r} holds class {int(value.max())}, but its classes are 0 to '
                f'{self.classes - 1}; what is missing is -1'
            )
        return value.long()


def parse_targets(targets: Mapping[str, Mapping[str, Any]]) -> dict[str, ModalityTarget]:
    """Reads the declarations of a config.

    Args:
        targets: From the name of a modality to the other fields of :class:`ModalityTarget`.

    Raises:
        ConfigError: If a declaration is contradictory.
    """
    if not isinstance(targets, Mapping) or not targets:
        raise ConfigError(f'targets must name at least one modality, got {targets!r}')
    return {name: _parse(name, dict(fields)) for name, fields in targets.items()}


def _parse(name: str, fields: dict[str, Any]) -> ModalityTarget:
    # Names become those of parameters, and of what is logged; the sum of all that is called
    # 'loss...' is the total.
    if not name.isidentifier() or 'loss' in name or hasattr(nn.ModuleDict(), name):
        raise ConfigError(
            f'{name!r} cannot be the name of a target: letters, digits and underscores, without '
            "'loss', and no name of a method such as 'keys' or 'type'"
        )
    kind = fields.get('type')
    if kind not in TYPES:
        raise ConfigError(f'target {name!r}: type is one of {TYPES}, got {kind!r}')
    counted, other = ('classes', 'channels') if 'class' in kind else ('channels', 'classes')
    count = fields.get(counted)
    if not isinstance(count, int) or count < 1 or other in fields:
        raise ConfigError(f'target {name!r}: a {kind} has {counted}=<number>, and no {other}')
    for option, types in {
        'loss': ('map', 'vector'),
        'norm_pix': ('map',),
        'picture': ('map',),
        'source': ('map',),
    }.items():
        if option in fields and kind not in types:
            raise ConfigError(f'target {name!r}: {option} is not an option of a {kind}')
    if fields.get('picture') is not None:
        fields['picture'] = tuple(fields['picture'])
    try:
        target = ModalityTarget(name=name, **fields)
    except TypeError as error:
        raise ConfigError(f'target {name!r}: {error}') from None
    if target.loss not in REGRESSIONS:
        raise ConfigError(f'target {name!r}: loss is one of {REGRESSIONS}, got {target.loss!r}')
    if target.source not in SOURCES:
        raise ConfigError(f'target {name!r}: source is one of {SOURCES}, got {target.source!r}')
    if not target.loss_weight > 0:
        raise ConfigError(f'target {name!r}: loss_weight must be above 0; or leave the target out')
    if target.picture is not None and (
        len(target.picture) not in (1, 3)
        or not all(0 <= channel < target.channels for channel in target.picture)
    ):
        raise ConfigError(
            f'target {name!r}: picture is one or three of the channels 0 to {target.channels - 1}'
        )
    return target


def stack_targets(
    targets: Mapping[str, ModalityTarget],
    inputs: Tensor,
    data_samples: Sequence[Any] | None,
    valid: Tensor | None = None,
) -> dict[str, Tensor]:
    """The targets of a batch, on the device of the images.

    Args:
        targets: What is to be predicted.
        inputs: Shape (B, C, H, W), not finite where missing.
        data_samples: Each with ``targets``, from names to tensors, see :class:`ModalityTarget`;
            ``None`` stands for a target that is missing.
        valid: Shape of the inputs, bool, False where they are missing; ``None``: where finite.

    Returns:
        For each target (B, ...).

    Raises:
        ConfigError: If a data sample does not have a target, or in another form.
    """
    size = inputs.shape[-2:]
    found = {}
    for name, target in targets.items():
        if target.source == 'inputs':
            if inputs.shape[1] != target.channels:
                raise ConfigError(
                    f'target {name!r} is the image, of {target.channels} channels; the images have '
                    f'{inputs.shape[1]}'
                )
            found[name] = inputs if valid is None else inputs.masked_fill(~valid, torch.nan)
            continue
        values = [
            target.checked(_of(sample, name), size)
            for sample in data_samples or [None] * len(inputs)
        ]
        found[name] = torch.stack(values).to(inputs.device, non_blocking=True)
    return found


def _of(sample: Any, name: str) -> Any:
    own = getattr(sample, 'targets', None)
    if own is None or name not in own:
        raise ConfigError(
            f'a data sample does not have the target {name!r}; it has {sorted(own or ())}. What is '
            'missing in a sample is None or NaN (classes: -1); what is the image itself has '
            "source='inputs'"
        )
    return own[name]
