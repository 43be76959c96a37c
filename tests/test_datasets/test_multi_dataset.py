# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
import pytest
from mmengine.dataset import BaseDataset
from mmengine.structures import BaseDataElement

from mmrsfm.datasets import AddressedDataset, MultiDataset
from mmrsfm.errors import ConfigError, CorruptImageError
from mmrsfm.randomness import SampleAddress
from mmrsfm.registry import DATASETS


@DATASETS.register_module()
class NumberedDataset(BaseDataset):
    """Samples that know their number; those in bad cannot be read, those in empty are redrawn."""

    def __init__(self, size, bad=(), empty=(), **kwargs):
        self.size, self.bad, self.empty = size, bad, set(empty)
        super().__init__(serialize_data=False, **kwargs)

    def load_data_list(self):
        return [{'number': n, 'img_path': f'{n}.tif'} for n in range(self.size)]

    def prepare_data(self, idx):
        number = self.get_data_info(idx)['number']
        if number in self.bad:
            raise CorruptImageError('is truncated', path=f'{number}.tif')
        if number in self.empty:
            return None
        import torch

        return {
            'number': number,
            'draw': torch.rand(()).item(),
            'data_samples': BaseDataElement(metainfo=dict(number=number)),
        }


def config(size, name, **kwargs):
    classes = tuple(f'{name} {k}' for k in range(size))
    return dict(
        type='mmrsfm.NumberedDataset', size=size,
        metainfo=dict(dataset_name=name, classes=classes), **kwargs,
    )  # fmt: skip


def test_parts_keep_their_classes_and_samples_their_names():
    data = DATASETS.build(
        dict(type='mmrsfm.MultiDataset', datasets=[config(3, 'sota'), config(2, 'sior')])
    )
    assert len(data) == 5
    assert data.names == ['sota', 'sior']
    assert data.metainfo['datasets']['sior']['classes'] == ('sior 0', 'sior 1')
    assert len(data.metainfo['datasets']['sota']['classes']) == 3
    assert [data[i]['data_samples'].dataset_name for i in range(5)] == ['sota'] * 3 + ['sior'] * 2
    assert [data[i]['number'] for i in range(5)] == [0, 1, 2, 0, 1]
    assert data.get_data_info(3)['dataset_name'] == 'sior'
    assert data[-1]['data_samples'].dataset_name == 'sior'


def test_given_names_are_for_data_sets_of_others():
    parts = [config(1, 'a'), config(1, 'a')]
    assert MultiDataset(parts, names=['x', 'y'])[1]['data_samples'].dataset_name == 'y'
    with pytest.raises(ConfigError, match="a name of its own, got \\['a', 'a'\\]"):
        MultiDataset(parts)
    with pytest.raises(ConfigError, match='name of its own'):
        MultiDataset(parts, names=['x'])
    with pytest.raises(ConfigError, match=r'got \[None\]'):
        MultiDataset([dict(type='mmrsfm.NumberedDataset', size=1)])
    with pytest.raises(ConfigError, match='needs datasets'):
        MultiDataset([])


def test_nothing_is_read_before_it_is_needed():
    data = MultiDataset([config(2, 'a', lazy_init=True)], lazy_init=True)
    assert not data.datasets[0]._fully_initialized
    data.full_init()
    assert len(data) == 2


def test_draws_have_addresses():
    data = AddressedDataset(
        MultiDataset([config(3, 'sota', bad=(1,)), config(3, 'sior', empty=(0,))]), seed=4
    )
    assert data.names == ['sota', 'sior']  # for the sampler
    one = data[SampleAddress(4, 2)]['draw']
    assert data[SampleAddress(4, 2)]['draw'] == one
    assert data[SampleAddress(4, 2, visit=1)]['draw'] != one
    assert data[SampleAddress(4, 3)]['draw'] != one
    with pytest.raises(CorruptImageError, match=r'1\.tif') as caught:
        data[SampleAddress(1, 0)]
    assert 'sample 1 of MultiDataset' in caught.value.__notes__[0]
    # A crop without objects is replaced by a sample of the same data set, and counted.
    assert data[3]['data_samples'].dataset_name == 'sior'
    assert data.rejected_draws > 0


def test_one_pipeline_for_those_that_have_none():
    step, own = dict(type='mmrsfm.PackInputs'), dict(type='mmrsfm.PackInputs', meta_keys=())
    data = MultiDataset([config(1, 'a'), config(1, 'b', pipeline=[own, own])], pipeline=[step])
    assert [len(one.pipeline.transforms) for one in data.datasets] == [1, 2]
