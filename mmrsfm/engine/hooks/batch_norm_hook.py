# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Batch normalisation that does not end a run for which the batch or the machine is too small."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import is_distributed
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper, revert_sync_batchnorm
from torch import nn

from mmrsfm.layers.batch_norm import guard_batch_norm
from mmrsfm.registry import HOOKS


@HOOKS.register_module()
class BatchNormHook(Hook):
    """Lets configs that were made for eight GPUs train on one, or on a CPU.

    * One image a GPU: layers behind a 1x1 pool (the pyramid of PSP and UPerNet) get one value a
      channel, and PyTorch raises "Expected more than 1 value per channel when training". Such
      batches are normalised by the running statistics; see
      :func:`mmrsfm.layers.batch_norm.guard_batch_norm`. All others are treated as ever.
    * SyncBN on a CPU: it exists on GPUs only ("expected input tensor to be on GPU"). With several
      ranks on CPUs, layers take the statistics of their own rank, with a message. (With one rank
      MMEngine replaces them by itself, on a GPU too.)

    Parameters, names and state dicts do not change.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Any) -> None:
        """Prepares the model; on every rank."""
        wrapped = is_model_wrapper(runner.model)
        model = runner.model.module if wrapped else runner.model
        if is_distributed() and not torch.cuda.is_available():
            synchronised = sum(isinstance(norm, nn.SyncBatchNorm) for norm in model.modules())
            if synchronised:
                runner.logger.warning(
                    f'{synchronised} SyncBN layers run on GPUs only: here each rank takes the '
                    'statistics of its own images.'
                )
                # The parameters stay the same objects, which the wrapper and the optimizer hold.
                revert_sync_batchnorm(model)
        guard_batch_norm(model)
