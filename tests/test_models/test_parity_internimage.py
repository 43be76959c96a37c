# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""InternImage against arrays that the reference computed, and against the released names."""

import json

import pytest
import torch

from mmrsfm.models.backbones import InternImage
from tests.parity import Fixture, assert_parity, parity_files
from tests.test_models.test_parity_rvsa import watch

TOLERANCE = 2e-4
# Arguments of the reference that it accepts and that choose nothing here.
WITHOUT_EFFECT = {'core_op', 'pretrained', 'init_cfg', 'num_classes', 'cls_scale'}


def build(kwargs):
    """Our backbone from the arguments of the reference, with its defaults."""
    kwargs = {name: value for name, value in kwargs.items() if name not in WITHOUT_EFFECT}
    take = kwargs.pop
    extra_norms = take('level2_post_norm_block_ids', None) or ()
    model = InternImage(
        arch=dict(
            channels=take('channels', 64),
            depths=take('depths', [3, 4, 18, 5]),
            groups=take('groups', [3, 6, 12, 24]),
        ),
        in_channels=take('in_chans', 3),
        drop_path_rate=take('drop_path_rate', 0.2),
        drop_path_type=take('drop_path_type', 'linear'),
        drop_rate=take('drop_rate', 0.0),
        norm_type=take('norm_layer', 'LN'),
        act_type=take('act_layer', 'GELU'),
        mlp_ratio=take('mlp_ratio', 4.0),
        layer_scale=take('layer_scale', None) or 0.0,
        offset_scale=take('offset_scale', 1.0),
        post_norm=take('post_norm', False),
        dw_kernel_size=take('dw_kernel_size', None),
        res_post_norm=take('res_post_norm', False),
        center_feature_scale=take('center_feature_scale', False),
        level2_post_norm_block_ids=extra_norms if take('level2_post_norm', False) else (),
        out_indices=take('out_indices', (0, 1, 2, 3)),
        frozen_stages=take('frozen_stages', -1),
        with_cp=take('with_cp', False),
    )
    assert not kwargs, f'the test knows nothing of {sorted(kwargs)}'
    return model


def load(fixture):
    fixture.json('meta_json')
    model = build(fixture.json('kwargs_json')).eval()
    model.load_state_dict(fixture.group('sd'), strict=True)
    return model


@pytest.mark.parametrize('path', parity_files('internimage_tiny_*.npz'))
def test_parity_internimage_features(path):
    fixture = Fixture(path)
    model = load(fixture)
    reference, outputs = fixture.group('mid'), fixture.group('out')
    gradients, cotangents = fixture.group('grad'), fixture.group('grad_out')
    found = watch(model, reference)
    maps = model(fixture.tensor('input'))
    assert len(maps) == len(outputs)
    for name, value in [
        *((f'out/{number}', value) for number, value in enumerate(maps)),
        *((f'mid/{name}', found[name]) for name in reference),
    ]:
        error = (value - fixture.tensor(name)).abs().max().item()
        assert error <= TOLERANCE, f'{name}: max|difference| {error:.3g}'
        assert_parity(value, fixture.tensor(name), name)
    if gradients:
        torch.autograd.backward(maps, [cotangents[str(i)] for i in range(len(maps))])
        for name, value in gradients.items():
            assert_parity(model.get_parameter(name).grad, value, f'grad/{name}', TOLERANCE)
    assert fixture.unused == []


@pytest.mark.parametrize('path', parity_files('internimage_tiny_*.npz'))
def test_parity_internimage_is_the_same_while_training(path):
    """Recomputed layers and the mode change nothing where there is no stochastic depth."""
    fixture = Fixture(path)
    plain = load(fixture)
    kwargs = {**fixture.json('kwargs_json'), 'with_cp': True, 'drop_path_rate': 0.0}
    saving = build(kwargs).train()
    saving.load_state_dict(plain.state_dict(), strict=True)
    for name, value in fixture.group('out').items():
        assert_parity(saving(fixture.tensor('input'))[int(name)], value, f'out/{name}')


@pytest.mark.parametrize('path', parity_files('keys/internimage_*.json'))
def test_parity_key_tables_are_exactly_the_model(path):
    table = json.loads(path.read_text())
    archs = {'t': 'tiny', 's': 'small', 'b': 'base', 'l': 'large', 'xl': 'xlarge', 'h': 'huge'}
    with torch.device('meta'):
        model = InternImage(archs.get(path.stem.split('_')[1], 'giant'))
    ours = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert ours == table['keys']
    assert sum(value.numel() for value in model.parameters()) == table['num_params']
