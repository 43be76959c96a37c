# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Two processes write what one writes."""

import os
import subprocess

from tests.parity import REPO
from tests.processes import FreshPython
from tests.test_evaluation.test_submissions import two_ranks


def test_two_ranks_write_what_one_writes(tmp_path):
    two_ranks.write(tmp_path / 'one')
    environment = os.environ | {'PYTHONPATH': str(REPO), 'OMP_NUM_THREADS': '1'}
    with FreshPython() as fresh:
        command = [str(fresh.executable), '-m', 'torch.distributed.run', '--standalone',
                   '--nproc_per_node=2', two_ranks.__file__, str(tmp_path / 'two')]  # fmt: skip
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
        )
    assert done.returncode == 0, done.stderr
    for folder in ('dota', 'l'):
        one, two = (
            {file.name: file.read_bytes() for file in (tmp_path / ranks / folder).iterdir()}
            for ranks in ('one', 'two')
        )
        assert one == two
    assert len(list((tmp_path / 'two/l').glob('*.png'))) == two_ranks.COUNT
