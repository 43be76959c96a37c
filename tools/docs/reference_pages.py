# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Pages of the reference, found in the sources without importing them.

A page for each package, on which mkdocstrings renders every module of it; a page with every name
that a config can write as ``type='mmrsfm.X'``; and a page of the commands in ``tools/`` and
``data_converters/``.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGES = ('mmrsfm', 'data_converters')
# Of the files of tools/ that are no commands.
NO_COMMANDS = (
    'tools/demo/',
    'tools/docs/',
    'tools/env.sh',
    'tools/slurm_run.sh',
    'tools/slurm_job.sh',
    'tools/mpi_run.sh',
)
REGISTERED = re.compile(r'\b([A-Z][A-Z_]+)\.register_module\(\)')

TYPES = """# Types of a config

Every name that a config can write as `type='mmrsfm.X'`, by registry. A name is imported when a
config asks for it. The names of Open-CD (scope `opencd`) are in
[change detection](../change_detection.md).

"""

COMMANDS = """# Commands

What is in `tools/` and `data_converters/`; each tells its options with `--help`. Where mmrsfm is
installed as a wheel they lie in `mmrsfm/.mim/`.

"""


PACKAGE = """::: {name}
    options:
      heading_level: 1
      members: false
      show_root_full_path: true

"""


@dataclass(frozen=True)
class Module:
    """A module of the library.

    Attributes:
        name: Dotted name.
        path: Its file.
        summary: First line of its docstring.
        registered: Registry, class name and first line of the docstring of what it registers.
    """

    name: str
    path: Path
    summary: str
    registered: tuple[tuple[str, str, str], ...]


def _first_line(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> str:
    text = (ast.get_docstring(node) or '').partition('\n\n')[0]
    text = re.sub(r':\w+:`~?(?:[\w.]+\.)?([\w]+)`', r'`\1`', ' '.join(text.split()))
    return text.replace('``', '`').replace('|', r'\|')


@cache
def _read(path: Path, changed: int) -> tuple[str, tuple[tuple[str, str, str], ...]]:
    """Summary and registered classes of a file; ``changed`` is the time of its last change."""
    tree = ast.parse(path.read_text())
    registered = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            for decorator in node.decorator_list:
                match = REGISTERED.fullmatch(ast.unparse(decorator))
                if match:
                    registered.append((match.group(1), node.name, _first_line(node)))
    return _first_line(tree), tuple(registered)


def find_modules(repo: Path) -> list[Module]:
    """Every public module of the library and of the converters, by name.

    Args:
        repo: The repository.

    Returns:
        The modules. Packages are among them under their own name.
    """
    found = []
    for package in PACKAGES:
        for path in sorted((repo / package).rglob('*.py')):
            parts = path.relative_to(repo).with_suffix('').parts
            if any(part.startswith('.') or re.match('_(?!_)', part) for part in parts):
                continue
            if not (path.parent / '__init__.py').is_file():
                continue
            if parts[-1] == '__init__':
                parts = parts[:-1]
            found.append(Module('.'.join(parts), path, *_read(path, path.stat().st_mtime_ns)))
    return found


def group_by_package(modules: list[Module]) -> dict[str, list[Module]]:
    """The modules of each package that has any; a package is listed first if it says something."""
    groups: dict[str, list[Module]] = defaultdict(list)
    for module in modules:
        if module.path.name != '__init__.py':
            groups[module.name.rpartition('.')[0]].append(module)
    return dict(sorted(groups.items()))


def reference_navigation(repo: Path) -> list[dict[str, str]]:
    """Entries of the navigation: the package, and its page."""
    groups = group_by_package(find_modules(repo))
    # What every name begins with would push the rest out of the sidebar.
    return [{name.removeprefix('mmrsfm.'): f'reference/{name}.md'} for name in groups]


def reference_pages(repo: Path) -> dict[str, str]:
    """Path of the page in the site -> its Markdown text."""
    modules = find_modules(repo)
    pages = {}
    for package, members in group_by_package(modules).items():
        lines = [PACKAGE.format(name=package)]
        lines += [f'* [{member.name.rpartition(".")[2]}][{member.name}]: {member.summary}'
                  for member in members]  # fmt: skip
        lines += ['', *(f'::: {member.name}\n' for member in members)]
        pages[f'reference/{package}.md'] = '\n'.join(lines)
    pages['reference/types.md'] = _types_page(modules)
    return pages


def _types_page(modules: list[Module]) -> str:
    rows: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        if module.name.startswith('mmrsfm.compat'):
            continue  # scope 'opencd'
        for registry, name, about in module.registered:
            rows[registry].append(f'| [`mmrsfm.{name}`][{module.name}.{name}] | {about} |')
    lines = [TYPES]
    for registry, entries in sorted(rows.items()):
        title = registry.replace('_', ' ').capitalize()
        lines += [f'## {title}', '', '| type | |', '| --- | --- |', *sorted(entries), '']
    return '\n'.join(lines)


def find_commands(repo: Path) -> dict[str, str]:
    """Path of each command in the repository -> what it says of itself."""
    found = {}
    for folder in ('tools', 'data_converters'):
        for path in sorted((repo / folder).rglob('*'), key=lambda path: (path.parent, path)):
            place = str(path.relative_to(repo))
            if place.startswith(NO_COMMANDS) or place.endswith(('__init__.py', 'dist_run.sh')):
                continue
            if path.suffix == '.py' and "__name__ == '__main__'" in path.read_text():
                found[place] = ast.get_docstring(ast.parse(path.read_text())) or ''
            elif path.suffix == '.sh':
                lines = path.read_text().splitlines()[1:]
                stop = next(n for n, line in enumerate(lines) if not line.startswith('# '))
                found[place] = '\n'.join(line[2:] for line in lines[:stop])
    return found


def commands_page(repo: Path) -> str:
    """Each command with its description."""
    lines = [COMMANDS]
    folder = ''
    for place, text in find_commands(repo).items():
        if place.rpartition('/')[0] != folder:
            folder = place.rpartition('/')[0]
            lines += [f'## {folder}', '']
        first, _, rest = text.partition('\n\n') if '\n\n' in text else text.partition('\n')
        summary = ' '.join(first.split()).replace('``', '`')
        lines += [f'### {place.rpartition("/")[2]}', '', summary, '']
        if rest.strip():
            lines += ['```text', rest.strip('\n'), '```', '']
    return '\n'.join(lines)
