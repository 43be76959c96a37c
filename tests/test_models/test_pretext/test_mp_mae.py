# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""MP-MAE beside its parity: missing data, any modalities, pictures, failure paths."""

import argparse
import copy
import math
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.structures import BaseDataElement

from mmrsfm.apis.training_step import quiet, random_batch
from mmrsfm.checkpoints import convert_state_dict
from mmrsfm.errors import CheckpointError, ConfigError
from mmrsfm.models.heads.modality_targets import parse_targets
from mmrsfm.models.heads.multi_pretext_head import MultiPretextHead
from mmrsfm.models.losses.modality_losses import class_loss, patch_loss, vector_loss
from mmrsfm.registry import MODELS, TRANSFORMS, VISUALIZERS
from tests.parity import REPO
from tests.ranks import run_ranks

SIZE, PATCH, BANDS = 32, 8, 3
ARCH = dict(depths=[1, 1, 1, 1], channels=[4, 8, 8, 16])
TARGETS = dict(
    sentinel2=dict(type='map', channels=BANDS, norm_pix=True, picture=(2, 1, 0)),
    height=dict(type='map', channels=1, loss='mae'),
    cover=dict(type='class_map', classes=4),
    climate=dict(type='vector', channels=5),
    biome=dict(type='class', classes=6),
)


def build(targets=None, mask_ratio=0.6, backbone=None, neck=None, decoder_calls='once', **head):
    torch.manual_seed(0)
    config = dict(
        type='mmrsfm.MPMAE',
        backbone={
            **dict(type='mmrsfm.ConvNeXtV2', arch=ARCH, in_channels=BANDS, patch_size=PATCH),
            **dict(out_indices=(3,)),
            **(backbone or {}),
        },
        neck=dict(embed_dims=12, **(neck or {})),
        head=dict(targets=TARGETS if targets is None else targets, **head),
        mask_ratio=mask_ratio,
        decoder_calls=decoder_calls,
        data_preprocessor=dict(type='mmrsfm.MultiBandDataPreprocessor'),
    )
    model = MODELS.build(config)
    with quiet():
        model.init_weights()
    with torch.no_grad():  # GRN's begin at 0
        for name, parameter in model.named_parameters():
            if '.grn.' in name:
                parameter.normal_(std=0.5)
    return model


def batch_of(model, count=3, size=(SIZE, SIZE)):
    torch.manual_seed(1)
    images = torch.randn(count, model.backbone.in_channels, *size)
    patches = size[0] * size[1] // PATCH**2
    samples = [
        BaseDataElement(mask_noise=torch.rand(1, patches), targets=model.random_targets(size))
        for _ in range(count)
    ]
    for image, sample in zip(images, samples, strict=True):
        if 'sentinel2' in sample.targets:
            sample.targets['sentinel2'] = image.clone()
    return images, samples


def total_of(model, losses):
    return model.parse_losses(dict(losses))[0]


def gradients(model, losses):
    model.zero_grad(set_to_none=True)
    total_of(model, losses).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize('weighting', ['uncertainty', 'unweighted'])
def test_every_parameter_that_trains_gets_a_gradient(weighting):
    model = build(weighting=weighting)
    losses = model.loss(*batch_of(model))
    names = {f'loss_{name}' for name in TARGETS}
    raw = {f'raw_{name}' for name in TARGETS} if weighting == 'uncertainty' else set()
    assert set(losses) == names | raw
    found = gradients(model, losses)
    assert [name for name, gradient in found.items() if gradient is None] == []
    assert all(gradient.abs().sum() > 0 for gradient in found.values())


def test_the_decoder_once_is_the_decoder_for_each_modality():
    once, each = build(), build(decoder_calls='per_modality')
    calls = []
    for model in (once, each):
        model.neck.register_forward_hook(lambda *_: calls.append(1))
    batch = batch_of(once)
    first, second = once.loss(*batch), each.loss(*batch)
    assert len(calls) == 1 + len(TARGETS)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name])
    one, two = gradients(once, first), gradients(each, second)
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], msg=name, rtol=1e-4, atol=1e-6)


def test_losses_are_of_hidden_patches_only():
    model = build()
    images, samples = batch_of(model)
    before = model.loss(images, samples)
    visible = ~model.hide(images, samples).mask.view(3, 4, 4).bool()
    visible = visible.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
    other = copy.deepcopy(samples)
    for sample, where in zip(other, visible, strict=True):
        sample.targets['height'][:, where] += 5.0
        sample.targets['cover'][where] = 0
    after = model.loss(images, other)
    for name, value in before.items():
        assert torch.equal(value, after[name]), name


def missing(model, samples):
    for sample in samples:
        for name, target in model.targets.items():
            sample.targets[name] = target.missing((SIZE, SIZE))


@pytest.mark.parametrize(
    ('weighting', 'rule'),
    [
        ('uncertainty', 'ignored'),
        ('unweighted', 'as_published'),
        pytest.param('uncertainty', 'as_published', marks=pytest.mark.slow),
        pytest.param('unweighted', 'ignored', marks=pytest.mark.slow),
    ],
)
def test_nothing_is_nan_whatever_is_missing(rule, weighting):
    model = build(missing=rule, weighting=weighting)
    images, samples = batch_of(model)
    missing(model, samples)
    for pixels in (images, images * math.nan, images * 0, images * math.inf):
        losses = model.loss(pixels, samples)
        assert all(torch.isfinite(value) for value in losses.values())
        found = gradients(model, losses)
        assert all(gradient is not None for gradient in found.values())
        assert all(torch.isfinite(gradient).all() for gradient in found.values())
        if rule == 'ignored':
            assert total_of(model, losses) == 0
            assert all(gradient.abs().sum() == 0 for gradient in found.values())


def test_an_image_without_any_pixel_beside_others():
    model = build(backbone=dict(grn_statistics='sample'))
    images, samples = batch_of(model)
    images[1] = math.nan
    losses = model.loss(images, samples)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model, losses).values())


def test_a_task_without_targets_moves_no_weight():
    model = build()
    images, samples = batch_of(model)
    for sample in samples:
        sample.targets['biome'] = None
    with torch.no_grad():
        model.head.weighting.log_vars.fill_(0.5)
    losses = model.loss(images, samples)
    assert losses['loss_biome'] == losses['raw_biome'] == 0
    expected = math.exp(-0.5) * losses['raw_climate'] + 0.5
    torch.testing.assert_close(losses['loss_climate'], expected)
    moved = gradients(model, losses)['head.weighting.log_vars'] != 0
    assert dict(zip(TARGETS, moved.tolist(), strict=True)) == {
        name: name != 'biome' for name in TARGETS
    }


def test_missing_pixels_are_left_out_of_the_mean():
    torch.manual_seed(0)
    pred, target = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    target[0, 0, 3:] = math.nan
    target[1, 2] = math.inf
    known = torch.isfinite(target)
    loss, any_known = patch_loss(pred, target)
    torch.testing.assert_close(loss, (pred - target)[known].square().mean())
    assert any_known
    # As published they are 0.
    loss, _ = patch_loss(pred, target, missing='as_published')
    torch.testing.assert_close(loss, (pred - target.where(known, 0.0)).square().mean())
    # Normalised by what is known of each patch.
    loss, _ = patch_loss(pred, target, norm_pix=True)
    total = 0.0
    for p, t in zip(pred.flatten(0, 1), target.flatten(0, 1), strict=True):
        t, p = t[torch.isfinite(t)], p[torch.isfinite(t)]
        if len(t):
            total += (p - (t - t.mean()) / (t.var() + 1e-6).sqrt()).square().sum()
    torch.testing.assert_close(loss, total / known.sum())
    target[:] = math.nan
    loss, any_known = vector_loss(pred[:, 0].requires_grad_(), target[:, 0])
    assert loss == 0
    assert not any_known
    loss.backward()


def test_classes_that_are_missing_are_left_out():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 5, 4), torch.randint(4, (2, 5))
    target[0, :2] = -1
    target[1, 4] = -7
    known = target >= 0
    loss, _ = class_loss(logits, target)
    expected = torch.nn.functional.cross_entropy(logits[known], target[known])
    torch.testing.assert_close(loss, expected)
    loss, any_known = class_loss(logits, target.fill_(-1))
    assert loss == 0
    assert not any_known


def test_the_image_itself_as_target():
    spec = dict(TARGETS['sentinel2'])
    one = build(dict(sentinel2=spec))
    two = build(dict(sentinel2=dict(spec, source='inputs')))
    images, samples = batch_of(one)
    images[0, 1, 5:20] = math.nan
    for image, sample in zip(images, samples, strict=True):
        sample.targets['sentinel2'] = image.clone()
    expected = one.loss(images, samples)['raw_sentinel2']
    for sample in samples:
        sample.targets = {}
    assert torch.equal(two.loss(images, samples)['raw_sentinel2'], expected)
    # The preprocessor has put 0 there, and says so.
    data = two.data_preprocessor(dict(inputs=images, data_samples=samples))
    assert torch.isfinite(data['inputs']).all()
    assert torch.equal(two.loss(**data)['raw_sentinel2'], expected)


@pytest.mark.parametrize('name', list(TARGETS))
def test_any_single_modality_and_any_size(name):
    model = build({name: TARGETS[name]})
    losses = model.loss(*batch_of(model, 2, (24, 40)))
    assert torch.isfinite(losses[f'loss_{name}'])
    assert hasattr(model.head, 'pooled_norm') == (name in ('climate', 'biome'))
    found = gradients(model, losses)
    assert all(gradient is not None for gradient in found.values())


def test_pictures():
    model = build().eval()
    images, samples = batch_of(model)
    samples[0].targets['cover'][:4] = -1
    samples[0].targets['height'][:, :, 30:] = math.nan
    found = model(images, samples, mode='predict')[0]
    assert set(found.reconstruction) == {'sentinel2', 'height', 'cover'}
    assert set(found.pred_values) == {'climate', 'biome'}
    assert found.pred_values['biome']['pred'].shape == ()
    for part in found.reconstruction.values():
        assert part['pred'].shape == part['image'].shape
        assert part['mask'].sum() == 10 * PATCH**2
    visualizer = VISUALIZERS.build(
        dict(type='mmrsfm.ReconstructionVisualizer', modalities=dict(sentinel2=3), name='mp-mae')
    )
    picture = visualizer.draw({}, found)
    assert picture.dtype == np.uint8
    # Without targets all but the image is missing.
    (bare,) = build(dict(TARGETS, sentinel2=dict(TARGETS['sentinel2'], source='inputs')))(
        images[:1], mode='predict'
    )
    assert bare.reconstruction['height']['image'].isnan().all()
    assert (bare.reconstruction['cover']['image'] == -1).all()
    assert torch.equal(bare.reconstruction['sentinel2']['image'], images[0])


def test_masks_follow_the_noise_of_the_samples():
    model = build(mask_ratio=0.75)
    images, samples = batch_of(model)
    masked = model.hide(images, samples)
    assert masked.ids_masked.shape == (3, 12)
    for row, ids, sample in zip(masked.mask, masked.ids_masked, samples, strict=True):
        assert set(ids.tolist()) == set(sample.mask_noise[0].argsort()[4:].tolist())
        assert row.nonzero().flatten().tolist() == ids.tolist()
    torch.manual_seed(5)
    first = model.hide(images).mask
    torch.manual_seed(5)
    assert torch.equal(first, model.hide(images).mask)


def test_noise_as_data_for_measuring_times():
    model = build()
    batch = random_batch(model, 2, (BANDS, SIZE, SIZE))
    data = model.data_preprocessor(batch, True)
    assert torch.isfinite(total_of(model, model.loss(**data)))


def half(model, rank):
    """What a rank has: the second lacks a modality, all pixels of an image, and most of a map."""
    images, samples = batch_of(model, 4)
    images, samples = images[2 * rank : 2 * rank + 2], samples[2 * rank : 2 * rank + 2]
    if rank:
        images[1] = math.nan
        for sample in samples:
            sample.targets['biome'] = None
            sample.targets['height'][:, 3:] = math.nan
    return images, samples


def _one_rank(rank, model):
    wrapped = MMDistributedDataParallel(model, device_ids=None)
    images, samples = half(model, rank)
    total_of(model, wrapped(images, samples, mode='loss')).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_two_ranks_of_which_one_lacks_a_modality(tmp_path):
    model = build(backbone=dict(grn_statistics='batch'))
    alone = [gradients(model, model.loss(*half(model, rank))) for rank in range(2)]
    model.zero_grad(set_to_none=True)
    first, second = run_ranks(_one_rank, tmp_path, model)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        expected = (alone[0][name] + alone[1][name]) / 2
        torch.testing.assert_close(value, expected, msg=name, rtol=1e-4, atol=1e-6)


def test_half_precision():
    model = build()
    images, samples = batch_of(model)
    full = model.loss(images, samples)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half_losses = model.loss(images, samples)
    for name, value in half_losses.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, full[name], msg=name, rtol=0.05, atol=0.05)
    found = gradients(model, half_losses)
    assert all(torch.isfinite(gradient).all() for gradient in found.values())


def test_the_examples_of_the_guide(tmp_path, monkeypatch):
    text = (REPO / 'docs' / 'mp_mae.md').read_text()
    first, declared, own, *_ = re.findall('```python\n(.*?)```', text, re.DOTALL)
    # The published file, but for its numbers.
    names = 'checkpoints/pt-all_mod_atto_1M_64_uncertainty_56-8/checkpoint-199.pth'
    assert names in first
    cfg = Config.fromfile(
        REPO / 'configs/mp_mae/mp-mae_convnextv2-atto_8xb512-coslr-200e_mmearth-56px.py'
    )
    state = MODELS.build(dict(cfg.model, data_preprocessor=None)).state_dict()
    state = convert_state_dict(state, source='mmrsfm', target='mp_mae')
    (tmp_path / names).parent.mkdir(parents=True)
    torch.save(dict(model=state, epoch=199, args=argparse.Namespace(lr=1.0)), tmp_path / names)
    monkeypatch.chdir(tmp_path)
    scope = {}
    with quiet():
        exec(first, scope)
    assert scope['vectors'].shape == (2, 320)
    kernel = state['encoder.initial_conv.0.kernel'].view(3, 3, 12, 40).permute(3, 2, 1, 0)
    assert torch.equal(scope['backbone'].initial_conv[0].weight, kernel)
    exec(declared, scope)
    assert len(parse_targets(scope['targets'])) == 4
    (tmp_path / 'own.py').write_text(own)
    cfg = Config.fromfile(tmp_path / 'own.py')
    assert len(parse_targets(cfg.model.head.targets)) == 13
    assert cfg.train_dataloader.dataset.pipeline[0].targets[0] == 'night_lights'
    assert TRANSFORMS.build(cfg.train_pipeline[0]).targets['night_lights'].names == ('radiance',)


def bad_target(**fields):
    return dict(sentinel2=fields)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(targets={}), 'at least one'),
        (dict(targets=bad_target(type='image', channels=3)), 'type is one of'),
        (dict(targets=bad_target(type='map', classes=3)), 'channels=<number>'),
        (dict(targets=bad_target(type='class', classes=0)), 'classes=<number>'),
        (dict(targets=bad_target(type='class', classes=3, channels=3)), 'no channels'),
        (dict(targets=bad_target(type='class', classes=3, norm_pix=True)), 'not an option'),
        (dict(targets=bad_target(type='map', channels=3, loss='ssim')), 'loss is one of'),
        (dict(targets=bad_target(type='map', channels=3, bands=3)), 'bands'),
        (dict(targets=bad_target(type='map', channels=3, loss_weight=0)), 'loss_weight'),
        (dict(targets=bad_target(type='map', channels=3, picture=(3,))), 'picture'),
        (dict(targets=bad_target(type='map', channels=4, source='inputs')), 'backbone takes 3'),
        (dict(targets=bad_target(type='map', channels=4, source='files')), 'source'),
        (dict(targets={'a.b': dict(type='class', classes=3)}), 'cannot be the name'),
        (dict(targets={'keys': dict(type='class', classes=3)}), 'cannot be the name'),
        (dict(targets={'lossy': dict(type='class', classes=3)}), 'cannot be the name'),
        (dict(weighting='sigma'), 'weighting is one of'),
        (dict(missing='zero'), 'missing is one of'),
        (dict(mask_ratio=1.0), 'mask_ratio'),
        (dict(decoder_calls='twice'), 'decoder_calls'),
        (dict(patch_size=16), 'hides those of 8'),
        (dict(backbone=dict(out_indices=None)), 'out_indices'),
    ],
)
def test_what_cannot_be_built(change, message):
    with pytest.raises(ConfigError, match=message):
        build(**change)


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('climate', torch.zeros(4), 'shape'),
        ('cover', torch.zeros(SIZE, SIZE), 'integers'),
        ('cover', torch.full((SIZE, SIZE), 4), 'holds class 4'),
        ('height', torch.zeros(1, 16, 16), 'must have'),
    ],
)
def test_targets_that_are_not_as_declared(name, value, message):
    model = build()
    images, samples = batch_of(model)
    samples[1].targets[name] = value
    with pytest.raises(ConfigError, match=message):
        model.loss(images, samples)
    del samples[1].targets[name]
    with pytest.raises(ConfigError, match='does not have the target'):
        model.loss(images, samples)


def test_inputs_that_do_not_fit():
    model = build()
    images, samples = batch_of(model)
    with pytest.raises(ConfigError, match='patch_size of'):
        model.loss(images[..., :24], samples)
    with pytest.raises(ConfigError, match='whole patches'):
        model.loss(images[..., :20], samples)
    with pytest.raises(ConfigError, match='visible'):
        build(mask_ratio=0.9).loss(images[..., :8, :8])


def test_task_weights_are_loaded_by_name():
    names = ('biome', 'climate', 'month')
    vectors = dict(type='vector', channels=2)
    source = MultiPretextHead(dict.fromkeys(names, vectors), in_channels=4)
    with torch.no_grad():
        source.weighting.log_vars.copy_(torch.tensor([1.0, 2.0, 3.0]))
    target = MultiPretextHead(dict.fromkeys(('month', 'other', 'biome'), vectors), in_channels=4)
    target.load_state_dict(source.state_dict(), strict=False)
    assert target.weighting.log_vars.tolist() == [3.0, 0.0, 1.0]
    assert torch.equal(target.predictors['month'].weight, source.predictors['month'].weight)
    state = source.state_dict()
    del state['predictors.month.weight'], state['predictors.month.bias']
    with pytest.raises(CheckpointError, match=r'weights 3 tasks .* predicts .*climate'):
        target.load_state_dict(state, strict=False)
