# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The kNN loop, with features that are known."""

import pytest
import torch
import torch.multiprocessing as mp
from mmengine.runner import Runner
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils.data import Dataset

from mmrsfm.errors import ConfigError, IncompleteLoadError
from mmrsfm.evaluation import knn_loop
from mmrsfm.evaluation.knn_loop import KNNLoop, gather_in_order, shrink

COLOURS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


class Colours(Dataset):
    """Images of one colour, with the colour's number as class."""

    def __init__(self, count, classes=('r', 'g', 'b')):
        self.count = count
        self.metainfo = dict(classes=classes)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        label = index % 3
        noise = torch.Generator().manual_seed(index)
        image = COLOURS[label][:, None, None] + 0.1 * torch.randn(3, 16, 16, generator=noise)
        return dict(inputs=image, data_samples=DataSample().set_gt_label(label))


class Mean(nn.Module):
    """A backbone whose feature map is the image; records the sizes that it saw."""

    def __init__(self, shape='map'):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 1, 1))
        self.shape = shape
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape[-2:]))
        x = x * self.weight
        return (x if self.shape == 'map' else x.flatten(2).transpose(1, 2),)


def make_runner(tmp_path, load_from=None, test=9, bank=21, backbone=None, **loop):
    model = ImageClassifier(backbone=backbone or Mean())
    return Runner(
        model=model,
        work_dir=str(tmp_path),
        default_scope='mmpretrain',
        load_from=load_from,
        log_level='WARNING',
        test_dataloader=dict(
            batch_size=4,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
            dataset=Colours(test),
        ),
        test_evaluator=[
            dict(type='Accuracy', topk=(1, 2)),
            dict(type='SingleLabelMetric', items=('f1-score',)),
        ],
        test_cfg=dict(type='mmrsfm.KNNLoop', bank_dataset=Colours(bank), **{'k': 5, **loop}),
    )


@pytest.mark.parametrize('metric', ['cosine', 'euclidean'])
@pytest.mark.parametrize('weights', ['uniform', 'similarity'])
def test_colours_are_told_apart(tmp_path, metric, weights):
    metrics = make_runner(tmp_path, metric=metric, weights=weights).test()
    assert metrics == {'accuracy/top1': 100, 'accuracy/top2': 100, 'single-label/f1-score': 100}


def test_every_scale_and_every_k_has_its_metrics(tmp_path):
    backbone = Mean()
    runner = make_runner(tmp_path, backbone=backbone, k=[1, 5], scales=[0.125, 0.25, 0.5, 1.0])
    metrics = runner.test()
    for scale in ('12.5', '25', '50', '100'):
        for k in (1, 5):
            assert metrics[f'scale_{scale}/k_{k}/accuracy/top1'] == 100
    assert len(metrics) == 4 * 2 * 3
    # The bank (6 batches) at full size only, the test images (3 batches) at each.
    assert sorted(set(backbone.seen)) == [(2, 2), (4, 4), (8, 8), (16, 16)]
    assert backbone.seen.count((16, 16)) == 6 + 3
    assert backbone.seen.count((2, 2)) == 3


def test_the_predictions_are_right_where_labels_lie(tmp_path):
    """With the bank's labels shifted by one class, every answer is wrong."""

    class Shifted(Colours):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            item['data_samples'].set_gt_label((index + 1) % 3)
            return item

    runner = make_runner(tmp_path)
    runner._test_loop['bank_dataset'] = Shifted(21)
    assert runner.test()['accuracy/top1'] == 0


def test_restored_images_keep_their_size(tmp_path):
    backbone = Mean()
    make_runner(tmp_path, backbone=backbone, scales=[0.25], restore_size=True).test()
    assert set(backbone.seen) == {(16, 16)}
    images = torch.randn(1, 3, 16, 16)
    assert shrink(images, 1.0) is images
    assert shrink(images, 0.01).shape == (1, 3, 1, 1)
    restored = shrink(images, 0.25, restore_size=True)
    assert restored.shape == images.shape
    assert restored.var() < images.var()


def test_the_checkpoint_is_loaded_completely(tmp_path):
    path = tmp_path / 'mae.pth'
    # All colours look alike: only possible if this weight arrives.
    torch.save(dict(state_dict={'backbone.weight': torch.zeros(3, 1, 1)}), path)
    runner = make_runner(tmp_path, load_from=str(path))
    runner.test()
    assert runner.model.backbone.weight.abs().max() == 0


def test_an_incomplete_checkpoint_is_an_error(tmp_path):
    path = tmp_path / 'other.pth'
    config = dict(
        type='mmrsfm.CrossScaleViT',
        arch=dict(embed_dims=8, num_layers=1, num_heads=2, feedforward_channels=16),
        img_size=16,
        out_type='avg_featmap',
    )
    from mmrsfm.registry import MODELS

    backbone = MODELS.build(config)
    state = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
    del state['backbone.layers.0.attn.proj.bias']
    torch.save(dict(state_dict=state), path)
    with pytest.raises(IncompleteLoadError, match=r'attn\.proj\.bias'):
        make_runner(tmp_path, load_from=str(path), backbone=config).test()


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (dict(k=0), 'at least 1'),
        (dict(k=[]), 'at least 1'),
        (dict(scales=[]), 'scales'),
        (dict(scales=[1.5]), 'scales'),
        (dict(metric='dot'), "'dot'"),
        (dict(weights='none'), "'none'"),
        (dict(bank=3), 'there are 3 training images'),
        (dict(backbone=Mean('tokens')), 'out_type'),
    ],
)
def test_mistakes_are_named(tmp_path, arguments, words):
    with pytest.raises(ConfigError, match=words):
        make_runner(tmp_path, **arguments).test()


def test_more_classes_in_the_bank_than_in_the_test_set(tmp_path):
    runner = make_runner(tmp_path)
    runner._test_dataloader['dataset'] = Colours(9, classes=('r', 'g'))
    with pytest.raises(ConfigError, match='3 classes, the test images 2'):
        runner.test()


def test_rows_of_all_processes_come_back_in_order(monkeypatch):
    rows = torch.arange(7).float()[:, None]
    monkeypatch.setattr(knn_loop, 'get_world_size', lambda: 3)
    # As DefaultSampler deals: with and without rounding up.
    for parts in (
        [[0, 3, 6], [1, 4, 0], [2, 5, 1]],
        [[0, 3, 6], [1, 4], [2, 5]],
    ):
        local = [rows[torch.tensor(part)] for part in parts]

        def all_gather(padded, local=local):
            out = []
            for part in local:
                out.append(padded.new_zeros(padded.shape))
                out[-1][: len(part)] = part
            return out

        monkeypatch.setattr(knn_loop, 'all_gather', all_gather)
        assert gather_in_order(local[1], 7).flatten().tolist() == list(range(7))
    with pytest.raises(ConfigError, match='every one must get its share'):
        gather_in_order(rows, 7)


def _two_ranks(rank, folder):
    # Forked: the thread pool of the parent does not exist here.
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2
    )
    runner = make_runner(folder, test=10, bank=21, scales=[0.5, 1.0])
    metrics = runner.test()
    assert metrics['scale_100/accuracy/top1'] == 100, metrics
    bank, labels = runner.test_loop._encode_bank()
    assert bank.shape == (21, 3)
    assert labels.tolist() == [index % 3 for index in range(21)]
    torch.distributed.destroy_process_group()


def test_two_processes_share_the_work(tmp_path):
    mp.start_processes(_two_ranks, args=(tmp_path,), nprocs=2, start_method='fork')


def test_the_loop_is_registered():
    from mmengine.registry import LOOPS

    assert LOOPS.get('mmrsfm.KNNLoop') is KNNLoop
