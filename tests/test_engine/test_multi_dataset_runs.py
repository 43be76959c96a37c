# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Training on several data sets at once: stopped, resumed, and told of classes that differ."""

from types import SimpleNamespace

import pytest
from mmengine.registry import HOOKS
from torch import nn

from mmrsfm.errors import ConfigError
from tests.test_engine.test_loops import (
    EVERY_4,
    ITERS,
    _quick,  # noqa: F401
    equal,
    train,
)


def part(name, size):
    return dict(type='ToyDataset', size=size, metainfo=dict(dataset_name=name))


DATA = {
    'train_dataloader.dataset': dict(
        _delete_=True, type='mmrsfm.MultiDataset', datasets=[part('a', 4), part('b', 7)]
    ),
}


@pytest.mark.parametrize(
    ('options', 'composition', 'ratios'),
    [
        ({'train_cfg.max_epochs': 2} | EVERY_4, 'fixed', 'avg'),
        pytest.param(ITERS, 'fixed', [1, 1], marks=pytest.mark.slow),
        (ITERS, 'drawn', 'ratio'),
    ],
    ids=['epochs-fixed', 'iterations-fixed', 'iterations-drawn'],
)
def test_resumed_run_equals_the_uninterrupted_one(tmp_path, options, composition, ratios):
    sampler = dict(
        _delete_=True, type='mmrsfm.MultiDatasetSampler', composition=composition, ratios=ratios
    )
    options = options | DATA | {'train_dataloader.sampler': sampler}
    whole, trace = train(tmp_path, tmp_path / 'whole', **options)
    assert len(trace.losses) == (14 if 'train_cfg.max_epochs' in options else 15)
    loop = whole.train_loop
    assert type(loop._sampler).__name__ == 'MultiDatasetSampler'
    # The loop told it the seed and the batch size.
    assert (loop._sampler.seed, loop._sampler.batch_size) == (whole.seed, 2)
    train(tmp_path, tmp_path / 'cut', interrupt=9, **options)
    path = tmp_path / 'cut' / 'iter_8.pth'
    resumed, rest = train(tmp_path, tmp_path / 'cut', **options, load_from=str(path), resume=True)
    assert rest.samples == trace.samples[8:]
    assert rest.losses == trace.losses[8:]
    assert equal(whole.model.state_dict(), resumed.model.state_dict())


def check(parts, known, **single):
    metainfo = single or {'datasets': parts}
    model = nn.Module()
    model.label_sets = {
        name: SimpleNamespace(classes=classes, semantic_classes=('background', *classes))
        for name, classes in known.items()
    }
    data = SimpleNamespace(metainfo=metainfo)
    runner = SimpleNamespace(model=model, train_dataloader=SimpleNamespace(dataset=data))
    HOOKS.build(dict(type='mmrsfm.ClassCountHook')).before_train(runner)


def test_classes_of_each_part_are_those_of_the_model():
    known = {'a': ('house', 'tree'), 'b': ('ship',), 'counted': ('class 0', 'class 1')}
    check({'a': {'classes': ['house', 'tree']}, 'b': {}, 'counted': {'classes': 'xy'}}, known)
    check({'counted': {'semantic_classes': ('background', 'x', 'y')}}, known)
    with pytest.raises(ConfigError, match=r"part 'c', but the model knows \['a', 'b'"):
        check({'c': {}}, known)
    with pytest.raises(ConfigError, match=r"'a' has 2 classes, the model 2; .* number 0 on"):
        check({'a': {'classes': ['tree', 'house']}}, known)
    with pytest.raises(ConfigError, match=r"'a' has 3 classes, the model 2; .* number 2 on"):
        check({'a': {'classes': ['house', 'tree', 'car']}}, known)
    with pytest.raises(ConfigError, match="'b' has 1 semantic_classes, the model 2"):
        check({}, known, dataset_name='b', classes=('ship',), semantic_classes=('ship',))
    with pytest.raises(ConfigError, match="'counted' has 3 classes"):
        check({'counted': {'classes': ('x', 'y', 'z')}}, known)
