# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""CDMetric against numbers worked out by hand and against mmseg's table."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('mmseg')

from mmengine.registry import METRICS
from mmseg.evaluation import IoUMetric

from mmrsfm.errors import ConfigError, ImageSizeError

CLASSES = ('unchanged', 'changed')


def sample(label, predicted, **extra):
    data = {'img_path': ['/data/A/7.x.png', '/data/B/7.x.png'], **extra}
    for key, values in (('gt_sem_seg', label), ('pred_sem_seg', predicted)):
        if values is not None:
            data[key] = {'data': torch.as_tensor(values)[None]}
    return data


def evaluate(samples, classes=CLASSES, **options):
    metric = METRICS.build({'type': 'mmrsfm.CDMetric', **options})
    metric.dataset_meta = {'classes': classes}
    for one in samples:  # a batch each
        metric.process({}, [one])
    return metric.evaluate(size=len(samples))


def test_numbers_worked_out_by_hand():
    # TP 3, FP 1, FN 2, TN 4, and two pixels that do not count.
    label = [[1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 255, 255]]
    predicted = [[1, 1, 1, 0, 0, 1], [0, 0, 0, 0, 1, 0]]
    chance = (4 * 5 + 6 * 5) / 100
    assert evaluate([sample(label, predicted)]) == {
        'F1': round(100 * 6 / 9, 2),
        'precision': 75.0,
        'recall': 60.0,
        'IoU': 50.0,
        'OA': 70.0,
        'kappa': round((0.7 - chance) / (1 - chance), 4),
    }


@pytest.mark.parametrize('ignored', [0.0, 0.2])
def test_agrees_with_the_table_of_mmseg(ignored):
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(3):
        label = rng.integers(0, 2, (9, 7))
        label[rng.random((9, 7)) < ignored] = 255
        samples.append(sample(label, rng.integers(0, 2, (9, 7))))
    ours = evaluate(samples, iou_metrics=['mFscore', 'mIoU'])
    totals = [
        sum(parts)
        for parts in zip(
            *(
                IoUMetric.intersect_and_union(
                    one['pred_sem_seg']['data'][0], one['gt_sem_seg']['data'][0], 2, 255
                )
                for one in samples
            ),
            strict=True,
        )
    ]
    table = IoUMetric.total_area_to_metrics(*totals, metrics=['mFscore', 'mIoU'])
    for key, name in (
        ('F1', 'Fscore'), ('precision', 'Precision'), ('recall', 'Recall'), ('IoU', 'IoU'),
    ):  # fmt: skip
        assert ours[key] == pytest.approx(100 * table[name][1], abs=0.006)
    assert ours['OA'] == pytest.approx(ours['aAcc'], abs=0.006)
    assert {'mIoU', 'mFscore'} <= set(ours)


def test_order_and_number_of_batches_do_not_matter():
    rng = np.random.default_rng(1)
    samples = [sample(rng.integers(0, 2, (4, 4)), rng.integers(0, 2, (4, 4))) for _ in range(4)]
    together = sample(*(torch.cat([s[k]['data'][0] for s in samples]) for k in
                        ('gt_sem_seg', 'pred_sem_seg')))  # fmt: skip
    assert evaluate(samples) == evaluate(samples[::-1]) == evaluate([together])


@pytest.mark.parametrize(
    ('label', 'predicted', 'expected'),
    [
        # Nothing has changed, nothing is predicted: there is nothing to measure.
        (0, 0, {'F1': None, 'precision': None, 'recall': None, 'IoU': None, 'OA': 100.0}),
        (0, 1, {'F1': 0.0, 'precision': 0.0, 'recall': None, 'IoU': 0.0, 'OA': 0.0}),
        (1, 0, {'F1': 0.0, 'precision': None, 'recall': 0.0, 'IoU': 0.0, 'OA': 0.0}),
    ],
)
def test_empty_classes(label, predicted, expected):
    samples = [sample(np.full((3, 3), label), np.full((3, 3), predicted))]
    scores = evaluate(samples)
    for key, value in expected.items():
        assert math.isnan(scores[key]) if value is None else scores[key] == value, key
    assert evaluate(samples, nan_to_num=0)['recall'] == 0.0


def test_class_by_name_by_number_and_wrong():
    label, predicted = np.array([[0, 1, 2]]), np.array([[0, 1, 1]])
    three = ('none', 'built', 'demolished')
    assert evaluate([sample(label, predicted)], three, changed_class='built')['precision'] == 50.0
    assert evaluate([sample(label, predicted)], three, changed_class=2)['recall'] == 0.0
    for wrong in ('changed', 3, -1):
        with pytest.raises(ConfigError, match='changed_class'):
            evaluate([sample(label, predicted)], three, changed_class=wrong)
    # Two classes, under whatever names.
    assert evaluate([sample(label[:, :2], predicted[:, :2])], ('a', 'b'))['F1'] == 100.0


def test_failures_speak():
    with pytest.raises(ImageSizeError, match='MultiImgLoadAnnotations after MultiImgResize'):
        evaluate([sample(np.zeros((4, 4)), np.zeros((8, 8)))])
    with pytest.raises(ConfigError, match=r'no map of change for /data/A/7\.x\.png'):
        evaluate([sample(None, np.zeros((8, 8)))])


def test_maps_are_written_under_the_name_of_the_first_date(tmp_path):
    evaluate(
        [sample(None, np.eye(3, dtype=int))], output_dir=str(tmp_path / 'maps'), format_only=True
    )
    written = np.array(Image.open(tmp_path / 'maps' / '7.x.png'))
    assert written.tolist() == np.eye(3).tolist()
