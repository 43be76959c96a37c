# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""InternImage: the contract of all backbones, its options, its failure paths."""

import pytest
import torch

from mmrsfm.checkpoints import describe_model
from mmrsfm.errors import ConfigError
from mmrsfm.layers import intern_image_level
from mmrsfm.models.backbones import InternImage
from mmrsfm.registry import MODELS
from tests.test_models.backbone_contract import BackboneContract

TINY = dict(channels=16, depths=[1, 1, 2, 1], groups=[1, 2, 4, 8], mlp_ratio=2.0)


def intern_image(**changes):
    return MODELS.build({'type': 'mmrsfm.InternImage', 'arch': TINY, **changes})


class TestPreNorm(BackboneContract):
    config = dict(type='mmrsfm.InternImage', arch=TINY)
    strides = (4, 8, 16, 32)
    channels = (16, 32, 64, 128)
    sizes = ((64, 64), (32, 96), (1, 1), (37, 80))


class TestAsMTP(TestPreNorm):
    """Norms after the operators, scales, a wide grid."""

    config = dict(
        type='mmrsfm.InternImage', arch=TINY, layer_scale=1e-5, offset_scale=2.0, post_norm=True
    )


class TestAsHuge(TestPreNorm):
    config = dict(
        type='mmrsfm.InternImage', arch=TINY, dw_kernel_size=5, res_post_norm=True,
        center_feature_scale=True, level2_post_norm_block_ids=[1],
    )  # fmt: skip


class TestAsGiant(TestPreNorm):
    config = dict(
        type='mmrsfm.InternImage', arch=TINY, dw_kernel_size=5, post_norm=True,
        center_feature_scale=True, level2_post_norm_block_ids=[0, 1],
    )  # fmt: skip


PUBLISHED = {  # millions of parameters without the classifier, and names that tell the options
    'tiny': (28.8, 'levels.3.norm.0.weight', 'levels.0.blocks.0.gamma1'),
    'small': (48.5, 'levels.0.blocks.0.gamma1', 'levels.3.norm.0.weight'),
    'base': (94.9, 'levels.0.blocks.0.gamma1', 'levels.3.norm.0.weight'),
    'large': (219.0, 'levels.0.blocks.0.gamma1', 'levels.3.norm.0.weight'),
    'xlarge': (329.0, 'levels.0.blocks.0.gamma1', 'levels.3.norm.0.weight'),
    'huge': (1073.1, 'levels.2.blocks.31.res_post_norm2.0.weight', 'levels.0.blocks.0.gamma1'),
    'giant': (3052.8, 'levels.2.post_norms.7.0.weight', 'levels.0.blocks.0.res_post_norm1.0.bias'),
}


@pytest.mark.parametrize('arch', PUBLISHED)
def test_presets(arch):
    millions, has, has_not = PUBLISHED[arch]
    with torch.device('meta'):
        model = InternImage(arch.upper())
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)
    names = set(model.state_dict())
    assert has in names and has_not not in names
    large = arch in ('huge', 'giant')
    assert ('levels.0.blocks.0.dcn.center_feature_scale_proj_weight' in names) == large
    kernel = model.levels[0].blocks[0].dcn.dw_conv[0].kernel_size
    assert kernel == ((5, 5) if large else (3, 3))
    scale = model.levels[2].blocks[1].dcn.geometry.offset_scale
    assert scale == (2.0 if arch in ('large', 'xlarge') else 1.0)


def test_arguments_go_before_the_arch():
    with torch.device('meta'):
        model = InternImage('xlarge', layer_scale=0.0, offset_scale=1.0, post_norm=False)
    names = set(model.state_dict())
    assert 'levels.0.blocks.0.gamma1' not in names and 'levels.0.norm.0.weight' in names
    assert model.arch_settings['offset_scale'] == 1.0
    assert InternImage.arch_zoo['xlarge']['offset_scale'] == 2.0


def test_the_layer_is_its_formula():
    x = torch.randn(2, 5, 4, 16)
    for options, formula in (
        ({}, lambda b, x, op, n, k: x + op(n(x))),
        (dict(layer_scale=0.3), lambda b, x, op, n, k: x + 0.3 * op(n(x))),
        (dict(post_norm=True), lambda b, x, op, n, k: x + n(op(x))),
        (dict(post_norm=True, layer_scale=0.3), lambda b, x, op, n, k: x + 0.3 * n(op(x))),
        (
            dict(res_post_norm=True),
            lambda b, x, op, n, k: x + getattr(b, f'res_post_norm{k}')(op(n(x))),
        ),
    ):
        block = intern_image(**options).levels[0].blocks[0]
        expected = formula(block, x, block.dcn, block.norm1, 1)
        expected = formula(block, expected, block.mlp, block.norm2, 2)
        torch.testing.assert_close(block(x), expected)


def test_norms_after_chosen_layers_of_the_third_level():
    model = intern_image(level2_post_norm_block_ids=[1], post_norm=True)
    level, x = model.levels[2], torch.randn(1, 3, 3, 64)
    expected = level.post_norms[0](level.blocks[1](level.blocks[0](x)))
    torch.testing.assert_close(level(x), expected)
    assert not hasattr(model.levels[1], 'post_norms')


@pytest.mark.parametrize('out_indices', [[0], [1, 3], [2]])
def test_fewer_levels_are_the_same_and_later_ones_are_not_computed(out_indices):
    every, some = intern_image().eval(), intern_image(out_indices=out_indices).eval()
    some.load_state_dict(every.state_dict())
    last = some.levels[out_indices[-1]]
    if last.downsample is not None:
        last.downsample.register_forward_hook(lambda *_: pytest.fail('computed for nothing'))
    images = torch.randn(1, 3, 48, 40)
    with torch.no_grad():
        maps, expected = some(images), every(images)
    assert len(maps) == len(out_indices)
    for index, value in zip(out_indices, maps, strict=True):
        assert torch.equal(value, expected[index])
    assert some.out_channels == [16 * 2**index for index in out_indices]


@pytest.mark.parametrize('frozen_stages', [-1, 0, 2, 4])
def test_frozen_stages_hold_still(frozen_stages):
    model = intern_image(frozen_stages=frozen_stages, drop_rate=0.5, drop_path_rate=0.5).train()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    prefixes = () if frozen_stages < 0 else ('patch_embed.',)
    prefixes += tuple(f'levels.{level}.' for level in range(max(frozen_stages, 0)))
    assert frozen == {name for name in model.state_dict() if name.startswith(prefixes)}
    asleep = [model.patch_embed, model.pos_drop, *model.levels][: max(frozen_stages + 2, 0)]
    if frozen_stages >= 0:
        assert not any(child.training for module in asleep for child in module.modules())
        level = max(frozen_stages - 1, 0)
        if frozen_stages:
            x = torch.randn(1, 64, 64, 16 * 2**level)[:, :4, :4]
            assert torch.equal(model.levels[level](x), model.levels[level](x))


def test_recomputes_only_while_training(monkeypatch):
    model, calls = intern_image(with_cp=True), []

    def spy(function, *args, **kwargs):
        calls.append(kwargs)
        return function(*args)

    monkeypatch.setattr(intern_image_level, 'checkpoint', spy)
    images = torch.randn(1, 3, 32, 32)
    model.eval()(images)
    with torch.no_grad():
        model.train()(images)
    assert not calls
    model(images)
    assert calls == [{'use_reentrant': False}] * 5


def test_recomputing_draws_the_same_stochastic_depth():
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(3)
        model = intern_image(drop_path_rate=0.5, drop_rate=0.2, with_cp=with_cp).train()
        torch.manual_seed(4)
        sum(m.sum() for m in model(torch.randn(2, 3, 32, 32))).backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_stochastic_depth_grows_through_all_levels():
    model = intern_image(drop_path_rate=0.4)
    rates = [
        getattr(block.drop_path, 'drop_prob', 0.0)
        for level in model.levels
        for block in level.blocks
    ]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    model = intern_image(drop_path_rate=0.4, drop_path_type='uniform')
    assert {b.drop_path.drop_prob for level in model.levels for b in level.blocks} == {0.4}


def test_batch_norm():
    model = intern_image(norm_type='BN', act_type='ReLU').train()
    names = set(model.state_dict())
    assert {'patch_embed.norm1.0.running_mean', 'levels.0.blocks.0.dcn.dw_conv.1.0.weight'} <= names
    assert 'levels.0.blocks.0.norm1.0.weight' in names  # always a LayerNorm
    maps = model(torch.randn(2, 3, 64, 64))
    assert all(m.isfinite().all() for m in maps)


def test_initialised_once_and_as_published():
    torch.manual_seed(0)
    model = intern_image()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.init_weights()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    block = model.levels[3].blocks[0]
    assert 0.015 < block.mlp.fc1.weight.std() < 0.022 and not block.mlp.fc1.bias.any()
    assert not block.dcn.offset.weight.any() and not block.dcn.mask.weight.any()


def test_tells_its_norm_style_to_checkpoints():
    assert describe_model(intern_image())['mmrsfm_traits'] == {'norm_style': 'pre'}
    assert describe_model(intern_image(post_norm=True))['mmrsfm_traits'] == {'norm_style': 'post'}


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(arch='enormous'), "arch 'enormous' is not one of"),
        (dict(arch=dict(channels=16)), r"lacks \['depths', 'groups'\]"),
        (dict(arch={**TINY, 'window': 7}), r"unknown \['window'\]"),
        (dict(arch={**TINY, 'groups': [1, 2]}), '4 depths and 2 groups'),
        (dict(arch={**TINY, 'channels': 15}), '15 channels must be even'),
        (dict(arch={**TINY, 'groups': [3, 2, 4, 8]}), 'multiple of the 3 groups'),
        (dict(arch={**TINY, 'groups': [1, 3, 4, 8]}), 'do not divide into 3 groups'),
        (dict(out_indices=[0, 4]), 'out_indices'),
        (dict(out_indices=[]), 'out_indices'),
        (dict(out_indices=[2, 1]), 'rising order'),
        (dict(frozen_stages=5), 'frozen_stages'),
        (dict(drop_path_type='cosine'), 'drop_path_type'),
        (dict(norm_type='GN'), 'norm_type'),
        (dict(act_type='Swish'), 'act_type'),
        (dict(impl='cuda'), 'impl'),
        (dict(level2_post_norm_block_ids=[2]), 'third level'),
        (dict(res_post_norm=True, post_norm=True), 'excludes post_norm'),
        (dict(res_post_norm=True, layer_scale=1.0), 'excludes post_norm'),
    ],
)
def test_contradictions_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        intern_image(**changes)


def test_wrong_number_of_bands_is_named():
    with pytest.raises(ConfigError, match=r'3 bands, got shape \(1, 4, 64, 64\)'):
        intern_image()(torch.randn(1, 4, 64, 64))
