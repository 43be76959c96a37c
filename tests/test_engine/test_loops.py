# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Where a resumed run goes on, and the policy for bad samples."""

import itertools
from copy import deepcopy

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmrsfm.errors import CheckpointError, ConfigError, CorruptImageError, TooManyBadSamplesError
from tests.test_engine.toy import write_config

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    # It asks compilers and drivers for their versions: seconds, and nothing of ours.
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    # On a busy disk one takes up to half a minute; test_checkpoint_hook.py does it.
    monkeypatch.setattr('os.fsync', lambda handle: None)


class StoppedError(Exception):
    """What ends a run in these tests, as a kill would."""


class InterruptHook(Hook):
    priority = 'LOWEST'

    def __init__(self, iteration):
        self.iteration = iteration

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.iteration:
            raise StoppedError


class TraceHook(Hook):
    priority = 'LOWEST'

    def __init__(self):
        self.losses, self.samples, self.batches = [], [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs['loss'].item())
        self.samples.append([int(i) for i in data_batch['index']])
        self.batches.append(batch_idx)


def build(folder, work_dir, **options):
    cfg = Config.fromfile(write_config(folder))
    cfg.merge_from_dict(deepcopy(options))  # merging takes _delete_ out
    cfg.work_dir = str(work_dir)
    # MMEngine keeps a message hub per name, and names runs by the second.
    cfg.experiment_name = f'run{next(_numbers)}'
    return Runner.from_cfg(cfg)


def train(folder, work_dir, interrupt=None, **options):
    runner = build(folder, work_dir, **options)
    trace = TraceHook()
    runner.register_hook(trace)
    if interrupt is not None:
        runner.register_hook(InterruptHook(interrupt))
        with pytest.raises(StoppedError):
            runner.train()
    else:
        runner.train()
    return runner, trace


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def equal(a, b):
    return all(torch.equal(x, b[name]) for name, x in a.items())


EPOCHS = {'train_cfg.max_epochs': 3, 'default_hooks.checkpoint.max_keep_ckpts': -1}
ITERS = {
    'train_cfg': dict(_delete_=True, type='mmrsfm.IterTrainLoop', max_iters=15, val_interval=4),
    'default_hooks.checkpoint.max_keep_ckpts': -1,
}
EVERY_4 = {
    'default_hooks.checkpoint.by_epoch': False,
    'default_hooks.checkpoint.interval': 4,
}


def test_load_from_starts_at_the_beginning(tmp_path):
    train(tmp_path, tmp_path / 'a', **EPOCHS)
    _, trace = train(
        tmp_path, tmp_path / 'b', **EPOCHS, load_from=str(tmp_path / 'a' / 'epoch_2.pth')
    )
    assert len(trace.losses) == 15


def test_resume_with_another_batch_size_continues_at_the_sample(tmp_path):
    options = EPOCHS | EVERY_4
    _, trace = train(tmp_path, tmp_path, interrupt=9, **options)
    used = flat(trace.samples[5:8])  # three batches of the second epoch
    _, rest = train(
        tmp_path,
        tmp_path,
        **options,
        load_from=str(tmp_path / 'iter_8.pth'),
        resume=True,
        **{'train_dataloader.batch_size': 4},
    )
    assert sorted(used + rest.samples[0]) == list(range(10))


TWO_PARTS = {
    'train_dataloader.dataset': dict(
        _delete_=True,
        type='ConcatDataset',
        ignore_keys=['DATASET_TYPE'],
        datasets=[dict(type='ToyDataset', size=6), dict(type='ToyDataset', size=4)],
    ),
    'train_dataloader.batch_sampler': dict(type='mmdet.AspectRatioBatchSampler'),
}


def test_batches_of_like_aspect_from_two_datasets(tmp_path):
    runner, trace = train(tmp_path, tmp_path, **EPOCHS, **TWO_PARTS)
    assert len(runner.train_dataloader.dataset) == 10
    for epoch in range(3):
        batches = trace.samples[5 * epoch : 5 * epoch + 5]
        assert sorted(flat(batches)) == sorted([*range(6), *range(4)])
        # Odd ones are as wide as high, even ones are narrower; what is left over is mixed.
        assert all(len({index % 2 for index in batch}) == 1 for batch in batches[:4])
    assert trace.samples[:5] != trace.samples[5:10]


FINITE = {'train_dataloader.sampler': dict(_delete_=True, type='DefaultSampler', shuffle=True)}
ENDLESS = {'train_dataloader.sampler': dict(_delete_=True, type='InfiniteSampler', shuffle=True)}


@pytest.mark.parametrize(
    'options',
    [
        EPOCHS | EVERY_4 | TWO_PARTS | {'train_dataloader.batch_size': 1},
        EPOCHS | EVERY_4 | TWO_PARTS,
        ITERS | TWO_PARTS,
        EPOCHS | EVERY_4 | FINITE,
        ITERS | ENDLESS,
        EPOCHS | EVERY_4 | TWO_PARTS | FINITE,
        EPOCHS | EVERY_4 | TWO_PARTS | {'train_dataloader.num_workers': 2},
        EPOCHS | EVERY_4 | FINITE | {'train_dataloader.num_workers': 2},
    ],
    ids=[
        'one-by-aspect', 'by-aspect', 'by-aspect-iterations', 'mmengine', 'mmengine-iterations',
        'by-aspect-mmengine', 'by-aspect-workers', 'mmengine-workers',
    ],
)  # fmt: skip
def test_samplers_of_other_libraries_resume_within_an_epoch(tmp_path, options):
    log = []
    whole, trace = train(tmp_path, tmp_path / 'whole', **options)
    train(tmp_path, tmp_path / 'cut', interrupt=9, **options)
    runner = build(
        tmp_path, tmp_path / 'cut', **options, load_from=str(tmp_path / 'cut/iter_8.pth'),
        resume=True,
    )  # fmt: skip
    rest = TraceHook()
    runner.register_hook(rest)
    dataset = runner.train_loop.dataloader.dataset.dataset
    for part in getattr(dataset, 'datasets', [dataset]):
        part.log = log
    runner.train()
    assert rest.samples == trace.samples[8:]
    assert rest.batches == trace.batches[8:]
    assert rest.losses == trace.losses[8:]
    assert equal(whole.model.state_dict(), runner.model.state_dict())
    if not options.get('train_dataloader.num_workers'):
        assert log == flat(rest.samples), 'what was used is not read once more'


@pytest.mark.parametrize('options', [EPOCHS, ITERS], ids=['epochs', 'iterations'])
def test_a_checkpoint_without_a_state_of_ours(tmp_path, options):
    """MMEngine's own, or the best one: the epoch, or the step, goes on; and so do later ones."""
    options = options | EVERY_4
    if options.get('train_cfg'):
        options['train_cfg'] = options['train_cfg'] | {'val_interval': 100}
    _, trace = train(
        tmp_path, tmp_path / 'whole', **options | {'default_hooks.checkpoint.interval': 5}
    )
    path = tmp_path / 'whole' / 'iter_5.pth'
    content = torch.load(path, weights_only=False)
    assert content.pop('mmrsfm')['loop']['iter'] == 5
    if 'train_cfg' not in options:
        content['meta']['epoch'] = 1  # as at an epoch's end
    torch.save(content, path)
    _, rest = train(
        tmp_path, tmp_path / 'on', interrupt=9, **options, load_from=str(path), resume=True
    )
    assert rest.samples == trace.samples[5:9]
    path = tmp_path / 'on' / 'iter_8.pth'
    runner, last = train(tmp_path, tmp_path / 'on', **options, load_from=str(path), resume=True)
    assert last.samples == trace.samples[8:]
    assert runner.iter == 15


def test_resume_with_another_dataset_is_refused(tmp_path):
    train(tmp_path, tmp_path, interrupt=6, **EPOCHS)
    with pytest.raises(CheckpointError, match='has 9 now'):
        train(
            tmp_path,
            tmp_path,
            **EPOCHS,
            load_from=str(tmp_path / 'epoch_1.pth'),
            resume=True,
            **{'train_dataloader.dataset.size': 9},
        )


def test_a_finite_sampler_of_mmengine_in_a_loop_of_iterations_resumes_as_there(tmp_path):
    options = ITERS | FINITE
    train(tmp_path, tmp_path, interrupt=6, **options)
    path = str(tmp_path / 'iter_4.pth')
    resumed, _ = train(tmp_path, tmp_path, **options, load_from=path, resume=True)
    assert resumed.iter == 15


@pytest.mark.parametrize('options', [EPOCHS, ITERS], ids=['epochs', 'iterations'])
@pytest.mark.parametrize('workers', [0, 2])
def test_bad_samples_are_skipped_counted_and_reported(tmp_path, options, workers):
    options = options | {
        'train_dataloader.dataset.bad': [3, 4],
        'train_dataloader.num_workers': workers,
    }
    if 'train_cfg' in options:
        options['train_cfg'] = options['train_cfg'] | {'on_bad_sample': 'skip'}
    else:
        options['train_cfg.on_bad_sample'] = 'skip'
    runner, trace = train(tmp_path, tmp_path, **options)
    assert all(len(batch) == 2 for batch in trace.samples)
    sampler = runner.train_loop._sampler
    expected, counts = [], []
    for epoch in range(3):
        order = sampler._permutation(10, 'order', epoch)
        counts.append(0)
        for place in range(10):
            while order[place % 10] in (3, 4):
                counts[-1] += 1
                place += 1
            expected.append(order[place % 10])
    assert flat(trace.samples) == expected  # the next of the sampler, whichever worker reads
    assert runner.message_hub.get_info('bad_samples') == sum(counts) >= 6
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert f'Epoch 2: {counts[1]} samples could not be read' in log
    assert 'tile_4.tif, band B02: is truncated (index 4)' in log


def test_bad_samples_end_the_run_by_default(tmp_path):
    with pytest.raises(CorruptImageError, match=r'tile_3\.tif: band B02: is truncated'):
        train(tmp_path, tmp_path, **{'train_dataloader.dataset.bad': [3]})


def test_too_many_bad_samples_end_the_run(tmp_path):
    options = {
        'train_dataloader.dataset.bad': [1, 3, 5, 7],
        'train_cfg.on_bad_sample': 'skip',
        'train_cfg.max_bad_samples': 3,
    }
    with pytest.raises(TooManyBadSamplesError, match=r'4 samples of epoch 1 .* max_bad_samples=3'):
        train(tmp_path, tmp_path, **options)


@pytest.mark.parametrize(
    'options', [{'train_cfg.on_bad_sample': 'ignore'}, {'train_cfg.max_bad_samples': -1}]
)
def test_unknown_policy(tmp_path, options):
    with pytest.raises(ConfigError, match=r'train_cfg: \w*bad_sample'):
        train(tmp_path, tmp_path, **options)


def test_an_epoch_without_a_batch_is_refused(tmp_path):
    options = {'train_dataloader.batch_size': 11, 'train_dataloader.drop_last': True}
    with pytest.raises(ConfigError, match=r'10 samples on 1 ranks, batch_size=11, drop_last=True'):
        train(tmp_path, tmp_path, **options)
    # The stream of an iteration-based loop fills it from several epochs.
    _, trace = train(tmp_path, tmp_path / 'b', **options, **ITERS)
    assert {len(batch) for batch in trace.samples} == {11}


class CollateHook(Hook):
    """Changes the collate function, as mmpretrain's SwitchRecipeHook does."""

    def before_train_epoch(self, runner):
        from mmengine.dataset import pseudo_collate

        runner.train_dataloader.collate_fn = pseudo_collate


def test_hooks_may_change_the_collate_function(tmp_path):
    options = {'train_dataloader.dataset.bad': [3], 'train_cfg.on_bad_sample': 'skip'}
    runner = build(tmp_path, tmp_path, **EPOCHS, **options)
    runner.register_hook(CollateHook())
    runner.train()
    assert runner.message_hub.get_info('bad_samples') == 3


def test_seed_is_restored_below_a_sliced_dataset(tmp_path):
    options = EPOCHS | {'train_dataloader.num_batch_per_epoch': 5}
    _, trace = train(tmp_path, tmp_path / 'a', **options)
    _, rest = train(
        tmp_path,
        tmp_path / 'b',
        **options,
        load_from=str(tmp_path / 'a' / 'epoch_1.pth'),
        resume=True,
        randomness=dict(seed=5),
    )
    assert rest.losses == trace.losses[5:]
