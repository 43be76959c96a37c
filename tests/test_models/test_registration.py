# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Registration: matches, robust maps, the model, and what it does where nothing matches."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.structures import DataSample

from mmrsfm.errors import ConfigError, DataError
from mmrsfm.models.registration.matching import (
    cell_centres,
    mutual_matches,
    sample_cells,
    soft_argmax,
    to_cells,
    to_pixels,
)
from mmrsfm.models.registration.robust_transform import RobustTransform
from mmrsfm.registry import METRICS, MODELS
from mmrsfm.utils.homography import as_homography, control_points, inside, warp_points

TRUTH = np.array([[1.02, 0.09, -3.0], [-0.06, 0.98, 4.0], [1e-4, -5e-5, 1.0]])


class Identity(BaseModule):
    """Features that both modalities share: the image itself, in cells."""

    def __init__(self, in_channels=1, stride=4):
        super().__init__()
        self.in_channels, self.stride = in_channels, stride
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, x):
        # The pixels around each cell, without their mean, are its features.
        x = F.pad(x, (self.stride,) * 4, mode='replicate') * self.weight
        grid = F.unfold(x, 3 * self.stride, stride=self.stride)
        rows = x.shape[2] // self.stride - 2
        grid = grid - grid.mean(1, keepdim=True)
        return (grid.view(len(x), grid.shape[1], rows, -1),)


MODELS.register_module(name='TestIdentity', module=Identity, force=True)


def smooth(size, seed=0, sigma=2.0):
    import cv2

    noise = np.random.default_rng(seed).standard_normal((size, size)).astype(np.float32)
    image = cv2.GaussianBlur(noise, (0, 0), sigma)
    return image / image.std()


def pair(size=128, truth=TRUTH, seed=0, sigma=2.0):
    """An image, and the same displaced by the homography; inputs (2, H, W)."""
    import cv2

    large = smooth(size + 80, seed, sigma)
    shift = np.array([[1, 0, 40], [0, 1, 40], [0, 0, 1.0]])
    first = large[40:-40, 40:-40]
    second = cv2.warpPerspective(large, truth @ np.linalg.inv(shift), (size, size))
    return torch.from_numpy(np.stack([first, second]))


def model(stride=4, **options):
    options.setdefault('backbone', dict(type='mmrsfm.TestIdentity', stride=stride))
    return MODELS.build(
        dict(type='mmrsfm.RegistrationModel', modalities=dict(rgb=1, sar=1), **options)
    )


def distance(found, truth, size):
    points = control_points((size, size), 5)
    truth = torch.as_tensor(truth, dtype=torch.float64)
    away = warp_points(points, torch.as_tensor(found)) - warp_points(points, truth)
    return float(away.norm(dim=1).square().mean().sqrt())


def samples(inputs, truth=TRUTH):
    found = [DataSample(metainfo=dict(img_shape=tuple(inputs.shape[2:]))) for _ in inputs]
    for sample in found:
        sample.set_field(truth, 'homography')
    return found


@pytest.mark.parametrize('stride', [4, 8])
def test_identity_features_recover_the_homography(stride):
    # The same at twice the size: smooth over as many cells.
    inputs = pair(32 * stride, sigma=stride / 2)[None]
    (sample,) = model(stride)(inputs, samples(inputs), mode='predict')
    assert sample.registered and sample.failure == ''
    assert distance(sample.pred_homography, TRUTH, 32 * stride) < stride / 8
    matches = sample.pred_matches
    assert matches.source.shape == matches.target.shape == (len(matches.confidence), 2)
    assert (matches.confidence.diff() <= 0).all()
    away = warp_points(matches.source, torch.from_numpy(TRUTH)) - matches.target
    assert away[matches.inlier].norm(dim=1).max() < 2 * stride
    # Where the second image has something else, there is no map, or at least no agreement.
    other = torch.stack([inputs[0, 0], pair(32 * stride, seed=5, sigma=stride / 2)[1]])[None]
    (wrong,) = model(stride)(other, mode='predict')
    assert not wrong.registered or wrong.pred_matches.inlier.sum() < 0.2 * matches.inlier.sum()


def test_missing_data_is_neither_matched_nor_trained():
    inputs = pair()[None]
    broken = inputs.clone()
    broken[0, 1, :, 90:] = torch.nan
    broken[0, 0, :30] = torch.nan
    one = model()
    (sample,) = one(broken, samples(inputs), mode='predict')
    # Of the whole image, a third of which has no matches.
    assert distance(sample.pred_homography, TRUTH, 128) < 1.5
    # A cell needs nine tenths of its pixels.
    assert sample.pred_matches.source[:, 1].min() >= 28
    assert sample.pred_matches.target[:, 0].max() < 92
    losses = one(broken, samples(inputs), mode='loss')
    assert all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in one.parameters() if p.grad is not None)


def test_a_missing_modality_or_no_overlap_is_a_failure_with_a_reason():
    inputs = pair()[None]
    gone = inputs.clone()
    gone[0, 1] = torch.nan
    one = model()
    (sample,) = one(gone, samples(inputs), mode='predict')
    assert not sample.registered
    assert sample.failure == 'there are no data of sar'
    assert torch.equal(sample.pred_homography, torch.eye(3, dtype=torch.float64))
    assert len(sample.pred_matches.confidence) == 0
    losses = one(gone, samples(inputs), mode='loss')
    assert all(float(value) == 0 for value in losses.values())
    sum(losses.values()).backward()  # every parameter has a gradient all the same
    far = np.array([[1, 0, 5000.0], [0, 1, 0], [0, 0, 1]])
    losses = one(inputs, samples(inputs, far), mode='loss')
    assert all(float(value) == 0 and value.requires_grad for value in losses.values())
    (sample,) = model(head=dict(min_confidence=1.0))(inputs, mode='predict')
    assert 'matches, at least 8 are needed' in sample.failure


def test_training_lowers_the_loss_and_registers():
    """Two encoders without anything in common learn to agree on pairs they have seen."""
    torch.manual_seed(0)
    arch = dict(embed_dims=16, depths=[1, 1], num_heads=[1, 2])
    backbone = dict(
        type='mmrsfm.SwinV2', arch=arch, out_indices=(0, 1), drop_path_rate=0.0, window_size=4
    )
    neck = dict(type='mmrsfm.TopDownNeck', in_channels=[16, 32], channels=32, activation=False)
    one = model(backbone=backbone, neck=neck, head=dict(max_queries=None))
    one.init_weights()
    shift = np.array([[1, 0, 5.0], [0, 1, -3.0], [0, 0, 1]])
    inputs = torch.stack([pair(64, shift, seed) for seed in range(2)])
    inputs[:, 1] = -inputs[:, 1].abs()  # another sensor
    data = samples(inputs, shift)
    metric = METRICS.build(dict(type='mmrsfm.RegistrationMetric'))

    def success():
        one.eval()
        metric.results.clear()
        metric.process(None, [s.to_dict() for s in one(inputs, data, mode='predict')])
        one.train()
        return metric.compute_metrics(metric.results)

    before = success()
    optimizer = torch.optim.AdamW(one.parameters(), lr=3e-3)
    history = []
    for _ in range(40):
        loss = sum(one(inputs, data, mode='loss').values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss))
    after = success()
    assert history[-1] < 0.6 * history[0]
    assert before['success_rate'] == 0 and after['success_rate'] == 100
    assert after['rmse'] < before['rmse']


def test_mixed_precision_leaves_the_head_alone():
    torch.manual_seed(0)
    maps = torch.randn(2, 1, 8, 6, 7)
    head = MODELS.build(dict(type='mmrsfm.MatchingHead', min_confidence=0.0))
    shift = torch.tensor([[1.0, 0, 5], [0, 1, -3], [0, 0, 1]])
    plain = head.loss(*maps, [shift], 4), head.match(*maps[:, 0], 4)
    with torch.autocast('cpu', torch.bfloat16):
        found = head.loss(*maps, [shift], 4), head.match(*maps[:, 0], 4)
    torch.testing.assert_close(found[0], plain[0], rtol=0, atol=0)
    torch.testing.assert_close(found[1].target, plain[1].target, rtol=0, atol=0)


def test_the_loss_is_that_of_the_dense_formula():
    torch.manual_seed(0)
    source, target = torch.randn(2, 1, 8, 6, 7, dtype=torch.float32)
    homography = torch.tensor([[1.0, 0, 5], [0, 1, -3], [0, 0, 1]])
    allowed = torch.ones(1, 42, dtype=torch.bool)
    allowed[0, 10] = False
    values, gradients = [], []
    for block in (2**24, 50):
        head = MODELS.build(dict(type='mmrsfm.MatchingHead', max_queries=None, max_products=block))
        a = source.clone().requires_grad_()
        losses = head.loss(a, target, [homography], 4, None, allowed)
        losses['loss_match'].backward()
        values.append(losses['loss_match'].item())
        gradients.append(a.grad)
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    torch.testing.assert_close(*gradients)
    a, b = F.normalize(source[0], dim=0), F.normalize(target[0], dim=0)
    scores = torch.einsum('dij,dkl->ijkl', a, b) / 0.05
    terms = []
    for log, shift in (
        (scores.flatten(2).masked_fill(~allowed[0], -torch.inf).log_softmax(-1), (1.25, -0.75)),
        (scores.permute(2, 3, 0, 1).flatten(2).log_softmax(-1), (-1.25, 0.75)),
    ):
        onto_target = shift[0] > 0
        log = log.view(6, 7, 6, 7)
        for row in range(6):
            for column in range(7):
                x, y = column + shift[0], row + shift[1]
                if not (0 <= x <= 6 and 0 <= y <= 5):
                    continue
                if not onto_target and not allowed[0, row * 7 + column]:
                    continue
                term, known = 0.0, True
                for dx in (0, 1):
                    for dy in (0, 1):
                        k, m = int(y // 1) + dy, int(x // 1) + dx
                        weight = (1 - abs(x - m)) * (1 - abs(y - k))
                        if onto_target and not allowed[0, k * 7 + m]:
                            known = False
                            break
                        term -= weight * float(log[row, column, k, m])
                if known:
                    terms.append(term)
    assert values[0] == pytest.approx(np.mean(terms), rel=1e-4)


def test_mutual_matches_are_the_same_in_blocks():
    torch.manual_seed(1)
    a, b = (F.normalize(torch.randn(n, 8), dim=1) for n in (37, 29))
    whole = mutual_matches(a, b, 0.1, 2**24)
    for block in (1, 60, 500):
        for left, right in zip(whole, mutual_matches(a, b, 0.1, block), strict=True):
            torch.testing.assert_close(left, right)
    scores = a @ b.T / 0.1
    dual = scores.softmax(1) * scores.softmax(0)
    rows, columns, confidence = whole
    torch.testing.assert_close(dual[rows, columns], confidence)
    assert (scores.argmax(1)[rows] == columns).all()
    assert (scores.argmax(0)[columns] == rows).all()
    assert len(mutual_matches(a[:0], b, 0.1, 8)[0]) == 0


def test_cells_and_soft_argmax():
    centres = cell_centres((2, 3), 4, torch.device('cpu'))
    assert centres.tolist() == [
        [1.5, 1.5],
        [5.5, 1.5],
        [9.5, 1.5],
        [1.5, 5.5],
        [5.5, 5.5],
        [9.5, 5.5],
    ]
    assert to_cells(centres, 4)[1].tolist() == [1, 0]
    torch.testing.assert_close(to_pixels(to_cells(centres, 4), 4), centres)
    ramp = torch.arange(12.0).view(1, 3, 4)
    assert sample_cells(ramp, torch.tensor([[1.5, 0.5]])).tolist() == [[3.5]]
    # Two cells that fit equally well: half way between them.
    maps = torch.zeros(2, 3, 5)
    maps[1] = 1
    maps[:, 1, 2:4] = torch.tensor([1.0, 0.0])[:, None]
    query, middle = torch.tensor([[1.0, 0.0]]), torch.tensor([[2, 1]])
    found = soft_argmax(query, maps, middle, 2, 0.02)
    torch.testing.assert_close(found, torch.tensor([[2.5, 1.0]]))
    allowed = torch.ones(15, dtype=torch.bool)
    allowed[8] = False
    assert soft_argmax(query, maps, middle, 2, 0.02, allowed).tolist() == [[2.0, 1.0]]


@pytest.mark.parametrize('kind', ['homography', 'affine', 'similarity'])
def test_robust_maps(kind):
    rng = np.random.default_rng(0)
    truth = np.array([[1.1, -0.2, 7.0], [0.2, 1.1, -4.0], [0, 0, 1]])
    source = rng.uniform(0, 500, (200, 2))
    target = warp_points(torch.from_numpy(source), torch.from_numpy(truth)).numpy()
    target += rng.normal(0, 0.3, target.shape)
    target[:80] = rng.uniform(0, 500, (80, 2))  # 40 % are wrong
    estimate = RobustTransform(kind)
    found = estimate(source, target)
    assert found.failure == '' and found.inliers[80:].sum() > 110 and found.inliers[:80].sum() < 8
    assert distance(found.homography, truth, 500) < 0.5
    np.testing.assert_array_equal(found.homography, estimate(source, target).homography)


def test_robust_maps_say_why_there_is_none():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 500, (60, 2))
    find = RobustTransform()
    assert find(points[:5], points[:5]).failure == '5 matches, at least 8 are needed'
    assert find(points[:0], points[:0]).homography is None
    mirrored = find(points, points * [-1, 1])
    assert mirrored.homography is None and mirrored.failure
    assert not mirrored.inliers.any()
    double = RobustTransform(max_scale=1.5)(points, points * 2)
    assert double.homography is None and 'degenerate' in double.failure
    assert not double.inliers.any()
    line = np.stack([np.arange(60.0), np.arange(60.0)], 1)
    assert find(line, line).homography is None
    assert find(np.ones((60, 2)), np.ones((60, 2))).homography is None
    noise = find(points, rng.uniform(0, 500, (60, 2)))
    assert noise.homography is None or noise.inliers.sum() < 15
    for wrong in (dict(model='spline'), dict(min_inliers=3), dict(threshold=0)):
        with pytest.raises(ConfigError):
            RobustTransform(**wrong)


def test_what_does_not_fit_is_an_error():
    with pytest.raises(ConfigError, match='registers two modalities'):
        MODELS.build(
            dict(
                type='mmrsfm.RegistrationModel',
                modalities=dict(rgb=3),
                backbone=dict(type='mmrsfm.TestIdentity'),
            )
        )
    with pytest.raises(ConfigError, match='one for each of'):
        model(backbone=dict(rgb=dict(type='mmrsfm.TestIdentity')))
    with pytest.raises(ConfigError, match='rgb=1, sar=1'):  # another number of channels
        model()(torch.zeros(1, 4, 32, 32), mode='predict')
    with pytest.raises(ConfigError, match='RandomHomography'):
        model()(torch.zeros(1, 2, 32, 32), [DataSample()], mode='loss')
    with pytest.raises(ConfigError, match='differ in shape'):
        branches = {
            name: dict(type='mmrsfm.TestIdentity', stride=s) for name, s in (('rgb', 4), ('sar', 8))
        }
        model(backbone=branches)(torch.zeros(1, 2, 32, 32))
    with pytest.raises(ConfigError, match='out_indices'):
        MODELS.build(dict(type='mmrsfm.TopDownNeck', in_channels=[4, 8], channels=4))([])
    for wrong in (dict(temperature=0), dict(min_valid=0), dict(min_confidence=2)):
        with pytest.raises(ConfigError):
            MODELS.build(dict(type='mmrsfm.MatchingHead', **wrong))


def test_homographies():
    affine = as_homography([[1, 0, 2], [0, 1, 3]])
    assert affine.tolist() == [[1, 0, 2], [0, 1, 3], [0, 0, 1]]
    assert as_homography(2 * np.eye(3))[2, 2] == 1
    for wrong in (np.zeros((3, 3)), np.eye(4), [[1, 2], [3]], np.full((3, 3), np.nan)):
        with pytest.raises(DataError):
            as_homography(wrong)
    points = control_points((5, 9), 3)
    assert points[0].tolist() == [0, 0] and points[1].tolist() == [4, 0]
    assert points[-1].tolist() == [8, 4] and len(points) == 9
    assert inside(points, (5, 9)).all() and not inside(points + 1, (5, 9))[-1]
    behind = torch.tensor([[1.0, 0, 0], [0, 1, 0], [-1, 0, 1]])
    assert warp_points(torch.tensor([[2.0, 0.0]]), behind).isnan().all()
