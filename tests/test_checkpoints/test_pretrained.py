# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""After init_weights() a backbone of any library holds the numbers of the file, bit by bit."""

import math

import pytest
import torch
from mmengine.registry import MODELS
from mmpretrain.models import ConvNeXt, SwinTransformerV2, VisionTransformer
from mmpretrain.utils import register_all_modules

from mmrsfm.checkpoints import convert_state_dict, detect_layout, load_pretrained, report_of
from mmrsfm.errors import CheckpointError, ConfigError, ContractError, IncompleteLoadError
from tests.parity import Fixture, parity_files
from tests.test_checkpoints.test_loading import ARCH

PRETRAINED = 'mmrsfm.Pretrained'


def mm_vit(**kwargs):
    kwargs = {'img_size': 8, **kwargs}
    return dict(type='mmpretrain.VisionTransformer', arch=ARCH, patch_size=2, **kwargs)


def our_vit(**kwargs):
    return dict(type='mmrsfm.CrossScaleViT', arch=ARCH, img_size=8, patch_size=2, **kwargs)


def swin(**kwargs):
    arch = {
        'embed_dims': 8,
        'depths': [1, 1],
        'num_heads': [1, 2],
        'extra_norm_every_n_blocks': 0,
    }
    return dict(
        type='mmpretrain.SwinTransformerV2', arch=arch, img_size=32, window_size=[4, 4],
        use_abs_pos_embed=True, out_indices=(1,), **kwargs,
    )  # fmt: skip


def convnext(**kwargs):
    arch = {'depths': [1, 1], 'channels': [4, 8]}
    return dict(type='mmpretrain.ConvNeXt', arch=arch, out_indices=(1,), **kwargs)


def resnet(**kwargs):
    return dict(type='mmpretrain.ResNet', depth=18, stem_channels=4, base_channels=4, **kwargs)


BACKBONES = {
    'vit': mm_vit, 'ours': our_vit, 'swin_v2': swin, 'convnext': convnext, 'resnet': resnet
}  # fmt: skip


def build(config):
    register_all_modules(init_default_scope=False)
    return MODELS.build(config)


def randomised(module):
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn_like(tensor))
    return module


@pytest.fixture(params=BACKBONES)
def backbone(request, tmp_path):
    """The config of a backbone, a file with weights for it, and the weights."""
    config = BACKBONES[request.param]
    state = {k: v.clone() for k, v in randomised(build(config())).state_dict().items()}
    path = tmp_path / 'w.pth'
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in state.items()}}, path)
    return config, str(path), state


def assert_holds(module, state):
    now = module.state_dict()
    # What is computed from the architecture need not come from the file.
    derived = ('relative_position_index', 'relative_coords_table', 'attn_mask')
    for name, value in state.items():
        if not name.endswith(derived):
            assert torch.equal(now[name], value), name
    assert report_of(module) is not None and not report_of(module).changed(now)


def test_alone(backbone):
    config, path, state = backbone
    module = build(config(init_cfg=dict(type=PRETRAINED, checkpoint=path)))
    module.init_weights()
    assert_holds(module, state)
    assert module.init_cfg['type'] == 'Pretrained'  # what stock classes look at
    module.init_weights()  # a second call changes nothing
    assert_holds(module, state)


def test_in_a_list_of_initialisers(backbone):
    config, path, state = backbone
    others = [
        dict(type='Constant', layer=['Conv2d', 'Linear'], val=3.0),
        dict(type='TruncNormal', layer='Linear', std=0.02),
    ]
    module = build(config(init_cfg=[*others, dict(type=PRETRAINED, checkpoint=path)]))
    module.init_weights()
    assert_holds(module, state)


def test_another_initialiser_after_it_is_an_error(tmp_path):
    configs = [
        dict(type=PRETRAINED, checkpoint='x'),
        dict(type='Constant', layer='Linear', val=3.0),
    ]
    with pytest.raises(ConfigError, match='must be the last'):
        build(mm_vit(init_cfg=configs)).init_weights()


def test_inside_a_classifier(backbone):
    config, path, state = backbone
    model = build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=config(init_cfg=dict(type=PRETRAINED, checkpoint=path)),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=2, in_channels=4),
        )
    )
    model.init_weights()
    assert_holds(model.backbone, state)
    assert not hasattr(model.backbone, '_params_init_info')
    assert model.head.fc.weight.abs().max() > 0


def test_inside_segmentors_and_with_their_own_resnets(tmp_path):
    import mmdet.models  # noqa: F401
    import mmseg.models  # noqa: F401

    small = dict(depth=18, stem_channels=4, base_channels=4)
    for scope in ('mmseg', 'mmdet'):
        kind = dict(type=f'{scope}.ResNet', **small)
        state = {k: v.clone() for k, v in randomised(MODELS.build(kind)).state_dict().items()}
        path = tmp_path / f'{scope}.pth'
        torch.save(state, path)
        backbone = dict(**kind, init_cfg=dict(type=PRETRAINED, checkpoint=str(path)))
        if scope == 'mmdet':
            module = MODELS.build(backbone)
            module.init_weights()
            assert_holds(module, state)
            continue
        model = MODELS.build(
            dict(
                type='mmseg.EncoderDecoder',
                backbone=backbone,
                decode_head=dict(
                    type='mmseg.FCNHead',
                    in_channels=32,
                    channels=4,
                    num_classes=2,
                    norm_cfg=dict(type='BN'),
                    loss_decode=dict(type='mmseg.CrossEntropyLoss'),
                ),
            )
        )
        model.init_weights()
        assert_holds(model.backbone, state)


def test_whole_model_by_its_own_init_cfg(backbone):
    config, path, _ = backbone
    head = dict(type='mmpretrain.LinearClsHead', num_classes=2, in_channels=4)
    source = randomised(
        build(dict(type='mmpretrain.ImageClassifier', backbone=config(), head=head))
    )
    torch.save({'state_dict': source.state_dict(), 'meta': {'mmrsfm_traits': {}}}, path)
    model = build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=config(),
            head=head,
            init_cfg=dict(type=PRETRAINED, checkpoint=path),
        )
    )
    model.init_weights()
    assert_holds(model, source.state_dict())


def test_what_is_allowed_to_be_missing_is_initialised_as_without_a_checkpoint(tmp_path):
    state = randomised(build(mm_vit())).state_dict()
    del state['pos_embed']
    torch.save(state, tmp_path / 'w.pth')
    init = dict(
        type=PRETRAINED,
        checkpoint=str(tmp_path / 'w.pth'),
        layout='native',
        allow_missing=['pos_embed'],
    )
    module = build(mm_vit(init_cfg=init))
    module.init_weights()
    # mmpretrain draws it from N(0, 0.02); the privilege of 'Pretrained' alone leaves it at zero.
    assert 0.01 < module.pos_embed.std() < 0.03
    assert torch.equal(module.cls_token, state['cls_token'])


def test_errors_reach_the_user(tmp_path):
    state = randomised(build(mm_vit())).state_dict()
    path = tmp_path / 'w.pth'
    torch.save({k: v for k, v in state.items() if 'ln1' not in k}, path)
    init = dict(type=PRETRAINED, checkpoint=str(path))
    with pytest.raises(IncompleteLoadError, match='ln1'):
        build(mm_vit(init_cfg=init)).init_weights()
    torch.save(state, path)
    with pytest.raises(ContractError, match='takes 3 bands, this model has 5'):
        build(mm_vit(in_channels=5, init_cfg=init)).init_weights()
    module = build(mm_vit(in_channels=5, img_size=12, init_cfg=dict(**init, adapt='mean')))
    module.init_weights()
    report = report_of(module)
    assert list(report.resized) == ['pos_embed']
    assert list(report.adapted) == ['patch_embed.projection.weight']


def test_bare_import_of_mmrsfm_is_enough_for_the_name():
    from mmengine.registry import WEIGHT_INITIALIZERS

    assert WEIGHT_INITIALIZERS.get(PRETRAINED).__name__ == 'Pretrained'
    assert WEIGHT_INITIALIZERS.get('Pretrained').__name__ == 'PretrainedInit'


@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'mmseg', 'mmdet', 'mmrotate'])
def test_in_every_scope(scope, tmp_path):
    from mmengine.registry import DefaultScope

    state = {k: v.clone() for k, v in randomised(build(mm_vit())).state_dict().items()}
    torch.save(state, tmp_path / 'w.pth')
    path = str(tmp_path / 'w.pth')
    with DefaultScope.overwrite_default_scope(scope):
        module = MODELS.build(mm_vit(init_cfg=dict(type=PRETRAINED, checkpoint=path)))
        module.init_weights()
    assert_holds(module, state)


@pytest.mark.parametrize('path', parity_files('crossscale_mae_tiny_*.npz'))
def test_parity_released_layouts_load_through_init_cfg(path, tmp_path):
    fixture = Fixture(path)
    state = fixture.group('sd')
    torch.save({'model': state}, tmp_path / 'w.pth')
    ours = convert_state_dict(state)
    style = detect_layout(state).norm_style
    decoder_dim, dim = ours['neck.decoder_embed.weight'].shape
    hidden = ours['backbone.layers.0.ffn.layers.0.0.bias'].shape[0]
    _, bands, patch, _ = ours['backbone.patch_embed.projection.weight'].shape
    size = patch * math.isqrt(ours['backbone.pos_embed'].shape[1] - 1)
    common = dict(img_size=size, patch_size=patch, norm_style=style)
    # The number of heads is in no weight.
    arch = dict(embed_dims=dim, num_heads=1, feedforward_channels=hidden)
    arch['num_layers'] = sum(name.startswith('backbone.layers.') for name in ours) // 12
    init = dict(type=PRETRAINED, checkpoint=str(tmp_path / 'w.pth'))
    backbone = dict(type='mmrsfm.CrossScaleViT', arch=arch, in_channels=bands, **common)
    neck = dict(
        type='mmrsfm.CrossScaleMAEDecoder',
        in_chans=bands,
        embed_dim=dim,
        decoder_embed_dim=decoder_dim,
        decoder_depth=sum(name.startswith('neck.decoder_blocks.') for name in ours) // 12,
        decoder_num_heads=1,
        **common,
    )
    whole = build(
        dict(
            type='mmrsfm.CrossScaleMAE',
            backbone=backbone,
            neck=neck,
            predictor=dict(hidden_channels=state['predictor.0.weight'].shape[0]),
            init_cfg=init,
        )
    )
    whole.init_weights()
    assert_holds(whole, ours)
    report = report_of(whole)
    assert len(report.matched) == len(ours) == len(whole.state_dict())
    assert not report.unexpected and not report.dropped and not report.missing
    # The encoder alone, downstream, at another size.
    alone = build({**backbone, 'img_size': (size + patch, size), 'init_cfg': init})
    alone.init_weights()
    assert list(report_of(alone).resized) == ['pos_embed'] and not report_of(alone).unexpected
    wrong = build({**backbone, 'norm_style': 'pre' if style == 'post' else 'post'})
    with pytest.raises(CheckpointError, match=f'{style}-norm'):
        load_pretrained(wrong, tmp_path / 'w.pth')


def test_it_is_the_classes_that_are_tested():
    kinds = [type(build(BACKBONES[name]())) for name in ('vit', 'swin_v2', 'convnext')]
    assert kinds == [VisionTransformer, SwinTransformerV2, ConvNeXt]
