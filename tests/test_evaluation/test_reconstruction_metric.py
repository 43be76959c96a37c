# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Explained variance of hidden pixels: by hand, missing data, what it is worth, failure paths."""

import math

import numpy as np
import pytest
import torch

from mmrsfm.errors import ConfigError
from mmrsfm.registry import METRICS


def measure(*samples, **options):
    metric = METRICS.build(dict(type='mmrsfm.ReconstructionMetric', patch_size=4, **options))
    for sample in samples:
        metric.process({}, [sample])
    found = metric.evaluate(len(samples))
    return {name.removeprefix('reconstruction/'): value for name, value in found.items()}


def sample(seed=0, bands=1, missing=False):
    rng = torch.Generator().manual_seed(seed)
    image = torch.randn(bands, 8, 12, generator=rng) + 3
    pred = image + torch.randn(bands, 8, 12, generator=rng)
    mask = torch.zeros(1, 8, 12, dtype=torch.bool)
    mask[:, :4, :8] = mask[:, 4:, 8:] = True
    if missing:
        image[0, :2, 3] = math.nan
    return {'reconstruction': {'sar': dict(image=image, pred=pred, mask=mask)}}


@pytest.mark.parametrize('bands', [1, 3])
@pytest.mark.parametrize('missing', [False, True])
def test_by_hand(bands, missing):
    samples = [sample(seed, bands, missing) for seed in (0, 1)]
    found = measure(*samples)
    xs, errors, details, detail_errors = [], [], [], []
    for one in samples:
        part = {k: v.numpy().astype(np.float64) for k, v in one['reconstruction']['sar'].items()}
        for band in range(bands):
            for top, left in ((0, 0), (0, 4), (4, 8)):  # the hidden patches
                cell = (band, slice(top, top + 4), slice(left, left + 4))
                x, e = part['image'][cell], part['pred'][cell] - part['image'][cell]
                x, e = x[np.isfinite(x)], e[np.isfinite(x)]
                xs.append(x), errors.append(e)
                details.append(x - x.mean()), detail_errors.append(e - e.mean())
    x, e, d, de = (np.concatenate(one) for one in (xs, errors, details, detail_errors))
    assert found['sar/explained'] == pytest.approx(100 * (1 - (e**2).mean() / x.var()))
    assert found['sar/explained_detail'] == pytest.approx(100 * (1 - (de**2).sum() / (d**2).sum()))


def test_grey_levels_are_no_detail_and_what_was_seen_does_not_count():
    one = sample()
    part = one['reconstruction']['sar']
    grey = part['image'].unfold(1, 4, 4).unfold(2, 4, 4).mean((3, 4))
    part['pred'] = grey.repeat_interleave(4, 1).repeat_interleave(4, 2)
    found = measure(one)
    assert found['sar/explained_detail'] == pytest.approx(0, abs=1e-5)
    assert found['sar/explained'] > 0
    part['pred'] = torch.where(part['mask'], part['image'], 1e6)
    assert measure(one) == pytest.approx({'sar/explained': 100, 'sar/explained_detail': 100})


def test_nothing_hidden_or_nothing_there_is_no_number():
    one = sample()
    one['reconstruction']['sar']['mask'].zero_()
    assert all(math.isnan(value) for value in measure(one).values())
    empty = sample()
    empty['reconstruction']['sar']['image'].fill_(math.nan)
    assert all(math.isnan(value) for value in measure(empty).values())
    assert measure(empty, sample()) == pytest.approx(measure(sample()))


def test_models_that_reconstruct_nothing():
    with pytest.raises(ConfigError, match='no reconstruction'):
        measure({'pred_label': 1})
