# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Mixed precision in bfloat16, on any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn

from mmrsfm.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BF16OptimWrapper(OptimWrapper):
    """An optimizer wrapper whose forward passes run under bfloat16 autocast.

    MMEngine's ``AmpOptimWrapper`` asserts a GPU, for bfloat16 too. This one runs on a CPU as well.
    bfloat16 has the exponents of float32, so that no loss scaling is needed; parameters, gradients
    and optimizer states stay float32.

    Args:
        **kwargs: Arguments of :class:`mmengine.optim.OptimWrapper`.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Adds autocast to the context of the forward pass.

        Args:
            model: The model, for the gradient accumulation of the base class.
        """
        device: Any = get_device()
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
