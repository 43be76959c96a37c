# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""FSDP in MMEngine's Runner: two ranks on the CPU do what one process does."""

import os

import pytest
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import MODELS
from torch import nn

from mmrsfm.checkpoints import read_checkpoint
from mmrsfm.engine.sharding import is_sharded
from mmrsfm.errors import ConfigError, NonFiniteError
from tests.ranks import run_ranks
from tests.test_engine.test_loops import EPOCHS, InterruptHook, StoppedError, TraceHook, build
from tests.test_engine.toy import ToyModel


@MODELS.register_module()
class PlainToyModel(ToyModel):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.net = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 1))


# Dropout and batch normalisation see other samples where a batch is divided.
PLAIN = {
    'model': dict(_delete_=True, type='PlainToyModel'),
    'optim_wrapper.clip_grad': dict(max_norm=20.0),
}
LAYERS = dict(type='torch.distributed.fsdp.wrap.size_based_auto_wrap_policy', min_num_params=20)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr('os.fsync', lambda handle: None)


def sharded(policy=None, kind='mmrsfm.FullyShardedDataParallel'):
    wrapper = dict(type=kind, device_id='cpu')
    return {'model_wrapper_cfg': wrapper | ({'auto_wrap_policy': policy} if policy else {})}


def run(folder, work_dir, interrupt=None, hooks=(), **options):
    own = folder / f'config{get_rank()}'  # ranks would read what the other is writing
    own.mkdir(exist_ok=True)
    runner = build(own, work_dir, **options)
    trace = TraceHook()
    for hook in (trace, *hooks, *([InterruptHook(interrupt)] if interrupt else [])):
        runner.register_hook(hook)
    if interrupt:
        with pytest.raises(StoppedError):
            runner.train()
    else:
        runner.train()
    return runner, trace


def _two_ranks(rank, folder):
    os.environ['LOCAL_RANK'] = str(rank)
    options = EPOCHS | PLAIN | {'launcher': 'pytorch'}
    results = {}
    for name, policy in (('root', None), ('layers', LAYERS)):
        runner, trace = run(folder, folder / name, **options, **sharded(policy))
        assert is_sharded(runner.model)
        results[name] = trace.losses
    units = [module for module in runner.model.modules() if is_sharded(module)]
    results['units'] = len(units)
    results['dims'] = [one.whole_ndim for one in runner.model.parameters()]
    results['own'] = sum(one.numel() for one in runner.model.parameters())
    # Resumed in the middle, from its own checkpoint, and from one of DistributedDataParallel.
    ddp = options | {'model_wrapper_cfg': dict(type='MMDistributedDataParallel', device_ids=None)}
    run(folder, folder / 'ddp', **ddp)
    for name in ('layers', 'ddp'):
        path = str(folder / name / 'epoch_2.pth')
        _, trace = run(
            folder, folder / f'{name}-resumed', **options, **sharded(LAYERS),
            load_from=path, resume=True,
        )  # fmt: skip
        results[f'{name}-resumed'] = trace.losses
    return results


def test_two_ranks_do_what_one_does(tmp_path):
    options = EPOCHS | PLAIN
    whole, trace = run(tmp_path, tmp_path / 'one', **options, **{'train_dataloader.batch_size': 4})
    parts = run_ranks(_two_ranks, tmp_path, tmp_path)
    expected = read_checkpoint(tmp_path / 'one/epoch_3.pth')
    for name in ('root', 'layers', 'ddp', 'layers-resumed', 'ddp-resumed'):
        saved = read_checkpoint(tmp_path / name / 'epoch_3.pth')
        assert list(saved['state_dict']) == list(expected['state_dict'])
        for key, value in expected['state_dict'].items():
            torch.testing.assert_close(saved['state_dict'][key], value, rtol=1e-4, atol=1e-5)
        for key, state in expected['optimizer']['state'].items():
            for entry, value in state.items():
                ours = saved['optimizer']['state'][key][entry]
                torch.testing.assert_close(ours, value, rtol=1e-3, atol=1e-4)
    for part in parts:
        assert part['units'] > 1
        assert part['dims'] == [one.ndim for one in whole.model.parameters()]
        assert part['layers-resumed'] == part['layers'][-len(part['layers-resumed']) :]
        assert len(part['ddp-resumed']) == len(part['layers-resumed'])
    total = sum(one.numel() for one in whole.model.parameters())
    assert parts[0]['own'] + parts[1]['own'] in range(total, total + 8)  # padding
    # A single process continues what two have begun.
    _, rest = run(
        tmp_path, tmp_path / 'resumed', **options, **{'train_dataloader.batch_size': 4},
        load_from=str(tmp_path / 'layers/epoch_2.pth'), resume=True,
    )  # fmt: skip
    torch.testing.assert_close(rest.losses, trace.losses[-len(rest.losses) :], rtol=1e-4, atol=1e-4)


class PoisonHook(Hook):
    """NaN in one sample, which rank 1 has."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        for place, index in enumerate(data_batch['index']):
            if int(index) == 3:
                data_batch['inputs'][place][0] = float('nan')


def _poisoned(rank, folder):
    os.environ['LOCAL_RANK'] = str(rank)
    options = EPOCHS | PLAIN | {'launcher': 'pytorch', 'train_cfg.max_epochs': 1}
    runner, _ = run(folder, folder / 'nan', hooks=[PoisonHook()], **options, **sharded(LAYERS))
    counts = runner.message_hub.get_info('non_finite_steps')
    log = next((folder / 'nan').rglob('*.log')).read_text()
    options['default_hooks.non_finite.max_total'] = 0
    try:
        run(folder, folder / 'stop', hooks=[PoisonHook()], **options, **sharded(LAYERS))
    except NonFiniteError as error:
        message = str(error)
    finite = all(bool(one.isfinite().all()) for one in runner.model.parameters())
    try:
        kind = 'MMFullyShardedDataParallel'
        run(folder, folder / 'other', **options, **sharded(kind=kind))
    except ConfigError as error:
        refused = str(error)
    return {'counts': counts, 'log': log, 'finite': finite, 'message': message, 'refused': refused}


def test_steps_that_are_not_finite_and_another_wrapper(tmp_path):
    for part in run_ranks(_poisoned, tmp_path, tmp_path):
        assert part['counts']['total'] == 1
        assert part['finite']
        assert 'rank 1: first in the input itself' in part['log']
        assert 'tile_3.tif' in part['log']
        assert 'max_total=0' in part['message']
        assert "type='mmrsfm.FullyShardedDataParallel'" in part['refused']
