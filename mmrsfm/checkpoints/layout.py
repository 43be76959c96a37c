# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What a layout of weights is, and the table of those that are known.

A layout is the set of names that one code base gives to its weights. Each is one file in
``mmrsfm/checkpoints/layouts``, found by being there: a further system adds one file.

Our own names are those of a task model of the OpenMMLab libraries: ``backbone.*``, ``neck.*``,
``head.*`` (and ``predictor.*`` for Cross-Scale MAE), with mmpretrain's names inside its backbones.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from mmrsfm.checkpoints.keymap import KeyMap
from mmrsfm.errors import CheckpointError, UnknownLayoutError

StateDict = dict[str, Tensor]


class Layout(ABC):
    """Names of one code base, and how they become ours.

    Attributes:
        name: What ``layout=`` takes.
        origin: Code base and paper whose names these are.
        licence: Licence of the weights that were released in this layout, as far as it is known.
        norm_style: ``'pre'`` or ``'post'`` where the weights only make sense in transformer blocks
            of that style; ``None`` where the names don't tell, or where it does not apply.
        dropped: Our names (fnmatch patterns) that a load into a backbone leaves aside by design,
            such as the decoder of a masked autoencoder. Anything else that is left over is
            reported as unexpected.
        idle: Our names (fnmatch patterns) of what the code base saves without any use, each with
            the reason. Where the module has no such entry either, they are left aside, and the
            reason is noted.
        bands: Names of the bands of the weights that were released in this layout, in their order,
            by their number. Taken for the contract of a file that has none.
        complete: Whether names that the layout does not know may be kept as they are (``False``),
            or make the conversion fail (``True``).
    """

    name: ClassVar[str]
    origin: ClassVar[str]
    licence: ClassVar[str]
    norm_style: ClassVar[str | None] = None
    dropped: ClassVar[tuple[str, ...]] = ('neck.*', 'head.*', 'predictor.*', 'data_preprocessor.*')
    idle: ClassVar[Mapping[str, str]] = {}
    bands: ClassVar[Mapping[int, tuple[str, ...]]] = {}

    @abstractmethod
    def matches(self, state: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        """Whether this is the layout of ``state``.

        Args:
            state: Name to tensor (or to anything with a ``shape``), already unwrapped.
            meta: The ``meta`` entry of the checkpoint; empty where there was none.

        Returns:
            ``True`` for at most one of all layouts.
        """

    @abstractmethod
    def to_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """Converts to our names.

        Returns:
            The converted state dict, and the names of the source that this layout does not know.
        """

    def bands_of(self, stem: Tensor) -> tuple[str, ...] | None:
        """Names of the bands that weights of this layout were trained on, if they are known.

        Args:
            stem: The weight of the convolution that sees the image, (D, C, kh, kw).
        """
        return self.bands.get(stem.shape[1])

    def from_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """Converts from our names.

        Returns:
            The converted state dict, and those of our names that this layout has no place for.

        Raises:
            CheckpointError: If this layout is for reading only.
        """
        raise CheckpointError(f'layout {self.name!r} can be read, not written')


class RenamingLayout(Layout):
    """A layout that differs from ours in names alone.

    Attributes:
        keymap: The pairs of their and our prefixes.
    """

    keymap: ClassVar[KeyMap]

    def to_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`Layout.to_mmrsfm`."""
        return apply_names(state, self.keymap.forward)

    def from_mmrsfm(self, state: Mapping[str, Tensor]) -> tuple[StateDict, list[str]]:
        """See :meth:`Layout.from_mmrsfm`."""
        return apply_names(state, self.keymap.backward)


def apply_names(state: Mapping[str, Tensor], rename: Any) -> tuple[StateDict, list[str]]:
    """Renames every entry; two that would get the same name are an error.

    Args:
        state: Name to tensor.
        rename: Function from a name to the new name, or ``None`` where there is none.

    Returns:
        The renamed entries in their order, and the names that were not renamed.
    """
    result: StateDict = {}
    unknown: list[str] = []
    for name, value in state.items():
        renamed = rename(name)
        if renamed is None:
            unknown.append(name)
        elif renamed in result:
            raise CheckpointError(f'two entries of the checkpoint would become {renamed!r}')
        else:
            result[renamed] = value
    return result, unknown


_LAYOUTS: dict[str, Layout] = {}
_L = TypeVar('_L', bound=type[Layout])


def register_layout(cls: _L) -> _L:
    """Class decorator: makes a layout known under its name."""
    if cls.name in _LAYOUTS and type(_LAYOUTS[cls.name]).__qualname__ != cls.__qualname__:
        raise ValueError(f'two layouts are called {cls.name!r}')
    _LAYOUTS[cls.name] = cls()
    return cls


def known_layouts() -> dict[str, Layout]:
    """All known layouts, by name."""
    package = importlib.import_module('mmrsfm.checkpoints.layouts')
    for module in pkgutil.iter_modules(package.__path__, prefix=f'{package.__name__}.'):
        importlib.import_module(module.name)
    return dict(_LAYOUTS)


def get_layout(name: str) -> Layout:
    """The layout of that name.

    Raises:
        UnknownLayoutError: If there is none.
    """
    known = known_layouts()
    if name not in known:
        raise UnknownLayoutError(f'there is no layout {name!r}; known are {sorted(known)}')
    return known[name]


def detect_layout(state: Mapping[str, Any], meta: Mapping[str, Any] | None = None) -> Layout:
    """Finds the one layout that fits the names of a state dict.

    Args:
        state: Name to tensor, unwrapped (see :func:`mmrsfm.checkpoints.unwrap`).
        meta: The ``meta`` entry of the checkpoint.

    Raises:
        UnknownLayoutError: If none fits, or more than one does.
    """
    candidates = [
        layout for layout in known_layouts().values() if layout.matches(state, meta or {})
    ]
    if len(candidates) == 1:
        return candidates[0]
    shown = ', '.join(list(state)[:6])
    if not candidates:
        raise UnknownLayoutError(
            f'no layout fits the names of this checkpoint ({len(state)} entries: {shown}, ...). '
            f'Known layouts: {", ".join(sorted(known_layouts()))}. Name one with layout=..., or '
            "layout='native' where the names are those of the module that is loaded."
        )
    names = ', '.join(sorted(layout.name for layout in candidates))
    raise UnknownLayoutError(
        f'more than one layout fits the names of this checkpoint ({shown}, ...): {names}. '
        'Choose one with layout=...'
    )
