# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Weights and optimizer states that are spread over the ranks (FSDP), in MMEngine's Runner.

The Runner initialises, saves and loads what lies below a model wrapper as if it were whole; under
FullyShardedDataParallel (https://arxiv.org/abs/2304.11277) each rank has a part. Here the parts are
put together, so that a checkpoint is the same file whatever wrote it, and any run can resume it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from mmengine.dist import broadcast
from mmengine.hooks import EMAHook
from mmengine.model import MMFullyShardedDataParallel, is_model_wrapper
from mmengine.runner.checkpoint import _load_checkpoint
from torch import nn
from torch.distributed.fsdp import (
    FullOptimStateDictConfig,
    FullStateDictConfig,
    StateDictType,
)
from torch.distributed.fsdp import FullyShardedDataParallel as TorchFSDP

from mmrsfm.errors import CheckpointError, ConfigError
from mmrsfm.registry import MODEL_WRAPPERS

_INNER = '_fsdp_wrapped_module.'


@MODEL_WRAPPERS.register_module()
class FullyShardedDataParallel(MMFullyShardedDataParallel):
    """FSDP for MMEngine's Runner, as ``type`` of its ``model_wrapper_cfg``.

    MMEngine's own wrapper belongs to its FlexibleRunner: under ``Runner`` the weights would be
    initialised after they were cut, and the master alone would save them. Needs
    :class:`mmrsfm.engine.CheckpointHook`.

    Args:
        module: The model. Its weights are initialised here, those of rank 0 on every rank.
        **kwargs: Arguments of :class:`mmengine.model.MMFullyShardedDataParallel`, for example
            ``auto_wrap_policy=dict(type='torch.distributed.fsdp.wrap.size_based_auto_wrap_policy',
            min_num_params=10_000_000)``; ``device_id='cpu'`` without a GPU, which our tools set.
    """

    def __init__(self, module: nn.Module, **kwargs: Any) -> None:
        if hasattr(module, 'init_weights'):
            module.init_weights()  # type: ignore[operator]
        for tensor in module.state_dict().values():
            broadcast(tensor)
        for parameter in module.parameters():
            # For optimizers: the parts have one dimension.
            parameter.whole_ndim = parameter.ndim  # type: ignore[attr-defined]
        if kwargs.get('device_id') == 'cpu':
            kwargs['device_id'] = torch.device('cpu')
        super().__init__(module=module, **kwargs)


def is_sharded(model: nn.Module) -> bool:
    """Whether a model's weights are spread over ranks."""
    return isinstance(model, TorchFSDP)


def whole_state_dict(model: nn.Module) -> dict[str, Any]:
    """The weights of a model without its wrapper. A collective, if they are spread over ranks.

    Args:
        model: The model of a Runner.

    Returns:
        Its state dict; of a sharded one on the master only, in the memory of the host.
    """
    if is_sharded(model):
        with _full_states(model, rank0_only=True):
            return model.state_dict()
    bare: Any = model.module if is_model_wrapper(model) else model
    return bare.state_dict()


def prepare_sharded_run(runner: Any) -> None:
    """Lets a Runner load, clip and not initialise again a sharded model; others stay as they are.

    Call it in ``before_run``.

    Args:
        runner: The runner.

    Raises:
        ConfigError: If the model has another FSDP wrapper than :class:`FullyShardedDataParallel`,
            gradients are clipped by value, or weights are averaged (EMAHook).
    """
    if not is_sharded(runner.model):
        return
    if not isinstance(runner.model, FullyShardedDataParallel):
        raise ConfigError(
            f'model_wrapper_cfg: {type(runner.model).__name__} does not work in a Runner: its '
            "weights would be initialised after they were cut. Use type='mmrsfm."
            "FullyShardedDataParallel'"
        )
    averaging = [type(hook).__name__ for hook in runner.hooks if isinstance(hook, EMAHook)]
    if averaging:
        raise ConfigError(
            f'{averaging[0]} keeps a whole copy of the model: it does not go with FSDP'
        )
    runner._init_model_weights = lambda: None
    runner.load_checkpoint = partial(_load, runner)
    wrapper = runner.optim_wrapper
    options = getattr(wrapper, 'clip_grad_kwargs', None)
    if options:
        if wrapper.clip_func is not torch.nn.utils.clip_grad_norm_:
            raise ConfigError('clip_grad: with FSDP only the norm can be clipped')
        wrapper._clip_grad = partial(_clip, runner, dict(options))


@contextmanager
def whole_states(runner: Any) -> Iterator[None]:
    """Context in which the master can save a sharded model and its optimizer. A collective.

    Args:
        runner: The runner; of one whose model is not sharded nothing is changed.
    """
    model = runner.model
    if not is_sharded(model):
        yield
        return
    optimizer = runner.optim_wrapper.optimizer
    names = _parameter_names(model, optimizer)
    weights = whole_state_dict(model)
    with _full_states(model, rank0_only=True):
        named = TorchFSDP.optim_state_dict(model, optimizer)
    states: dict[str, Any] = {}
    if named:
        order = {name: number for number, name in enumerate(names)}
        groups = optimizer.state_dict()['param_groups']
        states = {
            'state': {order[name]: state for name, state in named['state'].items()},
            'param_groups': groups,
        }
    # The Runner asks the model below the wrapper, and the optimizer below its wrapper.
    inner: Any = model.module
    inner.state_dict = lambda *args, **kwargs: weights
    optimizer.state_dict = lambda: states
    try:
        yield
    finally:
        del inner.state_dict, optimizer.state_dict


def _load(
    runner: Any,
    filename: str,
    map_location: Any = 'cpu',
    strict: bool = False,
    revise_keys: Any = ((r'^module.', ''),),
) -> dict[str, Any]:
    """What ``Runner.load_checkpoint`` does, for a sharded model."""
    model = runner.model
    checkpoint = _load_checkpoint(filename, map_location='cpu')
    runner.call_hook('after_load_checkpoint', checkpoint=checkpoint)
    state = checkpoint.get('state_dict', checkpoint)
    for pattern, replacement in revise_keys:
        state = {re.sub(pattern, replacement, name): value for name, value in state.items()}
    with _full_states(model, rank0_only=False):
        try:
            found = model.load_state_dict(state, strict=strict)
        except RuntimeError as error:
            raise CheckpointError(f'{filename} does not fit the model: {error}') from error
        for kind, names in (('missing', found.missing_keys), ('left over', found.unexpected_keys)):
            if names:
                runner.logger.warning(f'{filename}: {kind}: {", ".join(sorted(names))}')
        if 'optimizer' in checkpoint and hasattr(runner.optim_wrapper, 'optimizer'):
            optimizer = runner.optim_wrapper.optimizer
            names = _parameter_names(model, optimizer)
            stored = dict(checkpoint['optimizer'])
            named = {
                'state': {names[number]: one for number, one in stored['state'].items()},
                'param_groups': [
                    group | {'params': [names[number] for number in group['params']]}
                    for group in stored['param_groups']
                ],
            }
            stored.update(TorchFSDP.optim_state_dict_to_load(model, optimizer, named))
            checkpoint['optimizer'] = stored
    runner._has_loaded = True
    runner.logger.info(f'Load checkpoint from {filename}')
    return checkpoint


def _clip(runner: Any, options: dict[str, Any]) -> None:
    """Clips by the norm over all ranks; each alone sees its part only."""
    norm = runner.model.clip_grad_norm_(options['max_norm'], options.get('norm_type', 2.0))
    wrapper = runner.optim_wrapper
    wrapper.message_hub.update_scalar(f'train/{wrapper.grad_name}', float(norm))


def _parameter_names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """The names that an optimizer's parameters have without FSDP, in its order."""
    names = {id(value): name.replace(_INNER, '') for name, value in model.named_parameters()}
    return [names[id(one)] for group in optimizer.param_groups for one in group['params']]


@contextmanager
def _full_states(model: nn.Module, rank0_only: bool) -> Iterator[None]:
    # Without a GPU, offloading frees what it copies from, and crashes.
    offload = rank0_only and torch.cuda.is_available()
    with warnings.catch_warnings():
        # Deprecated in favour of torch.distributed.checkpoint, which calls it.
        warnings.simplefilter('ignore', FutureWarning)
        with TorchFSDP.state_dict_type(
            model,
            StateDictType.FULL_STATE_DICT,
            FullStateDictConfig(offload_to_cpu=offload, rank0_only=rank0_only),
            FullOptimStateDictConfig(offload_to_cpu=offload, rank0_only=rank0_only),
        ):
            yield
