# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Griffe extension: the few reStructuredText marks of our docstrings become Markdown.

``:class:`DOTADataset``` becomes a link to it, where it is documented in this site, and code where
it is not; ``Layout::`` before a block becomes ``Layout:``.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import griffe

ROLE = re.compile(r':(?:attr|class|data|func|meth|mod|obj|exc):`(~?)([\w.]+)(?:\(\))?`')
BLOCK = re.compile(r'^( *)(.*?)::$', re.MULTILINE)


class DocstringMarkup(griffe.Extension):
    """Changes the docstrings of a package once all of it is read."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Griffe's event."""
        self._visit(pkg)

    def _visit(self, found: griffe.Object) -> None:
        if found.docstring is not None:
            found.docstring.value = self._markdown(found.docstring.value, found)
        for member in found.members.values():
            if isinstance(member, griffe.Object):
                self._visit(member)

    def _markdown(self, text: str, owner: griffe.Object) -> str:
        def role(match: re.Match[str]) -> str:
            short, name = match.groups()
            path = self._resolve(name, owner)
            shown = name.rpartition('.')[2] if short else name
            return f'[`{shown}`][{path}]' if path else f'`{shown}`'

        def block(match: re.Match[str]) -> str:
            indent, line = match.groups()
            # 'Example:' alone on a line would be a section, whose text is no code.
            line = re.sub(r'\bExamples?$', 'For example', line)
            return f'{indent}{line}:' if line else ''

        return BLOCK.sub(block, ROLE.sub(role, text))

    @staticmethod
    def _resolve(name: str, owner: griffe.Object) -> str | None:
        """The path under which a name is documented here."""
        candidates = [name]
        try:
            candidates.insert(0, owner.resolve(name))
        except griffe.NameResolutionError:
            head, _, rest = name.partition('.')
            with suppress(griffe.NameResolutionError):
                candidates.insert(0, f'{owner.resolve(head)}.{rest}'.rstrip('.'))
        for path in candidates:
            if '._' in path:
                continue  # filtered: not in the site
            try:
                found = owner.modules_collection[path]
            except (KeyError, griffe.GriffeError):
                continue
            if found.is_alias or not found.has_docstring:
                final = found.final_target.path if found.is_alias else ''
                if not final.startswith('mmrsfm'):
                    continue
                return final
            return path
        return None
