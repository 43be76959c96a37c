# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The algorithm beside its parity: variants, randomness, validity, failure paths, training."""

import pytest
import torch
from mmengine.structures import BaseDataElement

from mmrsfm.errors import ConfigError
from mmrsfm.models.pretext import CrossScaleMAE
from mmrsfm.models.pretext.cross_scale_mae import VARIANTS
from mmrsfm.models.pretext.scale_crop import draw_rectangle, enlarge, enlarge_valid
from mmrsfm.registry import MODELS

SIZE = (32, 48)
LENGTH = 4 * 6


def build(bands=3, size=SIZE, norm_style='pre', backbone=None, **changes):
    torch.manual_seed(0)
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
    config = dict(
        type='mmrsfm.CrossScaleMAE',
        backbone=dict(
            type='mmrsfm.CrossScaleViT',
            arch=arch,
            img_size=size,
            patch_size=8,
            in_channels=bands,
            out_type='raw',
            norm_style=norm_style,
            pos_embed_trainable=False,
            **(backbone or {}),
        ),
        neck=dict(
            type='mmrsfm.CrossScaleMAEDecoder',
            img_size=size,
            patch_size=8,
            in_chans=bands,
            embed_dim=32,
            decoder_embed_dim=16,
            decoder_depth=1,
            decoder_num_heads=2,
            norm_style=norm_style,
        ),
        predictor=dict(hidden_channels=24),
    )
    model = MODELS.build({**config, **changes})
    model.init_weights()
    return model


def total(model, losses):
    return model.parse_losses(losses)[0]


@pytest.mark.parametrize('norm_style', ['pre', 'post'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_variants(variant, norm_style):
    model = build(terms=variant, norm_style=norm_style).train()
    losses = model(torch.randn(2, 3, *SIZE), [], mode='loss')
    assert set(losses) == {f'loss_{term}' for term in VARIANTS[variant]}
    whole, logged = model.parse_losses(losses)
    torch.testing.assert_close(whole, sum(losses.values()))
    assert set(losses) < set(logged)
    whole.backward()
    # Plain DistributedDataParallel works: what is trainable gets a gradient.
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name


@pytest.mark.parametrize('bands', [1, 4, 13])
@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize('norm', ['patch_bn', 'bn', 'ln'])
def test_any_bands_batch_and_predictor(bands, batch, norm):
    model = build(bands=bands, predictor_norm=norm, consistent_mask=True).train()
    losses = model.loss(torch.randn(batch, bands, *SIZE))
    total(model, losses).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize('norm', ['patch_bn', 'bn'])
def test_synchronised_batch_norm(norm):
    """MMEngine's sync_bn='torch' replaces the layer, and keeps names, order and numbers."""
    predictor = build(predictor_norm=norm).predictor.eval()
    embedding = torch.randn(2, LENGTH, 16)
    expected, names = predictor(embedding), list(predictor.state_dict())
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(predictor)
    assert isinstance(getattr(converted, '1'), torch.nn.SyncBatchNorm)
    assert list(converted.state_dict()) == names
    torch.testing.assert_close(converted(embedding), expected)


def test_it_learns():
    model = build().train()
    images = torch.nn.functional.interpolate(torch.randn(8, 3, 4, 6), size=SIZE, mode='bilinear')
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for _ in range(25):
        losses = model.loss(images)
        optimizer.zero_grad()
        total(model, losses).backward()
        optimizer.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    for name in ('loss_recon_orig', 'loss_recon_crop', 'loss_cross_pred'):
        assert history[-1][name] < 0.9 * history[0][name]


def test_two_views_in_one_pass_are_two_passes():
    """Before the predictor nothing depends on other samples."""
    model, images = build().train(), torch.randn(3, 3, *SIZE)
    views = model.make_views(images)
    together = views.split(model.decode(model.encode(views), views))
    for number in range(2):
        view = views.view(number)
        alone = model.decode(model.encode(view), view)
        torch.testing.assert_close(together[number], alone, rtol=1e-5, atol=1e-5)


def test_weights_and_reduction():
    images = torch.randn(2, 3, *SIZE)

    def losses(**changes):
        model = build(**changes).eval()
        torch.manual_seed(3)
        return model.loss(images)

    plain = losses()
    halved = losses(recon_reduction='mean', loss_weights=dict(contrastive=3.0, recon_crop=2.0))
    factors = dict(recon_orig=0.5, recon_crop=1.0, cross_pred=1.0, contrastive=3.0)
    for term, factor in factors.items():
        torch.testing.assert_close(halved[f'loss_{term}'], plain[f'loss_{term}'] * factor)
    chosen = losses(terms=['contrastive', 'recon_orig'])
    assert list(chosen) == ['loss_recon_orig', 'loss_contrastive']


def samples(batch=2, **fields):
    return [
        BaseDataElement(**{name: value[i] for name, value in fields.items()}) for i in range(batch)
    ]


def test_packed_noise_and_crops_decide():
    model, images = build(crop_mode='sample').eval(), torch.randn(2, 3, *SIZE)
    noise = torch.rand(2, 2, LENGTH)
    crops = [(0, 0, 16, 24), torch.tensor([4, 8, 20, 30])]
    given = samples(mask_noise=noise, scale_crop=crops)
    views, again = model.make_views(images, given), model.make_views(images, given)
    assert torch.equal(views.images, again.images)
    assert torch.equal(views.mask, again.mask)
    for view in range(2):
        for row in range(2):
            keep = noise[row, view].argsort()[: LENGTH // 4]
            assert torch.equal(views.view(view).ids_keep[row], keep)
    crop = views.view(1).images
    torch.testing.assert_close(crop[0], enlarge(images[:1], crops[0])[0])
    torch.testing.assert_close(crop[1], enlarge(images[1:], crops[1])[0])


def test_batch_mode_takes_the_first_rectangle():
    model, images = build().eval(), torch.randn(2, 3, *SIZE)
    crops = [(0, 0, 16, 24), (4, 8, 20, 30)]
    crop = model.make_views(images, samples(scale_crop=crops)).view(1).images
    torch.testing.assert_close(crop, enlarge(images, crops[0]))


def test_without_packed_noise_torchs_generator_decides():
    """In the order of the reference: rectangle, noise of the image, noise of the crop."""
    model, images = build().eval(), torch.randn(2, 3, *SIZE)
    torch.manual_seed(5)
    views = model.make_views(images)
    torch.manual_seed(5)
    rectangle = draw_rectangle(SIZE)
    noise = [torch.rand(2, LENGTH), torch.rand(2, LENGTH)]
    torch.testing.assert_close(views.view(1).images, enlarge(images, rectangle))
    for view in range(2):
        assert torch.equal(views.view(view).ids_keep, noise[view].argsort()[:, : LENGTH // 4])


def test_consistent_mask():
    views = build(consistent_mask=True).make_views(torch.randn(2, 3, *SIZE))
    assert torch.equal(*views.split(views.mask))
    views = build().make_views(torch.randn(2, 3, *SIZE))
    assert not torch.equal(*views.split(views.mask))


def test_paired_views_are_not_cropped():
    model = build().eval()
    first, second = torch.randn(2, 3, *SIZE), torch.randn(2, 3, *SIZE)
    views = model.make_views([first, second])
    assert torch.equal(views.images, torch.cat([first, second]))
    assert len(model.loss([first, second])) == 4


def test_no_data_never_reaches_a_loss():
    model, images = build().train(), torch.randn(2, 3, *SIZE)
    valid = torch.rand(2, 3, *SIZE) < 0.8
    fields = dict(
        valid_mask=valid, mask_noise=torch.rand(2, 2, LENGTH), scale_crop=[(2, 3, 20, 30)] * 2
    )
    seen = []
    for fill in (0.0, 1e9, float('nan'), float('-inf')):
        model.zero_grad()
        losses = model.loss(images.masked_fill(~valid, fill), samples(**fields))
        total(model, losses).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        seen.append(torch.stack(list(losses.values())).detach())
    for losses in seen[1:]:
        assert torch.equal(losses, seen[0])


def test_all_valid_is_as_without_a_mask():
    model, images = build().eval(), torch.randn(2, 3, *SIZE)
    fields = dict(mask_noise=torch.rand(2, 2, LENGTH), scale_crop=[(2, 3, 20, 30)] * 2)
    plain = model.loss(images, samples(**fields))
    masked = model.loss(
        images, samples(valid_mask=torch.ones(2, 3, *SIZE, dtype=torch.bool), **fields)
    )
    for name in plain:
        torch.testing.assert_close(plain[name], masked[name])


def test_everything_invalid_is_finite():
    model = build().train()
    given = samples(valid_mask=torch.zeros(2, 3, *SIZE, dtype=torch.bool))
    losses = model.loss(torch.full((2, 3, *SIZE), float('nan')), given)
    total(model, losses).backward()
    assert losses['loss_recon_orig'] == losses['loss_recon_crop'] == 0
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_some_samples_without_a_valid_mask():
    model, images = build().eval(), torch.randn(2, 3, *SIZE)
    given = [BaseDataElement(), BaseDataElement(valid_mask=torch.zeros(3, *SIZE).bool())]
    valid = model.make_views(images, given).view(0).valid
    assert valid[0].all()
    assert not valid[1].any()


def test_enlarged_pixel_is_valid_only_if_all_its_sources_are():
    valid = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    valid[..., 8, 8] = False
    rectangle = (4, 4, 8, 8)
    ours = enlarge_valid(valid, rectangle)
    # A pixel that the invalid one contributes to changes when that one changes.
    images = torch.zeros(1, 1, 16, 16)
    images[..., 8, 8] = 1.0
    assert torch.equal(~ours, enlarge(images, rectangle) != 0)
    assert 0 < (~ours).sum() < 256


def test_encoder_norm_is_used_when_asked():
    model = build(use_encoder_norm=True)
    views = model.make_views(torch.randn(2, 3, *SIZE))
    latent = model.encode(views)
    assert latent.mean(-1).abs().max() < 1e-5
    assert model.backbone.ln1.weight.requires_grad
    assert not build().backbone.ln1.weight.requires_grad


def test_tensor_mode_returns_features_of_whole_images():
    (tokens,) = build().eval()(torch.randn(2, 3, *SIZE), mode='tensor')
    assert tokens.shape == (2, 1 + LENGTH, 32)


def test_other_sizes_than_the_published_grid():
    model = build(predictor_norm='ln').eval()
    assert len(model.loss(torch.randn(2, 3, 40, 24))) == 4


@pytest.mark.parametrize('kind', ['mse', 'l2', 'mae', 'l1', 'bce', 'ssim', 'mse_ssim'])
def test_reconstruction_kinds_train(kind):
    model = build(recon_loss=dict(kind=kind), loss_cd='mae').train()
    losses = model.loss(torch.randn(2, 3, *SIZE))
    total(model, losses).backward()
    assert model.loss_e == ('mse' if 'ssim' in kind else kind)
    assert all(loss.isfinite() for loss in losses.values())


def test_mixed_precision():
    model = build().train()
    with torch.autocast('cpu', torch.bfloat16):
        losses = model.loss(torch.randn(2, 3, *SIZE))
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    total(model, losses).backward()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(terms='MsLdCe'), 'MsLdCe'),
        (dict(terms=['pixels']), 'terms'),
        (dict(terms=[]), 'terms'),
        (dict(terms='MsLd', loss_weights=dict(contrastive=1.0)), 'contrastive'),
        (dict(recon_reduction='max'), 'recon_reduction'),
        (dict(crop_mode='image'), 'crop_mode'),
        (dict(mask_ratio=0.99), 'no visible patch'),
        (dict(mask_ratio=1.0), 'no visible patch'),
        (dict(loss_cd='ssim'), 'loss_cd'),
        (dict(predictor_norm='gn'), 'predictor norm'),
        (dict(backbone=dict(final_norm=False), use_encoder_norm=True), 'final_norm'),
        (dict(backbone=dict(with_cls_token=False)), 'class token'),
    ],
)
def test_contradictions_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        build(**arguments)


@pytest.mark.parametrize(
    ('shape', 'fields', 'message'),
    [
        ((2, 3, *SIZE), dict(mask_noise=torch.rand(2, 2, 16)), 'mask_noise of shape'),
        ((2, 3, *SIZE), dict(mask_noise=torch.rand(2, 1, LENGTH)), 'mask_noise of shape'),
        ((2, 3, *SIZE), dict(scale_crop=[(0, 0, 40, 48)] * 2), 'not inside the image'),
        ((2, 3, *SIZE), dict(valid_mask=torch.ones(2, 3, 16, 16)), 'valid_mask has shape'),
        ((2, 3, 30, 48), {}, 'whole patches'),
        ((2, 4, *SIZE), {}, 'takes 3 bands'),
        ((2, 3, 64, 64), {}, 'made for 24 patches'),
    ],
)
def test_wrong_inputs_are_named(shape, fields, message):
    model = build()
    with pytest.raises(ConfigError, match=message):
        model.loss(torch.randn(*shape), samples(**fields))


def test_only_some_samples_with_noise_is_an_error():
    given = [BaseDataElement(mask_noise=torch.rand(2, LENGTH)), BaseDataElement()]
    with pytest.raises(ConfigError, match='only some'):
        build().loss(torch.randn(2, 3, *SIZE), given)


def test_three_views_are_an_error():
    with pytest.raises(ConfigError, match='paired views'):
        build().loss([torch.randn(2, 3, *SIZE)] * 3)


def test_published_sizes_and_predictor_initialisation():
    """Trainable parameters of the base model, less the encoder norm that is frozen here."""
    with torch.device('meta'):
        model = CrossScaleMAE(
            backbone=dict(type='mmrsfm.CrossScaleViT', pos_embed_trainable=False),
            neck=dict(type='mmrsfm.CrossScaleMAEDecoder'),
        )
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable == 113_755_520 - 2 * 768
    assert sum(p.numel() for p in model.predictor.parameters()) == 2_099_840


def test_reconstructions_of_both_views():
    """The loss of what `predict` says is that of the training: the same masks, the same numbers."""
    model = build(terms='MsLd').eval()
    images = torch.randn(2, 3, *SIZE)
    noise = torch.rand(2, 2, LENGTH)
    fields = dict(mask_noise=list(noise), scale_crop=[(4, 8, 16, 24)] * 2)
    given = samples(**fields)
    given[1].valid_mask = torch.ones(3, *SIZE, dtype=torch.bool)
    given[1].valid_mask[:, :8, :8] = False
    losses = model(images, given, mode='loss')
    found = model(images, given, mode='predict')
    for view, term in (('image', 'recon_orig'), ('crop', 'recon_crop')):
        parts = [sample.reconstruction[view] for sample in found]
        image, pred, mask = (
            torch.stack([part[key] for part in parts]) for key in ('image', 'pred', 'mask')
        )
        assert image.shape == pred.shape == (2, 3, *SIZE) and mask.shape == (2, 1, *SIZE)
        assert mask.float().mean() == pytest.approx(0.75)
        counted = mask & image.isfinite()
        error = (pred - image)[counted.expand_as(image)].square().mean()
        assert error.item() == pytest.approx(losses[f'loss_{term}'].item(), rel=1e-5)
    assert found[1].reconstruction['image']['image'][:, :8, :8].isnan().all()
    alone = build(terms='Baseline').eval()(images, None, mode='predict')
    assert len(alone) == 2 and set(alone[0].reconstruction) == {'image'}
