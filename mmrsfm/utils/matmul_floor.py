# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The time that a model's matrix products alone take on this machine.

A training step cannot be faster than its matrix products (linear layers, convolutions, attention),
forward and backward, unless the model is changed. Their time on the machine at hand is therefore
the floor below a step time, and what lies above it (element-wise operations, copies, Python,
the optimizer) is what an implementation can still save.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry

_aten = torch.ops.aten
# PyTorch's own list of what counts as a matrix product, and the CPU's fused attention, not in it.
_PRODUCTS = set(flop_registry) | {
    _aten._addmm_activation,
    _aten.baddbmm_,
    _aten._scaled_dot_product_flash_attention_for_cpu,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward,
}


class _Operand(tuple):
    """A tensor reduced to (shape, stride, dtype, device)."""

    __slots__ = ()


def _describe(tensor: torch.Tensor) -> _Operand:
    return _Operand((tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device))


class MatmulRecorder(TorchDispatchMode):
    """Records the matrix products that run inside the ``with`` block, backward passes included.

    Attributes:
        calls: How often each product ran: (operator, positional, keyword arguments) -> count, with
            tensors replaced by their shape, stride, dtype and device.
        flops: Multiplications and additions of all recorded products together.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple[Any, Any, Any]] = Counter()
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the operator, and notes it if it is a matrix product."""
        kwargs = kwargs or {}
        if func.overloadpacket not in _PRODUCTS:
            # In inference mode operators such as linear arrive whole.
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if func.overloadpacket in _PRODUCTS:
            self.calls[(func, _freeze(args), _freeze(kwargs))] += 1
            self.flops += _count_flops(func.overloadpacket, args, kwargs, out)
        return out


class MatmulFloor:
    """Runs recorded matrix products again, on other tensors of the same shapes, and times them.

    Each distinct product runs once a round on memory that the model does not use, and its time
    counts as often as the product occurred.

    Args:
        recorder: What was recorded.
    """

    def __init__(self, recorder: MatmulRecorder) -> None:
        self.calls = dict(recorder.calls)
        self.flops = recorder.flops
        self._pools: dict[tuple[int, torch.dtype, torch.device], torch.Tensor] = {}
        for _, args, kwargs in self.calls:
            for place, operand in enumerate(_operands((args, kwargs))):
                self._reserve(place, operand)

    def _reserve(self, place: int, operand: _Operand) -> None:
        shape, stride, dtype, device = operand
        extent = 1 + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) if shape else 1
        pool = self._pools.get((place, dtype, device))
        if pool is not None and pool.numel() >= extent:
            return
        if dtype.is_floating_point:
            # Ordinary numbers: zeros and denormals have a speed of their own.
            pool = torch.randn(max(extent, 1), device=device).to(dtype)
        else:
            pool = torch.zeros(max(extent, 1), dtype=dtype, device=device)
        self._pools[(place, dtype, device)] = pool

    def run(self) -> float:
        """Runs every product; returns the seconds that one step spends in them."""
        return sum(count * self._time(call) for call, count in self.calls.items())

    def by_operator(self) -> dict[str, float]:
        """Returns seconds by operator for one step, the longest first; runs every product."""
        seconds: Counter[str] = Counter()
        for call, count in self.calls.items():
            seconds[str(call[0].overloadpacket)] += count * self._time(call)  # type: ignore[assignment]
        return dict(seconds.most_common())

    def _time(self, call: tuple[Any, Any, Any]) -> float:
        func, frozen_args, frozen_kwargs = call
        places = iter(range(1 << 16))

        def lend(operand: _Operand) -> torch.Tensor:
            shape, stride, dtype, device = operand
            return self._pools[(next(places), dtype, device)].as_strided(shape, stride)

        args, kwargs = _thaw((frozen_args, frozen_kwargs), lend)
        devices = {operand[3] for operand in _operands((frozen_args, frozen_kwargs))}
        cuda = [device for device in devices if device.type == 'cuda']
        with torch.no_grad():
            for device in cuda:
                torch.cuda.synchronize(device)
            start = time.perf_counter()
            func(*args, **kwargs)
            for device in cuda:
                torch.cuda.synchronize(device)
        return time.perf_counter() - start


def _freeze(value: Any) -> Any:
    """A hashable copy, with tensors replaced by their description."""
    value = tree_map_only(torch.Tensor, _describe, value)

    def freeze(item: Any) -> Any:
        if isinstance(item, _Operand):
            return item
        if isinstance(item, list | tuple):
            return ('seq', *(freeze(part) for part in item))
        if isinstance(item, dict):
            return ('map', *((key, freeze(part)) for key, part in sorted(item.items())))
        return item

    return freeze(value)


def _thaw(frozen: Any, lend: Callable[[_Operand], torch.Tensor]) -> Any:
    """The inverse of :func:`_freeze`, with tensors from ``lend``."""
    if isinstance(frozen, _Operand):
        return lend(frozen)
    if isinstance(frozen, tuple) and frozen[:1] == ('seq',):
        return [_thaw(part, lend) for part in frozen[1:]]
    if isinstance(frozen, tuple) and frozen[:1] == ('map',):
        return {key: _thaw(part, lend) for key, part in frozen[1:]}
    if isinstance(frozen, tuple):
        return tuple(_thaw(part, lend) for part in frozen)
    return frozen


def _operands(frozen: Any) -> list[_Operand]:
    found: list[_Operand] = []

    def lend(operand: _Operand) -> torch.Tensor:
        found.append(operand)
        return torch.empty(0)

    _thaw(frozen, lend)
    return found


def _count_flops(packet: Any, args: Any, kwargs: dict[str, Any], out: Any) -> int:
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=out))
    if packet is _aten.baddbmm_:
        return int(flop_registry[_aten.baddbmm](*args, **kwargs, out_val=out))
    if packet is _aten._addmm_activation:
        (m, k), n = args[1].shape, args[2].shape[1]
        return 2 * m * k * n
    # Attention of the CPU; forward: (query, key, value), backward: (gradient, query, key, value).
    backward = packet is _aten._scaled_dot_product_flash_attention_for_cpu_backward
    query, key = args[1:3] if backward else args[:2]
    batch, heads, length, width = query.shape
    # Forward: two products. Backward: the scores once more, and four.
    return (5 if backward else 2) * 2 * batch * heads * length * key.shape[2] * width
