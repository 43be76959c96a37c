# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pickles of plain data (lists, dicts, text, numbers) from strangers, read without running them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
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


class _Inert:
    """What a pickle wanted to call, and with what; nothing is called."""

    def __init__(self, name: str, args: tuple) -> None:
        self.name, self.args, self.state = name, args, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _PlainUnpickler(pickle.Unpickler):
    """Builds containers, text and numbers; classes and functions are refused or kept inert."""

    def find_class(self, module: str, name: str) -> Callable[..., _Inert]:
        # Old protocols name modules as Python 2 did.
        full = f'{"builtins" if module == "__builtin__" else module}.{name}'
        if full not in _INERT:
            raise pickle.UnpicklingError(f'names {full}, which is no plain data')
        # A fresh function each time: whatever a pickle does to it dies with this file.
        return lambda *args: _Inert(full, args)


def load_plain_pickle(data: bytes) -> Any:
    """Unpickles lists, dicts, tuples, text, bytes and numbers, and runs nothing.

    NumPy scalars become Python numbers; arrays, which the masks do not need, become ``None``.

    Args:
        data: A pickle of any protocol.

    Returns:
        The content.

    Raises:
        pickle.UnpicklingError: If it is damaged, or names anything else.
    """
    try:
        return _settled(_PlainUnpickler(io.BytesIO(data)).load(), {})
    except pickle.UnpicklingError:
        raise
    except Exception as error:
        # Damaged pickles raise nearly anything.
        raise pickle.UnpicklingError(f'is damaged ({type(error).__name__}: {error})') from error


def _settled(value: Any, done: dict[int, Any]) -> Any:
    """Replaces what is inert; ``done`` keeps shared containers from being walked twice."""
    kind = type(value)
    if kind in (str, bytes, int, float, bool, type(None)):
        return value
    if id(value) in done:
        return done[id(value)]
    if kind in (list, tuple):
        result = kind(_settled(item, done) for item in value)
    elif kind is dict:
        result = {_settled(key, done): _settled(item, done) for key, item in value.items()}
    elif kind is _Inert:
        result = _built(value)
    else:
        raise pickle.UnpicklingError(f'holds a {kind.__name__}, which is no plain data')
    done[id(value)] = result
    return result


def _built(value: _Inert) -> Any:
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
        code = dtype.args[0]
        if code not in _SCALARS:
            raise pickle.UnpicklingError(f'holds a NumPy scalar of kind {code!r}')
        order = dtype.state[1] if dtype.state and dtype.state[1] in '<>' else '='
        raw = _built(raw) if isinstance(raw, _Inert) else raw
        return np.frombuffer(raw, dtype=np.dtype(order + code), count=1)[0].item()
    return None  # an array
