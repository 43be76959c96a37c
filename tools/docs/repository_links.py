# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Links and includes of Markdown files that are read in the repository and in the site."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from pathlib import Path

# The page with a heading for every folder of configs: what a link to such a folder means.
CONFIGS_PAGE = 'configs/all.md'

FENCE = re.compile(r'^( *)(```+|~~~+)', re.MULTILINE)
LINK = re.compile(r'(!?\[[^\]\n]*\]\()([^()\s]+)(\))')
INCLUDE = re.compile(r'^<!-- include (\S+): (.+?) -->$', re.MULTILINE)


def folder_anchor(folder: str) -> str:
    """The anchor of a folder of configs on the page of all configs."""
    return re.sub(r'[^a-z0-9]+', '-', folder.lower()).strip('-')


def outside_fences(text: str, change: Callable[[str], str]) -> str:
    """Applies ``change`` to the lines of a Markdown text that are in no block of code."""
    parts, inside, done = [], None, 0
    for match in FENCE.finditer(text):
        mark = match.group(2)
        if inside is None:
            parts.append(change(text[done : match.start()]))
            inside, done = mark, match.start()
        elif mark.startswith(inside):
            end = text.find('\n', match.end())
            end = len(text) if end < 0 else end
            parts.append(text[done:end])
            inside, done = None, end
    rest = text[done:]
    return ''.join([*parts, rest if inside else change(rest)])


def section(text: str, heading: str) -> str:
    """The text below a heading, up to the next one of its level or above.

    Args:
        text: A Markdown text.
        heading: The heading without its marks; ``'(top)'`` is what precedes the second heading,
            without the first.

    Raises:
        ValueError: If there is no such heading.
    """
    found: list[tuple[int, str, int, int]] = []
    position = 0
    in_fence = False
    for line in text.splitlines(keepends=True):
        if re.match(r' *(```|~~~)', line):
            in_fence = not in_fence
        match = re.match(r'(#+) +(.+?) *$', line)
        if match and not in_fence:
            marks, name = match.groups()
            found.append((len(marks), name, position, position + len(line)))
        position += len(line)
    for number, (level, name, _, start) in enumerate(found):
        later = found[number + 1 :]
        if heading == '(top)':
            return text[start : later[0][2] if later else len(text)].strip()
        if name == heading:
            stops = [at for depth, _, at, _ in later if depth <= level]
            return text[start : stops[0] if stops else len(text)].strip()
    raise ValueError(f'no heading {heading!r}; there are {[name for _, name, *_ in found]}')


def expand_includes(text: str, source: str, repo: Path) -> str:
    """Replaces ``<!-- include PATH: HEADING -->`` lines by that section of a file.

    Args:
        text: A Markdown text.
        source: Where it lies in the repository; the links of what is included become links from
            there.
        repo: The repository; PATH is relative to it.

    Returns:
        The text, with its links as they were.
    """

    def replace(match: re.Match[str]) -> str:
        path, heading = match.groups()
        try:
            found = section((repo / path).read_text(), heading)
        except (OSError, ValueError) as error:
            raise ValueError(f'{source} includes {path}: {error}') from error
        return outside_fences(found, lambda part: _moved(part, path, source))

    return INCLUDE.sub(replace, text)


def _is_path(target: str) -> bool:
    return not re.match(r'[a-z][a-z0-9+.-]*:|#|/', target)


def _moved(text: str, old: str, new: str) -> str:
    """Links as seen from another file of the repository."""

    def replace(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        if _is_path(target):
            path, mark, anchor = target.partition('#')
            place = posixpath.normpath(posixpath.join(posixpath.dirname(old), path))
            target = posixpath.relpath(place, posixpath.dirname(new) or '.') + mark + anchor
        return before + target + after

    return LINK.sub(replace, text)


class RepositoryLinks:
    """Turns links between files of the repository into links between pages of the site.

    A file that is a page becomes that page, a folder with a README that page, another folder of
    configs its heading on the page of all configs, any other file a text that is put beside the
    pages under its own path (``.txt`` is added, so that a browser shows it). What is none of these
    stays as it is: MkDocs then warns, which ends a strict build.

    Args:
        repo: The repository.
        pages: Path in the repository -> path of the page in the site's sources.
    """

    def __init__(self, repo: Path, pages: Mapping[str, str]) -> None:
        self.repo = repo
        self.pages = dict(pages)
        self.sources = {uri: path for path, uri in self.pages.items() if path != 'README.md'}

    def repository_path(self, uri: str) -> str:
        """The path in the repository of a page (of a generated one: where it would lie)."""
        return self.sources.get(uri, uri)

    def site_path(self, place: str) -> str | None:
        """Where a path of the repository is in the site; ``None`` if it is nowhere."""
        if place in self.pages:
            return self.pages[place]
        if place.startswith('docs/'):
            return place.removeprefix('docs/')
        path = self.repo / place
        if path.is_dir():
            readme = posixpath.join(place, 'README.md')
            if readme in self.pages:
                return self.pages[readme]
            if place == 'configs':
                return CONFIGS_PAGE
            if place.startswith('configs/') and any(path.glob('*.py')):
                return f'{CONFIGS_PAGE}#{folder_anchor(place)}'
            return None
        if path.is_file():
            return place if path.suffix in ('.png', '.jpg', '.svg') else place + '.txt'
        return None

    def linked_files(self, texts: Mapping[str, str]) -> dict[str, str]:
        """Files that are no pages and that some page links to.

        Args:
            texts: Path in the repository -> Markdown text.

        Returns:
            Path in the repository -> path in the site.
        """
        found: dict[str, str] = {}
        for source, text in texts.items():
            text = expand_includes(text, source, self.repo)
            for match in LINK.finditer(text):
                place = self._place(match.group(2), source)
                uri = self.site_path(place) if place else None
                if uri and (self.repo / place).is_file() and place not in self.pages:
                    found[place] = uri
        return found

    def rewrite(self, text: str, source: str) -> str:
        """A page's text with the links of the site.

        Args:
            text: Markdown text.
            source: Where it lies in the repository.
        """
        uri = self.pages.get(source, source)

        def replace(match: re.Match[str]) -> str:
            before, target, after = match.groups()
            place = self._place(target, source)
            found = self.site_path(place) if place else None
            if found is None:
                return match.group()
            relative = posixpath.relpath(found, posixpath.dirname(uri) or '.')
            mark, anchor = target.partition('#')[1:]
            return before + relative + mark + anchor + after

        return outside_fences(text, lambda part: LINK.sub(replace, part))

    def _place(self, target: str, source: str) -> str:
        if not _is_path(target):
            return ''
        path = target.partition('#')[0]
        return posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
