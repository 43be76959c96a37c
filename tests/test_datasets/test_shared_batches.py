# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Batches come from workers as they are, and nothing that is held is written over."""

import gc
import os

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate, pseudo_collate
from torch.utils.data import DataLoader, Dataset

from mmrsfm.datasets import shared_batches
from mmrsfm.datasets.addressed import SKIPPED_KEY, AddressedCollate

pytestmark = pytest.mark.skipif(
    not hasattr(os, 'memfd_create'), reason='needs memfd_create: run on Linux'
)


class Numbers(Dataset):
    """Images full of their number; half a MiB each."""

    def __init__(self, count=24, dtype=torch.uint16, growing=False):
        self.count, self.dtype, self.growing = count, dtype, growing

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        edge = 128 * (1 + index // 8) if self.growing else 512
        image = torch.full((1, edge, edge), index).to(self.dtype)
        item = {'name': f'{index}', 'inputs': image, 'label': index}
        if index == 5:
            item[SKIPPED_KEY] = [{'index': 4}]
        return item


def loader(dataset=None, batch_size=2, collate=default_collate, **options):
    return DataLoader(
        dataset or Numbers(),
        batch_size,
        collate_fn=AddressedCollate(collate),
        num_workers=2,
        **options,
    )


def seen(batches):
    return [tuple(batch['inputs'][:, 0, 0, 0].tolist()) for batch in batches]


def pieces_in_use():
    return sum(memory[0] for memory in shared_batches._received.values())


def test_batches_are_those_of_the_collate_function():
    expected = list(DataLoader(Numbers(8), 2, collate_fn=AddressedCollate(default_collate)))
    found = list(loader(Numbers(8)))
    assert len(shared_batches._received) > 0
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        assert one['name'] == other['name'] and one['label'].tolist() == other['label'].tolist()
        assert type(one['inputs']) is torch.Tensor and one['inputs'].dtype == torch.uint16
        assert torch.equal(one['inputs'], other['inputs'])
    assert [SKIPPED_KEY in batch for batch in found] == [False, False, True, False]


def test_what_is_held_is_not_written_over_and_what_is_gone_is_used_again():
    held, whole, arrays = [], [], []
    batches = loader(persistent_workers=True)
    for _ in range(3):
        for number, batch in enumerate(batches):
            if number == 1:
                held.append(batch['inputs'][1:, :, 100:])  # a view alone keeps the memory
                arrays.append(batch['inputs'].numpy()[0])
            if number == 2:
                whole.append(batch['inputs'])
            del batch
    gc.collect()
    assert all((view == 3).all() for view in held) and all((one == 2).all() for one in arrays)
    assert seen({'inputs': one} for one in whole) == [(4, 5)] * 3
    assert pieces_in_use() == 6  # the views and arrays of one batch are of one piece
    # 36 batches came; in flight are at most four and the current one.
    assert len(shared_batches._received) <= 6 + 6
    del held, arrays, whole
    gc.collect()
    assert pieces_in_use() == 0
    # The pieces of workers that have ended are forgotten when new ones come.
    del batches
    gc.collect()
    list(loader(Numbers(4)))
    assert len(shared_batches._received) <= 4


def test_a_process_that_was_forked_gives_nothing_back():
    batch = next(iter(loader(Numbers(2))))
    child = os.fork()
    if not child:
        del batch
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert pieces_in_use() == 1
    del batch
    assert pieces_in_use() == 0


def test_batches_of_growing_size():
    # Twice: pieces that became too small are replaced.
    found = loader(Numbers(32, torch.float32, growing=True), 8, persistent_workers=True)
    for _ in range(2):
        assert seen(found) == [tuple(range(n, n + 8)) for n in (0, 8, 16, 24)]


def test_lists_of_images_of_any_size():
    rows = [
        {'inputs': torch.full((1, 400 + 60 * (n % 5), 700), n, dtype=torch.uint8), 'name': str(n)}
        for n in range(24)
    ]
    rows[7]['inputs'] = torch.full((1, 4, 4), 7, dtype=torch.uint8)  # small: not there
    batches = loader(rows, 4, pseudo_collate, persistent_workers=True)
    kept = []
    for _ in range(3):
        for number, batch in enumerate(batches):
            images = batch['inputs']
            assert batch['name'] == [str(n) for n in range(4 * number, 4 * number + 4)]
            for place, image in enumerate(images, 4 * number):
                assert torch.equal(image, rows[place]['inputs'])
            kept.append(images[number % 4])
    for count, image in enumerate(kept):
        place = 4 * (count % 6) + count % 6 % 4
        assert torch.equal(image, rows[place]['inputs'])
    del batch, images, image, kept
    gc.collect()
    assert pieces_in_use() == 0
    assert 0 < len(shared_batches._received) < 60


def test_other_batches_are_left_to_the_collate_function(monkeypatch):
    # Small images, images of several forms, no workers: as ever.
    shared_batches._received.clear()
    rows = [{'inputs': torch.zeros(3, 4)}] * 2
    assert next(iter(loader(rows)))['inputs'].shape == (2, 3, 4)
    mixed = [{'inputs': torch.zeros(1, 512, 512 + n)} for n in range(2)]
    with monkeypatch.context() as worker, pytest.raises(RuntimeError, match='equal size'):
        worker.setattr(shared_batches, 'get_worker_info', lambda: 'a worker')
        AddressedCollate(default_collate)(mixed)
    assert not shared_batches._received
    one = AddressedCollate(default_collate)([{'inputs': torch.zeros(1, 512, 512)}] * 2)
    assert isinstance(one['inputs'], torch.Tensor)


def test_without_shared_memory_batches_come_as_from_pytorch(monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'ftruncate', full)
    monkeypatch.setattr(shared_batches, '_received', {})
    assert seen(loader(Numbers(4))) == [(0, 1), (2, 3)]
    assert not shared_batches._received


def test_types():
    for dtype in (torch.bool, torch.bfloat16, torch.int16, torch.float64):
        batch = next(iter(loader(Numbers(4, dtype), 4)))['inputs']
        assert batch.dtype == dtype and np.array_equal(
            batch.double()[:, 0, 0, 0].numpy(),
            np.arange(4).clip(0, 1 if dtype is torch.bool else 9),
        )
