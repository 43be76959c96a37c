# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""AP, F1 and precision of several labels against their definitions; the rules of selection."""

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmpretrain.structures import DataSample

from mmrsfm.errors import ConfigError
from mmrsfm.evaluation import MultiLabelAPMetric
from mmrsfm.evaluation.multi_label_ap_metric import KEYS, _beats

CLASSES = ('a', 'b', 'c', 'd')


def average_precision(score, target):
    """The sum over positives, in the order of the scores, of precision at their rank."""
    order = np.argsort(-score)
    hits = target[order].astype(float)
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / hits.sum())


def batch(seed=0, count=40, absent=False):
    rng = np.random.default_rng(seed)
    score = rng.random((count, 4)).astype(np.float32)
    target = rng.random((count, 4)) < 0.4
    if absent:
        target[:, 3] = False
    return score, target


def evaluate(metric, score, target):
    metric.dataset_meta = {'classes': CLASSES}
    samples = []
    for one, labels in zip(score, target, strict=True):
        sample = DataSample().set_pred_score(torch.from_numpy(one))
        sample.set_gt_label(np.flatnonzero(labels))
        samples.append(sample.to_dict())
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def test_numbers_follow_their_definitions():
    score, target = batch()
    found = evaluate(MultiLabelAPMetric(per_class=True), score, target)
    by_class = [average_precision(score[:, k], target[:, k]) for k in range(4)]
    guess = score > 0.5
    hits = (guess & target).sum(0)
    precision, recall = hits / guess.sum(0), hits / target.sum(0)
    f1 = 2 * precision * recall / (precision + recall)
    total = 2 * hits.sum() / (guess.sum() + target.sum())
    wanted = {
        'ap_macro': np.mean(by_class),
        'ap_micro': average_precision(score.ravel(), target.ravel()),
        'f1_macro': f1.mean(),
        'f1_micro': total,
        'precision_macro': precision.mean(),
        'precision_micro': hits.sum() / guess.sum(),
        **{f'ap/{name}': value for name, value in zip(CLASSES, by_class, strict=True)},
    }
    assert set(found) == {f'multi-label/{key}' for key in wanted}
    for key, value in wanted.items():
        assert found[f'multi-label/{key}'] == pytest.approx(100 * value, rel=1e-5)


def test_labels_without_an_image():
    score, target = batch(absent=True)
    counted = evaluate(MultiLabelAPMetric(), score, target)
    ignored = evaluate(MultiLabelAPMetric(absent='ignore'), score, target)
    for key in ('ap_macro', 'f1_macro', 'precision_macro'):
        name = f'multi-label/{key}'
        assert counted[name] == pytest.approx(ignored[name] * 3 / 4, rel=1e-5)
    assert counted['multi-label/ap_micro'] == ignored['multi-label/ap_micro']


def test_an_image_without_labels_is_a_negative_of_all():
    score, target = batch(count=3)
    target[0] = False
    assert np.isfinite(list(evaluate(MultiLabelAPMetric(), score, target).values())).all()


def test_rules_of_selection():
    hub = MessageHub.get_instance('rules_of_selection')
    score, target = batch()
    metric = MultiLabelAPMetric(selection_rules=['weighted', 'sum', 'wins'])
    found = {
        key.removeprefix('multi-label/'): value
        for key, value in evaluate(metric, score, target).items()
    }
    assert found['sum'] == pytest.approx(sum(found[key] for key in KEYS))
    weighted = (
        1.3 * found['f1_macro'] + 1.1 * found['f1_micro']
        + 1.2 * found['ap_macro'] + 1.2 * found['precision_macro']
    )  # fmt: skip
    assert found['weighted'] == pytest.approx(weighted)
    assert found['wins'] == 1
    # The same again is no new best, perfect scores are.
    assert evaluate(metric, score, target)['multi-label/wins'] == 1
    perfect = target.astype(np.float32)
    assert evaluate(metric, perfect, target)['multi-label/wins'] == 2
    # A resumed run knows the best: the hub is part of a checkpoint.
    MessageHub.get_instance('rules_of_selection_resumed').load_state_dict(hub.state_dict())
    metric = MultiLabelAPMetric(selection_rules=['wins'])
    assert evaluate(metric, score, target)['multi-label/wins'] == 2


def test_more_wins_beat_and_ties_are_broken_in_order():
    base = dict.fromkeys(KEYS, 50.0)
    assert not _beats(base, base)
    assert _beats({**base, 'precision_micro': 51.0}, base)
    tie = {**base, 'ap_macro': 51.0, 'f1_micro': 10.0}
    assert _beats(tie, base) and not _beats(base, tie)
    assert not _beats({**base, 'ap_macro': 99.0, 'f1_micro': 49.0, 'f1_macro': 49.0}, base)


def test_errors():
    for wrong in (dict(selection_rules=['luck']), dict(absent='guess'), dict(thr=2)):
        with pytest.raises(ConfigError):
            MultiLabelAPMetric(**wrong)
    score, target = batch(count=4)
    for wrong in (np.nan, 1.5):
        with pytest.raises(ConfigError, match=r'must lie in \[0, 1\]'):
            evaluate(MultiLabelAPMetric(), score * wrong + (wrong > 1), target)
    with pytest.raises(ConfigError, match='pred_score'):
        MultiLabelAPMetric().process({}, [{}])
    with pytest.raises(ConfigError, match='gt_label'):
        MultiLabelAPMetric().process({}, [{'pred_score': torch.rand(3)}])
