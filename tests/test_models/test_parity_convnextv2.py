# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""ConvNeXtV2 against arrays that the code of MMEarth computed: masked, dense, UNet."""

import pytest
import torch

from mmrsfm.checkpoints import convert_state_dict
from mmrsfm.models.backbones import ConvNeXtV2
from tests.parity import Fixture, assert_parity, parity_files

TOLERANCE = 1e-4


def backbone_of(kwargs, **changes):
    options = dict(
        arch=dict(depths=kwargs['depths'], channels=kwargs['dims']),
        in_channels=kwargs['in_chans'],
        patch_size=kwargs['patch_size'],
        stem='original' if kwargs['use_orig_stem'] else 'mmearth',
    )
    return ConvNeXtV2(**{**options, **changes}).eval()


def load(module, weights, prefix='backbone.'):
    """Fills all of a module, strictly."""
    module.load_state_dict(
        {n[len(prefix) :]: value for n, value in weights.items() if n.startswith(prefix)}
    )


def compare(ours, fixture, names):
    for name, values in zip(names, ours, strict=True):
        assert_parity(values, fixture.tensor(f'feat/{name}'), name, TOLERANCE)


@pytest.mark.parametrize('path', parity_files('mpmae_*.npz'))
@pytest.mark.parametrize('masked_path', ['packed', 'dense'])
def test_parity_convnextv2_masked(path, masked_path):
    """The encoder of the pretraining: all maps, on both paths, and the gradients of the path."""
    fixture = Fixture(path)
    kwargs = fixture.json('kwargs')
    depth = len(kwargs['depths'])
    backbone = backbone_of(
        kwargs, out_indices=range(depth), stem_maps=True, grn_statistics='batch',
        masked_path=masked_path,
    )  # fmt: skip
    weights = convert_state_dict(fixture.group('sd'), source='mp_mae')
    load(backbone, weights)
    maps = backbone(fixture.tensor('in/sentinel2'), fixture.tensor('mask'))
    names = ['stem', *(f'stage{index}' for index in range(depth))]
    compare(maps[-len(names) :], fixture, names)
    assert_parity(maps[-1], fixture.tensor('feat/encoder'), 'encoder', TOLERANCE)


@pytest.mark.parametrize('path', parity_files('convnextv2_dense_*.npz'))
def test_parity_convnextv2_dense(path):
    """The published classifier, whose convolutions are not padded as in the pretraining."""
    fixture = Fixture(path)
    kwargs = fixture.json('kwargs')
    options = dict(padding='published', grn_eps=1e-4)
    weights = convert_state_dict(fixture.group('sd'), source='mp_mae_finetuned')
    pooled = backbone_of(kwargs, **options)
    load(pooled, weights)
    x = fixture.tensor('in/x')
    (vector,) = pooled(x)
    assert_parity(vector, fixture.tensor('out/pooled'), 'pooled', TOLERANCE)
    head = torch.nn.functional.linear(vector, weights['head.fc.weight'], weights['head.fc.bias'])
    assert_parity(head, fixture.tensor('out/logits'), 'logits', TOLERANCE)
    depth = len(kwargs['depths'])
    maps = backbone_of(kwargs, out_indices=range(depth), stem_maps=True, **options)
    load(maps, {n: v for n, v in weights.items() if '.norm3.' not in n})
    names = ['stem', *(f'stage{index}' for index in range(depth))]
    names = names if kwargs['use_orig_stem'] else ['initial_conv', *names]
    compare(maps(x), fixture, names)
    assert fixture.unused == []


@pytest.mark.parametrize('path', parity_files('convnextv2_unet_*.npz'))
def test_parity_convnextv2_unet(path):
    pytest.importorskip('mmseg')
    from mmrsfm.models.segmentation import ConvNeXtUNetHead

    fixture = Fixture(path)
    kwargs = fixture.json('kwargs')
    weights = convert_state_dict(fixture.group('sd'), source='mp_mae_finetuned')
    backbone = backbone_of(kwargs, out_indices=range(4), stem_maps=True, grn_eps=1e-4)
    load(backbone, {n: v for n, v in weights.items() if '.norm3.' not in n})
    original = kwargs['use_orig_stem']
    maps = backbone(fixture.tensor('in/x'))
    stems = ['stem'] if original else ['initial_conv', 'stem']
    compare(maps, fixture, [*stems, *(f'stage{index}' for index in range(4))])
    skips = [maps[i] for i in range(len(maps)) if i != len(stems)]  # all but the first stage
    head = ConvNeXtUNetHead(
        [m.shape[1] for m in skips],
        last_scale=kwargs['patch_size'] // 8 if original else None,
        num_classes=kwargs['num_classes'],
    ).eval()
    load(head, weights, 'decode_head.')
    assert_parity(head.decode(skips), fixture.tensor('out/decoder'), 'decoder', TOLERANCE)
    assert_parity(head(skips), fixture.tensor('out/logits'), 'logits', TOLERANCE)
    assert fixture.unused == []
