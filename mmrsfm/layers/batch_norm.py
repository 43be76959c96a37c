# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Batch normalisation where a batch has no statistics: one image, one pixel.

Pooling heads (the 1x1 pool of PSP and UPerNet) and decoders of small crops normalise maps of 1 x 1
pixel. With one image a GPU there is one value a channel: its variance does not exist, and PyTorch
raises "Expected more than 1 value per channel when training".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.logging import print_log
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

_GUARDED = '_mmrsfm_guard'


def has_one_value(norm: nn.Module, inputs: torch.Tensor) -> bool:
    """Whether a training layer would see a single value a channel, over all ranks that it spans.

    Args:
        norm: The layer.
        inputs: (B, C, ...), what goes into it.
    """
    if inputs.numel() != inputs.shape[1]:
        return False
    return not (isinstance(norm, nn.SyncBatchNorm) and _world_size(norm) > 1)


@contextmanager
def running_statistics(*modules: nn.Module) -> Iterator[None]:
    """Inside, the batch normalisations of the modules use their running statistics.

    Args:
        modules: Any modules; only what is a batch normalisation in them is changed.
    """
    norms = [
        norm
        for module in modules
        for norm in module.modules()
        if isinstance(norm, _BatchNorm) and norm.training and norm.running_mean is not None
    ]
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True


def guard_batch_norm(model: nn.Module) -> int:
    """Lets every batch normalisation of a model pass batches that have no statistics.

    A guarded layer that gets one value a channel while training normalises it by its running
    statistics, which it leaves as they are; that is also what it does when testing. All other
    batches are treated as ever. The first time is logged. State dicts do not change.

    Args:
        model: The model; guarded layers are not guarded again.

    Returns:
        How many layers are guarded now.
    """
    count = 0
    for name, norm in model.named_modules():
        if not isinstance(norm, _BatchNorm) or norm.running_mean is None:
            continue
        count += 1
        if not hasattr(norm, _GUARDED):
            setattr(norm, _GUARDED, name)
            norm.register_forward_pre_hook(_before)
            norm.register_forward_hook(_after, always_call=True)
    return count


def _before(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    if norm.training and has_one_value(norm, inputs[0]):
        if not getattr(norm, '_mmrsfm_told', False):
            norm._mmrsfm_told = True  # type: ignore[assignment]
            name = getattr(norm, _GUARDED) or type(norm).__name__
            print_log(
                f'{name}: one image and a map of one pixel have no statistics; such '
                'batches are normalised by the running ones. Use two images a GPU, or SyncBN '
                'over several GPUs, to train this layer as it is meant.',
                logger='current',
                level=30,
            )
        norm._mmrsfm_paused = True  # type: ignore[assignment]
        norm.training = False


def _after(norm: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
    if getattr(norm, '_mmrsfm_paused', False):
        norm._mmrsfm_paused = False  # type: ignore[assignment]
        norm.training = True


def _world_size(norm: nn.SyncBatchNorm) -> int:
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size(norm.process_group)
