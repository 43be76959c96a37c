# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Metrics of registration and translation against numbers made by hand."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from mmrsfm.errors import ConfigError
from mmrsfm.registry import METRICS


def shifted(x, y=0.0):
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def pair(found, truth, registered=True, matches=((), ())):
    return dict(
        homography=truth,
        pred_homography=torch.as_tensor(found),
        registered=registered,
        img_shape=(11, 21),
        pred_matches=dict(
            source=torch.tensor(matches[0], dtype=torch.float64).reshape(-1, 2),
            target=torch.tensor(matches[1], dtype=torch.float64).reshape(-1, 2),
        ),
    )


def registration(samples, **options):
    metric = METRICS.build(dict(type='mmrsfm.RegistrationMetric', **options))
    metric.process(None, samples)
    return metric.compute_metrics(metric.results)


def test_registration_by_hand():
    source = [[0, 0], [5, 5], [9, 2]]
    samples = [
        # Off by (3, 4) / 5 = 1 pixel; two of the matches are right.
        pair(shifted(2.6, 1.8), shifted(2, 1), matches=(source, [[2, 1], [7, 8.5], [19, 3]])),
        pair(shifted(4), shifted(0)),  # 4 pixels: no success
        pair(shifted(40), shifted(0)),  # counts as 5
        pair(np.eye(3), shifted(0), registered=False),  # lucky, but it was not found
    ]
    found = registration(samples)
    assert found['rmse'] == pytest.approx((1 + 4 + 5 + 5) / 4)
    assert found['rmse_success'] == pytest.approx(1)
    assert found['success_rate'] == 25
    assert found['failure_rate'] == 25
    assert found['correct_matches'] == pytest.approx(2 / 4)
    assert found['precision'] == pytest.approx(100 * 2 / 3)


def test_registration_measures_where_both_images_are():
    # Twice as large about the origin: of columns 0, 10, 20 and rows 0, 5, 10 the first two of each
    # are seen in the second image, and the map found is wrong by 1 / 10 of x.
    truth, found = np.diag([2.0, 2, 1]), np.diag([2.1, 2, 1])
    errors = np.array([0.0, 1, 0, 1])
    result = registration([pair(found, truth)], grid=3)
    assert result['rmse'] == pytest.approx(math.sqrt((errors**2).mean()))
    # No overlap: over the whole first image.
    result = registration([pair(shifted(501), shifted(500))])
    assert result['rmse'] == pytest.approx(1)
    assert math.isnan(result['precision']) and result['correct_matches'] == 0
    assert math.isnan(registration([pair(shifted(9), shifted(0))])['rmse_success'])


def test_registration_needs_the_truth():
    with pytest.raises(ConfigError, match='RandomHomography'):
        registration([pair(np.eye(3), None)])
    for wrong in (dict(threshold=6), dict(threshold=0), dict(grid=1)):
        with pytest.raises(ConfigError):
            METRICS.build(dict(type='mmrsfm.RegistrationMetric', **wrong))


def translation(samples, **options):
    metric = METRICS.build(dict(type='mmrsfm.TranslationMetric', **options))
    metric.process(None, samples)
    return metric.compute_metrics(metric.results)


def test_translation_by_hand():
    truth = torch.full((1, 16, 16), 100.0)
    samples = [
        dict(pred_image=truth + 10, gt_image=truth),
        dict(pred_image=truth + 20, gt_image=truth),
    ]
    found = translation(samples)
    by_hand = [20 * math.log10(255 / error) for error in (10, 20)]
    assert found['psnr'] == pytest.approx(np.mean(by_hand))  # not of the mean error
    assert found['mae'] == pytest.approx(15)
    # Flat images: SSIM is its luminance term.
    c = (0.01 * 255) ** 2
    terms = [(2 * 100 * v + c) / (100**2 + v**2 + c) for v in (110, 120)]
    assert found['ssim'] == pytest.approx(np.mean(terms), rel=1e-6)
    assert translation([dict(pred_image=truth, gt_image=truth)])['psnr'] == 100
    # Beyond the range: clipped.
    assert translation([dict(pred_image=truth + 900, gt_image=truth)])['mae'] == 155


def test_translation_is_that_of_the_libraries_and_masks():
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    generator = torch.Generator().manual_seed(0)
    pred, truth = torch.rand(2, 3, 40, 40, generator=generator, dtype=torch.float64) * 255
    found = translation([dict(pred_image=pred, gt_image=truth)])
    psnr = peak_signal_noise_ratio(truth.numpy(), pred.numpy(), data_range=255)
    assert found['psnr'] == pytest.approx(psnr)
    whole = ssim(pred[None], truth[None], data_range=255.0)
    assert found['ssim'] == pytest.approx(float(whole))
    # Rubbish where it is invalid changes nothing.
    valid = torch.ones(40, 40, dtype=torch.bool)
    valid[:, 25:] = False
    broken = [one.clone() for one in (pred, truth)]
    broken[0][:, :, 25:], broken[1][:, :, 25:] = 0, math.nan
    values = [
        translation([dict(pred_image=a, gt_image=b, image_valid=valid)])
        for a, b in ((pred, truth), broken)
    ]
    assert values[0] == pytest.approx(values[1])
    part = (truth - pred)[:, :, :25]
    assert values[0]['psnr'] == pytest.approx(10 * math.log10(255**2 / float((part**2).mean())))
    valid[:] = False
    nothing = translation([dict(pred_image=pred, gt_image=truth, image_valid=valid)])
    assert all(math.isnan(value) for value in nothing.values())
    with pytest.raises(ConfigError, match='empty'):
        METRICS.build(dict(type='mmrsfm.TranslationMetric', data_range=(1, 0)))
