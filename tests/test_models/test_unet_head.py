# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""UNetHead beyond the fixtures: any number of levels, one image, options that were broken."""

import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.registry import MODELS, init_default_scope

from mmrsfm.errors import ConfigError
from mmrsfm.models.change_detection import UNetHead

pytestmark = pytest.mark.filterwarnings('ignore:For binary', 'ignore:Default ``avg')


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmseg')


def build(encoder=(4, 6, 8), decoder=(8, 6, 5), **options):
    options = {'num_classes': 2, 'n_blocks': len(encoder), **options}
    return UNetHead(encoder, decoder, **options)


def maps(channels=(4, 6, 8), batch=2, coarsest=2):
    count = len(channels)
    return [
        torch.randn(batch, channel, coarsest * 2**shift, coarsest * 2**shift)
        for channel, shift in zip(channels, reversed(range(count)), strict=True)
    ]


@pytest.mark.parametrize('levels', [1, 2, 3, 5])
def test_any_number_of_levels(levels):
    channels, decoder = list(range(3, 3 + levels)), list(range(8, 8 + levels))
    logits = build(channels, decoder)(maps(channels))
    assert logits.shape == (2, 2, 2 * 2 ** (levels + 1), 2 * 2 ** (levels + 1))


def test_maps_of_one_stride_double_the_size():
    channels = [4] * 4
    logits = build(channels, [8, 8, 4, 4])([torch.randn(1, 4, 4, 4)] * 4)
    assert logits.shape == (1, 2, 128, 128)  # of an image of 64 pixels, in patches of 16


def test_doubling_after_the_classification_is_doubling_before_it():
    head = build(dropout_ratio=0.0).eval()
    inputs = maps()
    features = {}
    head.blocks[-1].register_forward_hook(lambda m, i, output: features.update(x=output))
    ours = head(inputs)
    doubled = torch.nn.functional.interpolate(features['x'], scale_factor=2, mode='bilinear')
    torch.testing.assert_close(ours, head.conv_seg(doubled), rtol=1e-5, atol=1e-6)


def test_all_parameters_learn():
    head = build()
    head(maps()).square().mean().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


@pytest.mark.parametrize('center', [False, True])
@pytest.mark.parametrize('norm', ['BN', 'SyncBN'])
def test_one_image_and_a_map_of_one_pixel(center, norm):
    head = build(center=center, norm_cfg={'type': norm, 'requires_grad': True}).train()
    logits = head(maps(batch=1, coarsest=1))
    assert torch.isfinite(logits).all()
    logits.mean().backward()
    if center:
        # No statistics, so none are taken; and the layers go on training afterwards.
        assert head.center[0][1].num_batches_tracked == 0
        assert head.center[0][1].training
        head(maps(batch=2, coarsest=1))
        assert head.center[0][1].num_batches_tracked == 1


def test_center_has_the_coarsest_channels():
    head = build(center=True)
    assert head.center[0][0].weight.shape == (8, 8, 3, 3)
    assert head(maps()).shape == (2, 2, 32, 32)
    assert not any(key.startswith('center') for key in build().state_dict())


def test_inplace_is_batch_normalisation():
    ours, plain = build(use_batchnorm='inplace').eval(), build().eval()
    ours.load_state_dict(plain.state_dict())
    inputs = maps()
    torch.testing.assert_close(ours(inputs), plain(inputs))


def test_takes_the_maps_that_in_index_names():
    head = build((4, 8), (8, 4), in_index=[0, 2]).eval()
    first, second, third = maps()
    ours = head([first, second, third])
    assert torch.equal(ours, head([first, torch.full_like(second, torch.nan), third]))
    assert ours.shape == (2, 2, 16, 16)


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        ({'n_blocks': 4}, 'n_blocks=4, 3 decoder_channels and 3 encoder_channels'),
        ({'decoder': (8, 4)}, 'n_blocks=3, 2 decoder_channels'),
        ({'use_batchnorm': 'syncbn'}, "True, False or 'inplace'"),
        ({'attention_type': 'se'}, "None or 'scse'"),
        ({'in_channels': [4, 6, 9]}, 'differ'),
        ({'channels': 64}, 'must be the last of decoder_channels'),
    ],
)
def test_contradictions(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build(**options)


def test_other_channels_are_named():
    with pytest.raises(ConfigError, match=r'encoder_channels=\[4, 6, 8\].*have \[4, 6, 9\]'):
        build()(maps((4, 6, 9)))


def test_scopes():
    for scope in ('mmrsfm', 'opencd'):
        assert MODELS.get(f'{scope}.UNetHead') is UNetHead


def test_every_trained_weight_gets_a_gradient():
    """Of the attention without a skip, which released files hold, nothing is trained."""
    head = build(attention_type='scse').train()
    head(maps((4, 6, 8))).square().mean().backward()
    without = {name for name, value in head.named_parameters() if value.grad is None}
    assert without == {name for name, value in head.named_parameters() if not value.requires_grad}
    assert without and all(name.startswith('blocks.2.attention1.') for name in without)
