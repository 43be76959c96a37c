# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Two branches, fused: the contract of all backbones, what is missing, and failure paths."""

import copy
import math

import pytest
import torch
from torch import nn

from mmrsfm.checkpoints import describe_model
from mmrsfm.errors import ConfigError
from mmrsfm.models.necks.modality_fusion import token_grid
from mmrsfm.registry import MODELS
from tests.test_models.backbone_contract import BackboneContract

SWIN = dict(
    type='mmrsfm.SwinV2', window_size=4, drop_path_rate=0.0,
    arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
)  # fmt: skip
WIDTHS = [8, 16, 32, 64]
NAN = math.nan


def dual(**changes):
    config = dict(
        type='mmrsfm.DualModalityBackbone', backbone=SWIN, modalities=dict(rgb=3, sar=1),
    )  # fmt: skip
    torch.manual_seed(0)
    model = MODELS.build({**config, **changes})
    model.init_weights()
    return model


def images(batch=2, channels=4, size=(48, 40)):
    torch.manual_seed(1)
    return torch.randn(batch, channels, *size)


def close(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


class DualContract(BackboneContract):
    strides = (4, 8, 16, 32)
    channels = tuple(WIDTHS)

    def images(self, size=(64, 64), batch=2):
        torch.manual_seed(1)
        return torch.randn(batch, 4, *size)

    @pytest.mark.parametrize('in_channels', [1, 4, 13])
    def test_any_number_of_bands(self, in_channels):
        model = self.build(modalities=dict(rgb=in_channels, sar=2)).eval()
        maps = model(torch.randn(1, in_channels + 2, 64, 64))
        assert [m.shape[1] for m in maps] == list(self.channels)


class TestAdd(DualContract):
    config = dict(
        type='mmrsfm.DualModalityBackbone', backbone=SWIN, modalities=dict(rgb=3, sar=1),
        fusion=['add', 'mean', 'abs_diff', 'add'],
    )  # fmt: skip


class TestAttention(DualContract):
    attention = dict(num_heads=2, depth=1, mlp_ratio=1.0)
    config = dict(
        type='mmrsfm.DualModalityBackbone', backbone=SWIN, modalities=dict(rgb=3, sar=1),
        fusion=dict(mode='add', attention=attention, max_tokens=12),
    )  # fmt: skip


class TestFusion:
    @pytest.mark.parametrize(
        ('fusion', 'formula'),
        [
            ('add', lambda a, b: a + b),
            ('mean', lambda a, b: (a + b) / 2),
            ('concat', lambda a, b: torch.cat([a, b], dim=1)),
            ('diff', lambda a, b: b - a),
            ('abs_diff', lambda a, b: (b - a).abs()),
        ],
    )
    def test_of_a_pair_is_the_formula_of_its_branches(self, fusion, formula):
        model, x = dual(fusion=fusion).eval(), images()
        one, other = model.branches['rgb'](x[:, :3]), model.branches['sar'](x[:, 3:])
        expected = [formula(a, b) for a, b in zip(one, other, strict=True)]
        close(model(x), expected)
        close(model(x[:, :3], x[:, 3:]), expected)  # as Open-CD's dual-input segmentor calls it
        assert model.out_channels == [m.shape[1] for m in expected]

    @pytest.mark.parametrize(
        ('fusion', 'formula'),
        [
            ('add', lambda b: b),
            ('mean', lambda b: b),
            ('concat', lambda b: torch.cat([b * 0, b], dim=1)),
            ('diff', lambda b: b * 0),
            ('abs_diff', lambda b: b * 0),
        ],
    )
    @pytest.mark.parametrize('how', ['nan', 'input', 'partly'])
    def test_of_one_is_that_branch_alone(self, fusion, formula, how):
        model, x = dual(fusion=fusion).eval(), images()
        expected = [formula(b) for b in model.branches['sar'](x[:, 3:])]
        if how == 'input':
            only = dual(fusion=fusion, input_modalities=['sar']).eval()
            only.load_state_dict(model.state_dict())
            close(only(x[:, 3:]), expected)
            return
        missing = x.clone()
        missing[:, :3] = NAN
        if how == 'partly':  # the other image of the batch is whole
            missing[1] = x[1]
            paired = model(x)
            expected = [torch.stack([a[0], b[1]]) for a, b in zip(expected, paired, strict=True)]
        if how == 'nan':
            model.branches['rgb'].register_forward_hook(lambda *_: pytest.fail('not skipped'))
        close(model(missing), expected)

    def test_cell_by_cell_beside_a_swath(self):
        model, x = dual(fusion='add').eval(), images(1, size=(64, 64))
        x[:, 3, :, :32] = NAN
        filled = x.nan_to_num(0.0)
        one, other = model.branches['rgb'](filled[:, :3]), model.branches['sar'](filled[:, 3:])
        for fused, a, b in zip(model(x), one, other, strict=True):
            half = fused.shape[3] // 2
            torch.testing.assert_close(fused[..., :half], a[..., :half])
            torch.testing.assert_close(fused[..., half:], (a + b)[..., half:])

    def test_where_none_has_data_those_stand_in_that_are_there(self):
        model, x = dual(fusion='mean').eval(), images(1)
        x[:, :3] = NAN
        x[:, 3, :, 20:] = NAN
        filled = x.nan_to_num(0.0)
        close(model(x), model.branches['sar'](filled[:, 3:]))
        nothing = torch.full_like(x, NAN)
        zeros = torch.zeros_like(x)
        close(model(nothing), model(zeros))

    @pytest.mark.parametrize('fusion', ['add', 'concat', 'mma'])
    def test_one_modality_is_its_backbone(self, fusion):
        if fusion == 'mma':
            fusion = dict(attention=dict(num_heads=2, depth=1), max_tokens=8)
        model, x = dual(modalities=dict(sar=1), fusion=fusion).eval(), images(1, 1)
        holes = x.clone()
        holes[..., :30] = NAN
        for one in (x, holes):
            maps = model.branches['sar'](one.nan_to_num(0.0))
            if isinstance(fusion, str):
                close(model(one), maps)
            assert all(m.isfinite().all() for m in model(one))

    def test_three_modalities(self):
        model, x = dual(modalities=dict(rgb=3, sar=1, dsm=1), fusion='mean').eval(), images(2, 5)
        x[0, 3] = NAN
        kept = [model.branches[n](x[:1, c]) for n, c in (('rgb', slice(3)), ('dsm', slice(4, 5)))]
        for fused, a, b in zip(model(x), *kept, strict=True):
            torch.testing.assert_close(fused[:1], (a + b) / 2, rtol=1e-5, atol=1e-5)


class TestAttentionBudget:
    attention = dict(num_heads=2, depth=1)

    def test_within_it_is_the_module_itself(self):
        fusion = dict(mode='concat', attention=self.attention)
        model, x = dual(fusion=fusion).eval(), images(1)
        maps = [model.branches['rgb'](x[:, :3]), model.branches['sar'](x[:, 3:])]
        for level, fused in enumerate(model(x)):
            attended = model.fusions[level].attention([m[level] for m in maps])
            torch.testing.assert_close(fused, torch.cat(attended, dim=1), rtol=1e-5, atol=1e-5)

    def test_beyond_it_the_change_of_the_averages_is_added(self):
        fusion = dict(mode='concat', attention=self.attention, max_tokens=16)
        model, x = dual(fusion=fusion).eval(), images(1, size=(64, 64))
        attention, seen = model.fusions[0].attention, []
        attention.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
        fused = model(x)[0]
        (before, after), plain = seen[0], model.branches['sar'](x[:, 3:])[0]
        assert [tuple(m.shape) for m in before] == [(1, 8, 4, 4)] * 2
        change = nn.functional.interpolate(
            after[1] - before[1], size=(16, 16), mode='bilinear', align_corners=False
        )
        torch.testing.assert_close(fused[:, 8:], plain + change, rtol=1e-5, atol=1e-5)

    def test_missing_tokens_are_not_attended_to(self):
        model = dual(fusion=dict(attention=self.attention, max_tokens=16)).eval()
        x = images(2, size=(64, 64))
        x[0, 3] = NAN
        x[1, :3, :32] = NAN
        alone = model(x[:1])
        noise = x.clone()
        for name, branch in model.branches.items():  # what a branch says where nothing is
            scale = 1e3 if name == 'sar' else 1.0
            branch.register_forward_hook(
                lambda _, args, out, s=scale: tuple(
                    m + s * (args[0].abs().amax((1, 2, 3), keepdim=True) == 0) for m in out
                )
            )
        close([m[:1] for m in model(noise)], alone)

    def test_grid(self):
        assert token_grid((16, 64), 1024) == (16, 64)
        assert token_grid((128, 128), 1024) == (32, 32)
        assert token_grid((3, 1000), 12) == (1, 12)
        for size in [(7, 9), (5, 300), (300, 5)]:
            rows, columns = token_grid(size, 10)
            assert 1 <= rows * columns <= 10


class TestTraining:
    @pytest.mark.parametrize('fusion', ['add', 'concat', 'diff', 'mma'])
    @pytest.mark.parametrize('missing', [slice(0, 3), slice(3, 4), slice(0, 4)])
    def test_absent_in_the_whole_batch_leaves_no_parameter_without_a_gradient(
        self, fusion, missing
    ):
        if fusion == 'mma':
            fusion = dict(attention=dict(num_heads=2, depth=1), channels=8)
        model, x = dual(fusion=fusion).train(), images()
        x[:, missing] = NAN
        sum(m.square().mean() for m in model(x)).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        absent = 'sar' if missing.start == 3 else 'rgb'
        if missing != slice(0, 4):
            assert all(not p.grad.any() for p in model.branches[absent].parameters())

    @pytest.mark.parametrize('level', range(4))
    def test_absent_and_a_head_on_one_map(self, level):
        model, x = dual().train(), images()
        x[:, 3:] = NAN
        model(x)[level].square().mean().backward()
        branch = model.branches['sar'].named_parameters()
        assert [name for name, parameter in branch if parameter.grad is None] == []

    def test_dropout(self):
        model, x = dual(modality_dropout=dict(rgb=1.0)), images(8, size=(16, 16))
        alone = [m.detach() for m in model.eval().branches['sar'](x[:, 3:])]
        model.train()
        close(model(x), alone)
        model.eval()
        assert not torch.allclose(model(x)[0], alone[0])

    def test_dropout_is_as_likely_as_it_says_and_never_takes_the_last(self):
        model = dual(modality_dropout=0.5)
        model.train()
        seen = []
        model._encode = lambda name, image, wanted: (
            seen.append((name, torch.ones(len(image)) if wanted is None else wanted.float()))
            or tuple(image.new_zeros(len(image), c, 1, 1) for c in WIDTHS)
        )
        torch.manual_seed(0)
        x = images(2000, size=(1, 1))
        model(x)
        shares = {name: wanted.mean().item() for name, wanted in seen}
        both = torch.stack([wanted for _, wanted in seen])
        assert shares == {
            'rgb': pytest.approx(0.75, abs=0.04),
            'sar': pytest.approx(0.75, abs=0.04),
        }
        assert both.sum(0).min() == 1
        seen.clear()
        x[:, 3] = NAN
        model(x)
        assert [(name, wanted.min().item()) for name, wanted in seen] == [('rgb', 1.0)]

    def test_dropout_of_what_is_not_in_the_input_says_nothing(self):
        model = dual(modality_dropout=dict(rgb=1.0), input_modalities=['sar']).train()
        x = images(channels=1)
        close(model(x), model.branches['sar'](x))

    def test_unused_branches_are_not_trained(self):
        model = dual(input_modalities=['sar'], fusion=dict(mode='add', channels=4))
        sum(m.sum() for m in model.train()(images(channels=1))).backward()
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad == ('rgb' not in name)
            assert (parameter.grad is not None) == parameter.requires_grad


class Odd(nn.Module):
    """Rounds down, states nothing, and refuses any side but 224 of zeros."""

    def __init__(self, width=6, in_channels=3, strict=True):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 8, 8)
        self.strict = strict

    def forward(self, x):
        if self.strict and x.shape[-1] not in (224, 52):
            raise ValueError('another size was expected')
        return [self.conv(x)]


@pytest.fixture
def odd():
    MODELS.register_module(module=Odd, name='OddForTests', force=True)
    yield dict(type='mmrsfm.OddForTests')
    del MODELS.module_dict['OddForTests']


class TestAnyBackbone:
    def test_of_other_libraries(self):
        resnet = dict(type='mmpretrain.ResNet', depth=18, out_indices=(0, 1, 2, 3))
        model = dual(
            backbone=None,
            modalities=dict(
                rgb=dict(channels=3, backbone=resnet),
                sar=dict(
                    channels=1, backbone=dict(type='mmrsfm.RVSAViT', arch='tiny', img_size=64)
                ),
            ),
            fusion=dict(mode='add', channels=12),
        ).eval()  # fmt: skip
        maps = model(torch.randn(1, 4, 70, 60))
        assert model.out_channels == [12] * 4 == [m.shape[1] for m in maps]
        assert [tuple(m.shape[2:]) for m in maps] == [(18, 15), (9, 8), (5, 4), (3, 2)]

    def test_channels_are_found_out_and_maps_aligned(self, odd):
        swin = {**SWIN, 'out_indices': (1,)}
        modalities = dict(rgb=dict(channels=3, backbone=swin), sar=dict(channels=1, backbone=odd))
        model = dual(backbone=None, modalities=modalities, fusion='concat').eval()
        assert model.out_channels == [22]
        (fused,) = model(images(1, size=(52, 52)))
        assert tuple(fused.shape) == (1, 22, 7, 7)

    def test_one_band_in_an_encoder_of_three(self):
        modalities = dict(sar=dict(channels=1, backbone=dict(in_channels=3)))
        model, x = dual(modalities=modalities).eval(), images(1, 1)
        close(model(x), model.branches['sar'](x.repeat(1, 3, 1, 1)))

    def test_a_checkpoint_for_each_branch(self, tmp_path):
        sources = {}
        for name, bands in (('rgb', 3), ('sar', 1)):
            source = MODELS.build({**SWIN, 'in_channels': bands})
            source.init_weights()
            for parameter in source.parameters():
                nn.init.normal_(parameter, std=0.02)
            saved = dict(meta=describe_model(source), state_dict=source.state_dict())
            torch.save(saved, tmp_path / f'{name}.pth')
            sources[name] = source.state_dict()
        config = {
            name: dict(
                channels=bands,
                backbone=dict(
                    init_cfg=dict(
                        type='mmrsfm.Pretrained', checkpoint=str(tmp_path / f'{name}.pth')
                    )
                ),
            )
            for name, bands in (('rgb', 3), ('sar', 1))
        }
        model = dual(modalities=config)
        for name, source in sources.items():
            loaded = model.branches[name].state_dict()
            assert all(torch.equal(value, loaded[key]) for key, value in source.items())

    def test_attention_of_a_pretraining(self, tmp_path):
        arguments = dict(num_heads=2, depth=1)
        neck = MODELS.build(dict(type='mmrsfm.MetaModalityAttention', channels=64, **arguments))
        source = dual().state_dict()
        state = {f'backbone.{name}': value for name, value in source.items()}
        state.update({f'neck.{name}': value for name, value in neck.state_dict().items()})
        meta = dict(mmrsfm_traits={})
        torch.save(dict(meta=meta, state_dict=state), tmp_path / 'mars.pth')
        weights = dict(type='mmrsfm.Pretrained', checkpoint=str(tmp_path / 'mars.pth'), part='neck')
        last = dict(attention=dict(init_cfg=weights, **arguments))
        model = dual(fusion=['add', 'add', 'add', last])
        loaded = model.fusions[3].attention.state_dict()
        assert all(torch.equal(value, loaded[name]) for name, value in neck.state_dict().items())

    def test_options_of_all_branches(self):
        modalities = dict(rgb=3, sar=dict(channels=1, backbone=dict(frozen_stages=-1)))
        model = dual(modalities=modalities, frozen_stages=1, with_cp=True)
        assert [model.branches[n].frozen_stages for n in ('rgb', 'sar')] == [1, -1]
        assert copy.deepcopy(model).branches['sar'] is not model.branches['sar']

    def test_layer_depth_ends_together(self):
        deep = dict(arch=dict(embed_dims=8, depths=[1, 1, 3, 1], num_heads=[1, 1, 2, 2]))
        model = dual(modalities=dict(rgb=3, sar=dict(channels=1, backbone=deep)))
        total = model.get_layer_depth('x', 'backbone.')[1]
        last = 'backbone.branches.{}.stages.3.blocks.0.norm1.weight'
        depths = [model.get_layer_depth(last.format(n), 'backbone.') for n in ('rgb', 'sar')]
        assert depths[0] == depths[1] == (total - 2, total)
        stem = 'backbone.branches.{}.patch_embed.norm.weight'
        assert model.get_layer_depth(stem.format('sar'), 'backbone.') == (0, total)
        assert model.get_layer_depth(stem.format('rgb'), 'backbone.') == (2, total)


class TestFailures:
    @pytest.mark.parametrize(
        ('changes', 'sentence'),
        [
            ({'modalities': {}}, 'at least one modality'),
            ({'modalities': {'a.b': 3}}, 'plain word'),
            ({'modalities': {'items': 3}}, 'plain word'),
            ({'modalities': {'rgb': {'bands': 3}}}, 'needs channels'),
            ({'modalities': {'rgb': 0}}, 'at least one channel'),
            ({'backbone': None}, 'has no backbone'),
            ({'modalities': {'sar': {'channels': 2, 'backbone': {'in_channels': 3}}}}, 'multiple'),
            ({'fusion': 'times'}, "mode 'times' is not one of"),
            ({'fusion': ['add']}, '1 entries, the branches return 4'),
            ({'fusion': 'diff', 'modalities': {'rgb': 3}}, 'takes two modalities'),
            ({'fusion': {'max_tokens': 0}}, 'at least 1'),
            ({'input_modalities': ['dsm']}, 'some of'),
            ({'input_modalities': 'sar'}, 'some of'),
            ({'modality_dropout': 1.5}, 'probability'),
            ({'modality_dropout': {'dsm': 0.1}}, 'probability'),
            ({'modality_dropout': {'dsm': 0.1}, 'input_modalities': ['sar']}, 'probability'),
        ],
    )
    def test_contradictions(self, changes, sentence):
        with pytest.raises(ConfigError, match=sentence):
            dual(**changes)

    def test_branches_that_do_not_fit(self, odd):
        fewer = dict(channels=1, backbone=dict(out_indices=(0, 1)))
        with pytest.raises(ConfigError, match='different numbers of maps'):
            dual(modalities=dict(rgb=3, sar=fewer))
        wider = dict(arch=dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]))
        with pytest.raises(ConfigError, match=r'different channels.*Give channels'):
            dual(modalities=dict(rgb=3, sar=dict(channels=1, backbone=wider)))
        odd = dict(type='mmrsfm.OddForTests', width=4, strict=True)
        MODELS.get('mmrsfm.OddForTests').forward = lambda self, x: 1 / 0
        with pytest.raises(ConfigError, match=r'could not be found out.*give out_channels'):
            dual(backbone=odd)

    def test_wrong_channels(self):
        with pytest.raises(ConfigError, match='rgb=3, sar=1'):
            dual()(images(channels=3))

    def test_vectors_are_no_maps(self):
        vit = dict(
            type='mmpretrain.VisionTransformer', img_size=32, patch_size=16,
            arch=dict(embed_dims=8, num_layers=1, num_heads=1, feedforward_channels=8),
        )  # fmt: skip
        modalities = dict(rgb=dict(channels=3, backbone=vit, out_channels=[8]))
        with pytest.raises(ConfigError, match='out_type'):
            dual(backbone=None, modalities=modalities)(images(1, 3, (32, 32)))
