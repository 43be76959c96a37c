# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Each promise of the guides names its tests, and these exist."""

import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PAGES = sorted(path.name for path in (REPO / 'docs').glob('*.md') if '| test |' in path.read_text())


@pytest.fixture(scope='module')
def tests():
    """Path of each file of tests -> names of its tests."""
    files = (REPO / 'tests').rglob('test_*.py')
    return {
        path.relative_to(REPO).as_posix(): set(
            re.findall(r'^ *def (test_\w+)', path.read_text(), re.MULTILINE)
        )
        for path in files
    }


def rows(text):
    """Rows of the tables whose last column is ``test``: their number in the text, and the cells."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in line.strip().strip('|').split('|')]
        if not line.startswith('|'):
            inside = False
        elif inside and set(line) - set('|-: '):
            yield number, cells
        elif cells[-1] == 'test':
            inside = True


def named(cell):
    """File (or part of its path, or nothing) and name (or nothing) of each test in a cell."""
    for quoted in re.findall(r'`([^`]+)`', cell):
        match = re.fullmatch(r'((?:[\w/]+/)?test_\w+\.py)?(?:::)?(test_\w+)?', quoted)
        if match:
            yield match.groups()


def is_there(file, name, tests):
    return any(
        (file is None or path == file or path.endswith(f'/{file}'))
        and (name is None or name in names)
        for path, names in tests.items()
    )


def test_pages_with_promises_are_found():
    assert {'reliability.md', 'monitoring.md'} <= set(PAGES)


@pytest.mark.parametrize('page', PAGES)
def test_every_promise_has_a_test_that_exists(page, tests):
    found = list(rows((REPO / 'docs' / page).read_text()))
    assert found
    bad = [
        f'{page}:{number}: {cells[0]}'
        for number, cells in found
        if not list(named(cells[-1])) or not all(is_there(*one, tests) for one in named(cells[-1]))
    ]
    assert not bad


def test_a_test_that_is_not_there_is_found(tests):
    text = (
        '| promise | test |\n| --- | --- |\n| a | `test_no_such` |\n| b | nothing |\n\n| c | d |\n'
    )
    cells = [cell for _, (_, cell) in rows(text)]
    assert [list(named(cell)) for cell in cells] == [[(None, 'test_no_such')], []]
    assert not is_there(None, 'test_no_such', tests)
    (one,) = named('`test_docs/test_promises.py::test_pages_with_promises_are_found`')
    assert is_there(*one, tests)
