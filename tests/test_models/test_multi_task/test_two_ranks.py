# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The multi-task model in two processes: the gradient, and what ranks must do together."""

import copy

import torch
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
from torch import nn

from tests.parity import assert_parity
from tests.ranks import run_ranks
from tests.test_models.test_multi_task import tiny
from tests.test_models.test_multi_task.tiny import sample


def gradients(model):
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def backward(model, items):
    wrapped = MMDistributedDataParallel(model, device_ids=None)
    data = copy.deepcopy(tiny.collate(items))
    losses = wrapped(**model.data_preprocessor(data, True), mode='loss')
    model.parse_losses(losses)[0].backward()
    return gradients(model)


def halves():
    """Each rank lacks something that the other has: a data set, kinds of label, objects."""
    return [
        [sample(seed=1, sampling_seed=1), sample(seed=2, objects=0, sampling_seed=2)],
        [
            sample('mine', 2, seed=3, tasks=('semantic',), sampling_seed=3),
            sample('mine', 2, seed=4, tasks=('rotated',), sampling_seed=4),
        ],
    ]


def _steps(rank, model):
    found = backward(model, halves()[rank])
    model.zero_grad()
    # One kind of label on one rank, nothing on the other: nobody waits for a parameter.
    return found, backward(model, [halves()[1][:1], [sample(tasks=(), seed=9)]][rank])


def test_gradient_is_the_mean_of_the_halves(tmp_path):
    """Samplers of both stages draw by the seed of the image; BatchNorm in eval."""
    model = tiny.build(norm='BN').eval()
    found = run_ranks(_steps, tmp_path, model)
    for name, value in found[0][0].items():
        assert torch.equal(value, found[1][0][name]), name
    alone = []
    for items in halves():
        model.zero_grad()
        tiny.run(model, items)[0].backward()
        alone.append(gradients(model))
    assert sum(bool(value.any()) for value in found[0][0].values()) > 100
    for name, value in found[0][0].items():
        assert_parity(value, (alone[0][name] + alone[1][name]) / 2, name)
    # In the second step only one rank has labels, of one kind.
    model.zero_grad()
    tiny.run(model, halves()[1][:1])[0].backward()
    for name, value in gradients(model).items():
        assert_parity(found[1][1][name], value / 2, name)


class CountingSyncBN(nn.SyncBatchNorm):
    """Exchanges the number of images, forward and backward, as SyncBN does statistics."""

    def __init__(self, channels):
        super().__init__(channels)
        self.seen = []

    def forward(self, x):
        out = x * self.weight[:, None, None] + self.bias[:, None, None]
        self.seen.append(_Exchange.count(x))
        return _Exchange.apply(out)


class _Exchange(torch.autograd.Function):
    @staticmethod
    def count(x):
        number = torch.tensor([float(len(x))])
        dist.all_reduce(number)
        return int(number)

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        _Exchange.count(grad)
        return grad


def _synchronised(rank, model):
    seen = []
    semantic, rotated = model.decoders.semantic, model.decoders.rotated
    norms = [semantic.decode_head.bottleneck.bn, rotated.neck.lateral_convs[0].bn]
    for joint in (False, True):
        semantic.joint = rotated.joint = joint
        for norm in norms:
            norm.seen.clear()
        batches = [
            [sample(seed=1), sample(seed=2)] if rank == 0 else [sample('mine', 2, seed=3)],
            [sample(seed=1, tasks=('rotated',))] if rank == 0 else [sample('mine', 2, seed=3)],
            [sample(seed=1, tasks=('semantic',))],
            [sample(seed=1, tasks=())] if rank == 0 else [sample(seed=3)],
        ]
        for items in batches:
            model.zero_grad()
            # Not wrapped: DistributedDataParallel refuses SyncBN on a CPU.
            tiny.run(model, items)[0].backward()
        seen.append([list(norm.seen) for norm in norms])
    return seen


def test_layers_that_exchange_statistics_run_on_all_ranks(tmp_path):
    """Else a rank without labels of a kind, or without a data set, would be waited for."""
    decoders = tiny.decoders(norm='BN', tasks=('semantic', 'rotated'))
    decoders['rotated']['neck']['norm_cfg'] = dict(type='BN')
    model = tiny.build(decoders=decoders, init=False).train()
    for decoder in (model.decoders.semantic.decode_head, model.decoders.rotated.neck):
        for module in list(decoder.modules()):
            if hasattr(module, 'bn'):
                module.bn = CountingSyncBN(module.bn.num_features)
    found = run_ranks(_synchronised, tmp_path, model)
    assert found[0] == found[1]
    # Images of each call, over both ranks: of sota and of mine; or of all in one call.
    assert found[0][0][0] == [2, 1, 0, 1, 2, 0, 1, 0]
    assert found[0][1][0] == [3, 1, 2, 1]
    assert found[0][0][1] == found[0][1][1] == [3, 2, 0, 1]
