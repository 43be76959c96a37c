# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Backbones that start from the weights of another family of backbones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from mmrsfm.checkpoints.layout import RenamingLayout, StateDict, get_layout
from mmrsfm.checkpoints.report import LoadReport, compact
from mmrsfm.errors import IncompleteLoadError, UnknownLayoutError

_BACKBONE = 'backbone.'


@dataclass(frozen=True)
class Kinship:
    """What a backbone has in common with another family, stated as its attribute ``kinship``.

    RVSA, for one, is a plain ViT with more in its blocks, and MTP starts it from the weights of a
    masked autoencoder. The load then fills what the two share, completely or not at all, and the
    report names what keeps its initial values.

    Attributes:
        family: Its name, for the report.
        mark: One of our names in a backbone of that family, which the backbone itself has not.
        names: Layout (a :class:`mmrsfm.checkpoints.layout.RenamingLayout`) whose names the
            backbone has for what is common.
        lacking: Patterns (fnmatch) of the backbone's names that the other family has not.
        unused: Patterns, in the names of that layout, of what the backbone has no use for.
    """

    family: str
    mark: str
    names: str
    lacking: tuple[str, ...]
    unused: tuple[str, ...] = ()

    def rename(self, name: str) -> str:
        """The backbone's name for one of ours; the same where the layout does not know it."""
        layout = get_layout(self.names)
        if not isinstance(layout, RenamingLayout):
            raise UnknownLayoutError(f'kinship: layout {self.names!r} is no table of names')
        return layout.keymap.backward(_BACKBONE + name) or name


def adopt(
    offered: StateDict, module: nn.Module, whole: bool, report: LoadReport
) -> tuple[StateDict, dict[str, str]]:
    """Gives the entries of a checkpoint the names of a backbone that is kin to theirs.

    Also leaves aside what the backbone, or one of its modules, states as ``unused_weights``
    (patterns of names that its released files hold without any use), refuses what it states as
    ``decisive_weights`` (patterns of names whose presence changes what all others compute) and has
    no place for, and allows what it states as ``optional_weights`` (patterns of names that not all
    files have, each with the reason) to be missing.

    Args:
        offered: The checkpoint's entries under our names; those of the backbone begin with
            ``backbone.`` if ``whole``.
        module: What gets them: a backbone, or a model with one.
        whole: Whether it is such a model.
        report: Gets what is left aside.

    Returns:
        The entries under the names of the module, and patterns of names in the module that may
        keep their initial values, each with the reason.

    Raises:
        IncompleteLoadError: If there are decisive weights without a place.
    """
    backbone: Any = module.backbone if whole else module
    prefix = _BACKBONE if whole else ''
    kinship = getattr(backbone, 'kinship', None)
    unused = _stated(backbone, 'unused_weights')
    allowed: dict[str, str] = {}
    if isinstance(kinship, Kinship) and prefix + kinship.mark in offered:
        offered = {
            prefix + kinship.rename(name[len(prefix) :]) if name.startswith(prefix) else name: value
            for name, value in offered.items()
        }
        unused += kinship.unused
        reason = f'{kinship.family} has none, by design'
        allowed = {prefix + pattern: reason for pattern in kinship.lacking}
    for path, child in backbone.named_modules():
        for pattern, reason in getattr(child, 'optional_weights', {}).items():
            allowed[f'{prefix}{path}.{pattern}' if path else prefix + pattern] = reason
    known = set(module.state_dict(keep_vars=True))
    homeless = [name for name in offered if name not in known]

    def select(patterns: Iterable[str]) -> list[str]:
        return [n for n in homeless if any(fnmatchcase(n, prefix + p) for p in patterns)]

    other = select(_stated(backbone, 'decisive_weights'))
    if other:
        raise IncompleteLoadError(
            f'the checkpoint holds {compact(other)}, without which its other weights compute '
            f'something else, and {type(backbone).__name__} as it was built has no place for them. '
            'Correct its arguments. Nothing was loaded.'
        )
    aside = select(unused)
    report.dropped += aside
    return {name: value for name, value in offered.items() if name not in aside}, allowed


def _stated(backbone: nn.Module, attribute: str) -> list[str]:
    """Patterns that a backbone, and the backbones within it, state about their own names."""
    return [
        f'{path}.{pattern}' if path else pattern
        for path, child in backbone.named_modules()
        for pattern in getattr(child, attribute, ())
    ]
