# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""CrossScaleViT: the common contract, and what is its own."""

import pytest
import torch
from mmpretrain.engine import LearningRateDecayOptimWrapperConstructor

from mmrsfm.errors import ConfigError
from mmrsfm.models.backbones import CrossScaleViT
from tests.test_models.backbone_contract import BackboneContract

TINY = dict(embed_dims=32, num_layers=4, num_heads=4, feedforward_channels=64)


def vit(**changes):
    backbone = CrossScaleViT(**{**dict(arch=TINY, img_size=64, out_type='raw'), **changes})
    backbone.init_weights()
    return backbone


class TestPyramid(BackboneContract):
    config = dict(type='mmrsfm.CrossScaleViT', arch=TINY, img_size=64, out_type='pyramid')
    strides = (4, 8, 16, 32)
    channels = (32, 32, 32, 32)


class TestPyramidOfFourLayers(BackboneContract):
    config = dict(
        type='mmrsfm.CrossScaleViT',
        arch=TINY,
        img_size=(64, 32),
        patch_size=8,
        out_type='pyramid',
        out_indices=[0, 1, 2, 3],
        norm_style='post',
        pos_embed_trainable=False,
    )
    strides = (2, 4, 8, 16)
    channels = (32, 32, 32, 32)


class TestFeatureMap(BackboneContract):
    config = dict(
        type='mmrsfm.CrossScaleViT',
        arch=TINY,
        img_size=64,
        out_type='featmap',
        with_cls_token=False,
    )
    strides = (16,)
    channels = (32,)


def test_output_types():
    images = torch.randn(2, 3, 70, 33)
    shapes = {
        'cls_token': (2, 32),
        'avg_featmap': (2, 32),
        'raw': (2, 16, 32),
        'featmap': (2, 32, 5, 3),
    }
    for out_type, shape in shapes.items():
        outputs = vit(out_type=out_type)(images)
        assert [tuple(x.shape) for x in outputs] == [shape]


def test_padding_is_zeros_at_the_right_and_bottom():
    backbone, images = vit().eval(), torch.randn(1, 3, 60, 50)
    padded = torch.zeros(1, 3, 64, 64)
    padded[:, :, :60, :50] = images
    assert torch.equal(backbone(images)[0], backbone(padded)[0])


def test_avg_featmap_is_mean_then_norm():
    images = torch.randn(2, 3, 64, 64)
    averaged = vit(out_type='avg_featmap').eval()
    raw = vit(out_type='raw', final_norm=False).eval()
    raw.load_state_dict({n: v for n, v in averaged.state_dict().items() if not n.startswith('ln2')})
    assert not hasattr(averaged, 'ln1')
    torch.testing.assert_close(averaged(images)[0], averaged.ln2(raw(images)[0][:, 1:].mean(1)))


def test_visible_patches_get_the_numbers_of_the_whole_image():
    """All patches visible, in any order: the same as a plain forward pass."""
    for style in ('pre', 'post'):
        backbone, images = vit(norm_style=style).eval(), torch.randn(2, 3, 32, 96)
        ids = torch.stack([torch.randperm(12) for _ in range(2)])
        visible = backbone.encode_visible(images, ids, apply_norm=True)
        whole = backbone(images)[0]
        torch.testing.assert_close(visible[:, 0], whole[:, 0])
        for row in range(2):
            torch.testing.assert_close(visible[row, 1:], whole[row, 1:][ids[row]])


def test_norm_styles_differ_and_have_their_eps():
    pre, post = vit(norm_style='pre').eval(), vit(norm_style='post').eval()
    post.load_state_dict(pre.state_dict())
    images = torch.randn(1, 3, 64, 64)
    assert not torch.allclose(pre(images)[0], post(images)[0], atol=1e-2)
    assert pre.layers[0].ln1.eps == 1e-6
    assert post.layers[0].ln1.eps == 1e-5
    assert pre.ln1.eps == post.ln1.eps == 1e-6


def test_position_table_is_resized_once():
    backbone = vit(pos_embed_trainable=False).eval()
    first = backbone.positions((3, 7))
    assert backbone.positions((3, 7)) is first
    assert backbone.positions((4, 4)) is backbone.pos_embed
    assert len(backbone._resizer) == 1


@pytest.mark.parametrize('change', ['in_place', 'optimizer', 'load', 'data_then_eval', 'dtype'])
def test_resized_position_table_follows_the_parameter(change):
    backbone = vit().eval()
    with torch.no_grad():
        before = backbone.positions((3, 7))
        if change == 'in_place':
            backbone.pos_embed.mul_(2)
        elif change == 'optimizer':
            backbone.pos_embed.grad = torch.ones_like(backbone.pos_embed)
            torch.optim.SGD([backbone.pos_embed], lr=1.0).step()
        elif change == 'load':
            backbone.load_state_dict({n: v * 2 for n, v in backbone.state_dict().items()})
        elif change == 'data_then_eval':
            # As MMEngine's EMA hook does, before the evaluation starts.
            backbone.pos_embed.data.mul_(2)
            backbone.eval()
        elif change == 'dtype':
            backbone.double()
        after = backbone.positions((3, 7))
    assert after.dtype == backbone.pos_embed.dtype
    if change == 'dtype':
        return
    assert not torch.equal(before, after)


def test_resized_position_table_is_differentiable():
    backbone = vit(pos_embed_trainable=True).train()
    backbone(torch.randn(1, 3, 48, 32))[0][..., 0].sum().backward()
    assert backbone.pos_embed.grad.abs().sum() > 0
    assert len(backbone._resizer) == 0


def test_cache_from_inference_mode_serves_training():
    backbone = vit(pos_embed_trainable=False)
    images = torch.randn(1, 3, 48, 32)
    with torch.inference_mode():
        backbone(images)
    backbone(images)[0].sum().backward()


def test_cache_is_bounded():
    backbone = vit().eval()
    with torch.no_grad():
        for columns in range(1, 40):
            backbone.positions((3, columns))
    assert len(backbone._resizer) <= 16


def test_presets_are_those_of_the_paper():
    expected = dict(base=(768, 12, 12), large=(1024, 24, 16), tiny=(128, 4, 8), small=(512, 8, 8))
    expected['huge'] = (1280, 32, 16)
    for name, numbers in expected.items():
        arch = CrossScaleViT.arch_zoo[name]
        assert (arch['embed_dims'], arch['num_layers'], arch['num_heads']) == numbers
        assert arch['feedforward_channels'] == 4 * numbers[0]


def test_initialisation():
    backbone = vit(pos_embed_trainable=False, arch='tiny')
    assert backbone.pos_embed.abs().max() <= 1
    assert backbone.pos_embed[:, 0].abs().max() == 0
    assert 0.01 < backbone.cls_token.std() < 0.03
    for layer in backbone.layers:
        assert layer.attn.qkv.bias.abs().max() == 0
        bound = (6 / (128 + 512)) ** 0.5
        assert 0.9 * bound < layer.ffn.layers[1].weight.abs().max() <= bound


def test_layer_decay_as_published():
    """cls, positions and patches 0, layer i is i + 1, the rest depth + 1."""
    backbone = vit(out_type='avg_featmap')
    depth = {n: backbone.get_layer_depth(n)[0] for n in backbone.state_dict()}
    assert depth['cls_token'] == depth['pos_embed'] == depth['patch_embed.projection.weight'] == 0
    assert depth['layers.0.ln1.weight'] == 1
    assert depth['layers.3.attn.qkv.weight'] == 4
    assert depth['ln2.weight'] == 5
    model = torch.nn.Module()
    model.backbone = backbone
    model.get_layer_depth = lambda name: backbone.get_layer_depth(name, 'backbone.')
    constructor = LearningRateDecayOptimWrapperConstructor(
        dict(optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05)),
        dict(layer_decay_rate=0.75),
    )
    rates = {
        id(p): group['lr']
        for group in constructor(model).optimizer.param_groups
        for p in group['params']
    }
    assert rates[id(backbone.cls_token)] == pytest.approx(0.75**5)
    assert rates[id(backbone.layers[3].ln1.weight)] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(norm_style='sandwich'), 'norm_style'),
        (dict(arch='enormous'), 'arch'),
        (dict(arch=dict(embed_dims=32)), 'lacks'),
        (dict(out_type='tokens'), 'out_type'),
        (dict(out_type='cls_token', with_cls_token=False), 'with_cls_token'),
        (dict(out_type='pyramid', out_indices=[1, 2]), 'one or four'),
        (dict(out_indices=9), 'out_indices'),
        (dict(out_indices=[2, 1]), 'rising order'),
        (dict(frozen_stages=5), 'frozen_stages'),
        (dict(arch={**TINY, 'embed_dims': 30, 'num_heads': 3}), 'multiple of 4'),
        (dict(arch={**TINY, 'num_heads': 3}), 'heads'),
    ],
)
def test_contradictions_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        vit(**arguments)


def test_wrong_number_of_bands_is_named():
    with pytest.raises(ConfigError, match='takes 3 bands, the images have 4'):
        vit()(torch.randn(1, 4, 64, 64))


def test_masked_encoding_needs_whole_patches():
    with pytest.raises(ConfigError, match='whole patches'):
        vit().encode_visible(torch.randn(1, 3, 60, 64), torch.zeros(1, 2, dtype=torch.long))
