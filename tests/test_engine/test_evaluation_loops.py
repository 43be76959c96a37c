# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Validation and test name the file that cannot be read, and draw the same every time."""

import pytest
from mmengine.registry import init_default_scope

from mmrsfm.datasets import AddressedDataset
from mmrsfm.engine import TestLoop, ValLoop
from mmrsfm.errors import CorruptImageError, DatasetNotFoundError
from tests.ranks import run_ranks
from tests.test_engine.test_loops import EPOCHS, build

LOOPS = {'val_cfg': dict(type='mmrsfm.ValLoop'), 'test_cfg': dict(type='mmrsfm.TestLoop')}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr('os.fsync', lambda handle: None)


def with_test(**options):
    """The toy config, whose test is its validation."""
    dataset = dict(type='ToyDataset', size=4, **options)
    return EPOCHS | LOOPS | {
        'val_dataloader.dataset': dataset,
        'test_dataloader': dict(
            batch_size=2, dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=False)
        ),
        'test_evaluator': dict(type='ToyMetric'),
    }  # fmt: skip


def test_a_bad_file_is_named_and_ends_the_evaluation(tmp_path):
    runner = build(tmp_path, tmp_path, **with_test(bad=[2]))
    for loop, kind in ((runner.val_loop, ValLoop), (runner.test_loop, TestLoop)):
        assert isinstance(loop, kind) and isinstance(loop.dataloader.dataset, AddressedDataset)
        # MMEngine would have told the metric what the dataset is about.
        assert loop.evaluator.dataset_meta == {'classes': ('a',)}
    with pytest.raises(CorruptImageError, match=r'tile_2\.tif') as caught:
        runner.test()
    assert caught.value.__notes__ == ['(sample 2 of ToyDataset, epoch 0, tile_2.tif)']


def test_draws_have_an_address(tmp_path):
    runner = build(tmp_path, tmp_path, **with_test())
    first, again = ([one['inputs'] for one in runner.val_dataloader.dataset] for _ in range(2))
    assert all(one.equal(other) for one, other in zip(first, again, strict=True))


def test_errors_of_other_libraries(tmp_path):
    """An image of mmcv's loader, and a folder that mmpretrain looks into."""
    pytest.importorskip('mmpretrain')
    init_default_scope('mmpretrain')
    folder = tmp_path / 'images' / 'a'
    folder.mkdir(parents=True)
    (folder / '1.png').write_bytes(b'')
    dataset = dict(
        type='mmpretrain.CustomDataset', data_root=str(tmp_path / 'images'),
        pipeline=[dict(type='LoadImageFromFile')],
    )  # fmt: skip
    with pytest.raises(CorruptImageError) as caught:
        AddressedDataset(dataset)[0]
    assert caught.value.path == str(folder / '1.png')
    with pytest.raises(DatasetNotFoundError) as caught:
        AddressedDataset(dataset | {'data_root': str(tmp_path / 'nowhere')})
    assert str(tmp_path / 'nowhere') in caught.value.path


@pytest.mark.parametrize(('dtype', 'suffix'), [('uint16', '.png'), ('uint16', '.tif'),
                                               ('uint8', '.png'), ('uint8', '.tif')])  # fmt: skip
def test_images_of_16_bits_in_mmcvs_loader(tmp_path, capsys, dtype, suffix):
    """It divides them by 256, in silence."""
    import cv2
    import numpy as np

    value = 200 if dtype == 'uint8' else 5000
    pytest.importorskip('mmpretrain')
    init_default_scope('mmpretrain')
    folder = tmp_path / 'images' / 'a'
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / f'1{suffix}'), np.full((8, 8, 3), value, dtype))
    dataset = dict(
        type='mmpretrain.CustomDataset', data_root=str(tmp_path / 'images'),
        extensions=(suffix,), pipeline=[dict(type='LoadImageFromFile')],
    )  # fmt: skip
    item = AddressedDataset(dict(type='RepeatDataset', dataset=dataset, times=2))[0]
    warning = f'1{suffix} holds numbers of uint16, which LoadImageFromFile reduces to 8 bits'
    assert (item['img'].max() == 19) == (warning in capsys.readouterr().out) == (dtype == 'uint16')
    # Ours keeps them.
    dataset['pipeline'] = [dict(type='mmrsfm.LoadMultiBandImage')]
    assert AddressedDataset(dataset)[0]['img'].min() == value
    assert 'reduces' not in capsys.readouterr().out


def test_label_maps_without_an_image(tmp_path, capsys):
    """mmseg lists images; one that was lost leaves its label behind."""
    pytest.importorskip('mmseg')
    init_default_scope('mmseg')
    for name in ('images/a.png', 'images/b.png', 'labels/a.png', 'labels/b.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'')
    dataset = dict(
        type='BaseSegDataset', data_root=str(tmp_path), img_suffix='.png', pipeline=[],
        data_prefix=dict(img_path='images', seg_map_path='labels'), metainfo=dict(classes=('x',)),
    )  # fmt: skip
    assert len(AddressedDataset(dataset)) == 2
    assert 'no image' not in capsys.readouterr().out
    (tmp_path / 'images' / 'b.png').unlink()
    assert len(AddressedDataset(dataset)) == 1
    assert f'1 label maps have no image in {tmp_path}/images, the first is {tmp_path}/labels/b.png'\
        in capsys.readouterr().out  # fmt: skip


def _skipping_rank(rank, folder):
    from tests.test_engine.test_loops import train

    options = {
        # Samples that one rank or the other meets first, in every epoch.
        'train_dataloader.dataset.bad': [0, 3, 4],
        'train_dataloader.dataset.size': 12,
        'train_cfg.on_bad_sample': 'skip',
        'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None,
        'model_wrapper_cfg': dict(
            type='MMDistributedDataParallel', find_unused_parameters=True, broadcast_buffers=False
        ),
    }  # fmt: skip
    runner, trace = train(folder, folder / str(rank), **(EPOCHS | options))
    return {
        'samples': trace.samples,
        'steps': runner.iter,
        'bad': runner.message_hub.get_info('bad_samples'),
    }


def test_two_ranks_that_skip_keep_step(tmp_path):
    """Batch size and number of steps are the same on every rank, wherever the bad samples are."""
    first, second = run_ranks(_skipping_rank, tmp_path, tmp_path)
    assert first['steps'] == second['steps'] == 9  # 3 epochs of 12 samples, 2 on each rank
    for rank in (first, second):
        assert [len(batch) for batch in rank['samples']] == [2] * 9
        assert not {0, 3, 4} & {one for batch in rank['samples'] for one in batch}
        # Three an epoch, from all ranks, and those that run into another.
        assert rank['bad'] == first['bad'] >= 9
