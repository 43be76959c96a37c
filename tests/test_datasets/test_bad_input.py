# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Every dataset, every way in which its files can be bad: an error that names the file.

By default each dataset meets one of the failures, another one each; with --all it meets them all.
The datasets and the failures are in bad_input.py.
"""

import re
from pathlib import Path

import pytest

from mmrsfm.errors import DataError
from mmrsfm.registry import DATASETS
from tests.test_datasets.bad_input import (
    CASES,
    CONFIGS,
    FAILURES,
    applies,
    linked_copy,
    make_tree,
    read_all,
)

pytestmark = pytest.mark.filterwarnings('ignore')
for package in ('mmpretrain', 'mmseg', 'mmdet', 'mmrotate'):
    pytest.importorskip(package)

ALL = {name: [f for f in FAILURES if applies(case, f)] for name, case in CASES.items()}
DIAGONAL = [(name, some[number % len(some)]) for number, (name, some) in enumerate(ALL.items())]
WRAPPERS = {'AddressedDataset', 'MultiDataset'}


@pytest.fixture(scope='module')
def trees(tmp_path_factory):
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = make_tree(CASES[name], tmp_path_factory.mktemp('tree') / 'data')
        return made[name]

    return make


def check(name: str, failure: str, trees, folder: Path) -> None:
    case = CASES[name]
    folder.mkdir(exist_ok=True)
    root = linked_copy(trees(name), folder / 'data')
    damaged = FAILURES[failure](case, root)
    with pytest.raises(DataError) as caught:
        read_all(case, root)
    error = caught.value
    # Of a list that was cut, the last name may be the one that is blamed.
    assert error.path is not None and error.path.startswith(str(root)), error
    if not failure.startswith(('index', 'no_', 'nowhere', 'missing')):
        parts = (damaged, *damaged.parents)
        assert Path(error.path) in parts or damaged.stem in str(error), error


@pytest.mark.parametrize(('name', 'failure'), DIAGONAL)
def test_one_failure_of_each_dataset(name, failure, trees, tmp_path):
    check(name, failure, trees, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_all_failures_of_each_dataset(name, trees, tmp_path):
    wrong = {}
    for failure in ALL[name]:
        try:
            check(name, failure, trees, tmp_path / failure)
        except (Exception, pytest.fail.Exception) as error:
            wrong[failure] = f'{type(error).__name__}: {error}'
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_undamaged_trees_are_read(name, trees, tmp_path):
    """A case that cannot be read at all would prove nothing."""
    assert read_all(CASES[name], linked_copy(trees(name), tmp_path / 'data'))


def test_every_dataset_is_here():
    """The registered ones, and those of other libraries that a base config names."""
    import mmrsfm.compat.opencd.datasets as opencd
    import mmrsfm.datasets.detection
    import mmrsfm.datasets.multi_task
    import mmrsfm.datasets.rotated
    import mmrsfm.datasets.segmentation  # noqa: F401

    ours = {
        name for name, kind in DATASETS.module_dict.items() if kind.__module__.startswith('mmrsfm.')
    }
    named = set()
    for file in CONFIGS.glob('*.py'):
        named |= set(re.findall(r"dataset=dict\(\s*type='(?:\w+\.)?(\w+)'", file.read_text()))
        named |= set(re.findall(r"dataset = dict\(\s*type='(?:\w+\.)?(\w+)'", file.read_text()))
        named |= set(re.findall(r"dataset_type = '(?:\w+\.)?(\w+)'", file.read_text()))
    covered = {name.split('-')[0] for name in CASES} | WRAPPERS
    missing = (ours | set(opencd.__all__) | named) - covered - {'ConcatDataset'}
    assert not missing
