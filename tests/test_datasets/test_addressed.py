# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The same sample is the same everywhere; bad samples have a policy, and nothing is silent."""

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset, default_collate
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mmrsfm.datasets import AddressedCollate, AddressedDataset, TileDataset
from mmrsfm.errors import (
    BandMismatchError,
    ConfigError,
    CorruptImageError,
    DataError,
    TooManyBadSamplesError,
)
from mmrsfm.randomness import SampleAddress
from tests.test_datasets.imagery import numbers, truncate, write_tif

PIPELINE = [
    dict(type='mmrsfm.LoadMultiBandImage', scale=1e-4),
    dict(type='mmrsfm.RandomResizedCrop', size=16),
    dict(type='mmrsfm.RandomFlip', prob=0.5),
    dict(type='mmrsfm.RandomRot90'),
    dict(type='mmrsfm.DrawMaskNoise', patch_size=4),
    dict(type='mmrsfm.PackInputs', meta_keys=('crop_box', 'rot90')),
]
SIZE = 7


class TwoEpochs:
    """A sampler as those of mmrsfm: addresses, in another order in every epoch."""

    def __init__(self) -> None:
        self.epoch = 0

    def __iter__(self):
        order = np.random.RandomState(self.epoch).permutation(SIZE)
        epoch, self.epoch = self.epoch, self.epoch + 1
        return iter([SampleAddress(int(index), epoch) for index in order])

    def __len__(self) -> int:
        return SIZE


class Fails(Dataset):
    """Raises what it is told to raise."""

    def __init__(self, errors) -> None:
        self.errors = errors

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index):
        if index in self.errors:
            raise self.errors[index]
        return {'index': index, 'draw': random.random()}

    def get_data_info(self, index):
        return {'img_path': f'{index}.tif'}


class Rejects(BaseDataset):
    """A pipeline that returns None for odd samples, as detection pipelines may."""

    def load_data_list(self):
        return [{'img_path': f'{number}.tif'} for number in range(SIZE)]

    def prepare_data(self, idx):
        return None if idx % 2 else {'index': int(idx), 'draw': random.random()}


@pytest.fixture
def tiles(tmp_path):
    for number in range(SIZE):
        write_tif(tmp_path / 'tiles' / f'{number}.tif', numbers(height=32, width=32) + number)
    return tmp_path / 'tiles'


def dataset(folder, **options):
    tiles = TileDataset(data_root=str(folder), pipeline=PIPELINE)
    return AddressedDataset(tiles, **{'seed': 3, **options})


def draws(folder, workers, persistent=False, seed=3) -> dict:
    """What two epochs give: (epoch, file) -> image, mask noise, rectangle."""
    loader = DataLoader(
        dataset(folder, seed=seed),
        batch_size=2,
        sampler=TwoEpochs(),
        num_workers=workers,
        persistent_workers=persistent,
        collate_fn=AddressedCollate(default_collate),
    )
    found = {}
    for epoch in range(2):
        for batch in loader:
            for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
                key = (epoch, Path(sample.img_path).name)
                meta = (sample.crop_box, sample.flip, sample.rot90)
                found[key] = (image.clone(), sample.mask_noise.clone(), meta)
    assert len(found) == 2 * SIZE
    return found


def test_the_same_whatever_the_workers(tiles):
    alone = draws(tiles, 0)
    for workers, persistent in [(1, False), (2, False), (2, True)]:
        torch.manual_seed(workers)
        np.random.seed(workers)
        random.seed(workers)
        others = draws(tiles, workers, persistent)
        for key, (image, noise, meta) in alone.items():
            assert torch.equal(others[key][0], image), (key, workers, persistent)
            assert torch.equal(others[key][1], noise)
            assert others[key][2] == meta


def test_epochs_samples_and_seeds_differ(tiles):
    found, other = draws(tiles, 0), draws(tiles, 0, seed=4)
    noise = [one[1] for one in (*found.values(), *other.values())]
    assert len({tuple(one.flatten().tolist()) for one in noise}) == 4 * SIZE


def test_global_generators_are_left_alone(tiles):
    data = dataset(tiles)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    data[2]
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert torch.equal(torch.get_rng_state(), states[2])


def test_plain_indices_are_drawn_in_the_epoch_of_the_dataset(tiles):
    data = dataset(tiles)
    assert torch.equal(data[2]['inputs'], data[SampleAddress(2, 0)]['inputs'])
    data.epoch = 5
    assert torch.equal(data[2]['inputs'], data[SampleAddress(2, 5)]['inputs'])
    assert torch.equal(data[-1]['inputs'], data[SIZE - 1]['inputs'])


# -- the wrapped dataset ---------------------------------------------------------------------------


def test_attributes_are_those_of_the_wrapped_dataset(tiles):
    tile_dataset = TileDataset(data_root=str(tiles), metainfo={'classes': ('a',)})
    data = AddressedDataset(tile_dataset)
    assert len(data) == SIZE
    assert data.metainfo == {'classes': ('a',)}
    assert data.get_data_info(1)['img_path'].endswith('1.tif')
    data.full_init()
    data.pipeline = 'another'  # as PipelineSwitchHook does
    assert tile_dataset.pipeline == 'another'
    with pytest.raises(AttributeError, match='nothing_of_the_kind'):
        _ = data.nothing_of_the_kind


def test_it_can_be_sent_to_another_process(tiles):
    data = dataset(tiles)
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again[3]['inputs'], data[3]['inputs'])


def test_config_and_refusals(tiles):
    from mmrsfm.registry import DATASETS

    config = dict(type='mmrsfm.TileDataset', data_root=str(tiles), pipeline=PIPELINE)
    data = DATASETS.build(dict(type='mmrsfm.AddressedDataset', dataset=config, seed=3))
    assert torch.equal(data[1]['inputs'], dataset(tiles)[1]['inputs'])
    with pytest.raises(ConfigError, match='on_error'):
        AddressedDataset(Fails({}), on_error='ignore')

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(())

    with pytest.raises(ConfigError, match='iterable'):
        AddressedDataset(Stream())


# -- bad samples -----------------------------------------------------------------------------------


def test_bad_files_raise_by_default_with_everything_that_is_known(tiles):
    path = truncate(tiles / '3.tif', tiles / '4.tif')
    with pytest.raises(CorruptImageError, match=r'4\.tif') as caught:
        dataset(tiles)[SampleAddress(4, 2)]
    assert caught.value.path == path
    assert caught.value.__notes__ == [f'(sample 4 of TileDataset, epoch 2, {path})']


@pytest.mark.parametrize('workers', [0, 1])
def test_errors_come_through_a_data_loader(tiles, workers):
    truncate(tiles / '3.tif', tiles / '4.tif')
    loader = DataLoader(dataset(tiles), num_workers=workers, collate_fn=default_collate)
    with pytest.raises(CorruptImageError, match=r'4\.tif(.|\n)*sample 4 of TileDataset'):
        list(loader)


@pytest.mark.parametrize('workers', [0, 2])
def test_skipping_takes_the_next_readable_sample_and_says_so(tiles, workers):
    truncate(tiles / '3.tif', tiles / '4.tif')
    (tiles / '5.tif').write_bytes(b'')
    loader = DataLoader(
        dataset(tiles, on_error='skip'),
        batch_size=SIZE,
        num_workers=workers,
        collate_fn=AddressedCollate(default_collate),
    )
    (batch,) = loader
    names = [Path(sample.img_path).name for sample in batch['data_samples']]
    assert names == ['0.tif', '1.tif', '2.tif', '3.tif', '6.tif', '6.tif', '6.tif']
    records = batch['skipped_samples']
    assert [record['index'] for record in records] == [4, 5, 5]
    assert {record['epoch'] for record in records} == {0}
    assert Path(records[0]['path']).name == '4.tif'
    assert records[0]['reason']
    # The replacements are draws of their own.
    noise = {tuple(sample.mask_noise.flatten().tolist()) for sample in batch['data_samples']}
    assert len(noise) == SIZE


def test_the_sampler_may_say_which_is_next(tiles):
    """And is asked by address: epoch and visit choose the order, and the draw."""
    for broken in ('4.tif', '1.tif'):
        (tiles / broken).write_bytes(b'')
    data = dataset(tiles, on_error='skip')
    assert pickle.loads(pickle.dumps(data)).following is None
    asked = []

    def following(address):
        asked.append((int(address), address.epoch, address.visit))
        return SampleAddress((address + 4) % SIZE, address.epoch, address.visit)

    data.following = following
    item = data[SampleAddress(4, 2, 1)]  # 4, 1, 5
    assert item['data_samples'].img_path.endswith('5.tif')
    assert asked == [(4, 2, 1), (1, 2, 1)]
    assert [record['index'] for record in item['skipped_samples']] == [4, 1]
    own = data[SampleAddress(5, 2, 1)]
    assert not torch.equal(item['data_samples'].mask_noise, own['data_samples'].mask_noise)


def test_a_good_batch_has_no_records(tiles):
    data = dataset(tiles, on_error='skip')
    assert set(AddressedCollate(default_collate)([data[0], data[1]])) == {'inputs', 'data_samples'}


def test_the_band_is_in_the_record():
    data = AddressedDataset(Fails({0: BandMismatchError('is odd', 'x.tif', 'B8A')}), 0, 'skip')
    assert data[0]['skipped_samples'] == [
        {'index': 0, 'epoch': 0, 'path': 'x.tif', 'band': 'B8A', 'reason': 'is odd'}
    ]


@pytest.mark.parametrize('max_skips', [2, 100])
def test_skipping_has_an_end(max_skips):
    broken = {index: DataError('broken', f'{index}.tif') for index in range(SIZE)}
    data = AddressedDataset(Fails(broken), 0, 'skip', max_skips)
    with pytest.raises(TooManyBadSamplesError, match='samples in a row') as caught:
        data[1]
    assert caught.value.path == ('3.tif' if max_skips == 2 else '0.tif')


@pytest.mark.parametrize('policy', ['raise', 'skip'])
@pytest.mark.parametrize('error', [ValueError, KeyError, RuntimeError])
def test_errors_of_the_program_are_always_raised(policy, error):
    data = AddressedDataset(Fails({1: error('x')}), on_error=policy)
    with pytest.raises(error) as caught:
        data[1]
    assert caught.value.__notes__ == ['(sample 1 of Fails, epoch 0, 1.tif)']


def test_errors_of_other_loaders_get_a_path():
    data = AddressedDataset(Fails({1: OSError('cannot identify image file')}))
    with pytest.raises(CorruptImageError, match=r'1\.tif: cannot be read \(cannot identify'):
        data[1]
    data = AddressedDataset(Fails({1: DataError('is odd')}))
    with pytest.raises(DataError, match=r'1\.tif: is odd'):
        data[1]


# -- rejected draws --------------------------------------------------------------------------------


@pytest.mark.parametrize('wrap', [lambda x: x, lambda x: RepeatDataset(x, 2),
                                  lambda x: ConcatDataset([x, x])])  # fmt: skip
def test_rejected_draws_are_counted_and_follow_from_the_address(wrap):
    data = AddressedDataset(wrap(Rejects(serialize_data=False)), seed=1)
    first = [data[index] for index in range(SIZE)]
    assert data.rejected_draws >= SIZE // 2
    assert all(item['index'] % 2 == 0 for item in first)
    assert [data[index] for index in reversed(range(SIZE))] == first[::-1]


def test_rejected_draws_in_workers_are_counted():
    data = AddressedDataset(Rejects(), seed=1)
    loader = DataLoader(data, num_workers=2, collate_fn=default_collate)
    list(loader)
    in_workers = data.rejected_draws
    assert in_workers >= SIZE // 2
    list(DataLoader(data, collate_fn=default_collate))
    assert data.rejected_draws == 2 * in_workers
