# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The files of InternImage and of MTP in an InternImage backbone."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from mmrsfm.checkpoints import convert_state_dict, detect_layout, load_pretrained
from mmrsfm.errors import CheckpointError, ContractError, IncompleteLoadError
from mmrsfm.registry import MODELS
from tests.parity import parity_files

ARCH = dict(channels=16, depths=[1, 1, 2, 1], groups=[1, 2, 4, 8], mlp_ratio=1.0)
AS_MTP = dict(layer_scale=1e-5, offset_scale=2.0, post_norm=True)


def backbone(seed=0, **changes):
    torch.manual_seed(seed)
    model = MODELS.build({'type': 'mmrsfm.InternImage', 'arch': ARCH, **AS_MTP, **changes})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model


def weights(prefix='', **changes):
    return {prefix + name: value for name, value in backbone(7, **changes).state_dict().items()}


def saved(content, folder):
    torch.save(content, folder / 'file.pth')
    return folder / 'file.pth'


def classifier_file():
    """As InternImage releases it: the state under 'model', with a head of its own."""
    head = {
        'conv_head.0.weight': torch.randn(32, 128, 1, 1),
        'conv_head.1.0.running_mean': torch.randn(32),
        'head.weight': torch.randn(10, 32),
        'head.bias': torch.randn(10),
    }
    return dict(model={**weights(), **head})


def mtp_file(prefix='', **others):
    """As MTP saves it: optimizer and numpy arrays beside the weights."""
    return dict(
        epoch=3,
        iteration=80000,
        state_dict={**weights(prefix), **others},
        optimizer={'state': {0: {'step': torch.tensor(1.0)}}, 'param_groups': [{'lr': 2e-5}]},
        scheduler={'T_max': 80000},
        loss_pretrain=np.linspace(1, 0, 5),
    )


DECODERS = {
    f'{name}.weight': torch.ones(2, 2)
    for name in ('semsegdecoder.decode_head.conv_seg', 'inssegdecoder.neck.fpn_convs.0.conv',
                 'rotdetdecoder.rpn_head.rpn_conv', 'semseghead_1.1', 'rotdetroiboxhead_fc_cls2')
}  # fmt: skip
FILES = {
    'release': (classifier_file, 'intern_image', 4),
    'MTP encoder': (mtp_file, 'intern_image', 0),
    'MTP encoder of a wrapped model': (lambda: mtp_file('module.'), 'intern_image', 0),
    'MTP model': (lambda: mtp_file('encoder.', **DECODERS), 'mtp_model', 5),
    'MTP model, wrapped': (
        lambda: mtp_file('module.encoder.', **{f'module.{n}': v for n, v in DECODERS.items()}),
        'mtp_model', 5,
    ),
    'fine-tuned': (
        lambda: dict(
            meta={'epoch': 12},
            state_dict={**weights('backbone.'), 'neck.fpn_convs.0.conv.weight': torch.ones(2)},
        ),
        'intern_image_finetuned', 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', FILES)
def test_files_load_whole(name, tmp_path):
    make, layout, aside = FILES[name]
    model = backbone()
    report = load_pretrained(model, saved(make(), tmp_path))
    assert report.layout == layout
    assert not report.missing and not report.unexpected and len(report.dropped) == aside
    expected = weights()
    assert set(report.matched) == set(expected)
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_full_model_file_loads_into_a_task_model(tmp_path):
    """The published loader finds nothing in it, and trains from random weights."""
    model = nn.Module()
    model.backbone, model.head = backbone(), nn.Linear(2, 2)
    report = load_pretrained(model, saved(mtp_file('encoder.', **DECODERS), tmp_path))
    assert len(report.matched) == len(weights())
    assert set(report.missing) == {'head.weight', 'head.bias'}
    assert torch.equal(model.backbone.state_dict()['levels.2.blocks.1.gamma1'],
                       weights()['levels.2.blocks.1.gamma1'])  # fmt: skip


def test_in_a_config(tmp_path):
    path = saved(classifier_file(), tmp_path)
    model = MODELS.build(
        dict(
            type='mmrsfm.InternImage', arch=ARCH, **AS_MTP,
            init_cfg=dict(type='mmrsfm.Pretrained', checkpoint=str(path)),
        )
    )  # fmt: skip
    model.init_weights()
    for key, value in weights().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_the_classifier_survives_conversion():
    state = classifier_file()['model']
    ours = convert_state_dict(state)
    assert {'head.head.weight', 'head.conv_head.0.weight'} <= set(ours)
    back = convert_state_dict(ours, 'intern_image_finetuned', 'intern_image')
    assert set(back) == set(state)


@pytest.mark.parametrize(
    ('saved_with', 'built_with', 'named'),
    [
        # Every one of these fills the whole model, or would, and computes something else.
        (dict(post_norm=False), dict(post_norm=True), r'levels\.\{0-3\}\.norm\.0'),
        (dict(layer_scale=1e-5), dict(layer_scale=0.0), r'levels\.\{0-3\}\.blocks\.0\.gamma1'),
        (dict(center_feature_scale=True), {}, r'center_feature_scale_proj_weight'),
        (dict(level2_post_norm_block_ids=[1]), {}, r'levels\.2\.post_norms'),
        ({}, dict(arch={**ARCH, 'depths': [1, 1, 1, 1]}), r'levels\.2\.blocks\.1'),
    ],
)
def test_weights_of_another_function_are_refused(saved_with, built_with, named, tmp_path):
    model = backbone(**built_with)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    path = saved(dict(model=weights(**saved_with)), tmp_path)
    with pytest.raises(
        IncompleteLoadError, match=rf'(?s)file\.pth.*{named}.*Correct its arguments'
    ):
        load_pretrained(model, path)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_too_few_weights_are_refused(tmp_path):
    path = saved(dict(model=weights()), tmp_path)
    with pytest.raises(IncompleteLoadError, match=r'levels\.\{0-3\}\.norm\.0\.weight'):
        load_pretrained(backbone(post_norm=False), path)


def test_our_own_files_tell_where_the_norms_are(tmp_path):
    """Without a centre blend and level norms, the names of both styles would be the same."""
    path = saved(
        dict(meta={'mmrsfm_traits': {'norm_style': 'pre'}}, state_dict=weights('backbone.')),
        tmp_path,
    )
    with pytest.raises(CheckpointError, match="norm_style='pre'"):
        load_pretrained(backbone(), path)


def test_other_bands(tmp_path):
    path = saved(dict(model=weights()), tmp_path)
    with pytest.raises(ContractError, match=r'patch_embed\.conv1\.weight takes 3 bands'):
        load_pretrained(backbone(in_channels=5), path)
    report = load_pretrained(backbone(in_channels=5), path, adapt='mean')
    assert set(report.adapted) == {'patch_embed.conv1.weight'}


@pytest.mark.parametrize('path', parity_files('keys/internimage_*.json'))
def test_parity_key_table_is_recognised_under_every_prefix(path):
    names = json.loads(path.read_text())['keys']
    for prefix, layout in (
        ('', 'intern_image'), ('encoder.', 'mtp_model'), ('backbone.', 'intern_image_finetuned'),
    ):  # fmt: skip
        state = {prefix + name: torch.empty(shape, device='meta') for name, shape in names.items()}
        assert detect_layout(state).name == layout
        assert set(convert_state_dict(state)) == {f'backbone.{name}' for name in names}
