# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What becomes of a command whose output nobody reads."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmrsfm.engine.command_line import EXIT_NO_READER, add_config_arguments, run_command

INSPECT = Path(__file__).resolve().parents[2] / 'tools/model_converters/inspect_checkpoint.py'


@pytest.mark.parametrize('entries', [3, 5000])  # within the buffer of stdout, and beyond it
def test_a_reader_that_has_gone_ends_the_command_quietly(tmp_path, entries):
    path = tmp_path / 'x.pth'
    torch.save({f'layer{i}.weight': torch.zeros(1) for i in range(entries)}, path)
    command = [sys.executable, '-W', 'ignore', str(INSPECT), str(path), '--keys']
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait() == EXIT_NO_READER
    assert 'Traceback' not in errors and 'BrokenPipe' not in errors


def test_another_pipe_that_breaks_is_no_matter_of_the_output():
    def main(args):
        raise BrokenPipeError('of a worker')

    parser = argparse.ArgumentParser()
    parser.add_argument('--debug', action='store_true')
    with pytest.raises(BrokenPipeError, match='of a worker'):
        run_command(main, parser, [])


def test_options_keep_the_blanks_of_strings():
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    options = ['a.b=University of X', "root='/my data/x'", 'c=[1, 2]', 'd=(a, b)', 'e=None', 'f= 3']
    found = parser.parse_args(['x.py', '--cfg-options', *options, 'g=x=y z']).cfg_options
    assert found == {
        'a.b': 'University of X', 'root': '/my data/x', 'c': [1, 2], 'd': ('a', 'b'), 'e': None,
        'f': 3, 'g': 'x=y z',
    }  # fmt: skip
