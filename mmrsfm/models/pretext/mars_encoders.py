# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The encoders of MaRS, one a modality, as pretraining needs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModule, ModuleDict
from torch import nn

from mmrsfm.errors import ConfigError
from mmrsfm.registry import MODELS


class MaRSEncoders(BaseModule):
    """One encoder a modality, named as in :class:`mmrsfm.DualModalityBackbone`.

    Args:
        modalities: Name of each modality -> number of channels.
        backbone: Config for all, or one for each, by name. The last map, normalised, the mask token
            and the number of channels are filled in.

    Attributes:
        branches: The encoders by modality.
        channels: Channels of their maps.
        stride: Stride of their maps, in pixels.
        patch_size: Side of what a mask hides or not, in pixels.

    Raises:
        ConfigError: If a config contradicts what is needed, or the encoders do not fit together.
    """

    def __init__(self, modalities: Mapping[str, int], backbone: Mapping[str, Any]) -> None:
        super().__init__()
        if 'type' not in backbone and set(backbone) != set(modalities):
            raise ConfigError(
                f'backbone needs a type, or a config for each of {list(modalities)}; it has '
                f'{sorted(backbone)}'
            )
        self._configs = {
            name: _settled(name, backbone if 'type' in backbone else backbone[name], channels)
            for name, channels in modalities.items()
        }
        branches: dict[str, Any] = {
            name: MODELS.build(config) for name, config in self._configs.items()
        }
        self.branches = ModuleDict(branches)
        shapes = {
            name: (branch.out_channels[-1], branch.out_strides[-1], branch.patch_size)
            for name, branch in branches.items()
        }
        if len(set(shapes.values())) > 1:
            raise ConfigError(
                f'the encoders differ in channels, stride or patch of their last maps: {shapes}'
            )
        self.channels, self.stride, self.patch_size = next(iter(shapes.values()))

    def another(self, modality: str, changes: Mapping[str, Any]) -> nn.Module:
        """Builds one more encoder, like that of a modality but for some arguments."""
        return MODELS.build(_settled(modality, {**self._configs[modality], **changes}, None))


def _settled(name: str, config: Mapping[str, Any], channels: int | None) -> dict[str, Any]:
    """A config with what pretraining needs of an encoder."""
    own = dict(config)
    arch = own.get('arch')
    last = len(arch['depths']) - 1 if isinstance(arch, Mapping) else 3
    needed = dict(out_indices=(last,), final_norm=True, mask_token=True)
    if channels is not None:
        needed['in_channels'] = channels
    for key, value in needed.items():
        stated = own.setdefault(key, value)
        if (tuple(stated) if isinstance(value, tuple) else stated) != value:
            raise ConfigError(
                f'the encoder of {name!r} needs {key}={value!r} for pretraining, its config says '
                f'{stated!r}'
            )
    return own
