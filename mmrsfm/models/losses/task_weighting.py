# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""How the losses of several tasks become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mmrsfm.errors import ConfigError
from mmrsfm.registry import MODELS

MODES = ('uncertainty', 'unweighted')


@MODELS.register_module()
class TaskWeighting(nn.Module):
    """Weights losses by learnt uncertainties, or leaves them as they are.

    ``'uncertainty'``: task i adds ``exp(-s_i) L_i + s_i``, with a learnt s_i = log(sigma_i^2) that
    begins at 0 (Kendall, Gal, Cipolla, CVPR 2018, arXiv 1705.07115, without its factor of 1/2: as
    MMEarth, arXiv 2405.02771, has it). The total may be negative. A task of which a batch knows
    nothing adds nothing and moves no s_i; still every s_i has a gradient (0), which
    DistributedDataParallel waits for.

    Args:
        tasks: Names of the tasks, in the order of ``log_vars``.
        mode: ``'uncertainty'`` or ``'unweighted'``.

    Attributes:
        log_vars: s, float32 (tasks,); not there for ``'unweighted'``.

    Raises:
        ConfigError: For an unknown mode, or names that are not different.
    """

    def __init__(self, tasks: Sequence[str], mode: str = 'uncertainty') -> None:
        super().__init__()
        if mode not in MODES:
            raise ConfigError(f'weighting is one of {MODES}, got {mode!r}')
        if not tasks or len(set(tasks)) != len(tasks):
            raise ConfigError(f'tasks must be different names, at least one, got {list(tasks)}')
        self.tasks = tuple(tasks)
        self.mode = mode
        if mode == 'uncertainty':
            self.log_vars = nn.Parameter(torch.zeros(len(tasks)))

    def forward(
        self, losses: Mapping[str, Tensor], known: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Weights the losses of a batch.

        Args:
            losses: A finite scalar for each task, 0 where nothing is known.
            known: For each task a bool scalar: whether the batch tells anything about it.

        Returns:
            For each task the scalar, float32, that it adds to the total.

        Raises:
            ConfigError: If the losses are of other tasks.
        """
        if set(losses) != set(self.tasks):
            raise ConfigError(f'losses of {sorted(losses)}, but the tasks are {sorted(self.tasks)}')
        if self.mode == 'unweighted':
            return {task: losses[task] for task in self.tasks}
        weighted = {}
        for task, log_var in zip(self.tasks, self.log_vars, strict=True):
            counts = known[task].to(log_var)
            weighted[task] = torch.exp(-log_var) * losses[task].float() * counts + log_var * counts
        return weighted
