# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Layer decay: the published groups, real models, wrappers, failure paths."""

import json
import re

import pytest
import torch
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmrsfm.errors import ConfigError
from mmrsfm.models.backbones import InternImage, RVSAViT, SwinV2
from mmrsfm.registry import MODELS
from tests.parity import parity_files

RVSA = 'mmrsfm.RVSALayerDecayOptimWrapperConstructor'
INTERN = 'mmrsfm.InternImageLayerDecayOptimWrapperConstructor'
SWIN = 'mmrsfm.SwinLayerDecayOptimWrapperConstructor'
# What has one dimension in the reference's models, by name.
FLAT = re.compile(r'(bias|gamma\d|\b(norm\d?|ln|bn)(\.\d)*\.weight|dw_conv\.1\.1\.weight)$')


def build(model, constructor, lr=1.0, weight_decay=0.05, **paramwise):
    config = dict(
        optimizer=dict(type='AdamW', lr=lr, weight_decay=weight_decay),
        constructor=constructor,
        paramwise_cfg={'layer_decay_rate': 0.5, **paramwise},
    )
    return build_optim_wrapper(model, config).optimizer


def groups_of(model, optimizer):
    """The group of each trained parameter, by its name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for group in optimizer.param_groups:
        for parameter in group['params']:
            name = names[id(parameter)]
            assert name not in found, f'{name} is in two groups'
            found[name] = group
    return found


def model_of_names(names):
    """Modules that hold nothing but parameters of these names."""
    root = nn.Module()
    for name in names:
        *path, last = name.split('.')
        module = root
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = getattr(module, part)
        shape = (2,) if FLAT.search(name) else (2, 2)
        module.register_parameter(last, nn.Parameter(torch.zeros(shape)))
    return root


def entries(effective=False):
    """Every model of every table; an absent folder gives the skipped parameter.

    With ``effective``, only those where the published constructor did something.
    """
    found = []
    for parameter in parity_files('layer_decay_groups*.json'):
        path = parameter.values[0]
        if path is None:
            return [parameter]
        for name, entry in json.loads(path.read_text()).items():
            scales = {value['lr_scale'] for value in entry['params'].values()}
            if len(scales) > 1 or not effective:
                found.append(pytest.param(entry, id=name))
    return found


def constructor_of(entry):
    return INTERN if any('.levels.' in name for name in entry['params']) else RVSA


def compare(entry, names, faithful):
    """Builds a model of ``names`` (ours, theirs), and compares every parameter of the entry."""
    model = model_of_names(names)
    optimizer = build(
        model, constructor_of(entry), entry['lr'], entry['weight_decay'],
        **entry['paramwise_cfg'], faithful=faithful,
    )  # fmt: skip
    found = groups_of(model, optimizer)
    assert set(found) == set(names)
    for ours, theirs in names.items():
        group, expected = found[ours], entry['params'][theirs]
        assert group['group_name'] == expected['group'], ours
        assert group['lr_scale'] == pytest.approx(expected['lr_scale'], rel=1e-12), ours
        assert group['lr'] == pytest.approx(expected['lr'], rel=1e-12), ours
        assert group['weight_decay'] == expected['weight_decay'], ours
    return found


@pytest.mark.parametrize('entry', entries())
def test_parity_layer_decay(entry):
    """Faithful: what the published constructors did, effective or not."""
    compare(entry, {name: name for name in entry['params']}, faithful=True)


@pytest.mark.parametrize('entry', entries(effective=True))
def test_parity_layer_decay_as_intended(entry):
    """The same where they were effective, under every name that a model gives to its backbone."""
    names = list(entry['params'])
    prefix = 'encoder.' if any(name.startswith('encoder.') for name in names) else 'backbone.'
    for other in ('backbone.', 'encoder.', 'detector.backbone.', 'student.backbone.', ''):
        renamed = {
            other + name.removeprefix(prefix) if name.startswith(prefix) else name: name
            for name in names
        }
        compare(entry, renamed, faithful=False)


@pytest.mark.parametrize('path', parity_files('layer_decay_groups.json'))
def test_parity_layer_decay_of_the_true_models(path):
    """Not names, but our backbones: what the tables say of their parameters holds."""
    tables = json.loads(path.read_text())
    for table, arch, prefix in (
        ('vit_b', dict(type=RVSAViT, arch='base', final_norm=True), 'backbone.'),
        ('vit_l', dict(type=RVSAViT, arch='large', final_norm=True), 'backbone.'),
        ('intern_xl_with_encoder_prefix_as_in_pretraining', dict(type=InternImage), 'encoder.'),
    ):
        entry, model = tables[table], nn.Module()
        with torch.device('meta'):
            model.backbone = arch.pop('type')(**arch)
        optimizer = build(
            model, constructor_of(entry), entry['lr'], entry['weight_decay'],
            **entry['paramwise_cfg'],
        )  # fmt: skip
        compared = 0
        for name, group in groups_of(model, optimizer).items():
            expected = entry['params'].get(prefix + name.removeprefix('backbone.'))
            if expected is not None:
                compared += 1
                assert (group['group_name'], group['lr'], group['weight_decay']) == (
                    expected['group'], pytest.approx(expected['lr']), expected['weight_decay'],
                ), name  # fmt: skip
        assert compared > 60


# Small models.


class Task(BaseModel):
    def __init__(self, backbone, name='backbone'):
        super().__init__()
        self.add_module(name, backbone)
        self.head = nn.Linear(3, 2)

    def forward(self, *args, **kwargs):
        return None


def intern_image(**changes):
    arch = dict(channels=16, depths=[1, 1, 2, 1], groups=[1, 2, 4, 8], mlp_ratio=1.0)
    return InternImage(arch, **changes)


def rvsa(**changes):
    arch = dict(
        embed_dims=8, num_layers=3, num_heads=2, interval=3, mlp_ratio=2, out_indices=(0, 1, 2, 2)
    )
    return RVSAViT(arch, img_size=32, **changes)


SWIN_ARCH = dict(embed_dims=8, depths=[1, 2, 1, 1], num_heads=[1, 2, 2, 4])


def swin(**changes):
    return SwinV2(SWIN_ARCH, window_size=4, **changes)


def test_sizes_are_those_of_the_model_where_the_config_is_silent():
    for backbone, constructor, stated, last in (
        (rvsa(), RVSA, dict(num_layers=3), 4),
        (intern_image(), INTERN, dict(num_layers=5, depths=[1, 1, 2, 1]), 6),
        (swin(), SWIN, dict(num_layers=5, depths=[1, 2, 1, 1]), 6),
    ):
        model = Task(backbone)
        silent = groups_of(model, build(model, constructor))
        told = groups_of(model, build(model, constructor, **stated))
        assert {n: g['lr'] for n, g in silent.items()} == {n: g['lr'] for n, g in told.items()}
        assert silent['head.weight']['lr'] == 1.0
        assert min(group['lr'] for group in silent.values()) == 0.5**last


@pytest.mark.parametrize(
    ('backbone', 'constructor'), [(rvsa, RVSA), (intern_image, INTERN), (swin, SWIN)]
)
def test_agrees_with_what_the_backbones_say_of_themselves(backbone, constructor):
    model = Task(backbone())
    for name, group in groups_of(model, build(model, constructor)).items():
        depth, total = model.backbone.get_layer_depth(name, 'backbone.')
        assert group['lr'] == 0.5 ** (total - 1 - depth), name


def test_swin_blocks_merging_and_position_networks():
    model = Task(swin(mask_token=True, final_norm=True))
    found = groups_of(model, build(model, SWIN))
    rates = {
        'patch_embed.projection.weight': 6, 'mask_token': 6,
        'stages.0.blocks.0.ffn.layers.1.bias': 5,
        'stages.1.downsample.reduction.weight': 4, 'stages.1.blocks.0.attn.w_msa.qkv.weight': 4,
        'stages.1.blocks.1.norm1.weight': 3, 'stages.3.blocks.0.attn.w_msa.proj.weight': 1,
        'norm3.weight': 0,
    }  # fmt: skip
    for name, below in rates.items():
        assert found[f'backbone.{name}']['lr'] == 0.5**below, name
    for name in ('cpb_mlp.0.weight', 'cpb_mlp.2.weight', 'logit_scale', 'q_bias'):
        assert found[f'backbone.stages.1.blocks.1.attn.w_msa.{name}']['weight_decay'] == 0, name
    assert found['backbone.stages.1.blocks.1.attn.w_msa.qkv.weight']['weight_decay'] == 0.05


def test_branches_of_a_backbone():
    branch = dict(type='mmrsfm.SwinV2', arch=SWIN_ARCH, window_size=4)
    dual = MODELS.build(
        dict(
            type='mmrsfm.DualModalityBackbone', backbone=branch,
            modalities=dict(rgb=dict(channels=3), sar=dict(channels=1)), fusion='add',
        )
    )  # fmt: skip
    model = Task(dual)
    found = groups_of(model, build(model, SWIN))
    for name in ('rgb', 'sar'):
        assert found[f'backbone.branches.{name}.patch_embed.norm.bias']['lr'] == 0.5**6
    assert set(found) == {name for name, p in model.named_parameters() if p.requires_grad}


def test_every_trained_parameter_once_and_frozen_ones_never():
    model = Task(intern_image(frozen_stages=1))
    found = groups_of(model, build(model, INTERN))
    assert set(found) == {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any(name.startswith('backbone.patch_embed') for name in found)
    # As few groups as there are pairs of depth and weight decay.
    kinds = {(g['lr'], g['weight_decay']) for g in found.values()}
    assert len({id(g) for g in found.values()}) == len(kinds)


def test_extra_norms_of_the_largest_models():
    model = Task(intern_image(level2_post_norm_block_ids=[0, 1]))
    found = groups_of(model, build(model, INTERN))
    post = found['backbone.levels.2.post_norms.1.0.weight']
    assert post['lr'] == found['backbone.levels.2.downsample.conv.weight']['lr']
    assert post['weight_decay'] == 0.0


def test_ddp_and_compiled_models_are_the_models_in_them():
    model = Task(rvsa())
    expected = [group['lr'] for group in build(model, RVSA).param_groups]
    torch.distributed.init_process_group(
        'gloo', store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        wrapped = MMDistributedDataParallel(model)
        assert [group['lr'] for group in build(wrapped, RVSA).param_groups] == expected
    finally:
        torch.distributed.destroy_process_group()
    compiled = Task(torch.compile(rvsa()))
    assert 'backbone._orig_mod.patch_embed.proj.weight' in dict(compiled.named_parameters())
    assert [group['lr'] for group in build(compiled, RVSA).param_groups] == expected


def test_faithful_knows_the_published_names_only():
    model = Task(rvsa(), name='encoder')
    assert {g['lr'] for g in build(model, RVSA, faithful=True).param_groups} == {1.0}
    assert len({g['lr'] for g in build(model, RVSA).param_groups}) == 5
    model = Task(intern_image())
    assert {g['lr'] for g in build(model, INTERN, faithful=True).param_groups} == {1.0}
    model = Task(intern_image(), name='encoder')
    assert len({g['lr'] for g in build(model, INTERN, faithful=True).param_groups}) == 7


def test_blocks_of_a_head_are_no_backbone():
    model = Task(rvsa())
    model.decode_head = nn.Module()
    model.decode_head.blocks = nn.ModuleList([nn.Linear(2, 2) for _ in range(9)])
    found = groups_of(model, build(model, RVSA, num_layers=3))
    assert found['decode_head.blocks.0.weight']['lr'] == 1.0


def test_custom_keys():
    model = Task(rvsa())
    keys = {
        'head': dict(lr_mult=10.0),
        'rel_pos': dict(decay_mult=0.0),
        'head.bias': dict(decay_mult=1.0),
    }
    found = groups_of(model, build(model, RVSA, custom_keys=keys))
    assert found['head.weight']['lr'] == 10.0
    assert (found['head.bias']['lr'], found['head.bias']['weight_decay']) == (1.0, 0.05)
    assert found['backbone.blocks.0.attn.rel_pos_h']['weight_decay'] == 0.0
    with pytest.raises(ConfigError, match='lr_multiplier'):
        build(model, RVSA, custom_keys={'head': dict(lr_multiplier=2.0)})


def test_trains():
    model = Task(intern_image())
    optimizer = build(model, INTERN, lr=1e-3)
    sum(m.sum() for m in model.backbone(torch.randn(1, 3, 32, 32))).backward()
    optimizer.step()
    state = optimizer.state_dict()
    build(model, INTERN, lr=1e-3).load_state_dict(state)


@pytest.mark.parametrize(
    ('backbone', 'constructor', 'options', 'message'),
    [
        (rvsa, RVSA, dict(num_layers=2), 'num_layers=2, but backbone.blocks of the model has 3'),
        (rvsa, RVSA, dict(num_layers=12), 'num_layers=12, but backbone.blocks of the model has 3'),
        (intern_image, INTERN, dict(depths=[1, 1, 1, 1]), r'depths\[2\]=1.*has 2 layers'),
        (intern_image, INTERN, dict(depths=[5, 5, 24, 5]), r'depths\[0\]=5.*has 1 layers'),
        (intern_image, INTERN, dict(depths=[1, 1]), 'of 2 levels'),
        (intern_image, INTERN, dict(num_layers=39), 'num_layers=39, but the model has levels'),
        (
            intern_image, INTERN, dict(num_layers=4, depths=[1, 1, 2, 1]),
            'do not sum to 4',
        ),
        (intern_image, RVSA, {}, 'no parameter of the model has a name of such a backbone'),
        (rvsa, INTERN, {}, 'no parameter of the model has a name of such a backbone'),
        (swin, SWIN, dict(depths=[2, 2, 18, 2]), r'depths\[0\]=2.*has 1 layers'),
        (intern_image, SWIN, {}, 'no parameter of the model has a name of such a backbone'),
        (rvsa, RVSA, dict(layer_decay_rate=0), r'\(0, 1\], got 0'),
        (rvsa, RVSA, dict(layer_decay_rate=None), r'\(0, 1\], got None'),
        (rvsa, RVSA, dict(norm_decay_mult=0.0), 'unknown.*norm_decay_mult'),
    ],
)  # fmt: skip
def test_configs_that_do_not_fit_are_named(backbone, constructor, options, message):
    with pytest.raises(ConfigError, match=message):
        build(Task(backbone()), constructor, **options)


def test_needs_a_learning_rate():
    config = dict(
        optimizer=dict(type='AdamW'), constructor=RVSA, paramwise_cfg=dict(layer_decay_rate=0.9)
    )
    with pytest.raises(ConfigError, match='needs the lr'):
        build_optim_wrapper(Task(rvsa()), config)


def test_two_backbones_of_different_size():
    model = Task(rvsa())
    model.teacher = Task(RVSAViT(dict(
        embed_dims=8, num_layers=6, num_heads=2, interval=3, mlp_ratio=2, out_indices=(0, 1, 2, 5)
    ), img_size=32))  # fmt: skip
    with pytest.raises(ConfigError, match='different numbers of layers'):
        build(model, RVSA)
