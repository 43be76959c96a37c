# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Classes of the dataset against those of the heads."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, init_default_scope
from torch import nn
from torch.utils.data import Subset

from mmrsfm.datasets import AddressedDataset
from mmrsfm.errors import ConfigError
from mmrsfm.registry import MODELS
from tests.test_engine.toy import REPO, ToyDataset

NAMES = ('water', 'land', 'cloud')


def head(classes, **attributes):
    module = nn.Identity()
    module.num_classes = classes
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def check(dataset=None, classes=NAMES, wrapped=False, **parts):
    if dataset is None:
        dataset = SimpleNamespace(metainfo={} if classes is None else {'classes': classes})
    model = nn.Module()
    for name, part in parts.items():
        setattr(model, name, part)
    if wrapped:
        from mmengine.model import MMDistributedDataParallel

        outer = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
        nn.Module.__init__(outer)
        outer.module = model
        model = outer
    runner = SimpleNamespace(model=model, train_dataloader=SimpleNamespace(dataset=dataset))
    HOOKS.build(dict(type='mmrsfm.ClassCountHook')).before_train(runner)


@pytest.mark.parametrize('wrapped', [False, True])
def test_both_numbers_and_the_keys_are_named(wrapped):
    check(head=head(3), wrapped=wrapped)
    with pytest.raises(ConfigError) as caught:
        check(head=head(4), wrapped=wrapped)
    for part in ('has 3 classes (water, land, cloud)', 'model.head.num_classes=4',
                 'Set num_classes=3', 'train_dataloader.dataset'):  # fmt: skip
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ('parts', 'key'),
    [
        ({'decode_head': head(2)}, r'model\.decode_head\.num_classes=2'),
        (
            {'decode_head': head(3), 'auxiliary_head': head(19)},
            r'says model\.auxiliary_head\.num_classes=19\.',
        ),
        (
            {'auxiliary_head': nn.ModuleList([head(3), head(7)])},
            r'model\.auxiliary_head\[1\]\.num_classes=7',
        ),
        ({'bbox_head': head(80)}, r'model\.bbox_head\.num_classes=80'),
        (
            {'roi_head': head(None, bbox_head=nn.ModuleList([head(80), head(80)]))},
            r'roi_head\.bbox_head\[0\]\.num_classes=80, model\.roi_head\.bbox_head\[1\]',
        ),
        (
            {'head': head(3), 'data_preprocessor': head(10, to_onehot=True)},
            r'says data_preprocessor\.num_classes=10',
        ),
    ],
)
def test_every_head_is_compared(parts, key):
    with pytest.raises(ConfigError, match=key):
        check(**parts)


@pytest.mark.parametrize(
    'options',
    [
        {'classes': None, 'head': head(3)},
        {'head': head(None)},
        {'head': nn.Identity()},
        {'decode_head': head(2, out_channels=1), 'classes': ('building',)},
        {'head': head(3), 'data_preprocessor': head(10, to_onehot=False)},
        {'dataset': object(), 'head': head(3)},
        {
            'dataset': SimpleNamespace(metainfo={'classes': NAMES, 'thing_classes': NAMES[:1]}),
            'bbox_head': head(1),
        },
        {'neck': head(5)},
    ],
)
def test_what_is_not_stated_or_cannot_be_compared_passes(options):
    check(**options)


@pytest.mark.parametrize('wrap', [lambda d: AddressedDataset(d, 0), lambda d: Subset(d, [0])])
def test_datasets_within_others(wrap):
    check(dataset=wrap(ToyDataset()), head=head(1))
    with pytest.raises(ConfigError, match='has 1 classes'):
        check(dataset=wrap(ToyDataset()), head=head(2))


def test_every_run_checks_it_and_real_heads_are_found():
    runtime = Config.fromfile(REPO / 'configs/_base_/default_runtime.py')
    assert 'mmrsfm.ClassCountHook' in [hook.type for hook in runtime.default_hooks.values()]
    init_default_scope('mmpretrain')
    with torch.device('meta'):
        classifier = MODELS.build(dict(type='LinearClsHead', num_classes=4, in_channels=8))
    with pytest.raises(ConfigError, match=r'model\.head\.num_classes=4'):
        check(head=classifier)
    pytest.importorskip('mmseg')
    init_default_scope('mmseg')
    options = dict(type='mmseg.FCNHead', in_channels=8, channels=8, num_convs=1)
    with pytest.raises(ConfigError, match=r'model\.decode_head\.num_classes=4'):
        check(decode_head=MODELS.build(dict(**options, num_classes=4)))
    binary = MODELS.build(dict(**options, num_classes=2, out_channels=1, threshold=0.3))
    check(decode_head=binary, classes=('building',))
    check(decode_head=binary, classes=('other', 'building'))
