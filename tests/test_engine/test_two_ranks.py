# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Two ranks on the CPU: batches that do not come out even, accumulation, a write that fails."""

import errno
import os
from pathlib import Path

import pytest
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from mmrsfm.errors import CheckpointWriteError
from tests.ranks import run_ranks
from tests.test_engine.test_loops import EPOCHS
from tests.test_engine.test_sharding import PLAIN, run

DDP = {
    'launcher': 'pytorch',
    'model_wrapper_cfg': dict(type='MMDistributedDataParallel', device_ids=None),
}
EVALUATED = 5
SAMPLERS = {
    'filled up': dict(type='DefaultSampler', shuffle=False),
    'uneven': dict(type='DefaultSampler', shuffle=False, round_up=False),
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr('os.fsync', lambda handle: None)


class WatchHook(Hook):
    """Notes the samples of every batch, whether gradients are shared, and what is measured."""

    priority = 'LOW'

    def __init__(self):
        self.batches, self.shared, self.metrics = [], [], []

    def before_train(self, runner):
        runner.model.register_forward_pre_hook(
            lambda model, args: self.shared.append(
                getattr(model, 'require_backward_grad_sync', True)
            )
        )

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.batches.append([int(index) for index in data_batch['index']])

    def after_val_epoch(self, runner, metrics=None):
        self.metrics.append(dict(metrics))


def _uneven(rank, folder, size):
    os.environ['LOCAL_RANK'] = str(rank)
    results = {}
    for name, sampler in SAMPLERS.items():
        watch = WatchHook()
        options = (
            EPOCHS
            | DDP
            | {
                'train_cfg.max_epochs': 1,
                'train_dataloader.dataset.size': size,
                'val_dataloader.dataset.size': EVALUATED,
                'val_dataloader.sampler': sampler,
            }
        )
        runner, _ = run(folder, folder / name, hooks=[watch], **options)
        weights = runner.model.module.net[0].weight.detach().clone()
        results[name] = {'batches': watch.batches, 'metrics': watch.metrics, 'weights': weights}
    return results


def test_batches_that_do_not_come_out_even(tmp_path):
    """9 samples, batches of 2: a rank has 2, 2, 1; 5 samples are measured, each once."""
    first, second = run_ranks(_uneven, tmp_path, tmp_path, 9)
    for name in SAMPLERS:
        for part in (first[name], second[name]):
            assert [len(batch) for batch in part['batches']] == [2, 2, 1]
            assert part['metrics'] == [{'acc': EVALUATED, 'distinct': EVALUATED}]
        assert torch.equal(first[name]['weights'], second[name]['weights'])
        seen = [one for batch in first[name]['batches'] + second[name]['batches'] for one in batch]
        assert sorted(set(seen)) == list(range(9))
        assert len(seen) == 10  # one sample twice: every rank makes as many steps


ACCUMULATED = (
    EPOCHS
    | PLAIN
    | {
        'optim_wrapper.accumulative_counts': 2,
        'train_dataloader.dataset.size': 12,
        'train_cfg.max_epochs': 2,
    }
)


def _accumulating(rank, folder):
    os.environ['LOCAL_RANK'] = str(rank)
    watch = WatchHook()
    runner, _ = run(folder, folder / 'ranks', hooks=[watch], **ACCUMULATED, **DDP)
    return {'shared': watch.shared, 'weights': dict(runner.model.module.state_dict())}


def test_accumulated_gradients_are_shared_once(tmp_path):
    parts = run_ranks(_accumulating, tmp_path, tmp_path)
    whole, _ = run(tmp_path, tmp_path / 'one', **ACCUMULATED, **{'train_dataloader.batch_size': 4})
    for part in parts:
        assert part['shared'] == [False, True] * 3
        for name, value in whole.model.state_dict().items():
            torch.testing.assert_close(part['weights'][name], value, rtol=1e-4, atol=1e-5)


def _full_disk_of_the_master(rank, folder):
    os.environ['LOCAL_RANK'] = str(rank)
    replace = Path.replace

    def failing(self, target):
        if get_rank() == 0 and Path(target).name == 'epoch_2.pth':
            raise OSError(errno.ENOSPC, 'No space left on device')
        return replace(self, target)

    Path.replace = failing  # in this process only, which ends
    try:
        run(folder, folder / 'run', **EPOCHS, **DDP)
    except CheckpointWriteError as error:
        return str(error)


def test_a_write_that_fails_on_rank_0_stops_both(tmp_path):
    messages = run_ranks(_full_disk_of_the_master, tmp_path, tmp_path)
    for message in messages:
        assert 'epoch_2.pth could not be written' in message
        assert 'No space left on device' in message
    assert [path.name for path in (tmp_path / 'run').glob('*.pth')] == ['epoch_1.pth']
    assert (tmp_path / 'run/last_checkpoint').read_text().endswith('epoch_1.pth')
