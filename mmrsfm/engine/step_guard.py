# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What keeps a model as it is when a step gives NaN or infinity."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmrsfm.engine.non_finite import all_finite, first_non_finite

GRADIENT, LOSS = 1, 2


class StepObserver(Protocol):
    """Who is told of the steps; see :class:`mmrsfm.engine.NonFiniteHook`."""

    def suspect(self) -> Any:
        """The current batch of this rank, to be given back to :meth:`failed`."""

    def passed(self, by_scaler: bool = False) -> None:
        """The optimizer gets a step, or its loss scaler, which will leave it out."""

    def failed(self, code: int, suspect: Any, wrapper: OptimWrapper) -> None:
        """A step is left out, on all ranks: ``GRADIENT`` or ``LOSS``."""


class StepGuard:
    """Stands before ``backward`` and ``step`` of one optimizer wrapper.

    Args:
        wrapper: The wrapper, which is changed until :meth:`release`.
        observer: Who is told of the steps.
    """

    def __init__(self, wrapper: OptimWrapper, observer: StepObserver) -> None:
        self.wrapper = wrapper
        self.observer = observer
        self._pending: Tensor | None = None
        self._worst = 0
        self._suspect: Any | None = None
        for name in ('backward', 'step'):
            vars(wrapper).pop(name, None)
        self._backward = wrapper.backward
        self._step = wrapper.step
        vars(wrapper).update(backward=self.backward, step=self.step)

    def release(self) -> None:
        """Leaves the wrapper as it was."""
        for name in ('backward', 'step'):
            vars(self.wrapper).pop(name, None)

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """The backward pass, and whether its loss and gradients are finite."""
        finite = loss.detach().isfinite().all()
        self._backward(loss, **kwargs)
        gradients = self._gradients()
        sound = all_finite(gradients) if gradients else finite
        code = torch.where(finite, torch.where(sound.to(finite.device), 0, GRADIENT), LOSS)
        if self.wrapper.should_update():
            self._pending = code  # step() follows, and waits for the device
        elif self._suspect is None:
            found = int(code)
            if found == GRADIENT and not self._confirmed():
                found = 0
            if found:
                self._worst, self._suspect = found, self.observer.suspect()

    def step(self, **kwargs: Any) -> None:
        """The optimizer's step, if all ranks agree to it."""
        code = self._pending
        if code is None:  # the backward pass went another way
            code = torch.tensor(GRADIENT)
        agreed = self._agree(code.clamp(min=self._worst))
        if agreed == GRADIENT:
            confirmed = GRADIENT if self._confirmed() else 0
            agreed = self._agree(code.new_tensor(max(self._worst, confirmed)))
        suspect, self._suspect = self._suspect, None
        self._pending, self._worst = None, 0
        excused = agreed == GRADIENT and _is_searching_scale(self.wrapper)
        if agreed and not excused:
            self.observer.failed(agreed, suspect or self.observer.suspect(), self.wrapper)
            return
        self.observer.passed(by_scaler=excused)
        self._step(**kwargs)

    def _agree(self, code: Tensor) -> int:
        if get_world_size() > 1:
            all_reduce(code, op='max')
        return int(code)

    def _gradients(self) -> list[Tensor]:
        values = [
            one.grad
            for group in self.wrapper.optimizer.param_groups
            for one in group['params']
            if one.grad is not None
        ]
        return [one.coalesce().values() if one.is_sparse else one for one in values]

    def _confirmed(self) -> bool:
        return first_non_finite(('', one) for one in self._gradients()) is not None


def _is_searching_scale(wrapper: OptimWrapper) -> bool:
    """Whether a loss scaler will leave out a step whose gradients overflow, and learn from it."""
    scaler = getattr(wrapper, 'loss_scaler', None)
    if scaler is None or not scaler.is_enabled():
        return False
    # A fixed scale learns nothing. Below 1 it is not the scale that makes gradients overflow.
    return getattr(wrapper, '_scale_update_param', None) is None and scaler.get_scale() > 1


class BufferGuard:
    """Keeps the buffers of a model as they were after the last sound step.

    One batch with NaN makes the running statistics of batch normalisation NaN for ever, whether the
    optimizer steps or not.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        # Native kernels change running statistics without counting it in the tensor's version.
        self._norms: list[tuple[nn.Module, str]] = []
        self._others: list[tuple[nn.Module, str]] = []
        for module in model.modules():
            keep = self._norms if hasattr(module, 'running_mean') else self._others
            keep.extend((module, name) for name, one in module._buffers.items() if one is not None)
        self._kept: dict[tuple[nn.Module, str], Tensor] = {}
        self._versions: dict[tuple[nn.Module, str], tuple[int, int]] = {}
        self.keep()

    @torch.no_grad()
    def keep(self) -> None:
        """Takes the buffers as they are now for sound; copies those that changed."""
        self._copy(self._norms)
        changed = []
        for place in self._others:
            buffer = _buffer(place)
            version = (id(buffer), 0 if buffer.is_inference() else buffer._version)
            if self._versions.get(place) != version:
                self._versions[place] = version
                changed.append(place)
        self._copy(changed)

    @torch.no_grad()
    def restore(self) -> None:
        """Sets the buffers to what was kept."""
        for place, kept in self._kept.items():
            buffer = _buffer(place)
            if buffer.shape == kept.shape:
                buffer.copy_(kept)
            else:
                place[0]._buffers[place[1]] = kept.clone()
        for place in self._others:
            buffer = _buffer(place)
            self._versions[place] = (id(buffer), 0 if buffer.is_inference() else buffer._version)

    def _copy(self, places: list[tuple[nn.Module, str]]) -> None:
        groups: dict[tuple, tuple[list[Tensor], list[Tensor]]] = {}
        for place in places:
            buffer = _buffer(place)
            kept = self._kept.get(place)
            if kept is None or kept.shape != buffer.shape or kept.device != buffer.device:
                self._kept[place] = buffer.detach().clone()
                continue
            targets, sources = groups.setdefault((buffer.device, buffer.dtype), ([], []))
            targets.append(kept)
            sources.append(buffer)
        for targets, sources in groups.values():
            torch._foreach_copy_(targets, sources)


def _buffer(place: tuple[nn.Module, str]) -> Tensor:
    module, name = place
    buffer = module._buffers[name]
    assert buffer is not None
    return buffer
