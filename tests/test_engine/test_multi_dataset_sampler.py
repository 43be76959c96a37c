# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
import pickle
from collections import Counter
from itertools import islice

import pytest

from mmrsfm.engine import MultiDatasetSampler
from mmrsfm.errors import CheckpointError, ConfigError, DatasetNotFoundError
from mmrsfm.randomness import SampleAddress

SIZES = (7, 4, 20)
FIRST = (0, 7, 11)


class Parts(list):
    """Three datasets as one, of which only lengths are known."""

    def __init__(self, sizes=SIZES, names=('sota', 'sior', 'fast')):
        super().__init__(range(sum(sizes)))
        self.datasets = [range(size) for size in sizes]
        self.names = list(names)


def make(rank=0, world=1, sizes=SIZES, **kwargs):
    kwargs = {'batch_size': 3, 'seed': 5, **kwargs}
    # Lengths of an epoch are those of the ranks: before the sampler is made.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmrsfm.engine.samplers.epoch_sampler.get_dist_info', lambda: (rank, world))
        return MultiDatasetSampler(Parts(sizes), **kwargs)


def part_of(index, first=FIRST):
    return max(k for k, start in enumerate(first) if index >= start)


def together(samplers, batch, count=None):
    """What all ranks draw, batch by batch."""
    streams = [list(islice(iter(one), count)) for one in samplers]
    steps = len(streams[0]) // batch
    return [
        address
        for step in range(steps)
        for stream in streams
        for address in stream[step * batch : (step + 1) * batch]
    ]


@pytest.mark.parametrize('world', [1, 2, 3])
@pytest.mark.parametrize(
    ('ratios', 'batch', 'shares'),
    [
        ('avg', 3, [1, 1, 1]),
        ('avg', 6, [2, 2, 2]),
        ('ratio', 3, [1, 1, 1]),
        ('ratio', 8, [2, 1, 5]),
        ([1, 1, 2], 4, [1, 1, 2]),
        ({'fast': 3, 'sota': 1, 'sior': 1}, 6, [1, 1, 4]),
        ([100, 1, 1], 5, [3, 1, 1]),
    ],
)
def test_every_batch_has_the_same_of_each_and_an_epoch_loses_nothing(ratios, batch, shares, world):
    ranks = [make(r, world, ratios=ratios, batch_size=batch) for r in range(world)]
    assert ranks[0].shares == shares
    drawn = [list(one) for one in ranks]
    assert {len(one) for one in drawn} == {len(ranks[0])}
    for one in drawn:
        for start in range(0, len(one), batch):
            count = Counter(part_of(index) for index in one[start : start + batch])
            assert [count[part] for part in range(3)] == shares
    every = Counter(int(index) for one in drawn for index in one)
    assert set(every) == set(range(sum(SIZES)))
    for part, size in enumerate(SIZES):  # nobody is drawn twice before all others once
        counts = [every[FIRST[part] + place] for place in range(size)]
        assert max(counts) - min(counts) <= 1
    # No longer than it takes: with one step less somebody would be missing.
    less = Counter(int(i) for one in drawn for i in one[:-batch])
    assert len(less) < sum(SIZES)


def test_a_sample_that_is_drawn_again_has_another_address():
    drawn = list(make())
    assert len({(int(a), a.epoch, a.visit) for a in drawn}) == len(drawn) == 60
    assert max(a.visit for a in drawn if part_of(a) == 1) == 4  # 20 draws of 4
    copy = pickle.loads(pickle.dumps(SampleAddress(3, 2, 1)))
    assert (copy, copy.epoch, copy.visit) == (3, 2, 1)
    assert repr(copy) == 'SampleAddress(3, epoch=2, visit=1)'


def test_epochs_differ_and_follow_from_the_seed():
    first = make()
    one = list(first)
    assert [repr(a) for a in first] == [repr(a) for a in one]  # iterating moves nothing
    first.set_epoch(1)
    assert [int(a) for a in first] != [int(a) for a in one]
    assert {a.epoch for a in first} == {1}
    assert [int(a) for a in make(seed=6)] != [int(a) for a in one]
    assert [int(a) for a in islice(make(shuffle=False), 6)] == [0, 7, 11, 1, 8, 12]


@pytest.mark.parametrize('infinite', [False, True])
@pytest.mark.parametrize(
    ('before', 'after', 'batches'),
    [(1, 1, (3, 3)), (2, 2, (3, 3)), (2, 1, (3, 6)), (1, 2, (6, 3)), (2, 3, (3, 3))],
)
def test_a_resumed_run_goes_on_with_the_next_of_each_part(before, after, batches, infinite):
    epoch = 0 if infinite else 4
    kind = dict(infinite=infinite)

    def ranks(world, batch, **more):
        return [at(make(r, world, batch_size=batch, **kind, **more), epoch) for r in range(world)]

    old = ranks(before, batches[0])
    used = together(old, batches[0], 2 * batches[0])
    old[0].advance(2 * batches[0] * before)
    state = pickle.loads(pickle.dumps(old[0].state_dict()))
    news = ranks(after, batches[1], seed=99)
    for one in news:
        one.load_state_dict(state)
        assert (one.epoch, one.position, one.seed) == (epoch, len(used), 5)
    rest = together(news, batches[1], 60 if infinite else None)
    drawn = [a for a in [*used, *rest] if a.epoch == epoch]
    assert len({repr(a) for a in drawn}) == len(drawn)
    for part, size in enumerate(SIZES):
        counts = Counter(int(a) for a in drawn if part_of(a) == part)
        assert len(counts) == size
        assert max(counts.values()) - min(counts.values()) <= 1
    if before == after:
        whole = together(ranks(before, batches[0]), batches[0], 60 + 6 if infinite else None)
        assert [repr(a) for a in whole] == [repr(a) for a in [*used, *rest]]


@pytest.mark.parametrize('options', [
    {}, dict(composition='drawn'), dict(composition='drawn', ratios=[2, 1, 2]),
])  # fmt: skip
def test_what_follows_is_of_the_same_part(options):
    """Part after part, what is yielded next, around the end of the epoch."""
    sampler = make(**options)
    found = list(at(sampler, 3))
    for part in range(3):
        turns = [(int(one), one.visit) for one in found if part_of(one) == part]
        for turn, behind in zip(turns, [*turns[1:], turns[0]], strict=True):
            following = sampler.following(SampleAddress(turn[0], 3, turn[1]))
            assert following.epoch == 3 and part_of(following) == part
            if sampler.draws is not None or turn[1] == behind[1]:
                assert (int(following), following.visit) == behind
            else:  # the fixed composition stays within one pass over the part
                assert following.visit == turn[1]


def at(sampler, epoch):
    if not sampler.infinite:
        sampler.set_epoch(epoch)
    return sampler


@pytest.mark.parametrize('composition', ['fixed', 'drawn'])
def test_the_endless_stream_is_the_same_after_any_stop(composition):
    whole = [repr(a) for a in islice(make(infinite=True, composition=composition), 300)]
    epochs = [make_epoch(whole, epoch) for epoch in range(2)]
    assert all(set(one) == set(range(31)) for one in epochs)
    for stop in (1, 19, 20, 21, 63):
        old = make(infinite=True, composition=composition)
        for _ in range(stop):
            old.advance(3)
        new = make(infinite=True, composition=composition, seed=1)
        new.load_state_dict(old.state_dict())
        assert new.epoch == old.epoch
        rest = [repr(a) for a in islice(new, 300 - 3 * stop)]
        assert rest == whole[3 * stop :]


def make_epoch(whole, epoch):
    found = [eval(text, {'SampleAddress': SampleAddress}) for text in whole]
    return [int(a) for a in found if a.epoch == epoch]


def test_drawn_by_size_is_the_shuffled_concatenation():
    drawn = list(make(composition='drawn', ratios='ratio', batch_size=None))
    assert sorted(drawn) == list(range(31))
    assert [int(a) for a in drawn] != list(range(31))
    parts = [part_of(index) for index in drawn]
    assert parts != sorted(parts)


@pytest.mark.parametrize('world', [1, 2])
def test_drawn_proportions_hold_over_an_epoch(world):
    sampler = make(composition='drawn', ratios=[0.1, 0.1, 0.2])
    assert sampler.draws == [10, 10, 20]
    ranks = [make(r, world, composition='drawn', ratios=[0.1, 0.1, 0.2]) for r in range(world)]
    drawn = [a for one in ranks for a in one]
    assert Counter(part_of(a) for a in drawn) == {0: 10, 1: 10, 2: 20}
    assert set(drawn) == set(range(31))
    assert len({repr(a) for a in drawn}) == 40
    # The samples that come twice are others in the next epoch.
    again = [{int(a) for a in drawn if a.visit == 1 and part_of(a) == 0}]
    for epoch in (1, 2):
        sampler.set_epoch(epoch)
        again.append({int(a) for a in sampler if a.visit == 1 and part_of(a) == 0})
    assert {len(one) for one in again} == {3}
    assert len({frozenset(one) for one in again}) > 1


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(ConfigError, match='batch of 4 cannot hold equal numbers of each of 3'):
        make(batch_size=4)
    with pytest.raises(ConfigError, match='batch of 2 cannot hold one of each'):
        make(batch_size=2, ratios='ratio')
    with pytest.raises(ConfigError, match='needs batch_size'):
        make(batch_size=None)
    with pytest.raises(ConfigError, match="'fixed' or 'drawn'"):
        make(composition='mixed')
    for ratios in ('equal', [1, 2], [1, 0, 1], [1, float('nan'), 1], 3):
        with pytest.raises(ConfigError, match='ratios must be'):
            make(ratios=ratios)
    with pytest.raises(ConfigError, match="the parts are \\['sota'"):
        make(ratios={'sota': 1, 'sior': 1})
    with pytest.raises(ConfigError, match=r'mmrsfm\.MultiDataset; got range'):
        MultiDatasetSampler(range(4), batch_size=3)
    with pytest.raises(DatasetNotFoundError, match="part 'sior' of the training set is empty"):
        make(sizes=(3, 0, 2))
    with pytest.raises(
        ConfigError, match='a step of 4 samples, but the sampler fills batches of 3'
    ):
        make().advance(4)


def test_a_checkpoint_of_other_data_is_refused():
    state = make().state_dict()
    with pytest.raises(CheckpointError, match=r"the sizes .*'sota': 7.*'sota': 8"):
        make(sizes=(8, 3, 20)).load_state_dict(state)
    with pytest.raises(CheckpointError, match='composition'):
        make(composition='drawn').load_state_dict(state)
    with pytest.raises(CheckpointError, match='the ratios changed'):
        make(composition='drawn').load_state_dict(
            make(composition='drawn', ratios='ratio').state_dict()
        )
    with pytest.raises(CheckpointError, match='composition'):  # of an EpochSampler
        make().load_state_dict({'seed': 1, 'size': 31, 'infinite': False, 'position': 0})
    # A fixed composition may change: of each part it is known what was used.
    other = make(batch_size=6)
    other.load_state_dict(state)
    assert other.shares == [2, 2, 2]
