# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Keeps a part of a model as it is, for the whole training or its first epochs."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch import nn

from mmrsfm.errors import ConfigError
from mmrsfm.registry import HOOKS


@HOOKS.register_module()
class FreezeHook(Hook):
    """Trains a part of the model not at all, or only from an epoch on; for any backbone.

    Linear probing, and fine-tuning that begins with the decoder. The parameters get no gradients,
    so that no optimizer touches them, and nothing is computed for them; those that were not
    trained before stay so. A part is as it was after a resumption, too.

    With several processes set ``find_unused_parameters = True`` in the config: the model was
    wrapped before, and would wait for the gradients.

    Args:
        module: Name of the part, e.g. ``'backbone'``.
        epochs: For how many epochs; ``None``: all.
        eval_mode: Whether the part is in evaluation mode, so that BatchNorm keeps its statistics,
            and stochastic depth is off. ``False``: as published for MP-MAE, whose backbones have
            no BatchNorm, and drop paths in linear probing, too.

    Raises:
        ConfigError: The model has no such part, or nothing is left to be trained.
    """

    priority = 'LOW'

    def __init__(
        self, module: str = 'backbone', epochs: int | None = None, eval_mode: bool = True
    ) -> None:
        if epochs is not None and epochs < 1:
            raise ConfigError(f'FreezeHook: epochs={epochs} must be at least 1, or None for all')
        self.module = module
        self.epochs = epochs
        self.eval_mode = eval_mode
        self._frozen: list[nn.Parameter] | None = None

    def before_train(self, runner: Any) -> None:
        """Freezes the part, unless its time is over."""
        if self._lasts(runner):
            self._freeze(runner)

    def before_train_epoch(self, runner: Any) -> None:
        """Keeps it in its mode, or trains it from now on."""
        if self._frozen is None:
            return
        if not self._lasts(runner):
            for parameter in self._frozen:
                parameter.requires_grad_(True)
            self._frozen = None
            self._part(runner).train()
            print_log(f'{self.module} is trained from epoch {runner.epoch + 1} on', 'current')
        elif self.eval_mode:
            self._part(runner).eval()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Back to the mode after a validation within an epoch."""
        if self._frozen is not None and self.eval_mode:
            self._part(runner).eval()

    def _lasts(self, runner: Any) -> bool:
        return self.epochs is None or runner.epoch < self.epochs

    def _part(self, runner: Any) -> nn.Module:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        try:
            return model.get_submodule(self.module)
        except AttributeError as error:
            names = [name for name, _ in model.named_children()]
            raise ConfigError(
                f'FreezeHook: the model has no part {self.module!r}, only {names}'
            ) from error

    def _freeze(self, runner: Any) -> None:
        part = self._part(runner)
        self._frozen = [one for one in part.parameters() if one.requires_grad]
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        if not any(one.requires_grad for one in runner.model.parameters()):
            raise ConfigError(f'FreezeHook: without {self.module!r} nothing is left to be trained')
