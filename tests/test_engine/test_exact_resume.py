# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""A run killed with SIGKILL and resumed is the uninterrupted one, bit for bit.

Any two of the circumstances meet in the default suite, all of them behind ``--all``; every pretext
algorithm and a config of every task are in ``tests/test_configs/test_exact_resume.py``.
"""

import contextlib
import sys
import time
from itertools import product
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from tests.resume import check_resume, note, pairwise, run
from tests.test_engine.test_loops import train
from tests.test_engine.toy import write_config

STEPS = 5  # of an epoch
FACTORS = {
    'loop': ('epochs', 'iterations'),
    'place': ('within an epoch', "at an epoch's end"),
    'accumulate': (1, 3),
    'workers': (0, 2),
    'ranks': (1, 2),
    'ema': (False, True),
    'precision': ('float32', 'bfloat16', 'scaled'),
    'validation': (False, True),
}
# What follows from these is one run, whatever happens to it.
CIRCUMSTANCES = ('place', 'workers')
SETTINGS = {name: values for name, values in FACTORS.items() if name not in CIRCUMSTANCES}


@OPTIM_WRAPPERS.register_module()
class ScaledOptimWrapper(AmpOptimWrapper):
    """MMEngine's loss scaling without the GPU that it asserts; the scale grows every other step."""

    def __init__(self, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self._scale_update_param = None
        self.cast_dtype = torch.bfloat16
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=8.0, growth_interval=2)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr('os.fsync', lambda handle: None)


@pytest.fixture(autouse=True, scope='module')
def _imported(tmp_path_factory):
    """What runs import for the first time, they would import in each process."""
    folder = tmp_path_factory.mktemp('imported')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.runner.runner.collect_env', dict)
        train(folder, folder, **{'train_cfg.max_epochs': 1})


def config_maker(folder, loop, accumulate, ranks, ema, precision, validation, place, workers):
    """A function that makes the config of a case."""
    file = write_config(folder)

    def make():
        cfg = Config.fromfile(file)
        changes = {
            'train_dataloader.num_workers': workers,
            'train_dataloader.dataset.size': 2 * STEPS * ranks,
            'train_dataloader.dataset.log': str(folder / 'reads'),
            'default_hooks.checkpoint.by_epoch': False,
            'default_hooks.checkpoint.interval': 4 if place == 'within an epoch' else STEPS,
            'optim_wrapper.accumulative_counts': accumulate,
            'optim_wrapper.type': {
                'float32': 'OptimWrapper',
                'bfloat16': 'mmrsfm.BF16OptimWrapper',
                'scaled': 'ScaledOptimWrapper',
            }[precision],
            'param_scheduler': [
                dict(type='LinearLR', by_epoch=False, start_factor=0.1, end=12),
                dict(type='ExponentialLR', by_epoch=True, gamma=0.7),
            ],
        }
        if loop == 'iterations':
            changes['train_cfg'] = dict(
                _delete_=True, type='mmrsfm.IterTrainLoop', max_iters=3 * STEPS, val_interval=4
            )
        elif place != 'within an epoch':
            changes |= {
                'default_hooks.checkpoint.by_epoch': True,
                'default_hooks.checkpoint.interval': 1,
            }
        if workers:
            changes['train_dataloader.persistent_workers'] = True
        if ema:
            changes['custom_hooks'] = [dict(type='EMAHook', momentum=0.1)]
        if not validation:
            changes |= {'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None}
        cfg.merge_from_dict(changes)
        return cfg

    return make


def reads(folder):
    """How many samples were decoded since this was asked last."""
    file = folder / 'reads'
    count = len(file.read_bytes())
    file.unlink()
    return count


def uninterrupted(folder, **case):
    """The run that others must equal, wherever they stop and whoever reads their data."""
    first = {name: FACTORS[name][0] for name in CIRCUMSTANCES}
    return run(config_maker(folder, **case | first), folder / 'whole', case['ranks'])


def check(folder, whole, **case):
    """Kills and resumes a run; returns the step that it went on from."""
    make = config_maker(folder, **case)
    killed = run(make, folder / 'cut', case['ranks'], kill_after=9 if _within(case) else 7)
    reads(folder)
    resumed = run(make, folder / 'cut', case['ranks'], resume=True)
    done = check_resume(whole, killed, resumed)
    assert done == (8 if _within(case) else STEPS)
    # Nothing is decoded only to be skipped; workers of an endless stream read ahead.
    ahead = 2 * 2 * 2 * case['ranks'] if case['loop'] == 'iterations' and case['workers'] else 0
    needed = (3 * STEPS - done) * 2 * case['ranks']
    assert needed <= reads(folder) <= needed + ahead
    return done


def _within(case):
    return case['place'] == 'within an epoch'


@pytest.mark.parametrize(
    'case', pairwise(FACTORS), ids=lambda case: '-'.join(map(str, case.values()))
)
def test_any_two_circumstances(tmp_path, case):
    check(tmp_path, uninterrupted(tmp_path, **case), **case)


@pytest.mark.slow
@pytest.mark.parametrize('values', list(product(*SETTINGS.values())))
def test_all_circumstances(tmp_path, values):
    settings = dict(zip(SETTINGS, values, strict=True))
    whole = uninterrupted(tmp_path, **settings)
    for number, pair in enumerate(product(*(FACTORS[name] for name in CIRCUMSTANCES))):
        folder = tmp_path / str(number)
        folder.mkdir()
        case = settings | dict(zip(CIRCUMSTANCES, pair, strict=True))
        done = check(folder, whole, **case)
        cells = [str(case[name]) for name in FACTORS]
        note(f'| {" | ".join(cells)} | {done} of {3 * STEPS} | bit-equal |')


@pytest.mark.parametrize('loop', ['epochs', pytest.param('iterations', marks=pytest.mark.slow)])
def test_a_kill_in_a_validation(tmp_path, loop):
    """The validation is done again: the learning rate and the best checkpoint depend on it."""
    case = {name: values[0] for name, values in FACTORS.items()} | {
        'loop': loop, 'place': "at an epoch's end", 'validation': True,
    }  # fmt: skip
    base = config_maker(tmp_path, **case)

    def make():
        cfg = base()
        cfg.param_scheduler = dict(
            type='ReduceOnPlateauLR', monitor='distinct', rule='greater', patience=0, factor=0.5
        )
        cfg.default_hooks.checkpoint.update(save_best='distinct', rule='greater')
        if loop == 'iterations':
            cfg.train_cfg.val_interval = STEPS
        return cfg

    whole = run(make, tmp_path / 'whole')
    assert len({step['rates'][0] for step in whole.steps[0]}) == 2
    killed = run(make, tmp_path / 'cut', kill_after=STEPS, kill_in_validation=True)
    resumed = run(make, tmp_path / 'cut', resume=True)
    assert check_resume(whole, killed, resumed) == STEPS
    files = [
        sorted(file.name for file in (tmp_path / name / 'work').glob('*.pth'))
        for name in ('whole', 'cut')
    ]
    assert files[0] == files[1]
    assert any(name.startswith('best_distinct') for name in files[0])


@pytest.mark.parametrize(
    ('before', 'after', 'loop'),
    [
        (2, 1, 'epochs'),
        pytest.param(1, 2, 'epochs', marks=pytest.mark.slow),
        pytest.param(2, 1, 'iterations', marks=pytest.mark.slow),
        pytest.param(1, 2, 'iterations', marks=pytest.mark.slow),
    ],
)
def test_on_another_number_of_ranks_it_goes_on_at_the_next_sample(tmp_path, before, after, loop):
    case = {name: values[0] for name, values in FACTORS.items()} | dict(loop=loop, accumulate=3)

    def make(ranks):
        base = config_maker(tmp_path, **case | {'ranks': ranks})

        def make_sized():
            cfg = base()
            cfg.train_dataloader.dataset.size = 20
            cfg.train_cfg.update(dict(max_epochs=2) if loop == 'epochs' else dict(max_iters=12))
            return cfg

        return make_sized

    killed = run(make(before), tmp_path / 'cut', before, kill_after=5)
    resumed = run(make(after), tmp_path / 'cut', after, resume=True)
    first = [name for rank in killed.steps for step in rank[:4] for name in step['samples']]
    rest = [
        name
        for steps in zip(*resumed.steps, strict=True)
        for step in steps
        for name in step['samples']
    ]
    assert sorted(map(int, first + rest[: 20 - len(first)])) == list(range(20))
    said = (tmp_path / 'cut' / 'part1' / 'rank0.err').read_text()
    assert 'Gradients that were accumulated before are there again' in said


@pytest.mark.skipif(sys.platform != 'linux', reason='asks the kernel: run on Linux')
def test_workers_end_with_a_run_that_is_killed(tmp_path):
    """Also those that still have more to send than a pipe holds."""
    case = {name: values[0] for name, values in FACTORS.items()} | {'workers': 2}
    base = config_maker(tmp_path, **case)

    def make():
        cfg = base()
        cfg.train_dataloader.batch_size = 4
        cfg.train_dataloader.dataset.update(size=200, padding=1 << 16)
        return cfg

    run(make, tmp_path / 'cut', kill_after=2)
    limit = time.monotonic() + 20
    while (left := holders(tmp_path / 'cut')) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not left


def holders(folder):
    """Processes that have a file of a folder open."""
    found = set()
    for link in Path('/proc').glob('[0-9]*/fd/*'):
        with contextlib.suppress(OSError):
            if str(link.readlink()).startswith(str(folder)):
                found.add(link.parts[2])
    return found
