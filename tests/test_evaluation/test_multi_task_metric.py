# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
import importlib
import math
import multiprocessing.dummy

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData, PixelData
from mmrotate.structures.bbox import RotatedBoxes

from mmrsfm.errors import ConfigError
from mmrsfm.evaluation.multi_task.task_samples import instance_sample
from mmrsfm.registry import METRICS
from tests.ranks import run_ranks

SIDE = 40
META = {
    'datasets': {
        'sota': {'dataset_name': 'sota', 'classes': ('plane', 'ship', 'car')},
        'sior': {'dataset_name': 'sior', 'classes': ('dam', 'mill')},
    }
}
HEADLINES = ('semantic/mIoU', 'instance/segm_mAP', 'instance/bbox_mAP', 'rotated/mAP')


@pytest.fixture(autouse=True)
def no_processes(monkeypatch):
    """mmrotate's mean average precision spawns four processes: threads do here."""
    mean_ap = importlib.import_module('mmrotate.evaluation.functional.mean_ap')
    monkeypatch.setattr(mean_ap, 'get_context', lambda _: multiprocessing.dummy)


def squares(*corners):
    """Boxes of eight pixels, their masks, and the rotated boxes around them."""
    boxes = torch.tensor([[x, y, x + 8, y + 8] for x, y in corners], dtype=torch.float32)
    boxes = boxes.reshape(-1, 4)
    masks = np.zeros((len(corners), SIDE, SIDE), np.uint8)
    for mask, (x, y) in zip(masks, corners, strict=True):
        mask[y : y + 8, x : x + 8] = 1
    rotated = torch.tensor([[x + 4, y + 4, 8.1, 7.9, 0.1] for x, y in corners])
    return boxes, masks, rotated.reshape(-1, 5)


def sample(name, corners, labels, found=None, found_labels=None, tasks=None, semantic=None):
    """An image with squares, and predictions: the same squares, or others."""
    boxes, masks, rotated = squares(*corners)
    labels = torch.tensor(labels, dtype=torch.int64)
    truth = torch.zeros(1, SIDE, SIDE, dtype=torch.int64)
    for mask, label in zip(masks, labels, strict=True):
        truth[0][torch.from_numpy(mask).bool()] = label + 1
    data = DetDataSample(metainfo=dict(img_path=f'{name}.png', ori_shape=(SIDE, SIDE)))
    data.set_metainfo(dict(dataset_name=name))
    if tasks is not None:
        data.set_metainfo(dict(tasks=tasks))
    data.gt_instances = InstanceData(
        bboxes=boxes, labels=labels, masks=BitmapMasks(masks, SIDE, SIDE)
    )
    data.set_field(InstanceData(bboxes=RotatedBoxes(rotated), labels=labels), 'r_gt_instances')
    data.set_field(PixelData(data=truth), 'gt_sem_seg')
    if found is not None:
        boxes, masks, rotated = squares(*found)
        labels = torch.tensor(found_labels, dtype=torch.int64)
    scores = torch.linspace(0.9, 0.5, len(labels))
    data.pred_instances = InstanceData(
        bboxes=boxes, labels=labels, scores=scores, masks=torch.from_numpy(masks).bool()
    )
    data.set_field(InstanceData(bboxes=rotated, labels=labels, scores=scores), 'pred_r_instances')
    data.set_field(PixelData(data=truth if semantic is None else semantic), 'pred_sem_seg')
    return data


def evaluate(samples, meta=META, size=None, **kwargs):
    evaluator = Evaluator([METRICS.build(dict(type='mmrsfm.MultiTaskMetric', **kwargs))])
    evaluator.dataset_meta = meta
    for start in range(0, len(samples), 2):
        evaluator.process(data_samples=samples[start : start + 2], data_batch={})
    return evaluator.evaluate(size or len(samples))


def test_all_right_is_a_hundred_percent_of_everything():
    values = evaluate(
        [
            sample('sota', [(1, 1), (20, 5)], [0, 2]),
            sample('sior', [(3, 20)], [1]),
            sample('sota', [(25, 25)], [1]),
            sample('sior', [], []),
            sample('sior', [(9, 9)], [0]),
        ]
    )
    for name in ('sota', 'sior'):
        for key in HEADLINES:
            assert values[f'{name}/{key}'] == pytest.approx(100), (name, key)
    for key in ('mean', 'semantic', 'instance', 'rotated'):
        assert values[f'multi_task/{key}'] == pytest.approx(100)


def test_wrong_predictions_cost_what_they_should():
    semantic = torch.zeros(1, SIDE, SIDE, dtype=torch.int64)
    semantic[0, 1:9, 1:5] = 1  # half of the plane
    samples = [
        sample('sota', [(1, 1)], [0], semantic=semantic),
        # Of two ships one is found, and something that is none, with less confidence.
        sample('sota', [(1, 1), (20, 20)], [1, 1], [(1, 1), (1, 30)], [1, 1]),
        sample('sior', [(5, 5)], [0], [(5, 5)], [1]),  # takes a dam for a mill
        sample('sior', [(5, 5)], [1]),
    ]
    values = evaluate(samples)
    # Of 32 + 1600 - 64 ... : background, plane, ship; nobody has a car.
    background = (2 * 1600 - 64 - 128) / (2 * 1600 - 128 - 64 + 32)
    assert values['sota/semantic/mIoU'] == pytest.approx(100 * (background + 0.5 + 1) / 3, abs=0.01)
    # Planes 1; ships: recall 0.5 at precision 1: 51 of 101 points, and 6 of 11.
    assert values['sota/instance/segm_mAP'] == pytest.approx(100 * (1 + 51 / 101) / 2, abs=0.06)
    assert values['sota/rotated/mAP'] == pytest.approx(100 * (1 + 6 / 11) / 2, abs=0.01)
    # Dams 0; mills: the wrong one is as sure as the right one.
    assert values['sior/rotated/mAP'] == pytest.approx(values['sior/rotated/AP50'], abs=0.06)
    assert values['sior/instance/segm_mAP'] <= 50
    assert values['multi_task/mean'] == pytest.approx(
        np.mean([
            values[f'{name}/{key}'] for name in ('sota', 'sior')
            for key in ('semantic/mIoU', 'instance/segm_mAP', 'rotated/mAP')
        ])
    )  # fmt: skip


def test_the_numbers_are_those_of_the_task_libraries():
    """A single data set, and the same samples passed to mmdet's metric itself."""
    samples = [
        sample('sota', [(1, 1), (20, 5)], [0, 2], [(2, 1), (20, 6), (5, 25)], [0, 2, 1]),
        sample('sota', [(25, 25), (3, 12)], [1, 1], [(24, 24)], [1]),
    ]
    meta = META['datasets']['sota']
    values = evaluate(samples, meta)
    coco = CocoMetric(metric=['bbox', 'segm'])
    coco.dataset_meta = meta
    plain = []
    for number, one in enumerate(samples):
        plain.append({**instance_sample(one.to_dict()), 'img_id': number})
    coco.process({}, plain)
    for key, value in coco.compute_metrics(coco.results).items():
        wanted = math.nan if value == -1 else 100 * value
        assert values[f'sota/instance/{key}'] == pytest.approx(wanted, nan_ok=True)
    assert 0 < values['sota/instance/bbox_mAP'] < 100


def test_evaluates_again_and_with_other_labels():
    metric = METRICS.build(dict(type='mmrsfm.MultiTaskMetric'))
    evaluator = Evaluator([metric])
    evaluator.dataset_meta = META
    for corner in ((1, 1), (20, 20)):
        evaluator.process(data_samples=[sample('sota', [corner], [0])], data_batch={})
        values = evaluator.evaluate(1)
        assert values['sota/instance/segm_mAP'] == pytest.approx(100)
        assert 'sior/instance/segm_mAP' not in values


def test_what_ranks_have_twice_counts_once():
    right, wrong = sample('sota', [(1, 1)], [0]), sample('sota', [(1, 1)], [0], [], [])
    once = evaluate([right, wrong, wrong], size=1)
    assert once['sota/rotated/mAP'] == pytest.approx(100)


def _evaluate_on(rank, samples):
    # As a sampler of two ranks deals them out: the first one comes again, to be equally many.
    own = [*samples, samples[0]][rank::2]
    return evaluate(own, size=len(samples))


def test_two_ranks_evaluate_as_one(tmp_path):
    samples = [
        sample('sota', [(1, 1), (20, 5)], [0, 2], [(2, 1), (20, 6)], [0, 2]),
        sample('sior', [(5, 5)], [0], [(5, 5)], [1], tasks=['instance', 'rotated']),
        sample('sota', [(25, 25)], [1], [], []),
        sample('sior', [(3, 20)], [1]),
        sample('sota', [(9, 9)], [1], semantic=torch.zeros(1, SIDE, SIDE, dtype=torch.int64)),
    ]
    alone = evaluate(samples)
    for values in run_ranks(_evaluate_on, tmp_path, samples):
        assert values == pytest.approx(alone, nan_ok=True)
    assert 0 < alone['multi_task/mean'] < 100


def test_a_sample_counts_for_the_labels_that_it_has():
    values = evaluate(
        [
            sample('sota', [(1, 1)], [0], tasks=['semantic', 'instance', 'rotated']),
            sample('sior', [(1, 1)], [0], [], [], tasks=['rotated']),
            sample('sota', [(9, 9)], [1], [], [], tasks=['semantic']),
        ]
    )
    assert {key.rsplit('/', 1)[0] for key in values} == {
        'sota/semantic', 'sota/instance', 'sota/rotated', 'sior/rotated', 'multi_task',
    }  # fmt: skip
    assert values['sota/instance/segm_mAP'] == pytest.approx(100)
    assert values['sior/rotated/mAP'] == 0  # nothing found
    assert values['multi_task/rotated'] == pytest.approx(50)


def test_nothing_found_is_zero_and_nothing_labelled_is_left_out():
    values = evaluate([sample('sota', [(1, 1)], [0], [], [])], rotated=None, semantic=None)
    assert values['multi_task/mean'] == 0
    # No image has an object: mmdet says -1, mmrotate 0, and neither is a score.
    values = evaluate([sample('sota', [], [], [(1, 1)], [0])], semantic=None)
    assert math.isnan(values['multi_task/mean'])
    assert math.isnan(values['sota/rotated/mAP'])
    assert not {'multi_task/instance', 'multi_task/rotated'} & set(values)
    both = [sample('sota', [], [], [(1, 1)], [0]), sample('sior', [(1, 1)], [0])]
    values = evaluate(both, semantic=None)
    assert values['multi_task/mean'] == pytest.approx(100)
    assert math.isnan(values['sior/instance/bbox_mAP_l'])  # of large objects, of which none is


def test_tasks_and_metrics_are_chosen():
    values = evaluate(
        [sample('sota', [(1, 1)], [0])], semantic=dict(iou_metrics=['mIoU', 'mDice']),
        instance=dict(metric='bbox'), rotated=None, headlines=dict(instance='bbox_mAP_50'),
    )  # fmt: skip
    assert values['sota/semantic/mDice'] == pytest.approx(100)
    assert 'sota/instance/segm_mAP' not in values
    assert values['multi_task/instance'] == pytest.approx(100)
    with pytest.raises(ConfigError, match='every task is None'):
        METRICS.build(
            dict(type='mmrsfm.MultiTaskMetric', semantic=None, instance=None, rotated=None)
        )
    with pytest.raises(ConfigError, match='leave ann_file out'):
        METRICS.build(dict(type='mmrsfm.MultiTaskMetric', instance=dict(ann_file='a.json')))
    with pytest.raises(ConfigError, match="headlines: unknown tasks \\['boxes'\\]"):
        METRICS.build(dict(type='mmrsfm.MultiTaskMetric', headlines=dict(boxes='mAP')))


def test_labels_of_another_size_are_explained():
    bad = sample('sota', [(1, 1)], [0], semantic=torch.zeros(1, 20, 20, dtype=torch.int64))
    with pytest.raises(ConfigError, match=r'sota\.png: semantic map \(40, 40\).*after the image'):
        evaluate([bad])
    bad = sample('sota', [(1, 1)], [0])
    bad.set_metainfo(dict(ori_shape=(80, 80)))
    with pytest.raises(ConfigError, match=r'instance masks \(40, 40\), but image \(80, 80\)'):
        evaluate([bad], semantic=None)
    with pytest.raises(ConfigError, match=r"of dataset 'fast', the data loader has"):
        evaluate([sample('fast', [(1, 1)], [0])])


def test_ignored_instances_count_neither_way():
    one = sample('sota', [(1, 1)], [0], [(1, 1), (20, 20)], [0, 0])
    assert evaluate([one], semantic=None)['sota/instance/bbox_mAP'] == pytest.approx(100)
    boxes, masks, rotated = squares((20, 20))
    two = sample('sota', [(1, 1)], [0], [(20, 20), (1, 1)], [0, 0])
    without = evaluate([two], semantic=None)
    two.ignored_instances = InstanceData(
        bboxes=boxes, labels=torch.tensor([0]), masks=BitmapMasks(masks, SIDE, SIDE)
    )
    two.set_field(
        InstanceData(bboxes=RotatedBoxes(rotated), labels=torch.tensor([0])), 'ignored_r_instances'
    )
    values = evaluate([two], semantic=None)
    for key in ('instance/segm_mAP', 'rotated/mAP'):
        assert without[f'sota/{key}'] == pytest.approx(50, abs=1)
        assert values[f'sota/{key}'] == pytest.approx(100)
