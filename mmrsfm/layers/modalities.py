# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Several modalities in one tensor: taking them apart, and knowing what of them is missing.

The one form in which multi-modal images travel through this library is a tensor (B, C, H, W) with
the channels of the modalities behind each other, in the order of a mapping from names to numbers of
channels: ``dict(rgb=3, sar=1)``. What is missing (a swath without data, or a whole modality of an
image) is NaN, or False in a mask; see :func:`split_modalities`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrsfm.errors import ConfigError


@dataclass(frozen=True)
class ModalityInput:
    """The images of one modality.

    Attributes:
        image: Shape (B, channels, H, W), finite: what is missing is 0.
        valid: Shape (B, 1, H, W), bool: whether all channels of the modality have data at a pixel;
            ``None``: everything is valid.
        present: Shape (B,), bool: whether a sample has any valid pixel.
    """

    image: Tensor
    valid: Tensor | None
    present: Tensor

    def cells(self, grid: tuple[int, int], min_share: float = 0.5) -> Tensor | None:
        """Which cells of a grid over the image have data: those that tokens may speak of.

        Args:
            grid: Rows and columns, e.g. those of a feature map.
            min_share: Share of its pixels, above 0, that a cell needs to have.

        Returns:
            Shape (B, rows * columns), bool, row by row; ``None``: all.
        """
        if self.valid is None:
            return None
        share = F.adaptive_avg_pool2d(self.valid.float(), grid).flatten(1)
        # A share of 0.5 of 1024 pixels, summed in float32, is exact; not so in every grid.
        return share >= min_share - 1e-6

    def without(self, missing: Tensor) -> ModalityInput:
        """The same with the whole modality missing in some samples.

        Args:
            missing: Shape (B,), bool.
        """
        keep = ~missing
        grid = keep[:, None, None, None]
        batch, _, height, width = self.image.shape
        valid = grid.expand(batch, 1, height, width) if self.valid is None else self.valid & grid
        return ModalityInput(self.image.where(grid, 0.0), valid, self.present & keep)


def check_modalities(modalities: Mapping[str, int]) -> dict[str, int]:
    """Checks and copies a mapping from names to numbers of channels.

    Raises:
        ConfigError: If it is empty, a number is not a positive integer, or a name cannot be that of
            a submodule.
    """
    if not isinstance(modalities, Mapping) or not modalities:
        raise ConfigError(
            'modalities must name each modality with its number of channels, e.g. '
            f'dict(rgb=3, sar=1), got {modalities!r}'
        )
    for name, channels in modalities.items():
        if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
            raise ConfigError(f'modality {name!r} must have at least one channel, got {channels!r}')
        if not str(name).isidentifier() or hasattr(nn.ModuleDict, str(name)):
            raise ConfigError(f'{name!r} cannot be the name of a modality: choose a plain word')
    return dict(modalities)


def channel_columns(modalities: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Numbers of the channels of each modality, where they all stand behind each other.

    Models with a part for each modality state as ``input_columns`` (name of a submodule -> such
    numbers, or ``None`` for one that sees no input) which bands each part sees, so that
    :class:`mmrsfm.PretrainedGuardHook` compares weights with the imagery of their own part.

    Args:
        modalities: Number of channels of each, in their order.
    """
    columns, start = {}, 0
    for name, channels in modalities.items():
        columns[name] = tuple(range(start, start + channels))
        start += channels
    return columns


def check_dropout(
    dropout: float | Mapping[str, float], modalities: Mapping[str, int]
) -> dict[str, float]:
    """Checks a probability of losing one modality, and deals it out.

    Args:
        dropout: That an image loses one of its modalities, each as likely; or for each name, of
            losing that one.
        modalities: Those that there are.

    Returns:
        For each modality that can be lost, the probability; empty if nothing is.

    Raises:
        ConfigError: If it is no probability, or of something else.
    """
    if isinstance(dropout, Mapping):
        chances = {name: float(chance) for name, chance in dropout.items()}
    else:
        chances = dict.fromkeys(modalities, dropout / len(modalities))
    unknown = set(chances) - set(modalities)
    if unknown or min(chances.values(), default=0.0) < 0 or sum(chances.values()) > 1 + 1e-9:
        raise ConfigError(
            'modality_dropout is a probability in [0, 1], or one for each of some of '
            f'{list(modalities)} with a sum up to 1, got {dropout!r}'
        )
    return {name: chance for name, chance in chances.items() if chance > 0}


def drop_modality(
    parts: dict[str, ModalityInput], chances: Mapping[str, float], draw: Tensor
) -> dict[str, ModalityInput]:
    """Takes at most one modality away from each sample, never its last.

    Args:
        parts: From :func:`split_modalities`.
        chances: From :func:`check_dropout`.
        draw: One number in [0, 1) for each sample, shape (B,), on any device.

    Returns:
        The modalities, of which some are missing in some samples.
    """
    present = torch.stack([part.present for part in parts.values()]).sum(dim=0)
    below, lost = 0.0, {}
    for name, chance in chances.items():
        chosen = (draw >= below) & (draw < below + chance)
        below += chance
        # What was drawn on the CPU may be asked at no cost, and often nothing is lost.
        if name in parts and (chosen.device.type != 'cpu' or chosen.any()):
            part = parts[name]
            other = present > part.present.long()
            lost[name] = part.without(chosen.to(other.device) & other)
    return {**parts, **lost}


def split_modalities(
    inputs: Tensor, modalities: Mapping[str, int], valid: Tensor | None = None
) -> dict[str, ModalityInput]:
    """Takes a multi-modal tensor apart.

    Missing is what is not finite, and what ``valid`` says; it becomes 0, channel by channel. Where
    nothing is missing this costs one sum over the inputs, and the images are views of them.

    Args:
        inputs: Shape (B, C, H, W), C the sum of all channels.
        modalities: Number of channels of each, in the order in which they stand.
        valid: Shape (B, C, H, W), bool, False where there are no data; ``None``: only numbers that
            are not finite are missing.

    Returns:
        Each modality, in the same order.

    Raises:
        ConfigError: If the channels are not those of the modalities, or the mask has another shape.
    """
    total = sum(modalities.values())
    if inputs.ndim != 4 or inputs.shape[1] != total:
        listed = ', '.join(f'{name}={channels}' for name, channels in modalities.items())
        raise ConfigError(
            f'inputs of shape {tuple(inputs.shape)} are not (B, {total}, H, W), the channels of '
            f'the modalities {listed} behind each other; load them with mmrsfm.LoadModalities, or '
            'correct `modalities`'
        )
    if valid is not None and valid.shape != inputs.shape:
        raise ConfigError(
            f'valid has shape {tuple(valid.shape)}, the inputs {tuple(inputs.shape)}: one answer '
            'for each channel of each pixel is needed'
        )
    known = _known(inputs, valid)
    if known is None:
        present = torch.ones(len(inputs), dtype=torch.bool, device=inputs.device)
        parts = inputs.split(list(modalities.values()), dim=1)
        return {
            name: ModalityInput(image, None, present)
            for name, image in zip(modalities, parts, strict=True)
        }
    images = inputs.where(known, 0.0).split(list(modalities.values()), dim=1)
    pixels = [
        part.all(dim=1, keepdim=True) for part in known.split(list(modalities.values()), dim=1)
    ]
    # One answer from the device for all modalities.
    complete = [False] * len(pixels)
    if not torch.compiler.is_exporting():  # a graph cannot ask: it takes every mask as it comes
        complete = torch.stack([part.all() for part in pixels]).tolist()
    return {
        name: ModalityInput(image, None if whole else part, part.flatten(1).any(dim=1))
        for name, image, part, whole in zip(modalities, images, pixels, complete, strict=True)
    }


def _known(inputs: Tensor, valid: Tensor | None) -> Tensor | None:
    """Which numbers are data, or ``None`` for all."""
    # The sum of finite numbers is finite, but for overflow: then each one is looked at.
    if not torch.compiler.is_exporting() and torch.isfinite(
        inputs.detach().sum(dtype=torch.float32)
    ):
        return None if valid is None else valid.bool()
    finite = torch.isfinite(inputs)
    return finite if valid is None else finite & valid.bool()
