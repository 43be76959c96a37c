# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""ConvNeXtV2: the contract of all backbones, the masked form, both of its paths, options."""

import pytest
import torch
from mmpretrain.models.backbones import ConvNeXt
from torch import nn

from mmrsfm.checkpoints import load_pretrained
from mmrsfm.errors import ConfigError
from mmrsfm.layers.active_sites import ActiveSites
from mmrsfm.models.backbones import ConvNeXtV2
from tests.test_models.backbone_contract import BackboneContract

ARCH = dict(depths=[1, 1, 2, 1], channels=[4, 6, 8, 10])
ALL = (0, 1, 2, 3)


def build(seed=0, **options):
    torch.manual_seed(seed)
    backbone = ConvNeXtV2(**{'arch': ARCH, 'in_channels': 3, 'out_indices': ALL, **options})
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(std=0.3)
    return backbone


def case(size=(32, 32), cell=8, hidden=0.6, batch=3, zeros=False):
    """Images and a mask; with ``zeros`` some visible pixels have no data."""
    torch.manual_seed(1)
    grid = [-(-side // cell) for side in size]
    mask = torch.rand(batch, *grid) < hidden
    x = torch.randn(batch, 3, *size)
    if zeros:
        x[torch.rand(batch, *size)[:, None].expand_as(x) < 0.2] = 0
    return x, mask


class TestMMEarthStem(BackboneContract):
    config = dict(type='mmrsfm.ConvNeXtV2', arch=ARCH, in_channels=3, out_indices=ALL)
    strides = (1, 2, 4, 8)
    channels = (4, 6, 8, 10)


class TestOriginalStem(BackboneContract):
    config = dict(
        type='mmrsfm.ConvNeXtV2', arch=ARCH, in_channels=3, out_indices=(1, 2, 3), patch_size=16,
        stem='original', stem_maps=True, stage_norms=True, channels_last=False, drop_path_rate=0.1,
    )  # fmt: skip
    strides = (2, 4, 8, 16)
    channels = (4, 6, 8, 10)

    def test_checkpointing_changes_no_number(self):
        self.config = {**self.config, 'drop_path_rate': 0.0}
        super().test_checkpointing_changes_no_number()


OPTIONS = [
    dict(grn_statistics=statistics, patch_size=patch, stem=stem)
    for statistics, patch, stem in (
        ('batch', 8, 'mmearth'),
        ('sample', 16, 'mmearth'),
        ('batch', 16, 'original'),
        ('sample', 8, 'original'),
    )
]


@pytest.mark.parametrize('options', OPTIONS)
@pytest.mark.parametrize('even', [True, False], ids=['even', 'uneven'])
def test_the_fast_path_computes_what_the_plain_one_does(options, even):
    """Maps and gradients, also where zero pixels leave samples with different numbers of sites."""
    x, mask = case(cell=options['patch_size'], zeros=not even)
    if even:
        mask = mask[:1].expand_as(mask)
    results = []
    for path in ('packed', 'dense'):
        backbone = build(masked_path=path, stem_maps=True, **options)
        images = x.clone().requires_grad_()
        maps = backbone(images, mask)
        sum((m.square() * torch.arange(m.numel()).view_as(m).cos()).sum() for m in maps).backward()
        gradients = [p.grad for p in backbone.parameters()]
        results.append((maps, [images.grad, *gradients]))
    for one, other in zip(results[0][0], results[1][0], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for one, other in zip(results[0][1], results[1][1], strict=True):
        scale = float(other.abs().max()) + 1e-3
        torch.testing.assert_close(one / scale, other / scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('path', ['packed', 'dense'])
def test_hidden_pixels_and_their_values_reach_nothing(path):
    backbone = build(masked_path=path, grn_statistics='batch').eval()
    x, mask = case()
    hidden = mask.repeat_interleave(8, 1).repeat_interleave(8, 2).unsqueeze(1).expand_as(x)
    before = backbone(x, mask)
    for value in (7.0, float('nan'), float('inf')):
        other = torch.where(hidden, torch.full_like(x, value), x)
        for a, b in zip(before, backbone(other, mask), strict=True):
            assert torch.equal(a, b)
    assert all((m.permute(0, 2, 3, 1)[mask] == 0).all() for m in before[-1:])


def test_masks_come_in_any_form():
    backbone = build().eval()
    x, mask = case((37, 50))
    expected = backbone(x, mask)
    assert expected[0].shape[2:] == (37, 50)
    assert expected[-1].shape[2:] == (5, 7)
    for form in (mask.flatten(1), mask.float(), mask.long().flatten(1)):
        for a, b in zip(expected, backbone(x, form), strict=True):
            assert torch.equal(a, b)


def test_without_anything_hidden_the_masked_form_is_the_plain_one():
    x, mask = case()
    for path in ('packed', 'dense'):
        backbone = build(masked_path=path).eval()
        for a, b in zip(backbone(x), backbone(x, mask & False), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_statistics_of_the_batch_mix_samples_and_those_of_a_sample_do_not():
    x, mask = case()
    other = torch.cat([x[:1], 3 * x[1:]])
    for statistics, same in (('sample', True), ('batch', False)):
        backbone = build(grn_statistics=statistics).eval()
        first, second = (backbone(images, mask)[-1][0] for images in (x, other))
        assert torch.allclose(first, second, rtol=1e-4, atol=1e-5) == same


@pytest.mark.parametrize('path', ['packed', 'dense'])
def test_nothing_visible_gives_zeros_and_gradients_that_are_finite(path):
    for statistics in ('batch', 'sample'):
        backbone = build(masked_path=path, grn_statistics=statistics)
        x, mask = case()
        for hidden in (mask | True, torch.cat([mask[:1] | True, mask[1:]])):
            backbone.zero_grad()
            maps = backbone(x, hidden)
            assert not maps[-1][0].any()
            sum(m.square().sum() for m in maps).backward()
            assert all(p.grad.isfinite().all() for p in backbone.parameters())


def test_the_path_is_chosen_by_what_is_hidden(monkeypatch):
    backbone = build()
    seen = []
    init = ActiveSites.__init__

    def spy(self, shape, active=None, packed=False):
        seen.append(packed)
        init(self, shape, active, packed)

    monkeypatch.setattr(ActiveSites, '__init__', spy)
    for hidden, packed in ((0.9, True), (0.0, False)):
        seen.clear()
        backbone(*case(hidden=hidden))
        assert any(seen) == packed


def test_stochastic_depth_drops_whole_samples():
    x, mask = case()
    for path in ('packed', 'dense'):
        backbone = build(masked_path=path, drop_path_rate=0.6).train()
        torch.manual_seed(3)
        first = backbone(x, mask)[-1]
        torch.manual_seed(3)
        assert torch.equal(first, backbone(x, mask)[-1])
        assert not torch.equal(first, backbone.eval()(x, mask)[-1])
    # The same draws on both paths, because they are one a sample.
    paths = [build(masked_path=path, drop_path_rate=0.6).train() for path in ('packed', 'dense')]
    outputs = []
    for backbone in paths:
        torch.manual_seed(3)
        outputs.append(backbone(x, mask)[-1])
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('arch', ['atto', 'femto'])
def test_the_original_stem_is_the_model_of_mmpretrain(arch):
    theirs = ConvNeXt(
        arch, in_channels=4, use_grn=True, layer_scale_init_value=0.0, out_indices=[3]
    )  # whose train() returns nothing
    theirs.eval()
    with torch.no_grad():
        for module in theirs.modules():
            if hasattr(module, 'beta'):
                nn.init.normal_(module.gamma)
                nn.init.normal_(module.beta)
    ours = ConvNeXtV2(arch, in_channels=4, patch_size=32, stem='original').eval()
    load_pretrained(ours, dict(state_dict=theirs.state_dict()))
    x = torch.randn(1, 4, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(x)[0], theirs(x)[0], rtol=1e-4, atol=1e-5)


def test_published_padding_gives_the_published_sizes():
    for patch, size, sides in ((8, 56, [54, 54, 27, 13, 6]), (16, 112, [110, 56, 28, 14, 7])):
        backbone = build(padding='published', patch_size=patch, stem_maps=True)
        maps = backbone(torch.randn(1, 3, size, size))
        assert [m.shape[-1] for m in maps] == [sides[0], sides[1], *sides[1:]]


def test_published_initial_weights():
    backbone = ConvNeXtV2(weight_init='published_masked', in_channels=3, out_indices=(3,))
    backbone.init_weights()
    block = backbone.stages[0][0]
    assert block.pointwise_conv1.weight.std() > 0.5
    assert block.depthwise_conv.weight.std() > 0.5
    assert backbone.initial_conv[0].weight.std() < 0.03
    assert backbone.downsample_layers[1][1].weight.std() < 0.03
    assert not any(p.any() for n, p in backbone.named_parameters() if '.grn.' in n)


def test_a_linear_probe_trains_nothing_of_the_backbone():
    backbone = build(out_indices=None, frozen_stages=3).train()
    assert not any(p.requires_grad for p in backbone.parameters())
    (vector,) = backbone(torch.randn(2, 3, 16, 16))
    assert vector.shape == (2, 10)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(arch='small2'), 'arch'),
        (dict(arch=dict(depths=[1])), 'channels'),
        (dict(patch_size=12), 'patch_size=12'),
        (dict(patch_size=4), 'patch_size=4'),
        (dict(stem='deep'), 'stem'),
        (dict(padding='valid'), 'padding'),
        (dict(grn_statistics='all'), 'grn_statistics'),
        (dict(masked_path='fast'), 'masked_path'),
        (dict(weight_init='zero'), 'weight_init'),
        (dict(out_indices=(1, 0)), 'out_indices'),
        (dict(out_indices=(4,)), 'out_indices'),
        (dict(out_indices=None, stem_maps=True), 'stem_maps'),
        (dict(frozen_stages=4), 'frozen_stages'),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_wrong_inputs():
    x, mask = case()
    for backbone in (build(out_indices=None), build(padding='published'), build(stage_norms=True)):
        with pytest.raises(ConfigError, match='a mask needs the maps as they are'):
            backbone(x, mask)
    with pytest.raises(ConfigError, match='one value for each 8 x 8 pixels'):
        build()(x, mask[:, :-1])
    with pytest.raises(ConfigError, match='takes images of 3 bands'):
        build()(x[:, :2])
    with pytest.raises(ConfigError, match='too small'):
        build(padding='published')(x[:, :, :8, :8])


@pytest.mark.parametrize('path', ['packed', 'dense'])
def test_masked_training_in_mixed_precision(path):
    x, mask = case(zeros=True)
    plain, mixed = (build(masked_path=path, grn_statistics='batch', seed=2) for _ in range(2))
    expected = plain(x, mask)[-1]
    with torch.autocast('cpu', torch.bfloat16):
        maps = mixed(x, mask)
        loss = maps[-1].float().square().mean()
    loss.backward()
    error = (maps[-1].float() - expected).abs().max() / expected.abs().max()
    assert error < 0.05
    assert all(p.grad.isfinite().all() for p in mixed.parameters())


@pytest.mark.parametrize('path', ['packed', 'dense'])
def test_other_precisions(path):
    """A whole model of doubles, or of halves, without autocast."""
    x, mask = case(zeros=True)
    single = build(masked_path='dense', seed=2)(x, mask)[-1]
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.bfloat16, 0.05)):
        backbone = build(masked_path=path, seed=2).to(dtype)
        maps = backbone(x.to(dtype), mask)[-1]
        assert maps.dtype == dtype
        error = (maps - single).abs().max() / single.abs().max()
        assert error < tolerance


@pytest.mark.slow
def test_what_is_not_packed_compiles_in_one_piece():
    x, mask = case()
    for arguments in ((x,), (x, mask)):
        backbone = build(masked_path='dense')
        compiled = torch.compile(backbone, backend='eager', fullgraph=True)
        for one, other in zip(compiled(*arguments), backbone(*arguments), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
