# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
from itertools import chain, islice

import pytest

from mmrsfm.engine import EpochSampler
from mmrsfm.engine.samplers import AddressedIndices
from mmrsfm.errors import CheckpointError, DatasetNotFoundError
from mmrsfm.randomness import SampleAddress


def make(size, rank=0, world=1, **kwargs):
    sampler = EpochSampler(range(size), seed=kwargs.pop('seed', 3), **kwargs)
    sampler.rank, sampler.world_size = rank, world
    return sampler


def test_an_epoch_is_a_permutation_that_changes_with_the_epoch():
    sampler = make(20)
    first = list(sampler)
    assert sorted(first) == list(range(20))
    assert all(isinstance(i, SampleAddress) and i.epoch == 0 for i in first)
    assert list(sampler) == first  # iterating moves nothing
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(second) == list(range(20))
    assert second != first
    assert {i.epoch for i in second} == {1}
    assert list(make(20, seed=4)) != first
    assert list(make(20, shuffle=False)) == list(range(20))


@pytest.mark.parametrize('world', [1, 2, 3, 7])
@pytest.mark.parametrize('size', [1, 2, 10, 13])
def test_ranks_share_an_epoch(size, world):
    whole = list(make(size))
    shares = [list(make(size, rank, world)) for rank in range(world)]
    assert {len(share) for share in shares} == {len(make(size, 0, world))}
    together = [shares[k % world][k // world] for k in range(world * len(shares[0]))]
    assert together[:size] == whole
    assert together[size:] == [whole[k % size] for k in range(size, len(together))]  # the padding
    uneven = [list(make(size, rank, world, round_up=False)) for rank in range(world)]
    assert sorted(chain.from_iterable(uneven)) == list(range(size))
    for rank, share in enumerate(uneven):
        assert len(share) == len(make(size, rank, world, round_up=False))


@pytest.mark.parametrize(('before', 'after'), [(1, 1), (2, 3), (4, 1), (1, 4)])
def test_resuming_on_other_ranks_continues_at_the_right_sample(before, after):
    old = make(24, 0, before)
    old.set_epoch(5)
    whole = list(make_at(24, 5))
    old.advance(3 * before)  # each rank used three samples
    news = []
    for rank in range(after):
        new = make(24, rank, after, seed=99)
        new.load_state_dict(old.state_dict())
        assert (new.epoch, new.position, new.seed) == (5, 3 * before, 3)
        news.append(list(new))
    together = [news[k % after][k // after] for k in range(24 - 3 * before)]
    assert together == whole[3 * before :]
    assert len({len(share) for share in news}) == 1


@pytest.mark.parametrize('infinite', [False, True])
def test_what_follows_in_an_epoch(infinite):
    sampler = make(13, rank=1, world=2, infinite=infinite)
    for epoch in (0, 4):
        order = list(make_at(13, epoch))
        for position, address in enumerate(order):
            found = sampler.following(address)
            assert (found, found.epoch) == (order[(position + 1) % 13], epoch)


def make_at(size, epoch):
    sampler = make(size)
    sampler.set_epoch(epoch)
    return sampler


def test_set_epoch_keeps_the_position_within_the_same_epoch():
    sampler = make(10)
    sampler.set_epoch(2)
    sampler.advance(4)
    sampler.set_epoch(2)  # DistSamplerSeedHook does it once more
    assert sampler.position == 4
    sampler.set_epoch(3)
    assert sampler.position == 0


def test_a_finished_epoch_yields_nothing():
    sampler = make(10, 1, 4)
    sampler.advance(12)  # padded beyond the end
    assert list(sampler) == []


@pytest.mark.parametrize('world', [1, 3])
def test_infinite_mode_strings_epochs_together(world):
    stream = [i for epoch in range(4) for i in make_at(7, epoch)]
    shares = [list(islice(make(7, r, world, infinite=True), 9)) for r in range(world)]
    together = [shares[k % world][k // world] for k in range(9 * world)]
    assert together == stream[: 9 * world]
    assert [i.epoch for i in together] == [k // 7 for k in range(9 * world)]
    resumed = make(7, infinite=True)
    old = make(7, 0, world, infinite=True)
    old.advance(10)
    old.set_epoch(0)  # means nothing here
    resumed.load_state_dict(old.state_dict())
    assert resumed.epoch == 1
    assert list(islice(resumed, 5)) == stream[10:15]


def test_errors():
    with pytest.raises(DatasetNotFoundError, match='empty'):
        EpochSampler([])
    state = make(10).state_dict()
    with pytest.raises(CheckpointError, match='10 training samples'):
        make(11).load_state_dict(state)
    with pytest.raises(CheckpointError, match='of the other kind'):
        make(10, infinite=True).load_state_dict(state)


def test_indices_of_other_samplers_learn_their_epoch():
    from mmengine.dataset import DefaultSampler, InfiniteSampler

    wrapped = AddressedIndices(DefaultSampler(range(4), shuffle=False, seed=0))
    assert [(int(i), i.epoch) for i in wrapped] == [(k, 0) for k in range(4)]
    assert {i.epoch for i in wrapped} == {1}  # the next pass
    wrapped.epoch = 7
    assert {i.epoch for i in wrapped} == {7}
    wrapped.set_epoch(3)
    assert wrapped.sampler.epoch == 3
    endless = AddressedIndices(InfiniteSampler(range(3), shuffle=False, seed=0))
    assert [i.epoch for i in islice(endless, 7)] == [0, 0, 0, 1, 1, 1, 2]
