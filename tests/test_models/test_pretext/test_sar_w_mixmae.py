# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""SAR-W-MixMAE beside its parity: masks, mixtures, missing data, pictures, failure paths."""

import math

import pytest
import torch
from mmengine.structures import BaseDataElement

from mmrsfm.errors import ConfigError
from mmrsfm.registry import MODELS, VISUALIZERS

SIZE = 64
CELLS = 4
ARCH = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4])


def build(bands=2, **changes):
    torch.manual_seed(0)
    config = dict(
        type='mmrsfm.SARWMixMAE',
        backbone=dict(type='mmrsfm.MixMIM', arch=ARCH, img_size=SIZE, in_channels=bands),
        neck=dict(decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2),
        data_preprocessor=dict(
            type='mmrsfm.MultiBandDataPreprocessor',
            mean=[-19.0, -12.0, -11.0][:bands],
            std=[5.0, 4.0, 3.0][:bands],
        ),
    )
    model = MODELS.build({**config, **changes})
    model.init_weights()
    return model


def images(batch=3, bands=2, size=(SIZE, SIZE)):
    torch.manual_seed(1)
    return torch.randn(batch, bands, *size)


def samples(noise):
    return [BaseDataElement(mask_noise=row[None]) for row in noise]


def first_and_second():
    """A model whose decoder says of every token: of the first stream 1, of the second 2."""
    model = build()
    model.decode = lambda mixtures: torch.cat(
        [torch.full((len(mixtures.images), CELLS, 1), value) for value in (1.0, 2.0)]
    )
    return model


def test_one_mask_for_a_batch_or_one_for_each_pair():
    noise = torch.rand(5, CELLS)
    given = samples(noise)
    mask = build().mix(images(5), given).mask
    assert mask.shape == (1, 2, 2)
    assert mask.sum() == 2
    assert set(mask.flatten().nonzero().flatten().tolist()) == set(noise[0].argsort()[:2].tolist())
    pairs = build(mask_scope='pair').mix(images(5), given).mask
    assert pairs.shape == (5, 2, 2)
    assert torch.equal(pairs, pairs.flip(0))
    assert torch.equal(pairs[:1], mask)
    for row, own in zip(noise[:3], pairs[:3], strict=True):
        assert own.flatten()[row.argsort()[:2]].all()
    # Without noise in the samples it is torch's.
    torch.manual_seed(3)
    drawn = build().mix(images(2)).mask
    torch.manual_seed(3)
    build()
    assert drawn.sum() == 2
    assert build(mask_ratio=0.3).mix(images(2)).mask.sum() == 1  # rounded down


@pytest.mark.parametrize('scope', ['batch', 'pair'])
def test_predicted_where_the_mixture_showed_the_other(scope):
    model = first_and_second()
    model.mask_scope = scope
    mixtures = model.mix(images(4), samples(torch.rand(4, CELLS)))
    found = model.unmix(model.decode(mixtures), mixtures.mask)[..., 0]
    expected = torch.where(mixtures.mask.flatten(1), 1.0, 2.0).expand(4, -1)
    assert torch.equal(found, expected)


def test_a_pair_takes_no_notice_of_other_pairs():
    model = build(mask_scope='pair').eval()
    given = samples(torch.rand(4, CELLS))
    batch = images(4)
    other = batch.clone()
    other[1:3] = 0.0
    one, two = (model.reconstruct(x, given)['band_1']['pred'] for x in (batch, other))
    assert torch.allclose(one[[0, 3]], two[[0, 3]], atol=1e-5)
    assert not torch.allclose(one[1], two[1], atol=1e-3)


def test_what_is_predicted_is_not_seen():
    """A pixel is predicted from what the other mixture does not show of its image."""
    model = build().eval()
    given = samples(torch.tensor([[0.1, 0.2, 0.8, 0.9]]).expand(2, -1))
    batch = images(2)
    changed = batch.clone()
    changed[0, :, :32] += 1.0  # the upper cells, which mixture 0 does not show
    one, two = (model._patches(model.mix(x, given)) for x in (batch, changed))
    assert torch.allclose(one[0, :2], two[0, :2], atol=1e-5)
    assert not torch.allclose(one[0, 2:], two[0, 2:], atol=1e-3)


@pytest.mark.parametrize(('bands', 'size'), [(1, (64, 64)), (3, (96, 64)), (2, (32, 128))])
def test_any_bands_and_any_size(bands, size):
    model = build(bands)
    found = model.reconstruct(images(2, bands, size))
    assert list(found) == [f'band_{n + 1}' for n in range(bands)]
    for part in found.values():
        assert part['pred'].shape == part['image'].shape == part['mask'].shape == (2, 1, *size)
        assert (part['weight'] >= 1).all()


def test_every_parameter_that_trains_gets_a_gradient():
    model = build()
    model.loss(images())['loss_recon'].backward()
    idle = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert idle == set()
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {'backbone.absolute_pos_embed', 'neck.decoder_pos_embed'}


def test_missing_data_are_left_out():
    model = build().eval()
    batch, given = images(), samples(torch.rand(3, CELLS))
    batch[1, 0, :40] = math.nan
    batch[2] = -math.inf
    loss = model.loss(batch, given)['loss_recon']
    loss.backward()
    assert loss > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    # As the data preprocessor hands them over.
    filled = batch.clone()
    for sample, image in zip(given, filled, strict=True):
        sample.valid_mask = image.isfinite()
    filled[~batch.isfinite()] = 0.0
    assert model.loss(filled, given)['loss_recon'].item() == pytest.approx(loss.item(), rel=1e-6)
    (vh, vv) = model.reconstruct(filled, given).values()
    assert vh['image'][1, 0, :40].isnan().all()
    assert (vh['weight'][1, 0, :40] == 0).all()
    assert vv['image'][1].isfinite().all()
    assert vh['pred'].isfinite().all()


def test_reconstruction_is_in_the_units_of_the_input():
    """With a decoder that knows the normalised patches, the picture is the image."""
    model = build().eval()
    batch = images() * 3 + 1
    mixtures = model.mix(batch)
    model._patches = lambda _: model.recon_loss.target(mixtures.images)[0]
    for part in model.reconstruct(batch).values():
        assert torch.allclose(part['pred'], part['image'], atol=1e-4)


def test_predict_deals_out_to_the_samples():
    model = build()
    given = samples(torch.rand(3, CELLS))
    found = model(images(), given, mode='predict')
    assert found == given
    assert found[0].reconstruction['band_2']['weight'].shape == (1, SIZE, SIZE)
    visualizer = VISUALIZERS.build(
        dict(
            type='mmrsfm.ReconstructionVisualizer',
            modalities={'band_1': 1, 'band_2': 1},
            name='sar_w_mixmae',
        )
    )
    picture = visualizer.draw({}, found[0])  # image, masked, predicted and weight, twice
    assert picture.shape[1] > 7 * picture.shape[0]
    (vector,) = model(images(), mode='tensor')
    assert vector.shape == (3, 64)


def test_contradictions():
    with pytest.raises(ConfigError, match='mask_scope'):
        build(mask_scope='sample')
    with pytest.raises(ConfigError, match='mask_ratio'):
        build(mask_ratio=1.0)
    with pytest.raises(ConfigError, match='patches of 32'):
        build(loss=dict(patch_size=16))
    with pytest.raises(ConfigError, match='normalized'):
        build(data_preprocessor=None)
    build(data_preprocessor=None, loss=dict(weight_domain='normalized'))
    with pytest.raises(ConfigError, match='DrawMaskNoise to 32'):
        build().loss(images(2), samples(torch.rand(2, 16)))
    with pytest.raises(ConfigError, match='whole patches'):
        build().loss(images(2, 2, (48, 64)))
    with pytest.raises(ConfigError, match='1x1 cells of an image is none'):
        build().loss(images(2, 2, (32, 32)))
