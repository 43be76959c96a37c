# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""RVSAViT: what every backbone does, and what is its own."""

import copy
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mmrsfm.errors import ConfigError
from mmrsfm.layers.rvsa_attention import window_geometry
from mmrsfm.models.backbones import RVSAViT
from mmrsfm.registry import MODELS
from tests.test_models.backbone_contract import BackboneContract

SMALL = dict(embed_dims=24, num_layers=4, num_heads=3, interval=2, mlp_ratio=2)
SMALL['out_indices'] = (0, 1, 2, 3)


class Pyramid:
    config = dict(type='mmrsfm.RVSAViT', arch=SMALL, img_size=64)
    strides = (4, 8, 16, 32)
    channels = (24,) * 4


class TestPyramid(Pyramid, BackboneContract):
    """As for segmentation."""


class TestPatchOfEight(Pyramid, BackboneContract):
    config = {**Pyramid.config, 'patch_size': 8, 'init_values': 0.5}


class TestRawMaps(Pyramid, BackboneContract):
    """As for scenes and change detection."""

    config = {**Pyramid.config, 'with_fpn': False, 'final_norm': True, 'out_indices': (1, -1)}
    strides = (16, 16)
    channels = (24, 24)


class TestLastLayer(Pyramid, BackboneContract):
    """As the detection class that no published config uses."""

    config = {
        **Pyramid.config, 'full_rel_pos': False, 'last_layer_only': True, 'final_norm': True,
        'img_size': (32, 96),
    }  # fmt: skip


def build(**changes):
    torch.manual_seed(0)
    model = MODELS.build({**Pyramid.config, **changes})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(arch='huge'), "arch 'huge' is not one of"),
        (dict(arch=dict(embed_dims=24)), 'arch lacks'),
        (dict(arch={**SMALL, 'depth': 3}), "arch holds \\['depth'\\]"),
        (dict(arch={**SMALL, 'num_heads': 5}), 'do not divide into 5 heads'),
        (dict(out_indices=(0, 4, 5, 6)), 'do not all exist: there are 4 layers'),
        (dict(out_indices=(3, 2, 1, 0)), 'rising order'),
        (dict(out_indices=(1, 3)), r'takes four out_indices.*with_fpn=False'),
        (dict(out_indices=()), 'do not all exist'),
        (dict(patch_size=4), r'patches of 8 or 16 pixels, not 4.*with_fpn=False'),
        (dict(img_size=8), r'at least one patch \(16 pixels\)'),
        (dict(img_size=(64, 64, 3)), 'height and width'),
        (dict(frozen_stages=5), 'frozen_stages=5 is not from -1 to 4'),
        (dict(last_layer_only=True, with_fpn=False), 'needs with_fpn=True'),
        (dict(rel_pos_tables='x'), "rel_pos_tables='x' is not one of"),
        (dict(partial_patches='x'), "partial_patches='x' is not one of"),
        (dict(img_size=(32, 64), rel_pos_tables='reference'), "use 'per_axis'"),
    ],
)
def test_contradictions_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(**changes)


def test_wrong_input_is_named():
    with pytest.raises(ConfigError, match=r'takes 3 bands, the images have 4'):
        build()(torch.zeros(1, 4, 64, 64))
    with pytest.raises(ConfigError, match=r'12x64 pixels has no whole patch of 16'):
        build(partial_patches='drop')(torch.zeros(1, 3, 12, 64))


@pytest.mark.parametrize('arch', ['tiny', 'base', 'large'])
def test_presets(arch):
    with torch.device('meta'):
        model = MODELS.build(dict(type='mmrsfm.RVSAViT', arch=arch))
    expected = dict(tiny=(96, 4, 2), base=(768, 12, 4), large=(1024, 24, 4))[arch]
    full = [n for n, _ in model.named_parameters() if n.endswith('full_attn_rel_pos_h')]
    assert (model.embed_dims, len(model.blocks), len(full)) == expected
    assert model.out_channels == [expected[0]] * 4


def test_default_outputs_of_an_arch_of_ones_own():
    arch = {key: value for key, value in SMALL.items() if key != 'out_indices'}
    for layers, expected in ((4, (0, 1, 2, 3)), (6, (0, 2, 3, 5)), (12, (2, 5, 8, 11))):
        assert build(arch={**arch, 'num_layers': layers}).out_indices == expected
    assert build(arch=arch, with_fpn=False).out_indices == (3,)
    assert build(arch=arch, last_layer_only=True).out_channels == [24] * 4
    with pytest.raises(ConfigError, match=r'takes four out_indices, got \[2\]'):
        build(arch={**arch, 'num_layers': 3})


def test_the_default_device_of_the_caller_does_not_matter():
    model = build().eval()
    window_geometry.cache_clear()
    with torch.device('meta'), torch.no_grad():
        maps = model(torch.zeros(1, 3, 64, 64, device='cpu'))
    assert all(m.isfinite().all() for m in maps)


@pytest.mark.parametrize('size', [(48, 112), (112, 48), (16, 16), (16, 400), (30, 50)])
def test_fewer_tokens_than_a_window(size):
    """The reference divides by zero there, and returns NaN."""
    model = build(img_size=size).train()
    maps = model(torch.randn(2, 3, *size))
    assert all(m.isfinite().all() for m in maps)
    sum(m.square().mean() for m in maps).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_dropped_pixels_change_nothing():
    model = build(partial_patches='drop').eval()
    images = torch.randn(1, 3, 64, 80)
    wider = F.pad(images, (0, 13, 0, 7), value=5.0)
    with torch.no_grad():
        for a, b in zip(model(images), model(wider), strict=True):
            assert torch.equal(a, b)


def test_both_kinds_of_tables_agree_on_squares():
    one, other = build().eval(), build(rel_pos_tables='reference').eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(one(images), other(images), strict=True):
            assert torch.equal(a, b)


def test_wide_training_size():
    """The reference crashes there: its tables are as long as the height needs."""
    model = build(img_size=(32, 96)).eval()
    block = model.blocks[1].attn
    assert block.full_attn_rel_pos_h.shape[0] == 3
    assert block.full_attn_rel_pos_w.shape[0] == 11
    # Turned by 90 degrees, with the tables of the axes exchanged, an attention block turns.
    x = torch.randn(1, 12, 24)
    turned = copy.deepcopy(block)
    turned.full_attn_rel_pos_h.data = block.full_attn_rel_pos_w.data
    turned.full_attn_rel_pos_w.data = block.full_attn_rel_pos_h.data
    with torch.no_grad():
        out = block(x, (2, 6)).view(2, 6, -1).transpose(0, 1).reshape(1, 12, -1)
        turn = x.view(2, 6, -1).transpose(0, 1).reshape(1, 12, -1)
        torch.testing.assert_close(turned(turn, (6, 2)), out, rtol=1e-4, atol=1e-4)


def test_position_table_is_kept_and_forgotten_as_it_should():
    model = build().eval()
    images, limit = torch.randn(1, 3, 32, 64), model._resizer.max_entries
    with torch.no_grad():
        first = model(images)
        assert len(model._resizer) == 1
        assert torch.equal(first[0], model(images)[0])
        assert len(model._resizer) == 1
        for rows in range(1, limit + 10):
            model(torch.zeros(1, 3, 16 * rows, 16))
        assert len(model._resizer) <= limit
        # New weights, by every way there is.
        for change in (
            lambda: model.load_state_dict(build(init_values=None).state_dict()),
            lambda: model.pos_embed.add_(1.0),
            lambda: model.half().float(),
            lambda: model.train().eval(),
        ):
            model(images)
            change()
            fresh = copy.deepcopy(model)
            assert torch.equal(model(images)[0], fresh(images)[0])
    # What was kept in inference must serve training, and the other way round.
    with torch.inference_mode():
        model(images)
    model.train()
    sum(m.sum() for m in model(images)).backward()
    assert model.pos_embed.grad is not None


def test_first_call_in_inference_mode_does_not_spoil_training():
    """The geometry of a grid is shared by all models: it must not be made of inference tensors."""
    size = (16 * 11, 16 * 9)
    model = build()
    with torch.inference_mode():
        model(torch.randn(1, 3, *size))
    sum(m.sum() for m in model(torch.randn(1, 3, *size))).backward()


def test_double_precision_is_double_throughout():
    model = build(img_size=48).double()
    maps = model(torch.randn(1, 3, 48, 48, dtype=torch.float64))
    assert all(m.dtype == torch.float64 for m in maps)


class Shapes(TorchDispatchMode):
    """Largest tensor that comes out of any operator."""

    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, torch.Tensor):
                self.largest = max(self.largest, value.numel())
        return out


def test_scores_of_all_tokens_are_never_held_at_once(monkeypatch):
    monkeypatch.setattr('mmrsfm.layers.decomposed_attention.BLOCK_CPU', 1 << 14)
    model = build(img_size=512, with_fpn=False).train()
    tokens = 32 * 32
    with Shapes() as shapes:
        sum(m.sum() for m in model(torch.randn(1, 3, 512, 512))).backward()
    assert shapes.largest < tokens * tokens


def test_checkpointing_only_in_training_and_with_dropout_of_paths():
    calls = []

    def count(block, *args):
        calls.append(torch.is_grad_enabled())

    model = build(with_cp=True, drop_path_rate=0.5)
    plain = build(drop_path_rate=0.5)
    for block in model.blocks:
        block.register_forward_pre_hook(count)
    images = torch.randn(2, 3, 64, 64)
    for one in (model, plain):
        torch.manual_seed(3)
        sum(m.square().mean() for m in one.train()(images)).backward()
    assert len(calls) == 2 * len(model.blocks)
    for (name, a), b in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    calls.clear()
    sum(m.square().mean() for m in model.eval()(images)).backward()
    assert len(calls) == len(model.blocks)


def test_frozen_blocks_are_not_recomputed():
    model = build(with_cp=True, frozen_stages=2).train()
    calls = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda *_: calls.append(1))
    sum(m.square().mean() for m in model(torch.randn(1, 3, 64, 64))).backward()
    assert len(calls) == 2 + 2 * 2


@pytest.mark.parametrize('stages', [-1, 0, 2, 4])
def test_frozen_stages_of_the_reference(stages):
    model = build(frozen_stages=stages).train()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    blocks = tuple(f'blocks.{index}.' for index in range(stages))
    expected = {
        name
        for name, _ in model.named_parameters()
        if stages >= 0 and name.startswith(('patch_embed.', 'pos_embed', *blocks))
    }
    assert frozen == expected
    assert [block.training for block in model.blocks] == [i >= stages for i in range(4)]


def test_what_the_outputs_do_not_need_is_not_trained():
    """So that plain DistributedDataParallel does not wait for it."""
    model = build(with_fpn=False, final_norm=True, out_indices=(1, 2)).train()
    sum(m.sum() for m in model(torch.randn(1, 3, 64, 64))).backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {name for name, p in model.named_parameters() if not p.requires_grad}
    assert {name.split('.')[0] for name in without} == {'norm', 'fpn1', 'fpn2', 'blocks'}


def test_models_are_freed():
    model = build()
    model(torch.randn(1, 3, 80, 48))
    watch = weakref.ref(model.pos_embed)
    del model
    gc.collect()
    assert watch() is None


def test_initialisation_is_that_of_mtp():
    torch.manual_seed(0)
    model = RVSAViT(arch='tiny')
    model.init_weights()
    for number, block in enumerate(model.blocks, start=1):
        for layer in (block.attn.proj, block.mlp.fc2):
            expected = 0.02 / (2 * number) ** 0.5
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
        assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert block.attn.qkv.bias.abs().max() == 0
    assert model.blocks[0].attn.rel_pos_h.abs().max() == 0
    # Convolutions keep PyTorch's values: the windows are deformed from the beginning.
    assert model.blocks[0].attn.sampling_offsets[2].weight.abs().max() > 0
