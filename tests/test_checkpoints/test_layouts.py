# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Layouts: one is recognised, conversion loses nothing, export gives back what came."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrsfm.checkpoints import convert_state_dict, detect_layout, get_layout, known_layouts
from mmrsfm.checkpoints.keymap import KeyMap
from mmrsfm.errors import CheckpointError, UnknownLayoutError
from tests.parity import parity_files


def block(prefix, names, dim):
    shapes = {'qkv': (3 * dim, dim), 'fc1': (4 * dim, dim), 'fc2': (dim, 4 * dim)}
    state = {}
    for name in names:
        shape = shapes.get(name.rsplit('.', 1)[-1], (dim,) if 'norm' in name else (dim, dim))
        state[f'{prefix}.{name}.weight'] = torch.randn(shape)
        state[f'{prefix}.{name}.bias'] = torch.randn(shape[0])
    return state


TIMM = ('norm1', 'attn.qkv', 'attn.proj', 'norm2', 'mlp.fc1', 'mlp.fc2')


def timm_vit(depth=2, dim=4, head=None, fc_norm=False, grid=(2, 2), bands=3):
    state = {
        'cls_token': torch.randn(1, 1, dim),
        'pos_embed': torch.randn(1, 1 + grid[0] * grid[1], dim),
        'patch_embed.proj.weight': torch.randn(dim, bands, 2, 2),
        'patch_embed.proj.bias': torch.randn(dim),
    }
    for index in range(depth):
        state.update(block(f'blocks.{index}', TIMM, dim))
    norm = 'fc_norm' if fc_norm else 'norm'
    state.update({f'{norm}.weight': torch.randn(dim), f'{norm}.bias': torch.randn(dim)})
    if head:
        state.update({f'{head}.weight': torch.randn(5, dim), f'{head}.bias': torch.randn(5)})
    return state


def facebook_mae(depth=2, dim=4, decoder_depth=1, **kwargs):
    state = timm_vit(depth, dim, **kwargs)
    state.update(
        {
            'mask_token': torch.randn(1, 1, dim),
            'decoder_embed.weight': torch.randn(dim, dim),
            'decoder_embed.bias': torch.randn(dim),
            'decoder_pos_embed': torch.randn(1, 5, dim),
            'decoder_norm.weight': torch.randn(dim),
            'decoder_norm.bias': torch.randn(dim),
            'decoder_pred.weight': torch.randn(12, dim),
            'decoder_pred.bias': torch.randn(12),
        }
    )
    for index in range(decoder_depth):
        state.update(block(f'decoder_blocks.{index}', TIMM, dim))
    return state


def cross_scale(depth=2, dim=4, decoder_depth=1, xformers=False):
    state = {}
    for name, value in facebook_mae(depth, dim, decoder_depth).items():
        if name == 'pos_embed':
            name = 'encoder_pos_embed'
        elif name.startswith('norm.'):
            name = f'encoder_{name}'
        name = name.replace('decoder_blocks.', 'decoder.').replace('blocks.', 'encoder.')
        if xformers and ('encoder.' in name or 'decoder.' in name):
            side, index, rest = name.split('.', 2)
            base = f'{side}.encoders.{index}'
            for theirs, new in (
                ('norm1', 'wrap_att.norm'),
                ('attn.proj', 'wrap_att.sublayer.layer.proj'),
                ('norm2', 'wrap_ff.norm'),
                ('mlp.fc1', 'wrap_ff.sublayer.layer.mlp.0'),
                ('mlp.fc2', 'wrap_ff.sublayer.layer.mlp.3'),
            ):
                if rest.startswith(theirs):
                    state[f'{base}.{new}{rest[len(theirs) :]}'] = value
            if rest.startswith('attn.qkv'):
                kind = rest.rsplit('.', 1)[1]
                for letter, part in zip('qkv', value.chunk(3), strict=True):
                    container = f'{base}.wrap_att.sublayer.layer.in_proj_container'
                    state[f'{container}.{letter}_proj.{kind}'] = part.clone()
        else:
            state[name] = value
    for name, shape in (
        ('0.weight', (8, dim)), ('0.bias', (8,)), ('1.weight', (4,)), ('1.bias', (4,)),
        ('1.running_mean', (4,)), ('1.running_var', (4,)), ('3.weight', (dim, 8)),
        ('3.bias', (dim,)),
    ):  # fmt: skip
        state[f'predictor.{name}'] = torch.randn(shape)
    return state


def rvsa(depth=2, decoder_depth=1, prefix='', decoder=''):
    state = {prefix + name: value for name, value in timm_vit(depth).items() if name != 'cls_token'}
    for index in range(depth):
        attn = f'{prefix}blocks.{index}.attn'
        if (index + 1) % 3 == 0:
            state[f'{attn}.full_attn_rel_pos_h'] = torch.randn(3, 2)
            state[f'{attn}.full_attn_rel_pos_w'] = torch.randn(3, 2)
            continue
        state[f'{attn}.rel_pos_h'] = torch.randn(13, 2)
        state[f'{attn}.relative_position_index'] = torch.zeros(49, 49, dtype=torch.int64)
        for part, count in (('offsets', 4), ('scales', 4), ('angles', 2)):
            state[f'{attn}.sampling_{part}.2.weight'] = torch.randn(count, 4, 1, 1)
    state[f'{prefix}fpn1.1.ln.weight'] = torch.randn(4)
    if decoder:
        for index in range(decoder_depth):
            state[f'{decoder}.{index}.weight'] = torch.randn(2)
    return state


def intern_image(depth=2, decoder_depth=1, prefix='', head=''):
    state = {f'{prefix}patch_embed.conv1.weight': torch.randn(2, 3, 3, 3)}
    for index in range(depth):
        for name in ('norm1.0', 'dcn.offset', 'dcn.dw_conv.1.1', 'mlp.fc1'):
            state[f'{prefix}levels.0.blocks.{index}.{name}.weight'] = torch.randn(4)
    state[f'{prefix}levels.0.downsample.norm.1.bias'] = torch.randn(4)
    for index in range(decoder_depth):
        state[f'{head}.{index}.weight'] = torch.randn(2)
    return state


def swin(depth=2, decoder_depth=1, prefix='', stage='layers.', late=False, head='head.fc', dim=2):
    """Two stages of timm's SwinV2; ``decoder_depth``: classes of the head."""
    state = {
        f'{prefix}patch_embed.proj.weight': torch.randn(dim, 3, 4, 4),
        f'{prefix}patch_embed.norm.bias': torch.randn(dim),
        f'{prefix}{stage}{0 if late else 1}.downsample.reduction.weight': torch.randn(4, 8),
        f'{prefix}{stage}{0 if late else 1}.downsample.norm.weight': torch.randn(4),
    }
    for index in range(depth):
        for name in ('attn.q_bias', 'attn.cpb_mlp.0.weight', 'attn.qkv.weight', 'norm1.weight',
                     'attn.logit_scale', 'mlp.fc1.bias', 'mlp.fc2.weight'):  # fmt: skip
            state[f'{prefix}{stage}0.blocks.{index}.{name}'] = torch.randn(dim)
    if head:
        state[f'{prefix}norm.weight'] = torch.randn(4)
        state[f'{prefix}{head}.weight'] = torch.randn(decoder_depth, 4)
    return state


def mars(depth=2, decoder_depth=1):
    """Two encoders and a teacher; ``decoder_depth``: layers of attention."""
    state = {'contrast_temp': torch.ones(()), 'decoder_rgb.0.bias': torch.randn(3)}
    for encoder in ('encoder_rgb', 'encoder_sar', 'teacher_encoder'):
        state[f'{encoder}.mask_token'] = torch.randn(1, 1, 2)
        state.update(swin(depth, prefix=f'{encoder}.encoder.'))
    for index in range(decoder_depth):
        for name in ('0.weight', '1.in_proj_weight', '1.out_proj.bias', '3.fc1.weight'):
            for kind in ('modality_blocks', 'global_blocks'):
                state[f'alternating_attn.{kind}.{index}.{name}'] = torch.randn(2)
    return state


def mixmim(depth=2, decoder_depth=1, decoder=False):
    """``decoder_depth``: layers of the decoder, or classes of the head."""
    state = {
        'absolute_pos_embed': torch.randn(1, 4, 2),
        'patch_embed.proj.weight': torch.randn(2, 2, 4, 4),
        'patch_embed.norm.bias': torch.randn(2),
        'layers.0.downsample.reduction.weight': torch.randn(4, 8),
        'layers.0.downsample.norm.weight': torch.randn(8),
        'norm.weight': torch.randn(4),
    }
    for index in range(depth):
        for name in ('norm1.weight', 'norm2.bias', 'attn.relative_position_bias_table',
                     'attn.qkv.weight', 'mlp.fc1.bias', 'mlp.fc2.weight'):  # fmt: skip
            state[f'layers.0.blocks.{index}.{name}'] = torch.randn(2)
    if not decoder:
        state['head.weight'] = torch.randn(decoder_depth, 4)
        return state
    state.update({'mask_token': torch.randn(1, 1, 2), 'decoder_norm.weight': torch.randn(2)})
    state.update({f'decoder_{n}': torch.randn(2) for n in ('embed.weight', 'pred.bias')})
    for index in range(decoder_depth):
        state.update(block(f'decoder_blocks.{index}', TIMM, 2))
    return state


def conv_next(depth=2, decoder_depth=1, stem='stem', layers=3):
    """Blocks of one stage; ``decoder_depth``: classes of the head."""
    state = {f'downsample_layers.{layers - 1}.1.weight': torch.randn(2, 2, 2, 2)}
    if stem:
        state[f'{stem}.0.weight'] = torch.randn(2, 2, 1, 1)
    if stem == 'stem':
        state['initial_conv.0.weight'] = torch.randn(2, 12, 3, 3)
    for index in range(depth):
        for name in ('dwconv.weight', 'norm.bias', 'pwconv1.weight', 'pwconv2.bias'):
            state[f'stages.0.{index}.{name}'] = torch.randn(2)
        state[f'stages.0.{index}.grn.gamma'] = torch.randn(1, 1, 1, 8)
    return {**state, 'norm.bias': torch.randn(2), 'head.weight': torch.randn(decoder_depth, 2)}


def mp_mae(depth=2, decoder_depth=1):
    """A decoder for each of two modalities; ``decoder_depth``: its blocks."""
    state = {
        'mask_token': torch.randn(1, 2, 1, 1),
        'proj.weight': torch.randn(2, 2, 1, 1),
        'layer_norm_tmp.bias': torch.randn(2),
        'loss_fn.log_vars': torch.randn(2),
        'pred_dict.aster.weight': torch.randn(64, 2, 1, 1),
        'pred_dict.lat.weight': torch.randn(2, 2),
        'encoder.initial_conv.0.kernel': torch.randn(9, 12, 2),
        'encoder.initial_conv.1.ln.bias': torch.randn(2),
        'encoder.stem.0.kernel': torch.randn(1, 2),
        'encoder.stem.0.bias': torch.randn(1, 2),
        'encoder.downsample_layers.0.0.ln.weight': torch.randn(2),
        'encoder.downsample_layers.0.1.kernel': torch.randn(4, 2, 3),
        'encoder.downsample_layers.0.1.bias': torch.randn(1, 3),
    }
    for index in range(depth):
        for name, shape in (
            ('dwconv.kernel', (49, 2)), ('dwconv.bias', (1, 2)), ('norm.ln.weight', (2,)),
            ('pwconv1.linear.bias', (8,)), ('grn.beta', (1, 8)), ('pwconv2.linear.weight', (2, 8)),
        ):  # fmt: skip
            state[f'encoder.stages.0.{index}.{name}'] = torch.randn(shape)
    for index in range(decoder_depth):
        for name, shape in (('dwconv.weight', (2, 1, 7, 7)), ('grn.gamma', (1, 1, 1, 8))):
            value = torch.randn(shape)
            for modality in ('aster', 'lat'):
                state[f'decoder_dict.{modality}.{index}.{name}'] = value
    return state


EXAMPLES = {
    'conv_next_v2': lambda **kwargs: conv_next(stem='', layers=4, **kwargs),
    'mp_mae': mp_mae,
    'mp_mae_finetuned': conv_next,
    'sar_w_mixmae': lambda **kwargs: mixmim(decoder=True, **kwargs),
    'sar_w_mixmae_finetuned': mixmim,
    'timm_swin_v2': swin,
    'swin_v2': lambda **kwargs: swin(late=True, head='head', **kwargs),
    'mars_encoder': lambda **kwargs: swin(stage='layers_', head='', **kwargs),
    'mars_model': mars,
    'mmpretrain_swin_v2': lambda **kwargs: convert_state_dict(swin(**kwargs)),
    'intern_image': lambda **kwargs: intern_image(head='conv_head', **kwargs),
    'intern_image_finetuned': lambda **kwargs: intern_image(
        prefix='backbone.', head='neck.convs', **kwargs
    ),
    'mtp_encoder': rvsa,
    'mtp_model': lambda **kwargs: rvsa(
        prefix='encoder.', decoder='rotdetdecoder.neck.convs', **kwargs
    ),
    'rvsa_finetuned': lambda **kwargs: rvsa(prefix='backbone.', decoder='neck.convs', **kwargs),
    'timm_vit': timm_vit,
    'facebook_mae': facebook_mae,
    'cross_scale_mae': cross_scale,
    'cross_scale_mae_xformers': lambda **kwargs: cross_scale(xformers=True, **kwargs),
    'mmpretrain_vit': lambda **kwargs: convert_state_dict(facebook_mae(**kwargs)),
    'mmrsfm': lambda **kwargs: convert_state_dict(cross_scale(**kwargs)),
}


def assert_same(one, other):
    assert set(one) == set(other)
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_every_layout_has_an_example_here_and_says_where_it_is_from():
    assert set(known_layouts()) == set(EXAMPLES)
    for name, layout in known_layouts().items():
        assert layout.name == name and layout.origin and layout.licence and layout.__doc__


@pytest.mark.parametrize('name', EXAMPLES)
@settings(max_examples=8, deadline=None)
@given(depth=st.integers(1, 12), decoder=st.integers(1, 3))
def test_detected_alone_and_round_trip(name, depth, decoder):
    kwargs = {'depth': depth} if name == 'timm_vit' else {'depth': depth, 'decoder_depth': decoder}
    state = EXAMPLES[name](**kwargs)
    assert detect_layout(state).name == name
    assert [x.name for x in known_layouts().values() if x.matches(state, {})] == [name]
    ours, unknown = get_layout(name).to_mmrsfm(state)
    assert not unknown
    parts = {key.split('.')[0] for key in ours}
    others = {'decoders', 'heads', 'teacher', 'contrast', 'unused'}
    assert parts <= {'backbone', 'neck', 'predictor', 'head'} | others
    back, homeless = get_layout(name).from_mmrsfm(ours)
    assert not homeless
    assert_same(back, state)
    again, _ = get_layout(name).to_mmrsfm(back)
    assert_same(again, ours)


def test_names_of_ours_for_one_block():
    ours = convert_state_dict(timm_vit(depth=12, head='head'))
    assert {key for key in ours if key.startswith('backbone.layers.11.')} == {
        f'backbone.layers.11.{part}.{kind}'
        for part in ('ln1', 'attn.qkv', 'attn.proj', 'ln2', 'ffn.layers.0.0', 'ffn.layers.1')
        for kind in ('weight', 'bias')
    }
    assert {'backbone.cls_token', 'backbone.pos_embed', 'backbone.ln1.weight'} <= set(ours)
    assert 'head.fc.weight' in ours
    pooled = convert_state_dict(timm_vit(fc_norm=True))
    assert 'backbone.ln2.weight' in pooled and 'backbone.ln1.weight' not in pooled


def test_head_of_linear_probing():
    state = timm_vit(head='head.1')
    state.update({'head.0.running_mean': torch.ones(4), 'head.0.running_var': torch.ones(4)})
    ours = convert_state_dict(state)
    assert {'neck.bn.running_mean', 'head.fc.weight'} <= set(ours)
    assert_same(convert_state_dict(ours, 'mmrsfm', 'timm_vit'), state)


def test_encoder_only_release_of_mae_is_a_timm_vit():
    assert detect_layout(timm_vit()).name == 'timm_vit'


def test_relatives_of_the_vit_are_not_taken_for_it():
    state = timm_vit()
    state['blocks.0.attn.rel_pos_h'] = torch.zeros(3, 2)
    with pytest.raises(UnknownLayoutError, match='no layout fits'):
        detect_layout(state)


def test_unknown_and_ambiguous_layouts():
    with pytest.raises(UnknownLayoutError, match=r'no layout fits.*stem\.conv.*Known layouts'):
        detect_layout({'stem.conv.weight': torch.ones(1)})
    both = {**timm_vit(), **cross_scale()}
    with pytest.raises(UnknownLayoutError, match=r'more than one.*cross_scale_mae, facebook_mae'):
        detect_layout(both)
    with pytest.raises(UnknownLayoutError, match="there is no layout 'x'"):
        get_layout('x')


def test_own_checkpoints_are_known_by_their_meta():
    state = convert_state_dict(timm_vit())
    assert detect_layout(state).name == 'mmpretrain_vit'
    assert detect_layout(state, {'mmrsfm_contract': {}}).name == 'mmrsfm'
    other = {'backbone.stages.0.weight': torch.ones(1), 'decode_head.conv.weight': torch.ones(1)}
    assert detect_layout(other, {'mmrsfm_traits': {}}).name == 'mmrsfm'


def test_bare_mmpretrain_backbone_gets_a_prefix():
    state = convert_state_dict(timm_vit())
    bare = {name.removeprefix('backbone.'): value for name, value in state.items()}
    assert detect_layout(bare).name == 'mmpretrain_vit'
    assert_same(convert_state_dict(bare), state)


def test_xformers_qkv_is_the_stack_of_q_k_v():
    fused, split = cross_scale(), None
    torch.manual_seed(1)
    split = cross_scale(xformers=True)
    ours = convert_state_dict(split)
    container = 'encoder.encoders.1.wrap_att.sublayer.layer.in_proj_container'
    expected = torch.cat([split[f'{container}.{x}_proj.weight'] for x in 'qkv'])
    assert torch.equal(ours['backbone.layers.1.attn.qkv.weight'], expected)
    assert set(ours) == set(convert_state_dict(fused))
    del split[f'{container}.k_proj.weight']
    with pytest.raises(CheckpointError, match=r'k_proj\.weight'):
        convert_state_dict(split)


def test_post_norm_is_not_exported_as_pre_norm():
    with pytest.raises(CheckpointError, match=r'post-norm.*pre-norm'):
        convert_state_dict(cross_scale(xformers=True), target='timm_vit')


def test_names_without_a_place_are_an_error_or_left_out():
    state = {**timm_vit(), 'something.else': torch.ones(1)}
    with pytest.raises(CheckpointError, match=r'1 entries have no place.*something\.else'):
        convert_state_dict(state)
    assert len(convert_state_dict(state, strict=False)) == len(state) - 1
    # A timm ViT has no place for a decoder.
    with pytest.raises(CheckpointError, match=r'neck\.decoder_embed'):
        convert_state_dict(facebook_mae(), target='timm_vit')


def test_two_entries_may_not_become_one():
    state = {**timm_vit(head='head'), 'head.1.weight': torch.ones(5, 4)}
    with pytest.raises(CheckpointError, match=r'two entries.*head\.fc\.weight'):
        convert_state_dict(state)


def test_prefixes_match_whole_components():
    keymap = KeyMap([('a.{n}.norm1', 'b.{n}.ln1'), ('norm', 'ln')])
    assert keymap.forward('a.12.norm1.weight') == 'b.12.ln1.weight'
    assert keymap.forward('a.12.norm10.weight') is None
    assert keymap.forward('a.x.norm1') is None
    assert keymap.forward('xnorm.weight') is None
    assert keymap.backward('b.3.ln1') == 'a.3.norm1'
    with pytest.raises(ValueError, match='unequally many'):
        KeyMap([('a.{n}', 'b')])


def empty_state(shapes):
    """Tensors of these shapes that take no memory."""
    return {name: torch.empty(shape, device='meta') for name, shape in shapes.items()}


@pytest.mark.parametrize('path', parity_files('keys/crossscale_mae_*.json'))
def test_parity_key_tables_convert_whole_and_back(path):
    shapes = json.loads(path.read_text())
    state = empty_state(shapes)
    layout = detect_layout(state)
    assert layout.name == (
        'cross_scale_mae_xformers' if 'xformers' in path.stem else 'cross_scale_mae'
    )
    ours = convert_state_dict(state)
    back = convert_state_dict(ours, 'mmrsfm', layout.name)
    assert {name: list(value.shape) for name, value in back.items()} == shapes


@pytest.mark.parametrize('path', parity_files('keys/crossscale_mae_*.json'))
def test_parity_key_tables_are_exactly_the_model(path):
    from mmrsfm.registry import MODELS

    shapes = json.loads(path.read_text())
    ours = convert_state_dict(empty_state(shapes))
    style = 'post' if 'xformers' in path.stem else 'pre'
    arch = 'large' if 'large' in path.stem else 'base'
    with torch.device('meta'):
        model = MODELS.build(
            dict(
                type='mmrsfm.CrossScaleMAE',
                backbone=dict(
                    type='mmrsfm.CrossScaleViT', arch=arch, img_size=128, norm_style=style
                ),
                neck=dict(
                    type='mmrsfm.CrossScaleMAEDecoder',
                    img_size=128,
                    embed_dim=1024 if arch == 'large' else 768,
                    norm_style=style,
                ),
            )
        )
    wanted = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert {name: list(value.shape) for name, value in ours.items()} == wanted


def test_task_weights_of_mp_mae_go_by_name():
    """They are one vector in the published order of targets, whatever the order of predictors."""
    state = {f'pred_dict.{name}.bias': torch.zeros(2) for name in ('lat', 'sentinel2', 'aster')}
    published = {**state, 'loss_fn.log_vars': torch.tensor([0.2, 0.1, 0.3])}  # S2, ASTER, latitude
    layout = get_layout('mp_mae')
    ours, unknown = layout.to_mmrsfm(published)
    assert not unknown
    expected = torch.tensor([0.3, 0.2, 0.1])
    torch.testing.assert_close(ours['head.weighting.log_vars'], expected)
    back, homeless = layout.from_mmrsfm(ours)
    assert not homeless
    assert_same(back, published)
    # Whose the weights are is not known where predictors are missing.
    published.pop('pred_dict.lat.bias')
    ours, unknown = layout.to_mmrsfm(published)
    assert unknown == ['loss_fn.log_vars']
    assert 'head.weighting.log_vars' not in ours
