# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The contrastive losses of MaRS, against the formulas written out as whole matrices."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmrsfm.errors import ConfigError
from mmrsfm.models.losses import CrossGranularityContrastiveLoss, TokenCLIPLoss
from mmrsfm.registry import MODELS
from tests.ranks import run_ranks

TERMS = ('cgcl_patch', 'cgcl_image', 'cgcl_patch_image')
EACH = dict(patch=1.0, image=1.0, patch_image=1.0)


def written_out(first, second, as_coded=False):
    """The three terms, each of weight 1, with matrices of (B N)^2 and (B N) x (B N)."""
    batch, number, _ = first.shape
    r, s = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    g_r, g_s = r.mean(1), s.mean(1)

    def symmetric(logits):
        target = torch.arange(len(logits))
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    patch = symmetric(r.flatten(0, 1) @ s.flatten(0, 1).T / 0.1)
    image = symmetric(g_r @ g_s.T / 0.05)
    both = []
    for tokens, g in ((r, g_s), (s, g_r)):
        target = torch.arange(batch).repeat_interleave(number)
        if as_coded:
            # The columns repeated for each token; the targets are numbers of images.
            g = g[:, None].expand(-1, number, -1).flatten(0, 1)
        both.append(F.cross_entropy(tokens.flatten(0, 1) @ g.T / 0.07, target))
    return dict(zip(TERMS, (patch, image, sum(both) / 2), strict=True))


def tokens(batch=5, number=6, channels=8, dtype=torch.float64):
    torch.manual_seed(1)
    return [torch.randn(batch, number, channels, dtype=dtype).requires_grad_() for _ in range(2)]


def gradients(losses, inputs):
    weights = dict(zip(TERMS, (1.0, 2.0, 3.0), strict=True))
    total = sum(weights.get(name, 1.0) * loss for name, loss in losses.items())
    return torch.autograd.grad(total, inputs)


@pytest.mark.parametrize('as_coded', [False, True])
@pytest.mark.parametrize('max_elements', [1, 7, 100, 2**24])
def test_is_the_formula(max_elements, as_coded):
    inputs = tokens()
    loss = CrossGranularityContrastiveLoss(
        weights=EACH,
        max_elements=max_elements,
        patch_image_targets='as_coded' if as_coded else 'per_image',
    )
    ours, expected = loss(*inputs), written_out(*inputs, as_coded)
    assert set(ours) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-10)
    for a, b in zip(gradients(ours, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_as_coded_draws_every_token_to_the_first_image():
    """Which is why it is not the default: equal modalities of distinct images are not its best."""
    images = torch.eye(3, 8, dtype=torch.float64)[:, None].expand(-1, 6, -1)
    term = dict(weights=dict(patch=0, image=0, patch_image=1))
    good = CrossGranularityContrastiveLoss(**term)(images, images)
    coded = CrossGranularityContrastiveLoss(patch_image_targets='as_coded', **term)(images, images)
    assert good['cgcl_patch_image'] < 1e-5
    expected = math.log(6) + (0 + 2 / 0.07) / 3
    assert coded['cgcl_patch_image'].item() == pytest.approx(expected, abs=1e-5)


def test_published_weights_and_first_token():
    inputs = tokens()
    ours = CrossGranularityContrastiveLoss(drop_first_token=True)(*inputs)
    expected = written_out(*(x[:, 1:] for x in inputs))
    for name, weight in zip(TERMS, (0.5, 0.3, 0.2), strict=True):
        torch.testing.assert_close(ours[name], weight * expected[name])
    alone = CrossGranularityContrastiveLoss(weights=dict(image=0, patch_image=0))(*inputs)
    assert list(alone) == ['cgcl_patch']


def test_clip():
    inputs = tokens()
    loss = TokenCLIPLoss(log_scale=0.7, max_elements=50).double()
    r, s = (F.normalize(x, dim=-1).flatten(0, 1) for x in inputs)
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    logits, target = r @ s.T * scale.exp(), torch.arange(len(r))
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    ours = loss(*inputs)
    assert list(ours) == ['clip']
    torch.testing.assert_close(ours['clip'], expected, rtol=0, atol=1e-7)
    (of_scale,) = torch.autograd.grad(expected, scale)
    (ours_of_scale,) = torch.autograd.grad(ours['clip'], loss.log_scale)
    torch.testing.assert_close(ours_of_scale, of_scale, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('kind', ['CrossGranularityContrastiveLoss', 'TokenCLIPLoss'])
def test_all_valid_is_as_without_a_mask(kind):
    inputs = tokens()
    loss = MODELS.build(dict(type=f'mmrsfm.{kind}', max_elements=64)).double()
    plain, masked = loss(*inputs), loss(*inputs, torch.ones(5, 6, dtype=torch.bool))
    for name, value in plain.items():
        torch.testing.assert_close(masked[name], value, rtol=0, atol=1e-12)
    for a, b in zip(gradients(masked, inputs), gradients(plain, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_a_sample_without_a_pair_takes_no_part():
    inputs = tokens()
    valid = torch.ones(5, 6, dtype=torch.bool)
    valid[[1, 4]] = False
    loss = CrossGranularityContrastiveLoss(weights=EACH, max_elements=64)
    ours = loss(*inputs, valid)
    expected = loss(*(x[[0, 2, 3]] for x in inputs))
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-12)
    for x in gradients(ours, inputs):
        assert not x[[1, 4]].any()
        assert x[0].abs().sum() > 0


def test_a_swath_without_data_takes_no_part():
    """The tokens of other places are as if there were no others."""
    inputs = tokens()
    valid = torch.ones(5, 6, dtype=torch.bool)
    valid[:, 4:] = False
    loss = CrossGranularityContrastiveLoss(weights=EACH)
    ours, expected = loss(*inputs, valid), loss(*(x[:, :4] for x in inputs))
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-12)


def test_images_that_lack_different_places():
    """Written out from lists of what each image has; one image has nothing."""
    first, second = tokens()
    valid = torch.rand(5, 6, generator=torch.Generator().manual_seed(3)) < 0.6
    valid[2] = False
    ours = CrossGranularityContrastiveLoss(weights=EACH, max_elements=50)(first, second, valid)
    r = [F.normalize(x[v], dim=-1) for x, v in zip(first, valid, strict=True) if v.any()]
    s = [F.normalize(x[v], dim=-1) for x, v in zip(second, valid, strict=True) if v.any()]
    g_r, g_s = (torch.stack([x.mean(0) for x in one]) for one in (r, s))
    image = torch.repeat_interleave(torch.tensor([len(x) for x in r]))
    r, s = torch.cat(r), torch.cat(s)

    def both_ways(a, b, scale):
        target = torch.arange(len(a))
        ways = (a @ b.T * scale, b @ a.T * scale)
        return sum(F.cross_entropy(logits, target) for logits in ways) / 2

    expected = dict(
        cgcl_patch=both_ways(r, s, 10),
        cgcl_image=both_ways(g_r, g_s, 20),
        cgcl_patch_image=(
            F.cross_entropy(r @ g_s.T / 0.07, image) + F.cross_entropy(s @ g_r.T / 0.07, image)
        )
        / 2,
    )
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-10)
    inputs = [first, second]
    for a, b in zip(gradients(ours, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize('kind', ['CrossGranularityContrastiveLoss', 'TokenCLIPLoss'])
def test_no_pair_at_all_is_zero_and_part_of_the_graph(kind):
    inputs = tokens(dtype=torch.float32)
    loss = MODELS.build(dict(type=f'mmrsfm.{kind}'))
    losses = loss(*inputs, torch.zeros(5, 6, dtype=torch.bool))
    assert all(value == 0 for value in losses.values())
    sum(losses.values()).backward()
    for x in (*inputs, *loss.parameters()):
        assert x.grad is not None
        assert not x.grad.any()


@pytest.mark.parametrize('batch', [1, 2])
def test_small_batches_and_zero_tokens_are_finite(batch):
    inputs = [torch.zeros(batch, 1, 4, requires_grad=True) for _ in range(2)]
    losses = CrossGranularityContrastiveLoss()(*inputs)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(x.grad.isfinite().all() for x in inputs)


def test_float32_under_mixed_precision():
    inputs = [x.detach().bfloat16().requires_grad_() for x in tokens()]
    loss = CrossGranularityContrastiveLoss(max_elements=64)
    with torch.autocast('cpu', torch.bfloat16):
        mixed = loss(*inputs)
        total = sum(mixed.values())
        # Within autocast too: the gradient is as precise as the value.
        mixed_gradients = torch.autograd.grad(total, inputs)
    plain = loss(*(x.float() for x in inputs))
    for name, value in mixed.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, plain[name])
    for x, y in zip(mixed_gradients, torch.autograd.grad(sum(plain.values()), inputs), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(weights=dict(pixel=1.0)), 'pixel'),
        (dict(temperatures=dict(token=1.0)), 'token'),
        (dict(temperatures=dict(patch=0.0)), 'must be > 0'),
        (dict(patch_image_targets='image'), 'patch_image_targets'),
        (dict(max_elements=0), 'max_elements'),
    ],
)
def test_contradictions_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        CrossGranularityContrastiveLoss(**arguments)


def test_wrong_shapes_are_named():
    loss = CrossGranularityContrastiveLoss()
    with pytest.raises(ConfigError, match='one shape'):
        loss(torch.randn(2, 3, 4), torch.randn(2, 4, 4))
    with pytest.raises(ConfigError, match='valid has shape'):
        loss(torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.ones(2, 4).bool())


def _losses():
    return [CrossGranularityContrastiveLoss(weights=EACH, max_elements=100), TokenCLIPLoss()]


def _rank(rank, inputs, valid):
    part = slice(rank * 3, rank * 3 + 3)
    found = []
    for masked in (False, True):
        # Where one rank has a mask and the other has none, they still exchange the same.
        mask = valid[part] if masked and not valid[part].all() else None
        for loss in _losses():
            own = inputs[:, part].clone().requires_grad_()
            losses = loss(*own, mask)
            sum(losses.values()).backward()
            found.append(({name: value.detach() for name, value in losses.items()}, own.grad))
    return found


def test_gathered_over_two_ranks_is_the_whole_batch(tmp_path):
    """Losses and gradients, averaged over ranks as DistributedDataParallel does."""
    inputs = torch.randn(2, 6, 4, 5)
    valid = torch.ones(6, 4, dtype=torch.bool)
    valid[4] = False
    valid[5, :2] = False
    of_ranks = list(zip(*run_ranks(_rank, tmp_path, inputs, valid), strict=True))
    expected = [(loss, mask) for mask in (None, valid) for loss in _losses()]
    for ((losses_a, grad_a), (losses_b, grad_b)), (loss, mask) in zip(
        of_ranks, expected, strict=True
    ):
        whole = inputs.clone().requires_grad_()
        reference = loss(*whole, mask)
        sum(reference.values()).backward()
        for name, value in reference.items():
            torch.testing.assert_close((losses_a[name] + losses_b[name]) / 2, value.detach())
        torch.testing.assert_close(torch.cat([grad_a, grad_b], dim=1) / 2, whole.grad)
