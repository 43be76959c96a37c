# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Workers end with their process, not with the thread that started them.

That they do end with a run that is killed: ``test_exact_resume.py``.
"""

import sys
import threading
import time

import pytest
from torch.utils.data import DataLoader

from mmrsfm.engine.worker_lifetime import workers_end_with_parent


def note_worker(worker_id):
    pass


def test_a_loader_is_as_it_was(monkeypatch):
    loader = DataLoader(range(4), worker_init_fn=note_worker)
    with workers_end_with_parent(loader), workers_end_with_parent(None):
        changed = loader.worker_init_fn is not note_worker
    assert changed == (sys.platform == 'linux')
    assert loader.worker_init_fn is note_worker
    monkeypatch.setattr(sys, 'platform', 'darwin')
    with workers_end_with_parent(loader):
        assert loader.worker_init_fn is note_worker


@pytest.mark.skipif(sys.platform != 'linux', reason='workers are forked: run on Linux')
def test_workers_outlive_the_thread_that_started_them():
    """To Linux the parent is a thread: its end would end persistent workers that others use."""
    loader = DataLoader(
        range(4), num_workers=1, persistent_workers=True, multiprocessing_context='fork'
    )
    found = []

    def read():
        with workers_end_with_parent(loader):
            found.extend(int(one) for one in loader)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    try:
        time.sleep(0.2)
        assert all(worker.is_alive() for worker in loader._iterator._workers)
        read()
        assert found == [0, 1, 2, 3] * 2
    finally:
        loader._iterator._shutdown_workers()
