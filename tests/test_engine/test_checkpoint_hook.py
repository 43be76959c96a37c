# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
import os
from pathlib import Path

import pytest
import torch

from mmrsfm.checkpoints import read_checkpoint
from mmrsfm.checkpoints.integrity import check_digest
from mmrsfm.contract import ImageryContract
from mmrsfm.engine.atomic_io import atomic_write, remove_incomplete
from mmrsfm.engine.random_state import (
    capture_random_state,
    preserved_random_state,
    restore_random_state,
)
from mmrsfm.engine.run_config import build_runner, load_config
from mmrsfm.errors import CheckpointWriteError
from tests.test_engine.test_loops import EPOCHS, ITERS, build, train
from tests.test_engine.toy import write_config


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
    published = [name for name in names if '-' in name]  # as any other: whole, with its digest
    assert sorted(name.rpartition('-')[0] for name in published) == [
        'best_acc_epoch_1', 'epoch_3',
    ]  # fmt: skip
    for name in published:
        check_digest(folder / name)
        assert set(read_checkpoint(folder / name)) == {'meta', 'state_dict'}
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


def test_a_published_file_that_cannot_be_written(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('mmrsfm.engine.hooks.checkpoint_hook.write_with_digest', full)
    options = EPOCHS | {
        'train_cfg.max_epochs': 1, 'default_hooks.checkpoint.published_keys': ['state_dict'],
    }  # fmt: skip
    with pytest.raises(CheckpointWriteError, match=r'published part .*epoch_1\.pth.*No space'):
        train(tmp_path, tmp_path, **options)
    assert [file.name for file in tmp_path.glob('*.pth')] == ['epoch_1.pth']


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU: run on a machine with CUDA')
def test_random_state_of_a_gpu():
    torch.rand(1, device='cuda')
    state = capture_random_state()
    first = torch.rand(3, device='cuda')
    restore_random_state(state)
    assert torch.equal(torch.rand(3, device='cuda'), first)


def test_deterministic_runs_warn_of_operations_that_are_not(tmp_path, monkeypatch):
    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG', raising=False)
    cfg = load_config(write_config(tmp_path, 'randomness = dict(seed=0, deterministic=True)\n'))
    cfg.work_dir = str(tmp_path)
    cfg.train_cfg.max_epochs = 1
    try:
        build_runner(cfg).train()
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ['CUBLAS_WORKSPACE_CONFIG'] == ':4096:8'
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
        os.environ.pop('CUBLAS_WORKSPACE_CONFIG', None)
