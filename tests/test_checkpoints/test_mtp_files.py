# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The files of MTP, and of the masked autoencoder that it starts from, in an RVSA backbone."""

import argparse
import json

import numpy as np
import pytest
import torch

from mmrsfm.checkpoints import detect_layout, load_pretrained, read_checkpoint, report_of
from mmrsfm.errors import CheckpointError, IncompleteLoadError
from mmrsfm.registry import MODELS
from tests.parity import parity_files
from tests.test_checkpoints.test_layouts import facebook_mae

ARCH = dict(embed_dims=8, num_layers=3, num_heads=2, interval=3, mlp_ratio=4, out_indices=(0, 1, 2))
CONFIG = dict(type='mmrsfm.RVSAViT', arch=ARCH, img_size=32, with_fpn=False)


def backbone(**changes):
    torch.manual_seed(changes.pop('seed', 0))
    model = MODELS.build({**CONFIG, **changes})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model


def encoder_file(**changes):
    """As MTP saves it: numpy arrays and optimizer states beside the weights."""
    return dict(
        epoch=3,
        iteration=80000,
        state_dict=backbone(seed=7, final_norm=True, **changes).state_dict(),
        optimizer={'state': {0: {'step': torch.tensor(1.0)}}, 'param_groups': [{'lr': 6e-5}]},
        scheduler={'T_max': 80000},
        loss_pretrain=np.linspace(1, 0, 5),
    )


def mae_file(dim=8, depth=3, **kwargs):
    """As MAE saves it: the arguments of its command beside the weights."""
    torch.manual_seed(9)
    state = facebook_mae(depth, dim, **kwargs)
    state['patch_embed.proj.weight'] = torch.randn(dim, 3, 16, 16)
    return dict(model=state, optimizer={}, epoch=1599, args=argparse.Namespace(lr=1e-3, name='x'))


def saved(content, folder):
    torch.save(content, folder / 'file.pth')
    return folder / 'file.pth'


def test_encoder_file(tmp_path):
    content = encoder_file()
    model = backbone()
    report = load_pretrained(model, saved(content, tmp_path))
    assert report.layout == 'mtp_encoder'
    assert not report.missing and not report.unexpected
    # MTP holds it without using it.
    assert sorted(report.dropped) == ['norm.bias', 'norm.weight']
    for name, value in model.state_dict().items():
        assert torch.equal(value, content['state_dict'][name]), name


def test_files_hold_numpy_and_arguments_and_are_read_safely(tmp_path):
    read = read_checkpoint(saved(encoder_file(), tmp_path))
    assert np.array_equal(read['loss_pretrain'], np.linspace(1, 0, 5))
    read = read_checkpoint(saved(mae_file(), tmp_path))
    assert read['args'].name == 'x'


def test_full_model_file_leaves_the_decoders(tmp_path):
    content = encoder_file()
    state = {f'module.encoder.{name}': value for name, value in content['state_dict'].items()}
    for name in (
        'semsegdecoder.decode_head.conv_seg.weight', 'semseghead_1.1.weight',
        'inssegdecoder.neck.fpn.weight', 'inssegroiboxhead_fc_cls1.weight',
        'inssegroimaskhead_conv1.weight', 'rotdetdecoder.neck.fpn.weight',
        'rotdetroiboxhead_fc_reg3.weight',
    ):  # fmt: skip
        state[f'module.{name}'] = torch.ones(2)
    model = backbone()
    report = load_pretrained(model, saved({**content, 'state_dict': state}, tmp_path))
    assert report.layout == 'mtp_model'
    assert not report.missing and not report.unexpected
    assert len(report.dropped) == 7 + 2
    assert torch.equal(model.pos_embed, content['state_dict']['pos_embed'])


def test_fine_tuned_file_is_not_silently_ignored(tmp_path):
    source = encoder_file()['state_dict']
    state = {f'backbone.{name}': value for name, value in source.items()}
    state['decode_head.conv_seg.weight'] = torch.ones(2)
    model = backbone()
    report = load_pretrained(model, saved({'state_dict': state, 'meta': {}}, tmp_path))
    assert report.layout == 'rvsa_finetuned'
    assert not report.missing and not report.unexpected
    assert torch.equal(model.blocks[1].attn.rel_pos_h, source['blocks.1.attn.rel_pos_h'])
    # What this library saved itself says so.
    assert detect_layout(state, {'mmrsfm_traits': {}}).name == 'mmrsfm'


@pytest.mark.parametrize('with_fpn', [True, False])
@pytest.mark.parametrize('whole', [True, False])
def test_mae_file_fills_what_the_two_share(tmp_path, with_fpn, whole):
    content = mae_file()
    model = backbone(with_fpn=with_fpn, out_indices=(0, 1, 2, 2), img_size=64, init_values=None)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    target = model
    if whole:
        target = torch.nn.Module()
        target.backbone = model
        target.head = torch.nn.Linear(8, 2)
    report = load_pretrained(target, saved(content, tmp_path))
    assert report.layout == 'facebook_mae'
    assert report_of(target) is report
    prefix = 'backbone.' if whole else ''
    own = ('rel_pos', 'relative_position', 'sampling_', 'fpn')
    for name, value in model.state_dict().items():
        if any(part in name for part in own):
            assert torch.equal(value, before[name]), name
            if 'relative_position_index' not in name:
                assert report.missing[prefix + name] == 'a plain ViT has none, by design'
        elif name == 'pos_embed':
            assert report.resized == {f'{prefix}pos_embed': '1 leading token(s) cut off; '
                                      '2x2 -> 4x4, bicubic'}  # fmt: skip
        else:
            assert torch.equal(value, content['model'][name]), name
    assert 'by design' in report.summary()
    assert f'{prefix}cls_token' in report.dropped


def test_a_wrong_file_fails_all_the_same(tmp_path):
    model = backbone()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    content = mae_file()
    del content['model']['blocks.1.mlp.fc2.weight']
    with pytest.raises(IncompleteLoadError, match=r'1 of the .*blocks\.1\.mlp\.fc2\.weight'):
        load_pretrained(model, saved(content, tmp_path))
    with pytest.raises(IncompleteLoadError, match='different size'):
        load_pretrained(model, saved(mae_file(dim=4), tmp_path))
    with pytest.raises(IncompleteLoadError, match=r'does not fill.*blocks\.2'):
        load_pretrained(model, saved(mae_file(depth=2), tmp_path))
    # An RVSA file may not lack what a plain ViT lacks.
    content = encoder_file()
    del content['state_dict']['blocks.0.attn.sampling_angles.2.bias']
    with pytest.raises(IncompleteLoadError, match=r'sampling_angles\.2\.bias'):
        load_pretrained(model, saved(content, tmp_path))
    with pytest.raises(CheckpointError, match='no layout fits'):
        load_pretrained(model, saved({'state_dict': {'stem.weight': torch.ones(1)}}, tmp_path))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), f'{name} was touched by a load that failed'


def test_layer_scale_is_not_lacking_by_design(tmp_path):
    with pytest.raises(IncompleteLoadError, match='gamma_1'):
        load_pretrained(backbone(init_values=0.1), saved(mae_file(), tmp_path))
    load_pretrained(
        backbone(init_values=0.1), saved(mae_file(), tmp_path), allow_missing='blocks.*.gamma_?'
    )
    # A file with layer scales, in a model without, would compute something else.
    content = encoder_file()
    content['state_dict']['blocks.0.gamma_1'] = torch.ones(8)
    with pytest.raises(IncompleteLoadError, match=r'gamma_1, without which'):
        load_pretrained(backbone(), saved(content, tmp_path))


def test_learned_tables_that_go_nowhere_are_a_warning(tmp_path):
    report = load_pretrained(backbone(full_rel_pos=False), saved(encoder_file(), tmp_path))
    assert sorted(report.unexpected) == [f'blocks.2.attn.full_attn_rel_pos_{x}' for x in 'hw']


@pytest.mark.parametrize('img_size', [64, (32, 96), (80, 48), (112, 16)])
def test_tables_are_stretched(tmp_path, img_size):
    content = encoder_file()
    model = backbone(img_size=img_size)
    report = load_pretrained(model, saved(content, tmp_path))
    assert set(report.resized) == {
        name for name, value in model.state_dict().items()
        if name in content['state_dict'] and value.shape != content['state_dict'][name].shape
    }  # fmt: skip
    assert 'distances, bicubic' in report.summary()
    # A model that was made for the small size stretches them itself, to the same numbers.
    small = backbone()
    load_pretrained(small, content)
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    images = torch.randn(1, 3, height, width)
    with torch.no_grad():
        for one, other in zip(model.eval()(images), small.eval()(images), strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize('tables', ['per_axis', 'reference'])
@pytest.mark.parametrize('img_size', [(144, 64), (160, 80), (160, 32)])
def test_tables_of_distances_tell_the_grid(tables, img_size):
    """9 x 4 tokens are as many as 6 x 6, and 10 x 5 one more than 7 x 7: nothing is stretched."""
    source = backbone(img_size=img_size, seed=7, rel_pos_tables=tables)
    model = backbone(img_size=img_size, rel_pos_tables=tables)
    report = load_pretrained(model, {'state_dict': source.state_dict()})
    assert not report.resized
    assert torch.equal(model.pos_embed, source.pos_embed)
    report = load_pretrained(backbone(img_size=320), {'state_dict': source.state_dict()})
    grid = 'x'.join(str(side // 16) for side in img_size)
    assert report.resized['pos_embed'] == f'{grid} -> 20x20, bicubic'


def test_own_files_come_back_at_another_size(tmp_path):
    from mmrsfm.checkpoints import describe_model

    source = backbone(img_size=(32, 80))
    state = {f'backbone.{name}': value for name, value in source.state_dict().items()}
    model = backbone(img_size=(80, 32))
    content = {'state_dict': state, 'meta': describe_model(source)}
    report = load_pretrained(model, saved(content, tmp_path))
    assert report.resized['pos_embed'] == '2x5 -> 5x2, bicubic'


@pytest.mark.parametrize('path', parity_files('keys/rvsa_*.json'))
def test_parity_key_tables_are_exactly_the_model(path):
    table = json.loads(path.read_text())
    arch = 'large' if 'rvsa_l' in path.stem else 'base'
    with torch.device('meta'):
        model = MODELS.build(
            dict(type='mmrsfm.RVSAViT', arch=arch, img_size=table['image_size'], final_norm=True)
        )
    state = model.state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == table['keys']
    integers = {n: 'int64' for n, v in state.items() if v.dtype == torch.int64}
    assert integers == table['non_float']
    assert sum(p.numel() for p in model.parameters()) == table['num_params']
    assert detect_layout(state).name == 'mtp_encoder'
