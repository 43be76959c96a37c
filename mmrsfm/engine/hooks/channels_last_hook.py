# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Images whose channels lie side by side in memory, as convolutions of GPUs and CPUs like them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from mmrsfm.engine.sharding import is_sharded
from mmrsfm.errors import ConfigError
from mmrsfm.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Runs a model in PyTorch's channels-last memory format; by config, for any convolutional one.

    ``custom_hooks = [dict(type='mmrsfm.ChannelsLastHook')]``. Weights of convolutions and images
    (all tensors of four axes that the model is given) get the format; shapes, names and checkpoints
    stay as they are, numbers agree within rounding. What it brings depends on model and device:
    convolutions of Tensor Cores under mixed precision gain most, transformers nothing
    (``docs/devices.md``). See https://pytorch.org/tutorials/intermediate/memory_format_tutorial.

    Raises:
        ConfigError: With FSDP, whose weights have no such form.
    """

    def before_run(self, runner: Any) -> None:
        """Changes the format of the weights, and of what will be given to the model."""
        if is_sharded(runner.model):
            raise ConfigError('ChannelsLastHook does not go with FSDP: parts of weights are rows')
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.to(memory_format=torch.channels_last)
        self._handle = model.register_forward_pre_hook(_change, with_kwargs=True)

    def after_run(self, runner: Any) -> None:
        """Leaves images as they are again."""
        self._handle.remove()


def _change(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
    return _changed(args), _changed(kwargs)


def _changed(value: Any) -> Any:
    """The same containers, with images in the format. Annotations are left alone."""
    if isinstance(value, Tensor):
        return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
    if isinstance(value, Mapping) and type(value) is dict:
        return {key: _changed(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_changed(part) for part in value)
    return value
