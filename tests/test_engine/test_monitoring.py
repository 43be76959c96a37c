# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""What a run shows of itself: speed, waiting, memory, TensorBoard, pictures of pretraining."""

import json
import os
import random
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS, MODELS
from mmengine.structures import InstanceData, PixelData

from mmrsfm.engine.hooks.iter_timer_hook import count_images
from mmrsfm.engine.hooks.training_picture_hook import some_samples
from mmrsfm.registry import VISBACKENDS
from mmrsfm.visualization.training_pictures import multi_task_panels, stacked
from tests.ranks import run_ranks
from tests.test_engine.test_loops import build, equal
from tests.test_engine.test_two_ranks import DDP
from tests.test_engine.toy import ToyDataset, ToyModel, write_config


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.setattr('os.fsync', lambda handle: None)


CLOCK = types.SimpleNamespace(now=0.0)


@DATASETS.register_module()
class SlowToyDataset(ToyDataset):
    """Data that have to be waited for: a second for each sample."""

    def prepare_data(self, idx):
        CLOCK.now += 1
        return super().prepare_data(idx)


@MODELS.register_module()
class DrawingModel(ToyModel):
    """Reconstructs, with dropout and random numbers; 'fails' cannot."""

    def __init__(self, fails=False, **kwargs):
        super().__init__(**kwargs)
        self.fails = fails
        self.seen = []

    def reconstruct(self, inputs):
        raise NotImplementedError

    def forward(self, inputs, target=None, index=None, padding=None, mode='tensor'):
        if mode != 'predict' or self.training:
            return super().forward(inputs, target, index, mode=mode)
        if self.fails:
            raise ValueError('cannot draw this')
        self.seen.append((list(index), torch.rand(1).item()))
        picture = torch.rand(1, 8, 8)
        part = dict(image=picture, pred=picture, mask=torch.ones(1, 8, 8, dtype=torch.bool))
        return [types.SimpleNamespace(reconstruction={'x': part}) for _ in index]


@HOOKS.register_module()
class SlowHook(Hook):
    """Takes time between two steps, as writing a checkpoint does."""

    priority = 'LOWEST'

    def after_train_iter(self, *args, **kwargs):
        CLOCK.now += 10


def scalars(folder):
    lines = (folder / 'vis_data' / 'scalars.json').read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_log_of_an_interval(tmp_path, monkeypatch):
    clock = types.SimpleNamespace(perf_counter=lambda: CLOCK.now)
    monkeypatch.setattr('mmrsfm.engine.loops.resumable.time', clock)
    options = {
        'train_dataloader.dataset.type': 'SlowToyDataset',
        'default_hooks.logger.interval': 1,
        'custom_hooks': [dict(type='SlowHook')],
        'train_cfg.max_epochs': 1,
    }
    runner = build(tmp_path, tmp_path / 'w', **options)
    runner.train()
    found = scalars(Path(runner._log_dir))
    steps = [record for record in found if 'iter' in record]
    assert len(steps) == 5
    for record in steps:
        assert record['images_per_second'] == pytest.approx(2 / record['time'], rel=0.01)
        # Two samples a batch; what a hook does between two steps is no waiting for data.
        assert record['data_time'] == 2
        assert record['data_wait'] == 1  # of steps that take milliseconds
        assert record['host_memory'] > 50
        assert not {'images', 'gpu_use'} & set(record)
    text = next(Path(runner._log_dir).glob('*.log')).read_text()
    line = next(one for one in text.splitlines() if 'Epoch(train)' in one)
    for word in ('eta: ', 'images/s: ', 'data_wait: ', '%', 'host_memory: '):
        assert word in line


def test_images_of_any_batch():
    image, sample = torch.zeros(3, 8, 8), {'a': 1}
    items = [dict(inputs=image, data_samples=types.SimpleNamespace())] * 4
    assert count_images(pseudo_collate([dict(inputs=image)] * 4)) == 4
    assert count_images(default_collate([dict(inputs=image)] * 4)) == 4
    assert count_images(pseudo_collate(items)) == 4
    assert count_images(dict(inputs=[[image] * 3, [image] * 3])) == 3  # pairs
    assert count_images(dict(inputs=[torch.zeros(5, 3, 8, 8)] * 2)) == 5
    assert count_images([dict(inputs=[image] * 2), dict(inputs=[image] * 3)]) == 5
    assert count_images(dict(sup=dict(inputs=[image]), unsup=dict(inputs=[image] * 2))) == 3
    assert count_images(dict(inputs=[image])) == 1
    assert count_images((torch.zeros(6, 2), sample)) == 6
    assert count_images({}) == count_images(None) == count_images([]) == 0


def test_tensorboard_gets_numbers_pictures_and_the_config(tmp_path):
    from mmengine.config import Config
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    backend = VISBACKENDS.build(dict(type='mmrsfm.TensorboardVisBackend', save_dir=str(tmp_path)))
    backend.add_config(Config(dict(a=1)))
    assert not list(tmp_path.iterdir())  # nothing to show yet
    backend.add_scalars({'loss': torch.tensor(0.5), 'name': 'x', 'on': True, 'l': [1]}, step=3)
    backend.add_image('picture', np.zeros((4, 6, 3), np.uint8), step=3)
    backend.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    tags = events.Tags()
    assert (tags['scalars'], tags['images']) == (['loss'], ['picture'])
    assert tags['tensors'] == ['config/text_summary']
    assert [(one.step, one.value) for one in events.Scalars('loss')] == [(3, 0.5)]


def test_without_tensorboard_a_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr('mmrsfm.visualization.tensorboard_backend.find_spec', lambda name: None)
    options = {'train_cfg.max_epochs': 1, 'default_hooks.logger.interval': 1}
    runner = build(tmp_path, tmp_path / 'w', **options)
    runner.train()
    folder = Path(runner._log_dir)
    assert not list(folder.rglob('events*')) and len(scalars(folder)) > 5
    text = next(folder.glob('*.log')).read_text()
    assert text.count('TensorBoard is not installed') == 1


def test_a_tensorboard_that_does_not_work_is_no_end(tmp_path, monkeypatch):
    # Another package than it was made for; no place for its file; a disk that is full later on.
    def broken(*_):
        raise TypeError('Descriptors cannot be created directly.')

    blocked = tmp_path / 'file'
    blocked.write_text('')
    said = []
    record = 'mmrsfm.visualization.tensorboard_backend.print_log'
    monkeypatch.setattr(record, lambda text, **_: said.append(text))
    kind = VISBACKENDS.get('mmrsfm.TensorboardVisBackend')
    picture = np.zeros((4, 4, 3), np.uint8)
    for save_dir, step in ((blocked / 'below', 0), (tmp_path / 'a', 2), (tmp_path / 'b', 0)):
        backend = kind(str(save_dir))
        with monkeypatch.context() as patch:
            if save_dir.name == 'b':
                patch.setattr('torch.utils.tensorboard.SummaryWriter', broken)
            for number in range(4):
                if number == 2 and step:
                    patch.setattr(backend.experiment, 'add_scalar', broken)
                backend.add_scalars({'loss': 1.0}, number)
                backend.add_image('picture', picture, number)
        backend.close()
    assert len(said) == 3 and 'file' in said[0] and 'Descriptors' in said[1] == said[2]


def test_other_trackers_by_one_option(tmp_path):
    from mmrsfm.engine import run_config

    path = write_config(tmp_path)
    cfg = run_config.load_config(path, {'visualizer.vis_backends.1.type': 'WandbVisBackend'})
    assert [one.type for one in cfg.visualizer.vis_backends] == [
        'LocalVisBackend', 'WandbVisBackend',
    ]  # fmt: skip
    more = (
        'visualizer = dict(vis_backends=[*_base_.visualizer.vis_backends, '
        "dict(type='mmrsfm.MLflowVisBackend', exp_name='x')])\n"
    )
    cfg = run_config.load_config(write_config(tmp_path, more))
    assert len(cfg.visualizer.vis_backends) == 3


def test_mlflow_is_asked_where_runs_are_and_gets_names_of_files(tmp_path, monkeypatch):
    calls = []

    class Stub(types.ModuleType):
        def __getattr__(self, name):
            return lambda *args, **kwargs: calls.append((name, args)) or 'sqlite:///x.db'

    monkeypatch.setitem(sys.modules, 'mlflow', Stub('mlflow'))
    backend = VISBACKENDS.build(
        dict(type='mmrsfm.MLflowVisBackend', save_dir=str(tmp_path), exp_name='x')
    )
    backend.add_image('picture', np.zeros((4, 6, 3), np.uint8), step=7)
    assert ('set_tracking_uri', ('sqlite:///x.db',)) in calls
    assert calls[-1][0] == 'log_image' and calls[-1][1][1] == 'picture_7.png'


def drawing(tmp_path, name, more, run=True):
    options = dict.fromkeys(('val_cfg', 'val_dataloader', 'val_evaluator'))
    options |= {'model.type': 'DrawingModel', 'train_cfg.max_epochs': 2, **more}
    runner = build(tmp_path, tmp_path / name, **options)
    if run:
        runner.train()
    return runner


def test_pictures_while_it_trains_change_nothing(tmp_path):
    hook = 'default_hooks.training_pictures'
    drawn = drawing(tmp_path, 'a', {hook: dict(type='mmrsfm.TrainingPictureHook', interval=4)})
    plain = drawing(tmp_path, 'b', {f'{hook}.interval': 0})
    equal(drawn.model.state_dict(), plain.model.state_dict())
    names = sorted(path.name for path in Path(drawn._log_dir).rglob('*.png'))
    assert names == [f'training_pictures_{step}.png' for step in (1, 10, 4, 8)]
    assert not list(Path(plain._log_dir).rglob('*.png'))
    # The same images and the same random numbers each time.
    assert len(drawn.model.seen) == 4 and len({str(one) for one in drawn.model.seen}) == 1


def test_a_picture_that_fails_is_no_end(tmp_path):
    runner = drawing(tmp_path, 'a', {'model.fails': True})
    assert runner.iter == 10
    text = next(Path(runner._log_dir).glob('*.log')).read_text()
    assert text.count('no more pictures: ValueError: cannot draw this') == 1


def _drawn_by_two(rank, folder):
    os.environ['LOCAL_RANK'] = str(rank)
    folder = folder / f'of rank {rank}'
    folder.mkdir()
    hook = 'default_hooks.training_pictures'
    found = {}
    for name, options in {
        'drawn': {hook: dict(type='mmrsfm.TrainingPictureHook', interval=2)},
        'plain': {f'{hook}.interval': 0},
        # The disk of rank 0, the images of rank 1: all ranks stop drawing at one place.
        'master fails': {f'{hook}.interval': 2},
        'other fails': {f'{hook}.interval': 2},
    }.items():
        options = {'model.fails': name == 'other fails' and rank == 1, **DDP, **options}
        runner = drawing(folder, name, options, run=False)
        if name == 'master fails':
            runner.visualizer.add_image = None
        runner.train()
        model = runner.model.module
        states = torch.cat([torch.get_rng_state().double(), torch.tensor([random.random()])])
        found[name] = dict(model.state_dict()), states, len(model.seen)
    return found


def test_pictures_of_two_ranks(tmp_path):
    first, second = run_ranks(_drawn_by_two, tmp_path, tmp_path)
    for part in (first, second):
        for name, (weights, states, _) in part.items():
            equal(weights, first['plain'][0])
            assert torch.equal(states, part['plain'][1]), name
    # After step 1, every second one: 2, 4, and the last, 6.
    assert [first[name][2] for name in first] == [4, 0, 1, 1]
    assert [second[name][2] for name in second] == [4, 0, 1, 0]


def test_a_few_samples_of_a_batch():
    images = [torch.full((1, 2, 2), float(number)) for number in range(6)]
    taken = some_samples(dict(inputs=images, data_samples=list('abcdef')), 3)
    assert [float(one.mean()) for one in taken['inputs']] == [0, 2, 4]
    assert taken['data_samples'] == ['a', 'c', 'e']
    stack = some_samples(dict(inputs=torch.stack(images)), 4)
    assert [float(one.mean()) for one in stack['inputs']] == [0, 1, 3, 4]
    views = some_samples(dict(inputs=[torch.stack(images)] * 2), 2)
    assert [view.shape for view in views['inputs']] == [(2, 1, 2, 2)] * 2
    pairs = some_samples(dict(inputs=[images, images]), 9)
    assert [len(view) for view in pairs['inputs']] == [6, 6]


def test_labels_and_predictions_of_many_tasks():
    from mmengine.structures import BaseDataElement

    sample = BaseDataElement()
    sample.gt_sem_seg = PixelData(data=torch.ones(1, 32, 40, dtype=torch.int64))
    sample.pred_sem_seg = PixelData(data=torch.zeros(1, 30, 40, dtype=torch.int64))
    sample.gt_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
    boxes = torch.tensor([[2.0, 2, 20, 20], [5, 5, 30, 30]])
    sample.pred_instances = InstanceData(
        bboxes=boxes,
        labels=torch.tensor([0, 1]),
        scores=torch.tensor([0.9, 0.1]),
        masks=torch.ones(2, 32, 40, dtype=torch.bool),
    )
    sample.r_gt_instances = InstanceData(
        bboxes=torch.tensor([[20.0, 15, 10, 6, 0.3]]), labels=torch.tensor([1])
    )
    picture = np.full((30, 40, 3), 100, np.uint8)
    drawn = multi_task_panels(sample, picture)
    factor, gap = 6, 4  # small pictures are enlarged; image and five panels
    assert drawn.shape == (18 + 30 * factor, 6 * 40 * factor + 5 * gap, 3)
    panel = drawn[18:, 4 * (40 * factor + gap) :]
    assert (panel[10 * factor, 10 * factor] != 100).any()  # the mask of the better object
    both = stacked([drawn, drawn[:, :100]])
    assert both.shape == (2 * drawn.shape[0], drawn.shape[1], 3)
