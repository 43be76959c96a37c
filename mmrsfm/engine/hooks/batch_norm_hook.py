# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Batch normalisation that does not end a run whose batches are too small for it."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from mmrsfm.layers.batch_norm import guard_batch_norm
from mmrsfm.registry import HOOKS


@HOOKS.register_module()
class BatchNormHook(Hook):
    """Lets configs that were made for eight GPUs train on one, with one image at a time.

    Layers behind a 1x1 pool (the pyramid of PSP and UPerNet) get one value a channel then, and
    PyTorch raises "Expected more than 1 value per channel when training". Such batches are
    normalised by the running statistics; see :func:`mmrsfm.layers.batch_norm.guard_batch_norm`. All
    others are treated as ever. Parameters, names and state dicts do not change.

    (SyncBN where there is no GPU, or one process: MMEngine makes plain layers of it in a single
    process, and :func:`mmrsfm.engine.launch.configure_distributed` where there are several.)
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Any) -> None:
        """Prepares the model; on every rank."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        guard_batch_norm(model)
