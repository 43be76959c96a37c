# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Signals that end a run in order, sent to runs."""

import argparse
import os
import re
import signal
import time

import psutil
import pytest
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel

from mmrsfm.checkpoints import read_checkpoint
from mmrsfm.engine import CheckpointHook, command_line
from mmrsfm.engine.preemption import SignalWatch, stop_watching
from mmrsfm.errors import ConfigError, DataError, PreemptedError
from tests.ranks import run_ranks
from tests.test_engine.test_loops import EPOCHS, EVERY_4, ITERS, TraceHook, build, equal, train

ACCUMULATE = {'optim_wrapper.accumulative_counts': 2}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr('os.fsync', lambda handle: None)


class SignalHook(Hook):
    """Sends a signal while a step, or a batch of the validation, is in progress."""

    def __init__(self, step=None, val_batch=None, rank=0, workers=False, name='SIGUSR1'):
        self.step, self.val_batch, self.rank, self.workers = step, val_batch, rank, workers
        self.number = signal.Signals[name]

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.step:
            self._send()

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if (runner.iter, batch_idx) == self.val_batch:
            self._send()

    def _send(self):
        if get_rank() == self.rank:
            children = psutil.Process().children() if self.workers else []
            for pid in [os.getpid(), *(child.pid for child in children)]:
                os.kill(pid, self.number)
            time.sleep(0.02)


@pytest.fixture(scope='module')
def whole_run(tmp_path_factory):
    """Losses, samples and weights of the uninterrupted run of some options."""
    known = {}

    def run(options):
        if repr(options) not in known:
            folder = tmp_path_factory.mktemp('whole')
            runner, trace = train(folder, folder / 'run', **options)
            known[repr(options)] = trace, runner.model.state_dict()
        return known[repr(options)]

    return run


def preempt(folder, work_dir, options, wrapper=None, **sending):
    runner = build(folder, work_dir, **options)
    if wrapper is not None:
        runner.model = wrapper(runner.model, broadcast_buffers=False)
    trace = TraceHook()
    runner.register_hook(trace, priority='LOW')
    runner.register_hook(SignalHook(**sending))
    with pytest.raises(PreemptedError) as caught:
        runner.train()
    return trace, str(caught.value)


@pytest.mark.parametrize(
    ('options', 'sending', 'file', 'losses'),
    [
        pytest.param(EPOCHS, dict(step=7), 'iter_7', 7, id='within-an-epoch'),
        pytest.param(
            EPOCHS, dict(step=5, name='SIGTERM'), 'epoch_1', 5, id='last-step-of-an-epoch'
        ),
        pytest.param(EPOCHS, dict(val_batch=(10, 0)), 'epoch_2', 10, id='in-a-validation'),
        pytest.param(
            EPOCHS | {'default_hooks.checkpoint.interval': 3},
            dict(val_batch=(5, 1)),
            'iter_5',
            5,
            id='in-a-validation-where-nothing-was-saved',
        ),
        pytest.param(ITERS, dict(step=9), 'iter_9', 9, id='iterations'),
        pytest.param(
            ITERS,
            dict(val_batch=(8, 0)),
            'iter_8',
            8,
            id='iterations-validation',
            marks=pytest.mark.slow,
        ),
        pytest.param(
            EPOCHS | ACCUMULATE,
            dict(step=7),
            'iter_7',
            7,
            id='accumulation',
            marks=pytest.mark.slow,  # also in test_exact_resume.py, without a signal
        ),
    ],
)
def test_the_run_saves_and_goes_on_to_the_same_numbers(
    tmp_path, whole_run, options, sending, file, losses
):
    all_of_it, weights = whole_run(options)
    trace, message = preempt(tmp_path, tmp_path / 'cut', options, **sending)
    path = str(tmp_path / f'cut/{file}.pth')
    assert path in message
    assert '--resume auto' in message
    assert (tmp_path / 'cut/last_checkpoint').read_text() == path
    assert trace.losses == all_of_it.losses[:losses]
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    torch.rand(3)
    resumed, rest = train(tmp_path, tmp_path / 'cut', **options, load_from=path, resume=True)
    assert rest.losses == all_of_it.losses[losses:]
    assert rest.samples == all_of_it.samples[losses:]
    assert equal(weights, resumed.model.state_dict())


def test_the_next_checkpoint_replaces_it(tmp_path):
    options = EPOCHS | EVERY_4
    for step in (3, 6):  # the second one after a resumption
        resume = {'load_from': str(tmp_path / 'iter_3.pth'), 'resume': True} if step > 3 else {}
        preempt(tmp_path, tmp_path, options | resume, step=step)
        names = {3: ['iter_3'], 6: ['iter_4', 'iter_6']}[step]
        assert sorted(path.stem for path in tmp_path.glob('*.pth')) == names
    train(tmp_path, tmp_path, **options, load_from=str(tmp_path / 'iter_6.pth'), resume=True)
    names = ['iter_12', 'iter_15', 'iter_4', 'iter_8']
    assert sorted(path.stem for path in tmp_path.glob('*.pth')) == names
    assert len(list(tmp_path.glob('*.sha256'))) == 4


@pytest.mark.parametrize('name', ['SIGTERM', pytest.param('SIGUSR1', marks=pytest.mark.slow)])
def test_workers_survive_a_signal_to_all_processes(tmp_path, name):
    options = EPOCHS | {
        'train_dataloader.num_workers': 1,
        'train_dataloader.persistent_workers': True,
    }
    before = set(psutil.Process().children())
    trace, _ = preempt(tmp_path, tmp_path, options, step=2, workers=True, name=name)
    assert len(trace.losses) == 2
    assert set(psutil.Process().children()) <= before


def test_a_forked_process_is_ended_as_ever(tmp_path):
    watch = SignalWatch(['SIGTERM'])
    watch.start()
    pid = os.fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    stop_watching()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_finished_run_and_a_test_give_the_signals_back(tmp_path):
    runner, _ = train(tmp_path, tmp_path, **{'train_cfg.max_epochs': 1})
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    runner.test()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_wrong_signals():
    for names in ('SIGTERM', ['SIGNOPE']):
        with pytest.raises(ConfigError, match='signals'):
            SignalWatch(names)


@pytest.fixture
def parser(tmp_path, monkeypatch):
    monkeypatch.setenv('MMRSFM_STATUS_FILE', str(tmp_path / 'status'))
    parser = argparse.ArgumentParser(prog='train.py')
    parser.add_argument('--debug')
    yield parser
    for name in ('SIGTERM', 'SIGUSR1'):
        signal.signal(signal.Signals[name], signal.SIG_DFL)


def test_exit_status(capsys, parser, tmp_path):
    def main(args):
        raise PreemptedError('SIGTERM (to rank 0): the run ends')

    assert command_line.run_command(main, parser, []) == 75
    assert 'train.py: SIGTERM (to rank 0)' in capsys.readouterr().err
    assert (tmp_path / 'status').read_text() == '75\n'
    os.kill(os.getpid(), signal.SIGTERM)  # of srun, which ends what is still there: too late


def test_status_of_an_error(parser, tmp_path):
    def main(args):
        raise DataError('is truncated', path='a.tif')

    assert command_line.run_command(main, parser, []) == 1
    assert (tmp_path / 'status').read_text() == '1\n'
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_run_that_cannot_be_saved_is_ended_as_ever(tmp_path):
    """Its status would have it started from its beginning for ever."""
    found = []

    class LookHook(Hook):
        def before_train(self, runner):
            found.append(signal.getsignal(signal.SIGTERM))

    plain = {'default_hooks.checkpoint': dict(_delete_=True, type='CheckpointHook')}
    for options in ({}, plain):
        runner = build(tmp_path, tmp_path, **{'train_cfg.max_epochs': 1}, **options)
        runner.register_hook(LookHook())
        runner.train()
    assert found[0] not in (signal.SIG_DFL, signal.SIG_IGN)
    assert found[1] is signal.SIG_DFL


def test_another_signal_changes_nothing(tmp_path, monkeypatch, capfd):
    """While the checkpoint is written, and after it."""
    write = CheckpointHook._write

    def slowly(hook, runner, *args):
        os.kill(os.getpid(), signal.SIGTERM)
        write(hook, runner, *args)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(CheckpointHook, '_write', slowly)
    _, message = preempt(tmp_path, tmp_path, EPOCHS, step=2, name='SIGUSR1')
    assert message.startswith('SIGUSR1')
    assert read_checkpoint(tmp_path / 'iter_2.pth')['meta']['iter'] == 2
    # Said at once: a step may take minutes.
    assert capfd.readouterr().err.count('SIG') == 1


def _two_ranks(rank, folder):
    # A step, and a validation whose batches are as many on both ranks; signals to one rank only.
    results = {}
    own = folder / f'config{rank}'  # ranks would read what the other is writing
    own.mkdir()
    for name, sending in {'step': dict(step=2), 'validation': dict(val_batch=(3, 0))}.items():
        trace, message = preempt(
            own, folder / name, EPOCHS, MMDistributedDataParallel, rank=1, **sending
        )
        results[name] = {'losses': trace.losses, 'message': message}
    return results


def test_ranks_agree_where_one_got_a_signal(tmp_path):
    for part in run_ranks(_two_ranks, tmp_path, tmp_path):
        assert len(part['step']['losses']) == 2
        assert len(part['validation']['losses']) == 3
        for name, file in (('step', 'iter_2'), ('validation', 'epoch_1')):
            message = part[name]['message']
            assert re.match(r'SIGUSR1 \(to rank 1\): the run ends after step [23];', message)
            assert f'{name}/{file}.pth' in message
