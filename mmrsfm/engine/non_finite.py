# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Finding where a step that gave NaN or infinity went wrong: the module, and the samples.

Nothing here runs in a step whose numbers are finite.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Origin:
    """What a search has found.

    Attributes:
        where: A clause that names the module, or the parameter, or the input; ``None`` if every
            number was finite.
        samples: Places in the batch of the samples to blame; empty if they cannot be told apart.
        notes: Further clauses.
    """

    where: str | None = None
    samples: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def all_finite(tensors: Sequence[Tensor]) -> Tensor:
    """Whether tensors hold neither NaN nor infinity, in one pass, without waiting for the device.

    A sum (of squares, on a GPU) is finite only if every number is. The converse does not hold for
    numbers near the largest of their type: confirm ``False`` by :func:`first_non_finite`.

    Args:
        tensors: Floating-point tensors of any shapes, at least one, on one device.

    Returns:
        A boolean scalar on their device.
    """
    if tensors[0].is_cuda:
        # One kernel for many tensors.
        return torch.nn.utils.get_total_norm(tensors, 2.0).isfinite()
    # Six times as fast as norms on a CPU.
    return torch.stack([one.sum(dtype=torch.float32) for one in tensors]).isfinite().all()


def first_non_finite(tensors: Iterable[tuple[str, Tensor | None]]) -> str | None:
    """The name of the first tensor that holds NaN or infinity."""
    for name, tensor in tensors:
        if tensor is not None and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            return name
    return None


def float_tensors(value: Any) -> Iterator[Tensor]:
    """The floating-point tensors in nested lists, tuples and mappings."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from float_tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from float_tensors(part)


def sample_tensors(value: Any, size: int) -> list[list[Tensor]]:
    """The floating-point tensors of a batch, by sample.

    Args:
        value: Arguments of a model: tensors with ``size`` as first dimension and lists of ``size``
            tensors, nested in tuples and mappings.
        size: Number of samples.

    Returns:
        For each sample its tensors, views of the batch.
    """
    found: list[list[Tensor]] = [[] for _ in range(size)]
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.dim() > 0 and len(value) == size:
            for place in range(size):
                found[place].append(value[place])
    elif isinstance(value, list | tuple) and len(value) == size:
        for place, part in enumerate(value):
            found[place].extend(float_tensors(part))
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            for place, tensors in enumerate(sample_tensors(part, size)):
                found[place].extend(tensors)
    return found


def search_inputs(args: Any, kwargs: Mapping[str, Any], size: int) -> Origin:
    """Whether the batch itself, as the model gets it, holds NaN or infinity.

    (NaN in targets may stand for *missing*: only the arguments before ``data_samples`` count.)

    Args:
        args: Positional arguments of the model.
        kwargs: Its keyword arguments.
        size: Number of samples.
    """
    inputs = kwargs.get('inputs', args[0] if args else None)
    bad = [
        place
        for place, tensors in enumerate(sample_tensors(inputs, size))
        if not all(bool(one.isfinite().all()) for one in tensors)
    ]
    if not bad:
        return Origin()
    return Origin('the input itself, as the data pipeline and the preprocessor made it', bad)


class ForwardSearch:
    """Context in which the forward passes of a model are watched for NaN and infinity.

    The first module whose output holds NaN or +infinity is the origin; inner modules end before the
    ones that hold them. If its inputs were bad already, what made them is code of the module
    around it. -infinity is only noted: masks of attention hold it on purpose.

    Args:
        model: The model.
        size: Number of samples in the batch.
        gradients: Whether to watch the gradients of a backward pass that follows, too.

    Attributes:
        origin: What was found in the forward pass.
    """

    def __init__(self, model: nn.Module, size: int, gradients: bool = False) -> None:
        self.model = model
        self.size = size
        self.gradients = gradients
        self.origin = Origin()
        self._masked: str | None = None
        self._backward: str | None = None
        self._names = {module: name for name, module in model.named_modules()}
        self._handles: list[Any] = []

    def __enter__(self) -> ForwardSearch:
        for module in self._names:
            self._handles.append(module.register_forward_hook(self._after, with_kwargs=True))
            if self.gradients and not any(module.children()):
                self._handles.append(
                    module.register_forward_pre_hook(self._before, with_kwargs=True)
                )
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._masked and self.origin.where:
            self.origin.notes.append(f'before it, -inf came out of {self._masked}')

    def after_backward(self) -> Origin:
        """What was found in the gradients, which must still be in place."""
        if self._backward is not None:
            return Origin(self._backward)
        named = [(name, value.grad) for name, value in self.model.named_parameters()]
        # The last ones are computed first.
        name = first_non_finite(reversed(named))
        return Origin(None if name is None else f'the gradient of {name}, in the backward pass')

    def _title(self, module: nn.Module) -> str:
        name = self._names[module]
        return f'{name or "the model"} ({type(module).__name__})'

    def _parent(self, module: nn.Module) -> str:
        name = self._names[module].rpartition('.')[0]
        return self._title(self.model.get_submodule(name))

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        for tensor in float_tensors((args, kwargs)):
            self._watch(tensor, f'the backward pass of {self._title(module)}')

    def _after(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self.gradients and not any(module.children()):
            where = f'the backward pass of what follows {self._title(module)}'
            for tensor in float_tensors(output):
                self._watch(tensor, f'{where} in {self._parent(module)}')
        if self.origin.where is not None:
            return
        bad = [one.detach() for one in float_tensors(output) if _is_bad(one)]
        if not bad:
            if self._masked is None and any(
                bool(one.isinf().any()) for one in float_tensors(output)
            ):
                self._masked = self._title(module)
            return
        received = [one for one in float_tensors((args, kwargs)) if _is_bad(one)]
        self.origin.samples = self._samples(received or bad)
        if not received:
            self.origin.where = f'the output of {self._title(module)}, whose inputs are finite'
        elif module is self.model:
            self.origin.where = 'the input itself'
        else:
            self.origin.where = f'code of {self._parent(module)}, before {self._title(module)}'

    def _samples(self, tensors: list[Tensor]) -> list[int]:
        """Samples to blame, where the first dimension is that of the batch."""
        for tensor in tensors:
            if tensor.dim() > 0 and len(tensor) == self.size > 0:
                good = tensor.reshape(self.size, -1).isfinite().all(1)
                return [place for place, fine in enumerate(good.tolist()) if not fine]
        return []

    def _watch(self, tensor: Tensor, where: str) -> None:
        def check(gradient: Tensor) -> None:
            if self._backward is None and not bool(gradient.isfinite().all()):
                self._backward = where

        if tensor.requires_grad:
            tensor.register_hook(check)


def _is_bad(tensor: Tensor) -> bool:
    return bool((tensor.isnan() | tensor.isposinf()).any())
