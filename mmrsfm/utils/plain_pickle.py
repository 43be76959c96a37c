# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pickles of plain data (lists, dicts, text, numbers) from strangers, read without running them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

# What NumPy and old protocols write for numbers, arrays and bytes. None of it is imported.
_INERT = {
    'numpy.dtype', 'numpy.ndarray', 'numpy.core.multiarray.scalar',
    'numpy._core.multiarray.scalar', 'numpy.core.multiarray._reconstruct',
    'numpy._core.multiarray._reconstruct', 'numpy.core.numeric._frombuffer',
    'numpy._core.numeric._frombuffer', '_codecs.encode', 'builtins.bytes',
}  # fmt: skip
_SCALARS = ('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8')


class PlainObject:
    """What a pickle wanted to make of a class, and with what; nothing was called or imported.

    Attributes:
        name: The class, with its module.
        args: What it was to be made with.
        state: What its attributes were to become, mostly a dict; ``None`` without any.
    """

    name = ''

    def __new__(cls, *args: Any, **_: Any) -> PlainObject:
        """Keeps the arguments; keyword arguments are lost."""
        made = super().__new__(cls)
        made.args, made.state = args, None
        return made

    def __init__(self, *args: Any, **_: Any) -> None:
        self.args: tuple = args
        self.state: Any

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute by its name."""
        return self.state.get(name, default) if isinstance(self.state, dict) else default


class _Inert(PlainObject):
    """What NumPy writes of numbers and arrays."""


class _PlainUnpickler(pickle.Unpickler):
    """Builds containers, text and numbers; classes and functions are refused or kept inert."""

    def __init__(self, data: bytes, objects: Sequence[str]) -> None:
        super().__init__(io.BytesIO(data))
        self._objects = tuple(objects)

    def find_class(self, module: str, name: str) -> type:
        # Old protocols name modules as Python 2 did.
        full = f'{"builtins" if module == "__builtin__" else module}.{name}'
        base: type
        if full in _INERT:
            base = _Inert
        elif full == 'collections.OrderedDict':
            base = dict
        elif any(full == one or full.startswith(f'{one}.') for one in self._objects):
            base = PlainObject
        else:
            raise pickle.UnpicklingError(f'names {full}, which is no plain data')
        # A fresh class each time: whatever a pickle does to it dies with this file.
        return type('_Named', (base,), {'name': full})


def load_plain_pickle(data: bytes, arrays: bool = False, objects: Sequence[str] = ()) -> Any:
    """Unpickles lists, dicts, tuples, text, bytes and numbers, and runs nothing.

    NumPy scalars become Python numbers.

    Args:
        data: A pickle of any protocol.
        arrays: Whether NumPy arrays of numbers are read; otherwise they become ``None``.
        objects: Classes, or modules, whose objects become :class:`PlainObject`, with what they
            hold. They need not be installed.

    Returns:
        The content.

    Raises:
        pickle.UnpicklingError: If it is damaged, or names anything else.
    """
    try:
        return _Settler(arrays).settled(_PlainUnpickler(data, objects).load())
    except pickle.UnpicklingError:
        raise
    except Exception as error:
        # Damaged pickles raise nearly anything.
        raise pickle.UnpicklingError(f'is damaged ({type(error).__name__}: {error})') from error


class _Settler:
    """Replaces what is inert by what it stands for."""

    def __init__(self, arrays: bool) -> None:
        self.arrays = arrays
        self._done: dict[int, Any] = {}  # shared containers are walked once

    def settled(self, value: Any) -> Any:
        kind = type(value)
        if kind in (str, bytes, int, float, bool, type(None)):
            return value
        if id(value) in self._done:
            return self._done[id(value)]
        result: Any
        if kind in (list, tuple):
            result = kind(self.settled(item) for item in value)
        elif isinstance(value, dict):
            result = {self.settled(key): self.settled(item) for key, item in value.items()}
        elif isinstance(value, _Inert):
            result = self._built(value)
        elif isinstance(value, PlainObject):
            result = PlainObject(*(self.settled(item) for item in value.args))
            result.name, result.state = value.name, self.settled(value.state)
        else:
            raise pickle.UnpicklingError(f'holds a {kind.__name__}, which is no plain data')
        self._done[id(value)] = result
        return result

    def _built(self, value: _Inert) -> Any:
        if value.name == 'builtins.bytes':
            return b''
        if value.name == '_codecs.encode':
            # Bytes, in a protocol that has none.
            text, encoding = value.args
            if encoding != 'latin1':
                raise pickle.UnpicklingError(f'encodes bytes as {encoding!r}')
            return text.encode('latin1')
        if value.name.endswith('.scalar'):
            dtype, raw = value.args
            raw = self._built(raw) if isinstance(raw, _Inert) else raw
            return np.frombuffer(raw, dtype=_number_type(dtype, 'scalar'), count=1)[0].item()
        if not self.arrays:
            return None
        return self._array(value)

    def _array(self, value: _Inert) -> np.ndarray:
        if value.name.endswith('._frombuffer'):
            raw, dtype, shape, order = value.args
        elif value.name.endswith('._reconstruct') and value.state is not None:
            _, shape, dtype, columns_first, raw = value.state
            order = 'F' if columns_first else 'C'
        else:
            raise pickle.UnpicklingError(f'holds {value.name}, which is no array of numbers')
        raw = self._built(raw) if isinstance(raw, _Inert) else raw
        flat = np.frombuffer(bytes(raw), _number_type(dtype, 'array'))
        return flat.reshape(shape, order=order).copy()


def _number_type(dtype: Any, what: str) -> np.dtype:
    code = dtype.args[0]
    if code not in _SCALARS:
        raise pickle.UnpicklingError(f'holds a NumPy {what} of kind {code!r}')
    order = dtype.state[1] if dtype.state and dtype.state[1] in '<>' else '='
    return np.dtype(order + code)
