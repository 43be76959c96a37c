# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The files of SAR-W-MixMAE: key tables, stretched tables, export, digests, layer decay."""

import json
from argparse import Namespace

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmrsfm.checkpoints import (
    convert_state_dict,
    detect_layout,
    export_checkpoint,
    load_pretrained,
    published,
    read_checkpoint,
)
from mmrsfm.errors import CheckpointError, ContractError, DigestMismatchError, IncompleteLoadError
from mmrsfm.models.backbones import MixMIM
from mmrsfm.registry import MODELS
from tests.parity import Fixture, assert_parity, parity_files

HEADS = ('finetune', 'sen12')


def backbone_of(kwargs, **changes):
    arch = dict(
        embed_dims=kwargs['embed_dim'], depths=kwargs['depths'], num_heads=kwargs['num_heads']
    )
    return MixMIM(
        arch, img_size=kwargs['img_size'], in_channels=kwargs['in_chans'],
        window_size=kwargs['window_size'], **changes,
    ).eval()  # fmt: skip


def empty(shapes):
    return {
        name: torch.empty(shape, device='meta', dtype=torch.long if 'index' in name else None)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize(
    'path', parity_files('keys/sarw_mixmae_pretrain_*.json', 'keys/sarw_mixmae_[fs]*_*.json')
)
def test_parity_key_tables(path, monkeypatch):
    """Every name has a place in our model, and gets its own name back."""
    shapes = json.loads(path.read_text())
    state = empty(shapes)
    kind, arch = path.stem.split('_')[-2:]
    layout = detect_layout(state)
    assert layout.name == ('sar_w_mixmae_finetuned' if kind in HEADS else 'sar_w_mixmae')
    ours, unknown = layout.to_mmrsfm(state)
    assert not unknown
    back, homeless = layout.from_mmrsfm(ours)
    assert not homeless
    assert {name: list(value.shape) for name, value in back.items()} == shapes
    line = torch.linspace
    monkeypatch.setattr(torch, 'linspace', lambda *args: line(*args, device='cpu'))
    backbone = dict(type='mmrsfm.MixMIM', arch=arch)
    with torch.device('meta'):
        if kind == 'pretrain':
            loss = dict(weight_domain='normalized')
            model = MODELS.build(dict(type='mmrsfm.SARWMixMAE', backbone=backbone, loss=loss))
        else:
            model = nn.Module()
            model.backbone = MODELS.build(backbone)
            model.head = nn.Module()
            model.head.fc = nn.Linear(model.backbone.out_channels[0], shapes['head.bias'][0])
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in ours.items()} == {
        name: shape for name, shape in wanted.items() if not name.startswith('data_preprocessor.')
    }


@pytest.mark.parametrize('path', parity_files('keys/sarw_mixmae_to_mmpretrain_map*.json'))
def test_parity_names_are_those_of_mmpretrain(path):
    table = json.loads(path.read_text())['map']
    for name, entry in table.items():
        width = 8 if '.downsample.' in name else 1
        value = torch.arange(4.0 * width).expand(2, -1) if 'weight' in name else torch.ones(4 * 8)
        if 'downsample.norm' in name:
            value = torch.arange(32.0)
        state = {
            'absolute_pos_embed': torch.ones(1),
            'layers.0.blocks.0.norm1.weight': torch.ones(1),
            'layers.0.blocks.0.attn.relative_position_bias_table': torch.ones(1),
            name: value,
        }
        if not name.startswith('head'):
            state.setdefault('decoder_embed.weight', torch.ones(1))
        ours = convert_state_dict(state)
        assert entry['dst'] in ours, name
        found = ours[entry['dst']]
        if entry['op'] == 'copy':
            assert torch.equal(found, value), name
        else:
            groups = value.unflatten(-1, (4, width))[..., [0, 2, 1, 3], :]
            assert torch.equal(found, groups.transpose(-1, -2).flatten(-2)), name


@pytest.mark.parametrize('path', parity_files('sarw_finetune_*.npz'))
def test_parity_features_and_export(path, tmp_path):
    fixture = Fixture(path)
    meta, state = fixture.json('meta'), fixture.group('ml/sd')
    model = backbone_of(meta['ml_kwargs'])
    torch.save(dict(model=state, epoch=3, args=Namespace(layer_decay=0.7)), tmp_path / 'w.pth')
    report = load_pretrained(model, tmp_path / 'w.pth')
    assert report.layout == 'sar_w_mixmae_finetuned'
    assert not report.unexpected
    assert len(report.matched) == len(model.state_dict())
    (features,) = model(fixture.tensor('ml/in/x'))
    assert_parity(features, fixture.tensor('ml/out/feat'), 'features')
    logits = features @ state['head.weight'].T + state['head.bias']
    assert_parity(logits, fixture.tensor('ml/out/logits'), 'logits')
    ours = {f'backbone.{name}': value for name, value in model.state_dict().items()}
    ours |= {f'head.fc.{one}': state[f'head.{one}'] for one in ('weight', 'bias')}
    made = export_checkpoint(
        dict(state_dict=ours, meta=dict(mmrsfm_traits={})), 'sar_w_mixmae_finetuned', strict=True
    )
    assert set(made.content['model']) == set(state)
    for name, value in state.items():
        assert torch.equal(made.content['model'][name], value), name


@pytest.mark.parametrize('path', parity_files('sarw_finetune_*.npz'))
def test_parity_tables_that_are_stretched(path):
    """A pretraining at 64 pixels, loaded into a model for 128."""
    fixture = Fixture(path)
    meta, interp = fixture.json('meta'), fixture.json('interp/meta')
    state = {n: v for n, v in fixture.group('ml/sd').items() if not n.startswith('head.')}
    state |= fixture.group('interp/src')
    state |= {'decoder_embed.weight': torch.ones(3, 3), 'mask_token': torch.ones(1, 1, 3)}
    model = backbone_of({**meta['ml_kwargs'], 'img_size': interp['dst_img']})
    report = load_pretrained(model, dict(model=state))
    assert report.layout == 'sar_w_mixmae'
    assert set(report.dropped) >= {'neck.mask_token', 'neck.decoder_embed.weight'}
    expected = fixture.group('interp/dst')
    assert expected
    for name, value in expected.items():
        assert_parity(model.state_dict()[name], value, name)
        assert name in report.resized


@pytest.mark.parametrize('path', parity_files('sarw_finetune_*.npz'))
@pytest.mark.parametrize('faithful', [True, False])
def test_parity_layer_decay(path, faithful):
    meta = Fixture(path).json('meta')
    (stated,) = (value for name, value in meta.items() if name.startswith('lr_scale_wd'))
    model = nn.Module()
    model.backbone = backbone_of(meta['ml_kwargs'])
    model.head = nn.Module()
    model.head.fc = nn.Linear(3, 2)
    optimizer = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
            constructor='mmrsfm.MixMIMLayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.7, faithful=faithful),
        ),
    ).optimizer
    group = {id(p): group for group in optimizer.param_groups for p in group['params']}
    ours = convert_state_dict(
        {**{n: torch.ones(4) for n in stated}, 'absolute_pos_embed': torch.ones(1)}
    )
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert set(trained) == set(ours) - {'backbone.absolute_pos_embed'}
    back = {convert_name(name): name for name in stated}
    for name, parameter in trained.items():
        scale, decay = stated[back[name]]
        behind = name.startswith(('head.', 'backbone.norm.'))
        assert group[id(parameter)]['weight_decay'] == decay, name
        expected = 1.0 if behind and not faithful else scale
        assert group[id(parameter)]['lr'] == pytest.approx(expected), name
        if not faithful:
            depth, total = model.backbone.get_layer_depth(name, 'backbone.')
            assert group[id(parameter)]['lr'] == pytest.approx(0.7 ** (total - 1 - depth)), name


def convert_name(name):
    from mmrsfm.checkpoints import get_layout

    return get_layout('sar_w_mixmae_finetuned').keymap.forward(name)


def small(**changes):
    torch.manual_seed(0)
    arch = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
    return MixMIM(arch, **{**dict(img_size=64), **changes})


def published_state(model):
    state = {f'backbone.{name}': value for name, value in model.state_dict().items()}
    return convert_state_dict(state, 'mmrsfm', 'sar_w_mixmae_finetuned')


def test_bands_that_differ_are_told():
    state = published_state(small())
    with pytest.raises(ContractError, match=r'takes 2 bands.*this model has 3'):
        load_pretrained(small(in_channels=3), dict(model=state))
    report = load_pretrained(small(in_channels=3), dict(model=state), adapt='mean')
    assert 'patch_embed.projection.weight' in report.adapted


def test_deeper_checkpoints_and_strange_tables_are_refused():
    state = published_state(small())
    for name in [n for n in state if n.startswith('layers.2.blocks.0.')]:
        state[name.replace('blocks.0', 'blocks.1')] = state[name]
    with pytest.raises(IncompleteLoadError, match='compute something else'):
        load_pretrained(small(), dict(model=state))
    state = published_state(small(img_size=(64, 128)))
    with pytest.raises(IncompleteLoadError, match=r'not square'):
        load_pretrained(small(), dict(model=state), source_grid=(16, 32))
    load_pretrained(small(img_size=(64, 128)), dict(model=state), source_grid=(16, 32))
    state = published_state(small())
    state['layers.0.downsample.norm.weight'] = torch.ones(6)
    with pytest.raises(CheckpointError, match='no patch merging'):
        load_pretrained(small(), dict(model=state))


def test_published_names_have_published_digests(tmp_path):
    assert all(len(digest) == 64 for digest in published.SHA256.values())
    path = tmp_path / 'benv2_pretrain_checkpoint_64.pth'
    torch.save(dict(model=published_state(small())), path)
    with pytest.raises(DigestMismatchError, match=r'its authors publish.*13ab3855.*another name'):
        read_checkpoint(path)
    with pytest.raises(DigestMismatchError, match='13ab3855'):
        load_pretrained(small(), path)
    path.rename(tmp_path / 'mine.pth')
    load_pretrained(small(), tmp_path / 'mine.pth')
