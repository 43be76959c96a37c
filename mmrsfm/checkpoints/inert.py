# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Stand-ins for the few classes that a checkpoint may hold beside tensors.

``torch.load(weights_only=True)`` looks each name of a pickle up in a table. For the names below the
table holds the stand-ins of this file, never the real thing: they only keep what they are given.
When the whole file has been read, :func:`settle` checks their contents and builds the real objects.

Why not simply allow the real classes:

* ``HistoryBuffer`` pickles references to its own methods through ``builtins.getattr``, with which
  any function of any module can be reached.
* ``numpy.dtype`` takes its internal flags from the pickle: a forged one makes ``numpy.ndarray``
  take bytes of the file for pointers to Python objects.
"""

from __future__ import annotations

import math
import re
from argparse import Namespace
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from mmengine.logging import HistoryBuffer

# Booleans, integers, floats, complex numbers, bytes, text; and lists of other safe objects (O).
_DTYPE = re.compile(r'[<>|=]?(b1|[iu][1248]|f[248]|c(8|16)|[SU]\d{1,9}|O8?|\?)')


class RefusedContentError(Exception):
    """The pickle asks for something that is not plain data.

    Args:
        name: The class or function that it names.
        reason: What it wants to do with it.
    """

    def __init__(self, name: str, reason: str = '') -> None:
        self.name, self.reason = name, reason
        super().__init__(f'{name} {reason}'.strip())


class InertNamespace:
    """Holds the attributes of an ``argparse.Namespace``."""

    def __setstate__(self, state: Any) -> None:
        if type(state) is not dict or not all(type(key) is str for key in state):
            raise RefusedContentError('argparse.Namespace', 'with contents that are no attributes')
        self.values = state


class InertDtype:
    """Holds the description of a ``numpy.dtype``.

    Args:
        code: Its type string, e.g. ``'f8'``.
        *_: Two flags of NumPy, which have no meaning here.
    """

    def __init__(self, code: Any, *_: Any) -> None:
        if type(code) is not str or not _DTYPE.fullmatch(code):
            raise RefusedContentError('numpy.dtype', f'of kind {code!r}')
        self.code = code

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, and then: parts, sizes, flags - derived from the code, not taken)
        if type(state) is not tuple or len(state) < 2 or state[1] not in ('<', '>', '|', '='):
            raise RefusedContentError('numpy.dtype', f'with the state {state!r}')
        if any(part is not None for part in state[2:5]):
            raise RefusedContentError('numpy.dtype', 'with fields or sub-arrays')
        self.code = state[1] + self.code.lstrip('<>|=')

    def build(self) -> np.dtype:
        """The real dtype."""
        return np.dtype(self.code)


class InertArray:
    """Holds shape, dtype and bytes of a ``numpy.ndarray``."""

    def __setstate__(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 5:
            raise RefusedContentError('numpy.ndarray', 'without the five parts of its state')
        _, self.shape, self.dtype, self.fortran, self.raw = state

    def build(self, settled: Callable[[Any], Any]) -> np.ndarray:
        """The real array, after checking that its parts belong together."""
        if not hasattr(self, 'shape') or not isinstance(self.dtype, InertDtype):
            raise RefusedContentError('numpy.ndarray', 'without contents')
        shape: Any = self.shape
        if type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape):
            raise RefusedContentError('numpy.ndarray', f'of the shape {shape!r}')
        dtype = self.dtype.build()
        order: Literal['C', 'F'] = 'F' if self.fortran else 'C'
        count = math.prod(shape)
        if dtype.hasobject:
            if type(self.raw) is not list or len(self.raw) != count:
                raise RefusedContentError('numpy.ndarray', 'of objects that are not in a list')
            objects = np.empty(count, dtype=object)
            for index, item in enumerate(self.raw):
                objects[index] = settled(item)
            return objects.reshape(shape, order=order)
        if type(self.raw) is not bytes or len(self.raw) != count * dtype.itemsize:
            raise RefusedContentError('numpy.ndarray', 'whose bytes do not fill its shape')
        if count == 0:
            return np.empty(shape, dtype=dtype, order=order)
        return np.frombuffer(self.raw, dtype=dtype).reshape(shape, order=order).copy(order='K')


class InertHistoryBuffer:
    """Holds the numbers of a ``mmengine.logging.HistoryBuffer``."""

    def __setstate__(self, state: Any) -> None:
        if type(state) is not dict:
            raise RefusedContentError('mmengine.logging.HistoryBuffer', 'without numbers')
        self.values = state

    def build(self, settled: Callable[[Any], Any]) -> HistoryBuffer:
        """A real buffer with the same numbers and MMEngine's own statistics."""
        values = getattr(self, 'values', {})
        log = settled(values.get('_log_history'))
        count = settled(values.get('_count_history'))
        length = values.get('max_length')
        numbers = all(isinstance(x, np.ndarray) and x.ndim == 1 for x in (log, count))
        if not numbers or type(length) is not int or log.shape != count.shape:
            raise RefusedContentError('mmengine.logging.HistoryBuffer', 'without numbers')
        return HistoryBuffer(log, count, max_length=length)


def _reconstruct(*_: Any) -> InertArray:
    return InertArray()


def _scalar(dtype: Any, raw: Any) -> Any:
    real = dtype.build() if isinstance(dtype, InertDtype) else None
    if real is None or real.hasobject or type(raw) is not bytes or len(raw) != real.itemsize:
        raise RefusedContentError('numpy scalar', 'whose bytes do not fit its type')
    return np.frombuffer(raw, dtype=real)[0] if raw else real.type()


def _method_of_history_buffer(owner: Any, name: Any) -> None:
    """What stands for ``getattr``: looks nothing up, whatever it is asked for."""
    if owner is not InertHistoryBuffer or type(name) is not str:
        raise RefusedContentError('builtins.getattr')


def _empty_bytes(*content: Any) -> bytes:
    if content:
        raise RefusedContentError('builtins.bytes', 'with an argument')
    return b''


STAND_INS: dict[str, Callable] = {
    'argparse.Namespace': InertNamespace,
    'builtins.bytes': _empty_bytes,
    'builtins.getattr': _method_of_history_buffer,
    'mmengine.logging.history_buffer.HistoryBuffer': InertHistoryBuffer,
    'numpy.dtype': InertDtype,
    'numpy.ndarray': InertArray,
    # NumPy 1.x and 2.x.
    'numpy.core.multiarray._reconstruct': _reconstruct,
    'numpy._core.multiarray._reconstruct': _reconstruct,
    'numpy.core.multiarray.scalar': _scalar,
    'numpy._core.multiarray.scalar': _scalar,
}


def settle(content: Any) -> Any:
    """Replaces the stand-ins in a tree of plain containers by the real objects.

    Dicts, lists and sets are changed in place, so that shared ones stay shared.

    Raises:
        RefusedContentError: If the parts of one do not belong together.
    """
    done: dict[int, Any] = {}
    alive: list[Any] = []  # keeps the ids of replaced objects from being given to new ones

    def settled(value: Any) -> Any:
        if id(value) in done:
            return done[id(value)]
        alive.append(value)
        kind = type(value)
        if kind in (dict, OrderedDict, Counter):
            done[id(value)] = value
            for key in value:
                value[key] = settled(value[key])
        elif kind is list:
            done[id(value)] = value
            value[:] = [settled(item) for item in value]
        elif kind is tuple:
            items = [settled(item) for item in value]
            same = all(new is old for new, old in zip(items, value, strict=True))
            done[id(value)] = value if same else tuple(items)
        elif kind is InertNamespace:
            done[id(value)] = namespace = Namespace()
            vars(namespace).update(settled(getattr(value, 'values', {})))
        elif kind in (InertArray, InertHistoryBuffer):
            done[id(value)] = value.build(settled)
        elif kind is InertDtype:
            done[id(value)] = value.build()
        elif kind is type or callable(value):
            for name, stand_in in STAND_INS.items():
                if value is stand_in:
                    raise RefusedContentError(name, 'as a value')
            done[id(value)] = value
        else:
            done[id(value)] = value
        return done[id(value)]

    return settled(content)
