# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Every converter, every way in which its source can be bad: one sentence, and no lost output.

By default each converter meets one of the failures, another one each; with --all it meets them
all. After each, the source is repaired and the command repeated: what it wrote before is whole and
taken up, or replaced. The converters and the failures are in bad_input.py.
"""

import hashlib
import shutil
from pathlib import Path

import pytest

from tests.test_data_converters.bad_input import CONVERTERS, is_whole, make_source, run
from tests.test_data_converters.test_commands import COMMANDS
from tests.test_datasets.bad_input import FAILURES, applies, linked_copy

pytestmark = pytest.mark.filterwarnings('ignore')

ALL = {name: [f for f in FAILURES if applies(case, f)] for name, case in CONVERTERS.items()}
# The metrics of mmrotate, whose import takes seconds, write its files.
DIAGONAL = [
    (name, some[number % len(some)])
    for number, (name, some) in enumerate(ALL.items())
    if name != 'dota_txt_to_fair1m_xml'
]


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    made: dict[str, tuple[Path, dict[str, str]]] = {}

    def make(name: str) -> tuple[Path, dict[str, str]]:
        if name not in made:
            folder = tmp_path_factory.mktemp('source')
            root = make_source(CONVERTERS[name], folder / 'data')
            copy = linked_copy(root, folder / name)
            run(name, CONVERTERS[name], copy, folder / 'out' / name)
            made[name] = (root, digests(folder / 'out' / name))
        return made[name]

    return make


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob('*')
        if path.is_file()
    }


def check(name: str, failure: str, sources, folder: Path) -> None:
    case = CONVERTERS[name]
    good, expected = sources(name)
    source, target = folder / 'data', folder / 'out' / name
    folder.mkdir(exist_ok=True)
    FAILURES[failure](case, linked_copy(good, source))
    with pytest.raises(SystemExit, match=r'^error: ') as stop:
        run(name, case, source, target)
    text = str(stop.value)
    assert '\n' not in text
    assert str(folder) in text, text
    written = digests(target)
    for path in written:
        if not path.startswith('.mmrsfm'):  # whose output it is
            assert is_whole(target / path), path
    if source.is_dir():
        shutil.rmtree(source)
    else:
        source.unlink(missing_ok=True)
    run(name, case, linked_copy(good, source), target)
    again = digests(target)
    assert again.keys() == expected.keys()
    kept = [path for path in written if path.endswith(('.png', '.tif', '.txt')) and path in again]
    assert all(written[path] == again[path] for path in kept)


@pytest.mark.parametrize(('name', 'failure'), DIAGONAL)
def test_one_failure_of_each_converter(name, failure, sources, tmp_path):
    check(name, failure, sources, tmp_path / 'case')


@pytest.mark.slow
@pytest.mark.parametrize('name', CONVERTERS)
def test_all_failures_of_each_converter(name, sources, tmp_path):
    wrong = {}
    for failure in ALL[name]:
        try:
            check(name, failure, sources, tmp_path / failure)
        except (Exception, SystemExit, pytest.fail.Exception) as error:
            wrong[failure] = f'{type(error).__name__}: {error}'
    assert not wrong


def test_every_converter_is_here():
    folder = Path(__file__).resolve().parents[2] / 'data_converters'
    covered = {name.split('-')[0] for name in CONVERTERS}
    assert covered == {path.stem for path in folder.glob('*.py')} - {'__init__'}
    assert set(COMMANDS) <= covered
