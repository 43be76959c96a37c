# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""RVSAViT against arrays that the six reference copies of the backbone computed."""

import pytest
import torch

from mmrsfm.checkpoints import load_pretrained
from mmrsfm.models.backbones import RVSAViT
from tests.parity import Fixture, assert_parity, parity_files

# Arguments of the reference that it accepts and that change nothing.
WITHOUT_EFFECT = {
    'use_rel_pos_bias', 'use_shared_rel_pos_bias', 'num_classes', 'restart_regression',
    'pretrained', 'hybrid_backbone', 'norm_layer', 'qk_scale',
}  # fmt: skip
# By variant (or its folder, by the class): full-attention tables, final norm, last layer only,
# pyramid.
VARIANTS = {
    'pretrain': (True, True, False, True),
    'seg': (True, False, False, True),
    'cls': (True, True, False, False),
    'cd': (True, True, False, False),
    'det': (False, True, True, True),
    'det_branches': (False, False, False, True),
}


def variant_of(meta):
    """The name that the fixture gives, or what its file and class say."""
    if meta.get('variant') in VARIANTS:
        return meta['variant']
    file, name = meta.get('ref_file', ''), meta.get('ref_class', '')
    if 'branches' in file or 'branches' in name:
        return 'det_branches'
    for part, variant in (
        ('Multi-Task_Pretrain', 'pretrain'), ('mmseg', 'seg'), ('mmpretrain', 'cls'),
        ('opencd', 'cd'), ('mmdet', 'det'), ('mmrotate', 'det'),
    ):  # fmt: skip
        if part in file:
            return variant
    raise AssertionError(f'which copy of the backbone is {meta}?')


def build(kwargs, variant):
    """Our backbone from the arguments of the reference, with its defaults."""
    kwargs = dict(kwargs)
    take = kwargs.pop
    for name in WITHOUT_EFFECT & set(kwargs):
        take(name)
    full_rel_pos, final_norm, last_layer_only, with_fpn = VARIANTS[variant]
    depth = take('depth', 12)
    # The reference returns its maps in the order of the blocks, each once.
    out_indices = sorted({index % depth for index in take('out_indices', [11])})
    # Some loader fixtures name too few blocks for a pyramid: they are loaded, never run.
    while with_fpn and len(out_indices) < 4:
        out_indices.append(out_indices[-1])
    model = RVSAViT(
        arch=dict(
            embed_dims=take('embed_dim', 768),
            num_layers=depth,
            num_heads=take('num_heads', 12),
            mlp_ratio=take('mlp_ratio', 4.0),
            interval=take('interval', 3),
        ),
        img_size=take('img_size', 224),
        patch_size=take('patch_size', 16),
        in_channels=take('in_chans', 3),
        out_indices=out_indices,
        drop_rate=take('drop_rate', 0.0),
        attn_drop_rate=take('attn_drop_rate', 0.0),
        drop_path_rate=take('drop_path_rate', 0.0),
        full_rel_pos=full_rel_pos,
        final_norm=final_norm,
        last_layer_only=last_layer_only,
        with_fpn=with_fpn,
        frozen_stages=take('frozen_stages', -1),
        with_cp=take('use_checkpoint', False),
        init_values=take('init_values', None),
        qkv_bias=take('qkv_bias', False),
        use_abs_pos_emb=take('use_abs_pos_emb', False),
        rel_pos_tables='reference',
        partial_patches='drop',
    )
    assert not kwargs, f'the test knows nothing of {sorted(kwargs)}'
    return model


def watch(model, names):
    """Records the outputs of modules."""
    found = {}
    for name in names:

        def hook(module, inputs, output, name=name):
            found[name] = output[0] if isinstance(output, tuple) else output

        model.get_submodule(name).register_forward_hook(hook)
    return found


@pytest.mark.parametrize('path', parity_files('rvsa_tiny_*.npz'))
def test_parity_rvsa_features(path):
    fixture = Fixture(path)
    meta, kwargs = fixture.json('meta_json'), fixture.json('kwargs_json')
    model = build(kwargs, variant_of(meta)).eval()
    state = fixture.group('sd')
    model.load_state_dict(state, strict=True)
    reference = fixture.group('mid')
    found = watch(model, reference)
    with torch.no_grad():
        maps = model(fixture.tensor('input'))
    outputs = fixture.group('out')
    assert len(maps) == len(outputs)
    for number, value in enumerate(maps):
        error = (value - outputs[str(number)]).abs().max().item()
        assert error <= 2e-4, f'out/{number}: max|difference| {error:.3g}'
        assert_parity(value, outputs[str(number)], f'out/{number}')
    for name, value in reference.items():
        assert (found[name] - value).abs().max().item() <= 2e-4, name
    assert fixture.unused == []


def is_buffer(name):
    """Computed from the architecture: the reference stores it, no file needs it."""
    return name.endswith('relative_position_index')


@pytest.mark.parametrize('path', parity_files('rvsa_ckptload_*.npz'))
def test_parity_rvsa_loading(path):
    """What the loaders of the reference make of a checkpoint: every number, every missing name."""
    fixture = Fixture(path)
    meta = fixture.json('meta_json')
    kwargs = meta['kwargs'] if 'kwargs' in meta else fixture.json()
    torch.manual_seed(0)
    model = build(kwargs, variant_of(meta))
    model.init_weights()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    source, expected = fixture.group('src'), fixture.group('dst')
    bands = next(
        (v.shape[1] for k, v in source.items() if k.endswith('patch_embed.proj.weight')), 3
    )
    # Where the file keeps its weights; beside them it holds other things.
    wrapper = meta.get('wrapper', '')
    container = next((name for name in ('state_dict', 'model') if f"'{name}'" in wrapper), None)
    report = load_pretrained(
        model,
        {container: source, 'epoch': 1} if container else source,
        # With other bands the reference keeps the initial stem.
        adapt=None if bands == model.in_channels else 'random',
    )
    after = model.state_dict()
    assert {name for name in report.matched if not is_buffer(name)} == {
        name for name in expected if not is_buffer(name)
    }
    for name, value in expected.items():
        assert torch.equal(after[name], value), f'dst/{name}'
    for name in set(after) - set(expected):
        assert torch.equal(after[name], before[name]), f'{name} should have been left alone'
    missing = {name for name in meta.get('missing', []) if not is_buffer(name)}
    assert {name for name in report.missing if not is_buffer(name)} == missing
    left = {name.removeprefix('backbone.').split('.')[-1] for name in report.unexpected}
    left |= {name.removeprefix('backbone.').split('.')[-1] for name in report.dropped}
    assert {name.split('.')[-1] for name in meta.get('unexpected', [])} <= left
    fixture.used |= {'kwargs_json'} & set(fixture.arrays)
    assert fixture.unused == []
