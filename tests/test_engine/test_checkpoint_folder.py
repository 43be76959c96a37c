# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Damage to checkpoints: done, found, named, and survived."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from mmrsfm.checkpoints.integrity import check_integrity, digest_path
from mmrsfm.engine import checkpoint_folder
from mmrsfm.engine.atomic_io import remove_with_digest, write_with_digest
from mmrsfm.engine.checkpoint_folder import find_last_checkpoint
from mmrsfm.engine.run_config import load_config, resolve_resume
from mmrsfm.errors import (
    CheckpointReadError,
    CheckpointWriteError,
    DigestMismatchError,
    UnsafeCheckpointError,
)
from tests.ranks import run_ranks
from tests.test_engine.test_loops import EPOCHS, build, equal, train
from tests.test_engine.toy import write_config

KEEP = {'default_hooks.checkpoint.max_keep_ckpts': 2}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr('os.fsync', lambda handle: None)


def save(path, **content):
    torch.save({'state_dict': {'w': torch.arange(500.0)}, 'meta': {}, **content}, path)
    return path


def flip(path, place=0.5):
    """One bit becomes another, in the middle of the weights."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(bytes(data))


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


DAMAGE = {
    'bit': (flip, DigestMismatchError, 'its SHA-256 is'),
    'cut': (cut, DigestMismatchError, 'its SHA-256 is'),
    'empty': (lambda path: path.write_bytes(b''), CheckpointReadError, 'is empty'),
    'gone': (Path.unlink, CheckpointReadError, 'does not exist'),
    'digest': (lambda path: digest_path(path).write_text('?'), DigestMismatchError, 'no SHA-256'),
}
WITHOUT_DIGEST = {
    'bit': (flip, 'the checksum of'),
    'cut': (cut, 'truncated'),
    'text': (lambda path: path.write_text('<html>'), 'not a checkpoint'),
}


def test_digest_is_that_of_sha256sum(tmp_path):
    file = tmp_path / 'a.pth'
    write_with_digest(file, b'one')
    expected = f'{hashlib.sha256(b"one").hexdigest()}  a.pth\n'
    assert (tmp_path / 'a.pth.sha256').read_text() == expected
    write_with_digest(file, b'two')
    assert hashlib.sha256(b'two').hexdigest() in digest_path(file).read_text()
    remove_with_digest(file)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('kind', DAMAGE)
def test_damage_is_found_by_the_digest(tmp_path, kind):
    file = save(tmp_path / 'a.pth')
    write_with_digest(file, file.read_bytes())
    check_integrity(file)
    damage, error, text = DAMAGE[kind]
    damage(file)
    with pytest.raises(error, match=text):
        check_integrity(file)


@pytest.mark.parametrize('kind', WITHOUT_DIGEST)
def test_damage_is_found_without_a_digest(tmp_path, kind):
    file = save(tmp_path / 'a.pth')
    check_integrity(file)
    damage, text = WITHOUT_DIGEST[kind]
    damage(file)
    with pytest.raises(CheckpointReadError, match=text):
        check_integrity(file)


def test_a_digest_does_not_make_code_safe(tmp_path):
    file = save(tmp_path / 'a.pth', extra=os.getcwd)
    write_with_digest(file, file.read_bytes())
    with pytest.raises(UnsafeCheckpointError):
        check_integrity(file)


def kill_between(monkeypatch, calls):
    """Ends the run at the n-th rename, as a kill between two of them would."""
    replace, seen = Path.replace, []

    def counting(self, target):
        seen.append(Path(target).name)
        if len(seen) == calls:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, 'replace', counting)
    return seen


@pytest.mark.parametrize(
    ('renames', 'last', 'taken'),
    [
        (4, 'epoch_2.pth', 'epoch_1'),
        (5, 'epoch_2.pth.sha256', 'epoch_2'),
        (6, 'last_checkpoint', 'epoch_2'),
    ],
)
def test_a_kill_at_any_moment_of_a_save(tmp_path, monkeypatch, renames, last, taken):
    options = EPOCHS | {'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None}
    with monkeypatch.context() as patch:
        seen = kill_between(patch, renames)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, tmp_path, **options)
        assert seen[-1] == last
    assert find_last_checkpoint(tmp_path).stem == taken


def test_resume_auto_goes_back_to_the_newest_sound_one(tmp_path, capsys):
    straight, _ = train(tmp_path, tmp_path, **EPOCHS)
    expected = straight.model.state_dict()
    cut(tmp_path / 'epoch_3.pth')
    flip(tmp_path / 'epoch_2.pth')
    cfg = load_config(write_config(tmp_path))
    cfg.work_dir = str(tmp_path)
    resolve_resume(cfg, 'auto')
    assert cfg.load_from == str(tmp_path / 'epoch_1.pth')
    said = capsys.readouterr().out
    for name in ('epoch_3.pth', 'epoch_2.pth'):
        assert f'This checkpoint is not used: {tmp_path / name}: damaged' in said
    resumed, _ = train(tmp_path, tmp_path, **EPOCHS, resume=True, load_from=cfg.load_from)
    assert equal(resumed.model.state_dict(), expected)
    # The broken ones were written again.
    assert find_last_checkpoint(tmp_path) == tmp_path / 'epoch_3.pth'
    with pytest.raises(DigestMismatchError, match=r'--resume: .*damaged.*--resume auto'):
        flip(tmp_path / 'epoch_3.pth')
        resolve_resume(cfg, str(tmp_path / 'epoch_3.pth'))


def _resolved_by_ranks(rank, folder):
    """What a rank of two takes from a sound and from a broken folder, and how much it read."""
    read = []
    check = checkpoint_folder.check_integrity
    checkpoint_folder.check_integrity = lambda file: read.append(file) or check(file)
    cfg = Config(dict(work_dir=str(folder / 'sound')))
    resolve_resume(cfg, 'auto')
    found = Path(cfg.load_from).name
    cfg.work_dir = str(folder / 'broken')
    with pytest.raises(CheckpointReadError, match='none of the 1'):
        resolve_resume(cfg, 'auto')
    return {'found': found, 'read': len(read)}


def test_one_rank_reads_the_checkpoint_through_for_all(tmp_path):
    for name in ('sound', 'broken'):
        (tmp_path / name).mkdir()
        save(tmp_path / name / 'iter_1.pth')
    cut(tmp_path / 'broken' / 'iter_1.pth')
    outcomes = run_ranks(_resolved_by_ranks, tmp_path, tmp_path)
    assert [one['found'] for one in outcomes] == ['iter_1.pth'] * 2
    assert [one['read'] for one in outcomes] == [2, 0]


def test_nothing_sound_is_an_error_and_no_new_run(tmp_path):
    for name in ('iter_1.pth', 'iter_2.pth'):
        cut(save(tmp_path / name))
    with pytest.raises(CheckpointReadError, match=r'(?s)none of the 2 .*iter_2.*iter_1'):
        find_last_checkpoint(tmp_path)


def test_published_and_best_files_are_nothing_to_resume_from(tmp_path):
    for name in ('epoch_1.pth', 'epoch_1-12345678.pth', 'best_acc_epoch_2.pth'):
        save(tmp_path / name)
    assert find_last_checkpoint(tmp_path) == tmp_path / 'epoch_1.pth'


def test_names_and_folders_of_ones_own(tmp_path):
    run, elsewhere = tmp_path / 'run', tmp_path / 'disk' / 'run'
    run.mkdir()
    elsewhere.mkdir(parents=True)
    for step in (3, 7):
        save(elsewhere / f'step-{step}.pt')
    (run / 'last_checkpoint').write_text(str(elsewhere / 'step-7.pt'))
    assert find_last_checkpoint(run) == elsewhere / 'step-7.pt'
    cut(elsewhere / 'step-7.pt')
    assert find_last_checkpoint(run) == elsewhere / 'step-3.pt'


def test_a_copied_folder_is_a_run_of_its_own(tmp_path):
    """It goes on with its own files, and deletes nothing in the folder that it was copied from."""
    options = EPOCHS | {
        'default_hooks.checkpoint.save_best': 'acc',
        'default_hooks.checkpoint.rule': 'greater',
        'default_hooks.checkpoint.max_keep_ckpts': 1,
    }
    train(tmp_path, tmp_path / 'old', **options | {'train_cfg.max_epochs': 2})
    shutil.copytree(tmp_path / 'old', tmp_path / 'new')
    before = sorted(path.name for path in (tmp_path / 'old').iterdir())
    last = find_last_checkpoint(tmp_path / 'new')
    assert last == tmp_path / 'new' / 'epoch_2.pth'
    runner = build(tmp_path, tmp_path / 'new', **options, load_from=str(last), resume=True)
    runner.load_or_resume()
    runner.message_hub.update_info('best_score', -1.0)  # the next validation is better
    runner.train()
    assert sorted(path.name for path in (tmp_path / 'old').iterdir()) == before
    assert sorted(path.stem for path in (tmp_path / 'new').glob('*.pth')) == [
        'best_acc_epoch_2', 'epoch_3',
    ]  # fmt: skip


def test_retention_keeps_the_last_good_one(tmp_path, monkeypatch):
    """What arrives on the disk is not what was written: the older ones stay."""
    replace = Path.replace

    def faulty(self, target):
        done = replace(self, target)
        if Path(target).name == 'epoch_3.pth':
            flip(Path(target))
        return done

    monkeypatch.setattr(Path, 'replace', faulty)
    with pytest.raises(CheckpointWriteError, match=r'epoch_3\.pth.*SHA-256'):
        train(tmp_path, tmp_path, **EPOCHS | KEEP)
    names = {file.name for file in tmp_path.glob('*.pth*')}
    assert {'epoch_1.pth', 'epoch_1.pth.sha256', 'epoch_2.pth', 'epoch_2.pth.sha256'} <= names
    assert find_last_checkpoint(tmp_path) == tmp_path / 'epoch_2.pth'


def test_digests_go_with_their_checkpoints(tmp_path):
    train(tmp_path, tmp_path, **EPOCHS | KEEP)
    names = sorted(file.name for file in tmp_path.glob('epoch_*'))
    assert names == ['epoch_2.pth', 'epoch_2.pth.sha256', 'epoch_3.pth', 'epoch_3.pth.sha256']


def test_the_best_one_is_kept_until_the_next_is_written(tmp_path, monkeypatch):
    replace = Path.replace

    def full_disk(self, target):
        if Path(target).name == 'best_acc_epoch_2.pth':
            raise OSError(28, 'No space left on device')
        return replace(self, target)

    monkeypatch.setattr(Path, 'replace', full_disk)
    best = {'default_hooks.checkpoint.save_best': 'acc', 'default_hooks.checkpoint.rule': 'greater'}
    runner = build(tmp_path, tmp_path, **EPOCHS | best)
    monkeypatch.setattr(
        runner.val_evaluator.metrics[0], 'compute_metrics', lambda _: {'acc': float(runner.epoch)}
    )
    with pytest.raises(CheckpointWriteError, match=r'best_acc_epoch_2\.pth could not .*No space'):
        runner.train()
    assert (tmp_path / 'best_acc_epoch_1.pth').exists()
    check_integrity(tmp_path / 'best_acc_epoch_1.pth')
    assert find_last_checkpoint(tmp_path) == tmp_path / 'epoch_2.pth'


def in_own_mounts():
    """Whether this machine lets a process have file systems of its own."""
    command = ['unshare', '-Urm', 'mount', '-t', 'tmpfs', '-o', 'size=64k', 'none', '/mnt']
    try:
        return (
            sys.platform == 'linux' and subprocess.run(command, capture_output=True).returncode == 0
        )
    except OSError:
        return False


class FillHook(Hook):
    """Leaves no room on a disk before the last checkpoint is written."""

    priority = 'LOW'

    def __init__(self, folder):
        self.folder = folder

    def after_train_epoch(self, runner):
        if runner.epoch == 2:
            with pytest.raises(OSError), (self.folder / 'filler').open('wb', 0) as file:
                while True:
                    file.write(bytes(4096))


def _on_own_file_system(rank, folder, read_only):
    """In a process of its own: mounts a file system, trains, says what happened."""
    libc = ctypes.CDLL(None, use_errno=True)
    disk = folder / 'disk'
    disk.mkdir()
    new_user, new_mounts, private = 0x10000000, 0x00020000, 0x4000 | (1 << 18)
    assert libc.unshare(new_mounts) == 0 or libc.unshare(new_user | new_mounts) == 0
    assert libc.mount(b'none', b'/', None, private, None) == 0
    assert libc.mount(b'none', str(disk).encode(), b'tmpfs', int(read_only), b'size=2m') == 0
    options = {'default_hooks.checkpoint.out_dir': str(disk)}
    runner = build(folder, folder / 'run', **EPOCHS | options)
    runner.register_hook(FillHook(disk))
    try:
        runner.train()
        error = 'none'
    except (CheckpointWriteError, OSError) as raised:
        error = f'{type(raised).__name__}: {raised}'
    last = find_last_checkpoint(folder / 'run')
    return {
        'error': error,
        'iter': runner.iter,
        'last': last and last.name,
        'left': [str(file) for file in disk.rglob('.*')],
    }


@pytest.mark.skipif(not in_own_mounts(), reason='no file systems of its own on this machine')
def test_a_disk_that_is_full(tmp_path):
    (outcome,) = run_ranks(_on_own_file_system, tmp_path, tmp_path, False, ranks=1)
    assert outcome['error'].startswith('CheckpointWriteError')
    assert 'No space left on device' in outcome['error']
    assert 'epoch_3.pth could not be written' in outcome['error']
    assert outcome['last'] == 'epoch_2.pth'
    assert not outcome['left']


@pytest.mark.skipif(not in_own_mounts(), reason='no file systems of its own on this machine')
def test_a_disk_that_is_read_only_is_named_before_the_first_step(tmp_path):
    (outcome,) = run_ranks(_on_own_file_system, tmp_path, tmp_path, True, ranks=1)
    assert outcome['error'].startswith('CheckpointWriteError')
    assert 'Read-only file system' in outcome['error']
    assert outcome['iter'] == 0
    assert outcome['last'] is None
