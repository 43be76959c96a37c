# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Accumulated gradients of several ranks, each its own, or their mean where that is too much.

Whole runs that are killed within an accumulation: ``test_exact_resume.py``.
"""

import torch
from mmengine.dist import broadcast_object_list
from mmengine.optim import OptimWrapper
from torch import nn

from mmrsfm.engine import pending_gradients
from mmrsfm.engine.pending_gradients import gather_pending_gradients, restore_pending_gradients
from tests.ranks import run_ranks


def _wrapper():
    model = nn.ModuleList([nn.Linear(2, 1, bias=False), nn.Linear(3, 1, bias=False)])
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1.0), accumulative_counts=4)
    wrapper.initialize_count_status(model, 2, 8)
    return model, wrapper


def _one_rank(rank, most):
    pending_gradients.MOST_BYTES = most  # of this process alone
    model, wrapper = _wrapper()
    model[0].weight.grad = torch.tensor([[1.0, 2.0]]) * (rank + 1)
    if rank:  # what one rank did not use
        model[1].weight.grad = torch.full((1, 3), 8.0)
    pending = [gather_pending_gradients(wrapper)]
    assert (pending[0] is None) == bool(rank)
    broadcast_object_list(pending, src=0)  # as all ranks read one file
    other, again = _wrapper()
    assert restore_pending_gradients(again, pending[0])
    return [len(pending[0]['ranks']), *(layer.weight.grad for layer in other)]


def test_each_rank_has_its_own(tmp_path):
    first, second = run_ranks(_one_rank, tmp_path, 1 << 20)
    assert first[0] == second[0] == 2
    assert first[1].tolist() == [[1.0, 2.0]]
    assert first[2] is None
    assert second[1].tolist() == [[2.0, 4.0]]
    assert second[2].tolist() == [[8.0, 8.0, 8.0]]


def test_the_mean_where_copies_of_all_ranks_are_too_large(tmp_path):
    for count, *gradients in run_ranks(_one_rank, tmp_path, 8):
        assert count == 1
        assert [one.tolist() for one in gradients] == [[[1.5, 3.0]], [[4.0, 4.0, 4.0]]]
