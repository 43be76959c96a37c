# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Freed memory stays with the process, where the user has not decided otherwise."""

import subprocess
import sys

import pytest

from mmrsfm.utils.host_memory import keep_freed_memory

linux = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='of glibc on Linux')

# Allocates and frees 200 MB, and prints how many pages the last time had to be cleared.
SCRIPT = """
import resource, torch
from mmrsfm.utils.host_memory import keep_freed_memory
if {keep}:
    assert keep_freed_memory({{}})
for _ in range(3):
    torch.ones(50_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(50_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@linux
def test_the_next_step_takes_the_pages_of_the_last_one():
    faults = {}
    for keep in (True, False):
        code = SCRIPT.format(keep=keep)
        run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        faults[keep] = int(run.stdout)
    assert faults[True] * 10 < faults[False]


@pytest.mark.parametrize('name', ['MALLOC_MMAP_MAX_', 'MALLOC_TRIM_THRESHOLD_', 'GLIBC_TUNABLES'])
def test_the_environment_decides(name):
    assert not keep_freed_memory({name: '1'})


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, 'platform', 'darwin')
    assert not keep_freed_memory({})
