# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Shared by all tests: reproducible, quiet, as many threads as cores, no network."""

import os
import sys

# Before torch and OpenCV are imported. pytest-xdist runs one process per core, and its workers
# inherit what is set here for the process that starts them: two threads each are four on two cores,
# which wait for one another in loops and take several times as long.
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ['OMP_NUM_THREADS'] = '1'
else:
    os.environ.setdefault('OMP_NUM_THREADS', '2')
os.environ.setdefault('TOKENIZERS_PARALLELISM', 'false')

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def _fresh_mmengine_globals():
    """MMEngine keeps loggers, visualizers and the default scope in process-wide tables."""
    yield
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope
    from mmengine.visualization import Visualizer

    for manager in (MessageHub, MMLogger, Visualizer, DefaultScope):
        manager._instance_dict.clear()
    # A run that an exception ended may still be watching for signals.
    if 'mmrsfm.engine.preemption' in sys.modules:
        sys.modules['mmrsfm.engine.preemption'].stop_watching()


@pytest.fixture(autouse=True)
def _unformatted_configs(monkeypatch):
    """A runner writes its config several times in the style of yapf: seconds for a long one."""
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True))


def pytest_addoption(parser):
    parser.addoption('--all', action='store_true', help='run the slow matrix too')


def pytest_collection_modifyitems(config, items):
    if config.getoption('--all'):
        return
    skip = pytest.mark.skip(reason='slow matrix: run tools/run_tests.sh --all')
    for item in items:
        if 'slow' in item.keywords:
            item.add_marker(skip)
