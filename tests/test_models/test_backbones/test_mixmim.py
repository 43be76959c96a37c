# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""MixMIM: the contract of all backbones, mmpretrain's numbers, any size, mixtures, failures."""

import pytest
import torch
from mmpretrain.models.backbones import MixMIMTransformer

from mmrsfm.checkpoints import load_pretrained
from mmrsfm.errors import ConfigError
from mmrsfm.layers import biased_attention as attention
from mmrsfm.layers.token_windows import divide, from_windows, pairs_apart, to_windows
from mmrsfm.models.backbones import MixMIM
from mmrsfm.registry import MODELS
from tests.test_models.backbone_contract import BackboneContract

ARCH = dict(embed_dims=16, depths=[1, 2, 1, 1], num_heads=[1, 2, 4, 8])
MAPS = (0, 1, 2, 3)


def mixmim(**changes):
    torch.manual_seed(0)
    model = MODELS.build({**dict(type='mmrsfm.MixMIM', arch=ARCH), **changes})
    model.init_weights()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if 'bias' in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


class TestMixMIM(BackboneContract):
    config = dict(type='mmrsfm.MixMIM', arch=ARCH, img_size=64, in_channels=3, out_indices=MAPS)
    strides = (4, 8, 16, 32)
    channels = (16, 32, 64, 128)
    sizes = ((64, 64), (32, 96), (1, 1), (147, 80))


class TestFixedWindows(TestMixMIM):
    """Windows that are larger than some maps, and divide few."""

    config = dict(**{**TestMixMIM.config, 'img_size': (80, 48), 'window_size': 6})


def test_numbers_and_names_are_those_of_mmpretrain():
    ours = mixmim(img_size=128)
    theirs = MixMIMTransformer(ARCH, img_size=128, in_channels=2, window_size=[8, 8, 8, 4])
    theirs.eval()  # returns None
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(2, 2, 128, 128)
    torch.testing.assert_close(ours(images)[0], theirs(images)[0], rtol=1e-5, atol=1e-5)
    for model in (ours, theirs):
        model.zero_grad()
        model(images)[0].square().sum().backward()
    grads = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    assert len(grads) == len(list(ours.parameters())) - 1
    for name, parameter in ours.named_parameters():
        if name in grads:
            torch.testing.assert_close(parameter.grad, grads[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('size', 'windows'),
    [
        (64, [8, 8, 4, 2]),
        (128, [8, 8, 8, 4]),
        (224, [14, 14, 14, 7]),
        (384, [16, 16, 24, 12]),
        (512, [16, 16, 16, 16]),
    ],
)
def test_windows_by_the_size_of_the_image(size, windows):
    assert mixmim().windows((size // 4, size // 4)) == [(side, side) for side in windows]


@pytest.mark.parametrize('size', [(64, 64), (32, 96), (200, 90)])
def test_other_sizes_are_a_model_of_that_size_with_stretched_tables(size):
    model = mixmim(img_size=128, out_indices=MAPS)
    built = mixmim(img_size=size, out_indices=MAPS)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.zero_()
    report = load_pretrained(built, dict(state_dict=model.state_dict()), layout='native')
    assert 'absolute_pos_embed' in report.resized
    assert any('bias_table' in name for name in report.resized)
    images = torch.randn(1, 2, *size)
    for ours, theirs in zip(model(images), built(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_vector_by_default_and_maps_where_asked_for():
    vector, last = mixmim(), mixmim(out_indices=(3,))
    images = torch.randn(2, 2, 64, 100)
    torch.testing.assert_close(vector(images)[0], last(images)[0].mean((2, 3)))
    assert vector.out_channels == [128]
    some = mixmim(out_indices=(0, 2)).train()
    maps = some(images)
    assert [m.shape[1] for m in maps] == some.out_channels == [16, 64]
    assert some.out_strides == [4, 16]
    sum(m.square().sum() for m in maps).backward()
    for name, parameter in some.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert not some.layers[3].blocks[0].attn.qkv.weight.requires_grad
    assert not some.layers[2].downsample.norm.weight.requires_grad
    assert isinstance(mixmim(final_norm=False).norm, torch.nn.Identity)


def test_norms_of_maps_need_not_be_in_a_checkpoint():
    source, dense = mixmim(), mixmim(out_indices=MAPS)
    report = load_pretrained(dense, dict(state_dict=source.state_dict()), layout='native')
    assert set(report.missing) == {f'norm{i}.{w}' for i in range(3) for w in ('weight', 'bias')}
    assert 'norm0.weight' not in mixmim(out_indices=MAPS, stage_norms=False).state_dict()


@pytest.mark.parametrize(
    ('size', 'changes'), [((128, 96), {}), ((100, 147), {}), ((96, 64), dict(window_size=6))]
)
@pytest.mark.parametrize('each', [False, True])
def test_mixed_images_do_not_see_each_other(size, changes, each):
    model = mixmim(**changes)
    images = torch.randn(3, 2, *size)
    cells = (-(-size[0] // 32), -(-size[1] // 32))
    mask = torch.rand(3, *cells) < 0.5
    mask = mask if each else mask[:1]
    # A mixture shows its own image where its mask is 0, and its partner's where that is 1.
    pixels = mask.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None, : size[0], : size[1]]
    hidden = torch.where(pixels, torch.randn_like(images), images)
    with torch.no_grad():
        before, after = model(images, mask)[0], model(hidden, mask)[0]
    assert before.shape == (3, 128, *cells)
    own = (~mask)[:, None].expand_as(before)
    torch.testing.assert_close(after[own], before[own], rtol=1e-4, atol=1e-5)
    shown = (mask & mask.flip(0))[:, None].expand_as(before)  # the partner hides it from itself
    assert not shown.any() or not torch.isclose(after[shown], before[shown]).all()


def test_masks_of_one_kind_exchange_nothing_or_everything():
    model, images = mixmim(out_indices=(3,)), torch.randn(4, 2, 96, 64)
    none, full = torch.zeros(3, 2), torch.ones(1, 3, 2, dtype=torch.bool)
    plain = model(images)[0]
    torch.testing.assert_close(model(images, none)[0], plain)
    torch.testing.assert_close(model(images, full)[0], plain.flip(0))
    with pytest.raises(ConfigError, match=r'\(1, 2, 3\).*32 x 32 pixels, \(3, 2\)'):
        model(images, torch.zeros(2, 3))
    with pytest.raises(ConfigError, match=r'for all of them or for each'):
        model(images, torch.zeros(3, 3, 2))


def test_tables_are_stretched_once_and_again_when_they_change():
    model, images = mixmim(), torch.randn(1, 2, 224, 224)
    kept = [model._resizer] + [b.attn.resizer for stage in model.layers for b in stage.blocks]
    with torch.inference_mode():
        before = model(images)[0]
        assert [len(one) for one in kept] == [1] * len(kept)
    with torch.no_grad():
        model.layers[1].blocks[0].attn.relative_position_bias_table.add_(1.0).mul_(2.0)
        assert not torch.allclose(model(images)[0], before)
    model(images)[0].sum().backward()  # what inference left does not disturb training
    model.load_state_dict(mixmim().state_dict())
    assert [len(one) for one in kept] == [0] * len(kept)
    torch.testing.assert_close(model(images)[0], before)
    model.double()
    assert [len(one) for one in kept] == [0] * len(kept)


def test_dropped_branches_are_those_of_an_image():
    """Stochastic depth drops the branch of a whole image, not of single windows."""
    model = mixmim(drop_path_rate=0.5, out_indices=(1,), stage_norms=False).train()
    seen = []
    block = model.layers[1].blocks[1]
    block.drop_path.register_forward_hook(lambda _, args, out: seen.append((out, args[0])))
    with torch.no_grad():
        model(torch.randn(8, 2, 128, 128))
    dropped = (seen[0][0] == 0).flatten(1)
    assert set(dropped.float().mean(1).tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(arch='giga'), "arch 'giga' is not one of"),
        (dict(arch=dict(embed_dims=8, depths=[1])), r"lacks \['num_heads'\]"),
        (dict(arch={**ARCH, 'width': 1}), r"unknown \['width'\]"),
        (dict(arch={**ARCH, 'num_heads': [1, 2]}), 'one number for each stage'),
        (dict(arch={**ARCH, 'num_heads': [3, 2, 4, 8]}), '16 channels of stage 0 do not divide'),
        (dict(arch={**ARCH, 'embed_dims': 18}), 'no multiple of 4'),
        (dict(window_size=(4, 4)), '4 stages need one number, or 4'),
        (dict(window_size=0), '4 stages need one number, or 4'),
        (dict(out_indices=(1, 0)), 'rising order'),
        (dict(out_indices=(4,)), 'from 0 to 3'),
        (dict(frozen_stages=4), 'not from -1 to 3'),
    ],
)
def test_arguments_that_contradict_each_other(changes, message):
    with pytest.raises(ConfigError, match=message):
        mixmim(**changes)


def test_images_of_other_bands():
    with pytest.raises(ConfigError, match=r'2 bands, got shape \(1, 3, 32, 32\)'):
        mixmim()(torch.randn(1, 3, 32, 32))


def test_sizes_of_the_published_models(monkeypatch):
    line = torch.linspace
    monkeypatch.setattr(torch, 'linspace', lambda *args: line(*args, device='cpu'))
    with torch.device('meta'):
        base = MixMIM('base')
    head = 19 * base.out_channels[0] + 19
    assert round((sum(p.numel() for p in base.parameters()) + head) / 1e6, 2) == 86.90


def test_training_under_autocast():
    model = mixmim().train()
    with torch.autocast('cpu', torch.bfloat16):
        (latent,) = model(torch.randn(2, 2, 64, 96), torch.tensor([[0, 1, 0], [1, 1, 0]]))
    latent.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


# Layers.


@pytest.mark.parametrize('limit', [1, 7, 8, 16, 24])
def test_windows_divide_an_axis(limit):
    for size in range(1, 70):
        side = divide(size, limit)
        assert 1 <= side <= limit or side == size <= limit
        padded = -(-size // side) * side
        assert padded - size < side
        assert size % side == 0 or 2 * side > limit


def test_windows_and_back():
    x = torch.randn(2, 7, 5, 3)
    cut = to_windows(x, (3, 2))
    assert cut.shape == (2, 9, 6, 3)
    assert torch.equal(cut[1, 4, 3], x[1, 4, 3])
    assert torch.equal(from_windows(cut.flatten(1, 2), (3, 2), (7, 5)), x)


def test_pairs_apart_are_found_only_where_there_are_some():
    mask, cpu = torch.tensor([[[False, True], [True, True]]]), torch.device('cpu')
    assert pairs_apart(None, 8, (16, 16), (8, 8), cpu) is None
    assert pairs_apart(mask, 8, (16, 16), (8, 8), cpu) is None
    apart = pairs_apart(mask, 4, (8, 8), (8, 8), cpu)
    groups = mask[0].repeat_interleave(4, 0).repeat_interleave(4, 1).flatten()
    assert torch.equal(apart[0], groups[:, None] != groups[None, :])
    padded = pairs_apart(None, 1, (3, 2), (2, 2), cpu)
    assert not padded[0].any()
    assert torch.equal(padded[1, 0], torch.tensor([False, False, True, True]))


def pairs(kinds, dtype=torch.float64):
    torch.manual_seed(0)
    qkv = torch.randn(3, 4, 2, 6, 4, dtype=dtype)
    shape = (2, 6, 6) if kinds is None else (kinds, 2, 6, 6)
    bias = torch.randn(shape, dtype=dtype)
    bias[..., 0, 3] = float('-inf')
    return qkv.requires_grad_(), bias.requires_grad_()


@pytest.mark.parametrize('kinds', [None, 1, 2, 4])
def test_attention_and_its_gradients(kinds):
    qkv, bias = pairs(kinds)
    full = bias if kinds is None else bias.repeat(4 // kinds, 1, 1, 1)
    expected = (0.3 * qkv[0] @ qkv[1].transpose(-2, -1) + full).softmax(-1) @ qkv[2]
    ours = attention.biased_attention(qkv, bias, 0.3)
    torch.testing.assert_close(ours, expected)
    weights = torch.randn_like(ours)
    found = torch.autograd.grad(ours, (qkv, bias), weights)
    wanted = torch.autograd.grad(expected, (qkv, bias), weights)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
    half = attention.biased_attention(qkv.bfloat16(), bias, 0.3)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), expected, rtol=0.05, atol=0.05)
