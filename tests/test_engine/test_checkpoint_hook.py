# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
import os
from pathlib import Path

import pytest
import torch

from mmrsfm.checkpoints import read_checkpoint
from mmrsfm.contract import ImageryContract
from mmrsfm.engine.atomic_io import atomic_write, remove_incomplete
from mmrsfm.engine.random_state import (
    capture_random_state,
    preserved_random_state,
    restore_random_state,
)
from mmrsfm.errors import CheckpointWriteError
from tests.test_engine.test_loops import EPOCHS, ITERS, build, train


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)


def test_checkpoint_holds_contract_and_state_and_is_read_safely(tmp_path):
    runner = build(tmp_path, tmp_path, **EPOCHS)
    contract = ImageryContract(band_names=('B02', 'B03'), scale=1e-4)
    runner.model.data_preprocessor.contract = contract
    runner.train()
    checkpoint = read_checkpoint(tmp_path / 'epoch_2.pth')
    assert checkpoint['meta']['mmrsfm_contract'] == contract.to_dict()
    state = checkpoint['mmrsfm']
    assert state['loop']['epoch'] == 2
    assert state['loop']['batch'] == 0
    assert state['loop']['iter'] == 10
    assert state['loop']['sampler']['position'] == 0
    assert len(state['random_state']) == 1
    # Plain values and tensors: torch itself reads the state without an allow-list.
    torch.save(state, tmp_path / 'state.pth')
    torch.load(tmp_path / 'state.pth', weights_only=True)
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_3.pth')


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (EPOCHS, ['epoch_1', 'epoch_2', 'epoch_3']),
        (ITERS, ['iter_12', 'iter_15', 'iter_4', 'iter_8']),
    ],
)
def test_default_interval_is_an_epoch_or_a_validation(tmp_path, options, expected):
    train(tmp_path, tmp_path, **options)
    assert sorted(file.stem for file in tmp_path.glob('*.pth')) == expected


def test_options_of_mmengine_are_kept(tmp_path):
    options = EPOCHS | {
        'default_hooks.checkpoint': dict(
            type='mmrsfm.CheckpointHook',
            max_keep_ckpts=1,
            save_best='acc',
            rule='greater',
            published_keys=['meta', 'state_dict'],
            out_dir=str(tmp_path / 'elsewhere'),
        )
    }
    train(tmp_path, tmp_path / 'run', **options)
    folder = tmp_path / 'elsewhere' / 'run'
    names = sorted(file.name for file in folder.glob('*.pth'))
    assert 'best_acc_epoch_1.pth' in names
    assert 'epoch_3.pth' in names
    assert not {'epoch_1.pth', 'epoch_2.pth'} & set(names)
    assert any(name.startswith('epoch_3-') for name in names)  # published
    best = read_checkpoint(folder / 'best_acc_epoch_1.pth')
    assert 'mmrsfm' not in best  # not one to resume from
    assert (tmp_path / 'run' / 'last_checkpoint').read_text() == str(folder / 'epoch_3.pth')


def test_a_failed_write_leaves_the_former_checkpoint(tmp_path, monkeypatch):
    replace = Path.replace

    def full_disk(self, target):
        if Path(target).name == 'epoch_2.pth':
            raise OSError(28, 'No space left on device')
        return replace(self, target)

    monkeypatch.setattr(Path, 'replace', full_disk)
    options = EPOCHS | {'default_hooks.checkpoint.max_keep_ckpts': 1}
    with pytest.raises(CheckpointWriteError, match=r'epoch_2\.pth .*No space left.*--resume'):
        train(tmp_path, tmp_path, **options)
    assert [file.name for file in tmp_path.glob('*.pth')] == ['epoch_1.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_1.pth')
    assert not list(tmp_path.glob('.*'))
    read_checkpoint(tmp_path / 'epoch_1.pth')


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / '.epoch_9.pth.123.incomplete').write_bytes(b'x')
    train(tmp_path, tmp_path, **EPOCHS)
    assert not list(tmp_path.glob('.*'))


def test_atomic_write(tmp_path, monkeypatch):
    file = tmp_path / 'new' / 'a.bin'
    atomic_write(file, b'one')
    atomic_write(file, b'two')
    assert file.read_bytes() == b'two'
    assert [path.name for path in file.parent.iterdir()] == ['a.bin']

    def interrupted(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'fsync', interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(file, b'three')
    assert file.read_bytes() == b'two'
    assert [path.name for path in file.parent.iterdir()] == ['a.bin']
    (tmp_path / '.b.7.incomplete').touch()
    assert remove_incomplete(tmp_path) == [tmp_path / '.b.7.incomplete']


def test_random_state_round_trip():
    import random

    import numpy as np

    def draw():
        return random.gauss(0, 1), np.random.randn(), torch.rand(1).item()

    draw()  # leaves a cached Gaussian in Python and NumPy
    state = capture_random_state()
    first = draw()
    restore_random_state(state)
    assert draw() == first
    restore_random_state(state)
    with preserved_random_state():
        draw()
    assert draw() == first
