# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""SwinV2: the contract of all backbones, timm's numbers at any size, masks, failure paths."""

import copy
import math
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from timm.models.swin_transformer_v2 import SwinTransformerV2 as TimmSwin

from mmrsfm.checkpoints import convert_state_dict
from mmrsfm.errors import ConfigError
from mmrsfm.layers import cosine_attention as attention
from mmrsfm.layers.position_bias import ContinuousPositionBias, shift_masks
from mmrsfm.models.backbones import SwinV2
from mmrsfm.registry import MODELS
from tests.test_models.backbone_contract import BackboneContract

TINY = dict(embed_dims=16, depths=[1, 2, 2, 1], num_heads=[1, 2, 4, 8])


def awaken(backbone):
    """Blocks start as the identity: without other norms nothing would be tested."""
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if 'norm' in name or 'bias' in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return backbone


def swin(**changes):
    torch.manual_seed(0)
    config = dict(type='mmrsfm.SwinV2', arch=TINY, window_size=4, drop_path_rate=0.0)
    model = MODELS.build({**config, **changes})
    model.init_weights()
    return awaken(model).eval()


class TestSwinV2(BackboneContract):
    config = dict(type='mmrsfm.SwinV2', arch=TINY, window_size=4, drop_path_rate=0.0)
    strides = (4, 8, 16, 32)
    channels = (16, 32, 64, 128)
    sizes = ((64, 64), (32, 96), (1, 1), (37, 80))

    def build(self, **changes):
        backbone = super().build(**changes)
        if 'init_cfg' not in changes:
            awaken(backbone)
        return backbone


class TestAsMaRS(TestSwinV2):
    """The encoder of the pretraining: the last map, normalised; other position windows."""

    config = dict(
        type='mmrsfm.SwinV2', arch=TINY, window_size=4, pretrained_window_sizes=3,
        out_indices=(3,), final_norm=True, drop_path_rate=0.0,
    )  # fmt: skip
    strides = (32,)
    channels = (128,)
    checkpointed: ClassVar[dict] = {'with_cp': [0, 2]}  # stages by number


@pytest.mark.parametrize(
    ('size', 'window', 'pretrained'),
    [
        ((64, 64), 4, 0),  # whole windows; in the last stages the map is smaller than the window
        ((100, 76), 4, (3, 3, 3, 2)),  # nothing divides by anything
        ((20, 200), 8, 0),  # windows shrink along one axis alone
        ((67, 129), 8, 6),  # partial patches
        ((5, 9), 8, 0),
    ],
)
def test_timm_at_any_size(size, window, pretrained):
    """Maps and gradients are those of timm's model built for the size of the image."""
    torch.manual_seed(0)
    padded = tuple(math.ceil(side / 4) * 4 for side in size)
    windows = pretrained if isinstance(pretrained, tuple) else (pretrained,) * 4
    timm = TimmSwin(
        img_size=padded, strict_img_size=False, num_classes=0, embed_dim=16, depths=(1, 2, 2, 1),
        num_heads=(1, 2, 4, 8), window_size=window, pretrained_window_sizes=windows,
    ).eval()  # fmt: skip
    awaken(timm)
    ours = swin(window_size=window, pretrained_window_sizes=pretrained, final_norm=True)
    state = convert_state_dict(timm.state_dict())
    ours.load_state_dict({n.removeprefix('backbone.'): v for n, v in state.items()}, strict=True)
    images = torch.randn(2, 3, *size)
    reference = timm.forward_intermediates(
        F.pad(images, (0, padded[1] - size[1], 0, padded[0] - size[0])),
        norm=True, intermediates_only=True,
    )  # fmt: skip
    maps = ours(images)
    with torch.no_grad():
        remembered = ours(images), ours(images)
    weights = [torch.randn_like(value) for value in reference]
    for one, other, again, third in zip(maps, reference, *remembered, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(again, other, rtol=1e-4, atol=1e-5)
        assert torch.equal(again, third)
    torch.autograd.backward(reference, weights)
    torch.autograd.backward(maps, weights)
    expected = convert_state_dict(
        {name: value.grad for name, value in timm.named_parameters() if value.grad is not None}
    )
    for name, value in ours.named_parameters():
        torch.testing.assert_close(
            value.grad, expected[f'backbone.{name}'], rtol=1e-3, atol=1e-3, msg=name
        )


def test_published_sizes():
    with pytest.MonkeyPatch.context() as patch, torch.device('meta'):
        line = torch.linspace
        patch.setattr(torch, 'linspace', lambda *args: line(*args, device='cpu'))
        base = SwinV2('base', mask_token=True, out_indices=(3,), final_norm=True)
        large = SwinV2('large', mask_token=True, out_indices=(3,), final_norm=True)
    head = 1000 * base.out_channels[0] + 1000
    assert sum(p.numel() for p in base.parameters()) == 87_918_944 - head
    head = 1000 * large.out_channels[0] + 1000
    assert sum(p.numel() for p in large.parameters()) == 196_740_124 - head
    blocks = [stage.blocks[-1].attn for stage in large.stages]
    assert [block.window_size for block in blocks] == [16] * 4
    assert [block.w_msa.bias.pretrained_window[0] for block in blocks] == [12, 12, 12, 6]
    assert blocks[2].fit((32, 32)) == ((16, 16), (8, 8))
    assert blocks[3].fit((16, 16)) == ((16, 16), (0, 0))  # as published, at 512 pixels
    assert base.stages[3].blocks[1].attn.fit((16, 16)) == ((8, 8), (4, 4))


def test_masks():
    model = swin(mask_token=True)
    images, mask = torch.randn(2, 3, 40, 72), torch.rand(2, 10, 18) < 0.5
    seen = []
    model.stages[0].blocks[0].attn.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(images)
        for kind in (mask, mask.long(), mask.float()):
            model(images, kind)
        model(images, mask.long(), 'reference_int')
    plain, *masked, published = seen
    token = model.mask_token[0, 0]
    for one in masked:
        assert torch.equal(one[~mask], plain[~mask])
        torch.testing.assert_close(one[mask], token.expand_as(one[mask]))
    # What integers do: nothing is hidden.
    torch.testing.assert_close(published[~mask], -plain[~mask])
    torch.testing.assert_close(published[mask], -2 * plain[mask] + token)
    with pytest.raises(ConfigError, match=r'shape \(2, 5, 9\).*one value for each 4 x 4'):
        model(images, mask[:, ::2, ::2])
    with pytest.raises(ConfigError, match="mask_mode='bool'"):
        model(images, mask, 'bool')
    with pytest.raises(ConfigError, match='mask_token=True'):
        swin()(images, mask)


def test_dropped_branches_add_nothing():
    """Stochastic depth stands behind the norm of a branch, whose bias must not slip through."""
    model = swin(drop_path_rate=0.999999).train()
    for stage in model.stages:
        for block in stage.blocks:
            block.attn.drop.drop_prob = block.ffn.dropout_layer.drop_prob = 1 - 1e-6
    images = torch.randn(1, 3, 64, 64)
    embedded, grid = model.patch_embed(images)
    with torch.no_grad():
        first = model(images)[0]
    assert torch.equal(first, embedded.transpose(1, 2).unflatten(2, grid))


def test_tables_are_made_when_their_network_changes():
    model, images = swin(), torch.randn(1, 3, 64, 64)
    kept = [block.attn.w_msa.bias for stage in model.stages for block in stage.blocks]
    network = model.stages[0].blocks[0].attn.w_msa.cpb_mlp
    with torch.no_grad():
        before = model(images)[0]
        assert [len(one) for one in kept] == [1] * len(kept)
        network[0].weight.mul_(2.0)  # seen by the version of the tensor
        assert not torch.equal(model(images)[0], before)
        changed = model(images)[0]
        network[0].weight.data.div_(2.0)  # not seen; what changes data so switches modes
        model.train()
        assert [len(one) for one in kept] == [0] * len(kept)
        model.eval()
        assert torch.equal(model(images)[0], before)
        state = copy.deepcopy(model.state_dict())
        state['stages.0.blocks.0.attn.w_msa.cpb_mlp.0.weight'] *= 2
        model.load_state_dict(state)
        assert [len(one) for one in kept] == [0] * len(kept)
        assert torch.equal(model(images)[0], changed)
        model.double()
        assert [len(one) for one in kept] == [0] * len(kept)
        for side in range(8, 28, 4):  # windows of several sizes
            model(torch.randn(1, 3, side, 64).double())
        assert max(len(one) for one in kept) <= 8


def test_inference_mode_leaves_nothing_that_training_stumbles_over():
    model, images = swin(), torch.randn(1, 3, 36, 44)
    with torch.inference_mode():
        inferred = model(images)
    maps = model(images)
    sum(m.sum() for m in maps).backward()
    torch.testing.assert_close(inferred[-1], maps[-1].detach())


def test_one_table_for_each_block_of_a_training_step(monkeypatch):
    made = []
    table = ContinuousPositionBias.table
    monkeypatch.setattr(
        ContinuousPositionBias, 'table', lambda *args: made.append(1) or table(*args)
    )
    for with_cp in (False, True):
        model = swin(with_cp=with_cp).train()
        made.clear()
        sum(m.square().sum() for m in model(torch.randn(1, 3, 64, 64))).backward()
        assert len(made) == sum(TINY['depths'])


def test_weights_hold_no_tables_and_those_of_mmpretrain_are_no_hindrance():
    model = swin()
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
    theirs = MODELS.build(
        dict(
            type='mmpretrain.SwinTransformerV2', window_size=4, norm_cfg=None,
            out_indices=(0, 1, 2, 3), arch={**TINY, 'extra_norm_every_n_blocks': 0},
        )
    )  # fmt: skip
    model.load_state_dict(theirs.state_dict(), strict=True)


def test_what_is_not_returned_is_not_trained():
    model = swin(out_indices=(0, 2)).train()
    maps = model(torch.randn(1, 3, 64, 64))
    assert [m.shape[1] for m in maps] == model.out_channels == [16, 64]
    assert model.out_strides == [4, 16]
    sum(m.sum() for m in maps).backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (not name.startswith('stages.3.')), name
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(arch='giga'), "arch 'giga' is not one of"),
        (dict(arch=dict(embed_dims=8, depths=[1])), r"lacks \['num_heads'\]"),
        (dict(arch={**TINY, 'width': 1}), r"unknown \['width'\]"),
        (dict(arch={**TINY, 'num_heads': [1, 2]}), 'one number for each stage'),
        (dict(arch={**TINY, 'num_heads': [3, 2, 4, 8]}), '16 channels of stage 0 do not divide'),
        (dict(window_size=(4, 4)), '4 stages need one number, or 4'),
        (dict(window_size=0), 'windows of'),
        (dict(pretrained_window_sizes=[4]), '4 stages need one number, or 4'),
        (dict(out_indices=(1, 0)), 'rising order'),
        (dict(out_indices=(4,)), 'from 0 to 3'),
        (dict(frozen_stages=4), 'not from -1 to 3'),
        (dict(with_cp=[4]), 'neither a bool nor stages 0 to 3'),
        (dict(final_norm=True, out_indices=(0,)), 'final_norm=True is about stage 3'),
    ],
)
def test_arguments_that_contradict_each_other(changes, message):
    with pytest.raises(ConfigError, match=message):
        swin(**changes)


def test_images_of_other_bands():
    with pytest.raises(ConfigError, match=r'3 bands, got shape \(1, 4, 32, 32\)'):
        swin()(torch.randn(1, 4, 32, 32))


def pairs(windows=4, kinds=2, heads=2, tokens=6, depth=4, dtype=torch.float64):
    torch.manual_seed(0)
    qkv = torch.randn(3, windows, heads, tokens, depth, dtype=dtype)
    qkv[1, 0, 0, 3] = 0  # the key of padding
    scale = torch.rand(heads, dtype=dtype) * 5 + 1
    shape = (heads, tokens, tokens) if kinds is None else (kinds, heads, tokens, tokens)
    return [x.requires_grad_() for x in (qkv, scale, torch.randn(shape, dtype=dtype))]


@pytest.mark.parametrize('kinds', [None, 1, 2, 4])
def test_attention_and_its_gradients(kinds, monkeypatch):
    """The function of its own, PyTorch's fused one, and the formula are the same."""
    inputs = pairs(kinds=kinds)
    query, key, value = inputs[0]
    cosine = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1)
    bias = inputs[2] if kinds is None else inputs[2].repeat(4 // kinds, 1, 1, 1)
    expected = (cosine * inputs[1][:, None, None] + bias).softmax(-1) @ value
    ours = attention.cosine_attention(*inputs)
    weights = torch.randn_like(ours)
    found = torch.autograd.grad(ours, inputs, weights)
    monkeypatch.setattr(attention, '_runs_here', lambda qkv: False)
    fused = attention.cosine_attention(*inputs)
    also = torch.autograd.grad(fused, inputs, weights)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(fused, expected)
    reference = [x.clone() for x in torch.autograd.grad(expected, inputs, weights)]
    reference[0][1, 0, 0, 3] = 0  # F.normalize divides the gradient of a zero vector by 1e-12
    for one, other, third in zip(found, reference, also, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(third, other)
    monkeypatch.undo()
    free = [x.detach().clone() for x in inputs]
    free[0][1, 0, 0, 3] = 1.0
    assert torch.autograd.gradcheck(
        attention.cosine_attention, [x.requires_grad_() for x in free], fast_mode=True
    )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_attention_in_half_precision(dtype):
    """Padding must not make NaN of the gradients, nor large values infinite."""
    inputs = pairs(dtype=torch.float32)
    expected = attention.cosine_attention(*inputs)
    half = [inputs[0].detach().mul(300).to(dtype).requires_grad_(), *inputs[1:]]
    found = attention.cosine_attention(*half) / 300
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=0.2, atol=0.2)
    found.float().square().sum().backward()
    assert all(value.grad.isfinite().all() for value in half)


def test_training_under_autocast():
    model, images = swin(mask_token=True).train(), torch.randn(2, 3, 44, 52)
    mask = torch.rand(2, 11, 13) < 0.6
    with torch.autocast('cpu', torch.bfloat16):
        maps = model(images, mask)
    sum(m.float().square().sum() for m in maps).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_shift_masks_are_those_of_the_regions():
    """Regions numbered as in timm, for the window of the last row and column."""
    masks = shift_masks((4, 2), (2, 1), torch.device('cpu'))
    rows, columns = torch.arange(4) >= 2, torch.arange(2) >= 1
    region = (rows[:, None] * 2 + columns[None, :]).flatten()
    assert torch.equal(masks[3] == -100, region[:, None] != region[None, :])
    assert not masks[0].any()
    assert not shift_masks((4, 2), (0, 1), torch.device('cpu'))[1].any()
