# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Tables of names that work in both directions.

Most layouts differ from ours in names alone. One table of pairs then gives the conversion, the
export, and the proof that the one undoes the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_NUMBER = '{n}'


class KeyMap:
    """A one-to-one renaming of the entries of a state dict.

    Args:
        pairs: ``(theirs, ours)`` prefixes of dotted names. ``{n}`` stands for a number, and must
            occur equally often on both sides. A prefix matches whole name components only:
            ``'encoder.{n}.norm1'`` matches ``'encoder.3.norm1.weight'`` but not
            ``'encoder.3.norm10.weight'``. The first pair that matches wins.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        for theirs, ours in pairs:
            if theirs.count(_NUMBER) != ours.count(_NUMBER):
                raise ValueError(f'{theirs!r} and {ours!r} hold unequally many numbers')
        self.pairs = tuple(pairs)
        self._forward = [(_compile(theirs), ours) for theirs, ours in pairs]
        self._backward = [(_compile(ours), theirs) for theirs, ours in pairs]

    def forward(self, name: str) -> str | None:
        """Our name for ``name``, or ``None`` where no pair matches."""
        return _rename(name, self._forward)

    def backward(self, name: str) -> str | None:
        """Their name for our ``name``, or ``None`` where no pair matches."""
        return _rename(name, self._backward)


def block_pairs(theirs: str, ours: str, parts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs for the parts of numbered blocks: ``blocks.{n}`` against ``backbone.layers.{n}``."""
    return [(f'{theirs}.{left}', f'{ours}.{right}') for left, right in parts]


def _compile(prefix: str) -> re.Pattern[str]:
    return re.compile(re.escape(prefix).replace(re.escape(_NUMBER), r'(\d+)') + r'(?=\.|$)')


def _rename(name: str, rules: Sequence[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, template in rules:
        match = pattern.match(name)
        if match is not None:
            for number in match.groups():
                template = template.replace(_NUMBER, number, 1)
            return template + name[match.end() :]
    return None
