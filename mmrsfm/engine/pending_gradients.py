# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Gradients of an accumulation that a checkpoint interrupts.

With ``accumulative_counts=3`` a checkpoint after step 8 lies between two steps of the optimizer:
the gradients of steps 7 and 8 wait for that of step 9. MMEngine drops them when it resumes.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import (
    all_gather_object,
    all_reduce,
    gather,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import Tensor

from mmrsfm.errors import CheckpointError

MOST_BYTES = 4 << 30  # of the copies of all ranks, in the memory of the master and in the file


def gather_pending_gradients(wrapper: Any) -> dict[str, Any] | None:
    """Collects the accumulated gradients of all ranks. A collective.

    Under DistributedDataParallel each rank has its own sums until the last batch of an accumulation
    shares them, so that the master holds as many copies as there are ranks, one parameter after the
    other, on the CPU. Where these are more than :data:`MOST_BYTES` it has their mean alone, which
    is what the ranks would have made of them; the run goes on exactly but for rounding.

    Args:
        wrapper: The optimizer wrapper of a Runner.

    Returns:
        On the master, if gradients are waiting: ``counts``, the length of an accumulation, and
        ``ranks``, for each rank (or once, the mean) a list with a tensor or ``None`` for each
        parameter of the optimizer, in its order. Otherwise ``None``. Gradients that are sparse or
        sharded (FSDP) are not collected.
    """
    if not isinstance(wrapper, OptimWrapper) or wrapper.should_update():
        return None
    parameters = _parameters(wrapper)
    own = [
        one.grad is not None and not one.grad.is_sparse and one.grad.shape == one.shape
        for one in parameters
    ]
    present: list[list[bool]] = all_gather_object(own)
    size = sum(one.numel() * one.element_size() for one in parameters) * len(present)
    averaged = len(present) > 1 and size > MOST_BYTES
    if averaged:
        print_log(
            f'The gradients that wait for the end of an accumulation would be {size / 2**30:.0f} '
            'GiB of all ranks: their mean is saved. To resume to the last bit, let the interval of '
            'checkpoints be a multiple of accumulative_counts.',
            logger='current',
            level=30,
        )
        present = [[any(flags) for flags in zip(*present, strict=True)]]
    ranks: list[list[Tensor | None]] = [[] for _ in present]
    for index, parameter in enumerate(parameters):
        values: list[Tensor] = []
        if any(flags[index] for flags in present):
            value = parameter.grad if own[index] else torch.zeros_like(parameter)
            assert value is not None
            if averaged:
                values = [value.detach().clone(memory_format=torch.contiguous_format)]
                all_reduce(values[0], op='mean')
            else:
                values = gather(value.detach().contiguous())
        if is_main_process():
            for rank, flags in enumerate(present):
                ranks[rank].append(values[rank].cpu().clone() if flags[index] else None)
    if not is_main_process():
        return None
    return {'counts': wrapper._accumulative_counts, 'ranks': ranks}


def restore_pending_gradients(wrapper: Any, pending: dict[str, Any]) -> bool:
    """Gives the parameters the gradients that were waiting.

    On as many ranks as before each gets its own, and the run goes on exactly; on another number,
    and where the mean alone was saved, all get the mean.

    Args:
        wrapper: The optimizer wrapper, which knows its step already.
        pending: From :func:`gather_pending_gradients`.

    Returns:
        Whether they were taken: not if accumulations are of another length now.

    Raises:
        CheckpointError: If they are of another model.
    """
    if not isinstance(wrapper, OptimWrapper):
        return False
    if pending['counts'] != wrapper._accumulative_counts or wrapper.should_update():
        return False
    parameters = _parameters(wrapper)
    ranks = pending['ranks']
    for one in ranks:
        if len(one) != len(parameters):
            raise CheckpointError(
                f'cannot resume: the checkpoint has accumulated gradients of {len(one)} parameters,'
                f' the optimizer has {len(parameters)}'
            )
    for index, parameter in enumerate(parameters):
        values = [one[index] for one in ranks]
        value = values[get_rank()] if len(ranks) == get_world_size() else _mean(values)
        if value is None:
            continue
        if value.shape != parameter.shape:
            raise CheckpointError(
                f'cannot resume: the accumulated gradient of parameter {index} has shape '
                f'{tuple(value.shape)}, the parameter {tuple(parameter.shape)}'
            )
        parameter.grad = value.to(parameter, copy=True)
    return True


def _parameters(wrapper: OptimWrapper) -> list[Tensor]:
    return [one for group in wrapper.optimizer.param_groups for one in group['params']]


def _mean(values: list[Tensor | None]) -> Tensor | None:
    known = [one for one in values if one is not None]
    return torch.stack(known).sum(0) / len(values) if known else None
