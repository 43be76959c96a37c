# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Steps with NaN or infinity: left out on every rank, explained, counted, and limited."""

import functools
import logging
from copy import deepcopy

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DATASETS, HOOKS, MODELS
from torch import nn

from mmrsfm.checkpoints import read_checkpoint
from mmrsfm.engine import NonFiniteHook
from mmrsfm.engine.non_finite import ForwardSearch, all_finite, first_non_finite
from mmrsfm.errors import ConfigError, NonFiniteError
from tests.ranks import run_ranks
from tests.test_engine.test_loops import EPOCHS, ITERS, build, equal
from tests.test_engine.toy import ToyDataset, ToyModel

NAN, INF = float('nan'), float('inf')


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr('os.fsync', lambda handle: None)


@DATASETS.register_module()
class PoisonedDataset(ToyDataset):
    """A value of some samples is replaced: {index: value}."""

    def __init__(self, poison=None, **kwargs):
        self.poison = {int(key): value for key, value in (poison or {}).items()}
        super().__init__(**kwargs)

    def prepare_data(self, idx):
        item = super().prepare_data(idx)
        if item['index'] in self.poison:
            item['inputs'][0] = self.poison[item['index']]
        return item


class Roots(nn.Module):
    """The square root of what must not be negative."""

    def forward(self, x):
        return torch.where(x[:, :1] < -1000, x[:, :1].sqrt(), torch.zeros_like(x[:, :1]))


@MODELS.register_module()
class RootModel(ToyModel):
    """A module inside fails for some inputs; 'steep': only its gradient does; 'code': no module."""

    def __init__(self, fault='module', **kwargs):
        super().__init__(**kwargs)
        self.fault = fault
        self.roots = Roots()

    def forward(self, inputs, target=None, index=None, mode='tensor'):
        x = torch.stack(list(inputs))
        losses = super().forward(inputs, target, index, mode)
        if mode == 'loss':
            if self.fault == 'module':
                losses['loss_root'] = self.roots(x).mean()
            elif self.fault == 'code':
                losses['loss_code'] = (1e6 - x.max()).sqrt() * 0
            elif x.max() > 1e6:
                # The norm of zero: finite, without a finite gradient.
                losses['loss_norm'] = (self.net[0](x) * 0).square().sum().sqrt()
        return losses


@HOOKS.register_module()
class WeightsHook(Hook):
    """Takes notes of weights, statistics and number of steps."""

    priority = 'LOWEST'

    def __init__(self):
        self.weights = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        model = getattr(runner.model, 'module', runner.model)
        state = model.state_dict()
        self.weights.append({key: one.clone() for key, one in state.items()})


def poisoned(poison, **options):
    return EPOCHS | {
        'train_dataloader.dataset': dict(type='PoisonedDataset', poison=poison),
        'train_dataloader.sampler.shuffle': False,
        'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None,
        **options,
    }  # fmt: skip


def run(tmp_path, options, wrap=None):
    """Trains; returns runner, weights after each step, and what the log says."""
    runner = build(tmp_path, tmp_path, **options)
    if wrap is not None:
        runner.model = wrap(runner.model)
    weights = WeightsHook()
    runner.register_hook(weights)
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    runner.logger.addHandler(handler)
    try:
        runner.train()
    finally:
        runner.logger.removeHandler(handler)
    return runner, weights.weights, [line for line in lines if 'is left out' in line]


def counts(runner):
    return runner.message_hub.get_info('non_finite_steps')


def test_a_bad_sample_costs_its_step_and_nothing_else(tmp_path):
    runner, weights, log = run(tmp_path, poisoned({5: NAN}))
    assert counts(runner) == {'total': 3, 'in_a_row': 0, 'scaler_skips': 0}
    assert all(one.isfinite().all() for one in weights[-1].values())
    # Weights, and running statistics, of before the step; the next one goes on from them.
    assert equal(weights[2], weights[1])
    assert not equal(weights[3], weights[2])
    assert len(log) == 3
    assert 'Step 3 (epoch 1) is left out: the loss is not finite (1 in a row, 1 in this' in log[0]
    assert 'the input itself' in log[0]
    assert 'tile_5.tif (index 5, epoch 1): values from' in log[0]
    assert '1 not finite' in log[0]
    assert 'tile_4' not in log[0]
    assert 'epoch 2' in log[1]
    history = runner.message_hub.get_scalar('train/skipped_steps')
    assert history.current() == 3
    assert 'step' not in vars(runner.optim_wrapper)


@pytest.mark.parametrize(
    ('fault', 'value', 'expected'),
    [
        ('module', -5e3, 'the output of roots (Roots), whose inputs are finite'),
        ('code', 1e7, 'the output of the model (RootModel), whose inputs are finite'),
        ('steep', 1e7, 'the backward pass of what follows net.0 (Linear)'),
    ],
)
def test_the_first_module_is_named(tmp_path, fault, value, expected):
    model = {'model': dict(type='RootModel', fault=fault)}
    _, weights, log = run(tmp_path, poisoned({2: value}, **model, **{'train_cfg.max_epochs': 1}))
    assert expected in log[0]
    assert ('gradients are not' if fault == 'steep' else 'the loss is not') in log[0]
    assert f'tile_2.tif (index 2, epoch 1): values from {min(value, 1.8):.1g}'[:40] in log[0]
    assert (fault == 'module') == ('losses that are not finite: loss_root' in log[0])
    assert ('tile_3' in log[0]) == (fault != 'module')  # one of the samples
    assert equal(weights[1], weights[0])
    assert all(one.isfinite().all() for one in weights[-1].values())


def test_the_search_does_not_move_the_random_numbers(tmp_path):
    (tmp_path / 'b').mkdir()
    options = poisoned({5: NAN}, **{'train_cfg.max_epochs': 1})
    _, with_search, _ = run(tmp_path, options)
    quiet = options | {'default_hooks.non_finite.search': False}
    _, without, log = run(tmp_path / 'b', quiet)
    assert equal(with_search[-1], without[-1])
    assert log[0].count('\n') == 0


@pytest.mark.parametrize('limit', [{'max_in_a_row': 1}, {'max_total': 3, 'max_in_a_row': 9}])
def test_the_run_stops_at_a_limit(tmp_path, limit):
    everything = dict.fromkeys(range(4, 10), NAN)
    options = poisoned(everything) | {
        f'default_hooks.non_finite.{key}': value for key, value in limit.items()
    }
    name = next(iter(limit))
    with pytest.raises(
        NonFiniteError, match=rf'(?s)Step .* allows {name}={limit[name]}\. .*mean, std'
    ):
        run(tmp_path, options)
    # Steps 3, 4 | 3, 4, 5, and of the second epoch 8.
    saved = (tmp_path / 'last_checkpoint').exists()
    assert saved == (name == 'max_total')


def test_wrong_limits():
    with pytest.raises(ConfigError, match='must be >= 0'):
        NonFiniteHook(max_in_a_row=-1)


def test_counts_are_in_the_checkpoint(tmp_path):
    options = poisoned({5: NAN, 9: NAN}, **{'train_cfg.max_epochs': 1})
    runner, _, _ = run(tmp_path, options)
    assert counts(runner) == {'total': 2, 'in_a_row': 1, 'scaler_skips': 0}
    file = tmp_path / 'epoch_1.pth'
    hub = read_checkpoint(file)['message_hub']
    assert hub['runtime_info']['non_finite_steps']['total'] == 2
    more = options | {'train_cfg.max_epochs': 2, 'load_from': str(file), 'resume': True}
    with pytest.raises(NonFiniteError, match=r'1 in a row, 3 in this run.*(?s:.)*max_total=2'):
        run(tmp_path, more | {'default_hooks.non_finite.max_total': 2})


def test_accumulation_drops_the_whole_step_and_names_the_batch(tmp_path):
    wrapper = {'optim_wrapper.accumulative_counts': 3, 'train_cfg': dict(ITERS['train_cfg'])}
    wrapper['train_cfg'].update(max_iters=6)
    runner, weights, log = run(tmp_path, poisoned({3: NAN}) | wrapper)
    # Batches 0 to 2 are one step, of which batch 1 is bad; 3 to 5 are the next.
    assert counts(runner)['total'] == 1
    assert len(log) == 1
    assert 'tile_3.tif (index 3, epoch 1)' in log[0]
    start = weights[0]
    assert torch.equal(weights[2]['net.0.weight'], start['net.0.weight'])
    assert not torch.equal(weights[5]['net.0.weight'], start['net.0.weight'])
    assert all(one.isfinite().all() for one in weights[-1].values())


def scaled(monkeypatch, **scale):
    module = 'mmengine.optim.optimizer.amp_optimizer_wrapper'
    monkeypatch.setattr(f'{module}.is_cuda_available', lambda: True)
    scaler = functools.partial(torch.amp.GradScaler, device='cpu')
    monkeypatch.setattr(f'{module}.GradScaler', scaler)
    return {'optim_wrapper.type': 'AmpOptimWrapper', 'optim_wrapper.loss_scale': scale}


def test_skips_of_a_loss_scaler_are_counted_and_no_error(tmp_path, monkeypatch):
    # Gradients overflow until the scale is small enough.
    scale = scaled(monkeypatch, init_scale=2.0**127, backoff_factor=2.0**-20)
    options = poisoned({}) | scale | {'default_hooks.non_finite.max_in_a_row': 0}
    runner, weights, log = run(tmp_path, options)
    assert not log
    assert counts(runner)['total'] == 0
    assert counts(runner)['scaler_skips'] >= 1
    assert not equal(weights[-1], weights[0])
    assert runner.optim_wrapper.loss_scaler.get_scale() < 2.0**127


def test_a_loss_scaler_does_not_hide_a_bad_loss(tmp_path, monkeypatch):
    options = poisoned({5: NAN}) | scaled(monkeypatch, init_scale=4.0, growth_interval=100)
    runner, _, log = run(tmp_path, options)
    assert counts(runner) == {'total': 3, 'in_a_row': 0, 'scaler_skips': 0}
    assert len(log) == 3
    assert runner.optim_wrapper.loss_scaler.get_scale() == 4.0


def test_a_scale_below_one_is_no_excuse(tmp_path, monkeypatch):
    model = {'model': dict(type='RootModel', fault='steep')}
    options = poisoned({5: 1e7}, **model) | scaled(monkeypatch, init_scale=4.0)
    runner, _, log = run(tmp_path, options)
    # 4 and 2 are excused, 1 is not.
    assert counts(runner) == {'total': 1, 'in_a_row': 0, 'scaler_skips': 2}
    assert len(log) == 1


KINDS = {
    # Only one rank's loss is bad, and nobody's gradient: still no rank steps.
    'loss': {'value': 1e7, 'model': dict(type='RootModel', fault='code')},
    'gradient': {'value': 1e7, 'model': dict(type='RootModel', fault='steep')},
    'accumulating': {'optim_wrapper.accumulative_counts': 2},
    'plain': {},
}


def _two_ranks(rank, folder):
    import torch.distributed as dist

    folder = folder / f'run{rank}'
    folder.mkdir()
    runs = {}
    for name, extra in deepcopy(KINDS).items():
        options = poisoned({5: extra.pop('value', NAN)}, **{'train_cfg.max_epochs': 1}, **extra)
        options['train_dataloader.dataset']['size'] = 16
        runner, weights, log = run(folder, options, MMDistributedDataParallel)
        runs[name] = {
            'weights': weights[-1]['net.0.weight'],
            'finite': all(bool(one.isfinite().all()) for one in weights[-1].values()),
            'counts': counts(runner),
            'log': log,
        }
    try:
        options = options | {'default_hooks.non_finite.max_total': 0}
        run(folder, options, MMDistributedDataParallel)
    except NonFiniteError as error:
        runs['stopped'] = str(error)
    dist.barrier()
    return runs


def test_two_ranks_agree(tmp_path):
    for part in run_ranks(_two_ranks, tmp_path, tmp_path):
        for name in KINDS:
            assert part[name]['finite']
            assert part[name]['counts'] == {'total': 1, 'in_a_row': 0, 'scaler_skips': 0}
        assert 'max_total=0' in part['stopped']
        # Index 5 is the third sample of rank 1.
        assert 'rank 1: first in the input itself' in part['stopped']
        assert 'tile_5.tif (index 5, epoch 1)' in part['stopped']
        assert 'rank 0' not in part['stopped']
    first, second = (torch.load(tmp_path / f'rank{i}.pt') for i in range(2))
    for name in KINDS:
        assert torch.equal(first[name]['weights'], second[name]['weights'])


def test_all_finite():
    good = [torch.ones(3), torch.zeros(2, 2)]
    assert all_finite(good)
    for bad in (NAN, INF, -INF):
        assert not all_finite([*good, torch.tensor([0.0, bad, INF])])
    # Finite, but its sum is not: the exact look confirms.
    large = [torch.full((4,), 2e38)]
    assert not all_finite(large)
    assert first_non_finite([('large', large[0])]) is None


def test_masks_of_attention_are_not_blamed():
    class Mask(nn.Module):
        def forward(self, x):
            return torch.full_like(x, -INF)

    class Head(nn.Module):
        def forward(self, x, mask):
            return x + mask.exp() + torch.tensor(NAN)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.mask, self.head = Mask(), Head()

        def forward(self, x):
            return self.head(x, self.mask(x))

    with ForwardSearch(Model(), 2) as search:
        search.model(torch.zeros(2, 3))
    assert search.origin.where == 'the output of head (Head), whose inputs are finite'
    assert search.origin.notes == ['before it, -inf came out of mask (Mask)']
