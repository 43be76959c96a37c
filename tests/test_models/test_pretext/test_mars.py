# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""MaRS beside its parity: any modalities, missing ones, randomness, failure paths, training."""

import math

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.structures import BaseDataElement
from torch.nn.parallel import DistributedDataParallel

from mmrsfm.errors import ConfigError
from mmrsfm.layers.modalities import check_dropout, drop_modality
from mmrsfm.models.pretext.mars_terms import masked_pixel_loss, teacher_loss
from mmrsfm.registry import MODELS
from tests.parity import REPO
from tests.ranks import run_ranks

SIZE = (96, 64)
UNITS = 3 * 2
PAIR = dict(rgb=3, sar=1)
ARCH = dict(embed_dims=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 2, 4])
REAL = REPO.parent / 'shared' / 'realdata' / 'optical_sar'


def build(modalities=None, backbone=None, **changes):
    torch.manual_seed(0)
    modalities = modalities or PAIR
    config = dict(
        type='mmrsfm.MaRS',
        modalities=modalities,
        backbone=backbone or dict(type='mmrsfm.SwinV2', arch=ARCH, window_size=4),
        neck=dict(num_heads=4),
        teacher={},
        contrast=dict(max_elements=200) if len(modalities) > 1 else None,
    )
    model = MODELS.build({**config, **changes})
    model.init_weights()
    # Blocks start as the identity, which would hide what flows through them.
    for name, parameter in model.named_parameters():
        if 'norm' in name and name.endswith('weight'):
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
    return model


def images(batch=3, channels=4, size=SIZE):
    torch.manual_seed(1)
    return torch.randn(batch, channels, *size)


def samples(batch=3, **fields):
    torch.manual_seed(2)
    fields = {'mask_noise': torch.rand(batch, 1, UNITS), **fields}
    return [
        BaseDataElement(**{name: value[n] for name, value in fields.items()}) for n in range(batch)
    ]


def run(model, inputs, data_samples=None):
    """Losses, and all gradients; everything that trains must have one, and finite."""
    model.zero_grad()
    losses = model.loss(inputs, data_samples)
    total, _ = model.parse_losses(losses)
    total.backward()
    assert all(loss.isfinite() for loss in losses.values())
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return losses, {name: gradient.clone() for name, gradient in gradients.items()}


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        assert set(one) == set(other)
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-6)


CGCL = {'loss_cgcl_patch', 'loss_cgcl_image', 'loss_cgcl_patch_image'}


@pytest.mark.parametrize(
    'modalities',
    [
        pytest.param(PAIR, marks=pytest.mark.slow),
        pytest.param(dict(sar=1, rgb=3), marks=pytest.mark.slow),
        dict(rgb=3),
        dict(a=2, b=1, c=4),
    ],
    ids=str,
)
def test_any_modalities(modalities):
    model = build(modalities).train()
    losses, _ = run(model, images(channels=sum(modalities.values())))
    expected = {f'loss_mim_{name}' for name in modalities} | {'loss_teacher'}
    assert set(losses) == expected | (CGCL if len(modalities) > 1 else set())
    assert set(losses) < set(model.parse_losses(losses)[1])


@pytest.mark.parametrize('part', ['neck', 'teacher', 'contrast'])
def test_parts_may_be_left_out(part):
    model = build(**{part: None}).train()
    losses, _ = run(model, images())
    assert ('loss_teacher' in losses) == (part != 'teacher')
    assert (set(losses) >= CGCL) == (part != 'contrast')


def test_weights_of_the_terms():
    weights = dict(mim_sar=2.0, teacher=3.0, contrast=0.5)
    plain, _ = run(build(), images(), samples())
    weighted, _ = run(build(loss_weights=weights), images(), samples())
    for name, value in plain.items():
        term = 'contrast' if 'cgcl' in name else name.removeprefix('loss_')
        torch.testing.assert_close(weighted[name], value * weights.get(term, 1.0))


def test_clip_instead():
    model = build(contrast=dict(type='mmrsfm.TokenCLIPLoss')).train()
    losses, gradients = run(model, images())
    assert {'loss_clip', 'loss_teacher', 'loss_mim_rgb', 'loss_mim_sar'} == set(losses)
    assert gradients['contrast.log_scale'] != 0


def test_pairs_of_more_than_two_modalities_are_averaged():
    model = build(dict(a=2, b=1, c=4)).eval()
    batch = model.encode(images(channels=7), samples())
    tokens = {name: x.flatten(2).transpose(1, 2) for name, x in batch.mixed.items()}
    found = [model.contrast(tokens[a], tokens[b]) for a, b in (('a', 'b'), ('a', 'c'), ('b', 'c'))]
    losses = model.loss(images(channels=7), samples())
    for term in ('cgcl_patch', 'cgcl_image', 'cgcl_patch_image'):
        expected = sum(one[term] for one in found) / 3
        torch.testing.assert_close(losses[f'loss_{term}'], expected)


# ---- what is missing


def test_all_valid_is_as_without_a_mask():
    model = build()
    full = torch.ones(3, 4, *SIZE, dtype=torch.bool)
    assert_same(run(model, images(), samples()), run(model, images(), samples(valid_mask=full)))


@pytest.mark.parametrize('as_nan', [True, False])
def test_nothing_of_what_is_missing_is_seen(as_nan):
    """A swath, and a whole modality in each of two samples: NaN, or told by the mask."""
    model = build().train()
    valid = torch.ones(4, 4, *SIZE, dtype=torch.bool)
    valid[0, 3, :, 20:] = False
    valid[1, 3] = False
    valid[2, :3] = False
    results = []
    for fill in (math.nan, math.inf) if as_nan else (0.0, 1e4):
        inputs = images(4).masked_fill(~valid, fill)
        given = samples(4) if as_nan else samples(4, valid_mask=valid)
        results.append(run(model, inputs, given))
    assert_same(*results)
    assert all(value != 0 for value in results[0][0].values())


def test_a_sample_without_its_partner_is_as_if_it_were_not_there_for_the_contrast():
    model = build().eval()
    inputs, noise = images(), samples()
    inputs[1, 3] = math.nan
    ours = model.loss(inputs, noise)
    others = [0, 2]
    expected = model.loss(inputs[others], [noise[n] for n in others])
    for name in CGCL:
        torch.testing.assert_close(ours[name], expected[name])
    # The optical image of the sample is reconstructed all the same.
    assert ours['loss_mim_rgb'] != expected['loss_mim_rgb']
    torch.testing.assert_close(ours['loss_mim_sar'], expected['loss_mim_sar'])


def test_a_missing_modality_changes_nothing_of_the_other():
    model = build().eval()
    inputs = images()
    inputs[1, 3] = math.nan
    batch = model.encode(inputs, samples())
    alone = build(dict(rgb=3)).eval()
    state = {k: v for k, v in model.state_dict().items() if k in alone.state_dict()}
    alone.load_state_dict(state)
    expected = alone.encode(inputs[:, :3], samples())
    torch.testing.assert_close(batch.mixed['rgb'][1], expected.mixed['rgb'][1])


@pytest.mark.parametrize('missing', [slice(0, 3), slice(3, 4), slice(0, 4)])
def test_a_modality_that_nobody_has(missing):
    model = build().train()
    inputs = images()
    inputs[:, missing] = math.nan
    losses, gradients = run(model, inputs, samples())
    assert all(losses[name] == 0 for name in CGCL)
    assert (losses['loss_mim_sar'] == 0) == (missing.stop == 4)
    assert (losses['loss_mim_rgb'] == 0) == (missing.start == 0)
    assert (losses['loss_teacher'] == 0) == (missing.start == 0)
    gone = {0: 'rgb', 3: 'sar'}[missing.start]
    branch = [g for name, g in gradients.items() if name.startswith(f'backbone.branches.{gone}')]
    assert branch
    assert not any(g.any() for g in branch)


def test_modality_dropout():
    model = build(modality_dropout=1.0).train()
    noise = torch.tensor([0.1, 0.9, 0.6])
    batch = model.encode(images(), samples(modality_noise=noise))
    assert batch.inputs['rgb'].present.tolist() == [False, True, True]
    assert batch.inputs['sar'].present.tolist() == [True, False, False]
    assert batch.targets['rgb'].valid is None
    losses, _ = run(model, images(), samples(modality_noise=noise))
    assert all(losses[name] == 0 for name in CGCL)  # no pair is left
    assert losses['loss_mim_rgb'] > 0
    # Without training, or without dropout, nothing is taken away.
    plain = build()
    assert_same(run(model.eval(), images(), samples()), run(plain.eval(), images(), samples()))
    unlikely = build(modality_dropout=1e-9).train()
    plain.train()
    torch.manual_seed(3)
    one = unlikely.encode(images(), samples()).inputs['rgb']
    assert one.present.all()


def test_a_lost_modality_is_painted_from_the_other():
    model = build(modality_dropout=dict(sar=1.0)).train()
    inputs = images().requires_grad_()
    batch = model.encode(inputs, samples())
    assert not batch.inputs['sar'].present.any()
    pred = model.heads['sar'](batch.mixed['sar'])
    (gradient,) = torch.autograd.grad(pred.square().sum(), inputs)
    assert gradient[:, :3].abs().sum() > 0
    assert not gradient[:, 3].any()


def test_the_last_modality_is_never_lost():
    model = build()
    inputs = images()
    inputs[0, :3] = math.nan
    parts = drop_modality(model.split(inputs), check_dropout(1.0, PAIR), torch.tensor([0.9] * 3))
    assert parts['sar'].present.tolist() == [True, False, False]
    assert parts['rgb'].present.tolist() == [False, True, True]


@pytest.mark.parametrize('wrong', [-0.1, 1.5, dict(nir=0.5), dict(rgb=0.8, sar=0.7)])
def test_dropout_is_checked(wrong):
    with pytest.raises(ConfigError, match='modality_dropout'):
        build(modality_dropout=wrong)


@pytest.mark.skipif(not REAL.is_dir(), reason='the SpaceNet-6 pair is not here')
def test_a_real_pair_of_which_39_percent_is_missing():
    import rasterio

    with (
        rasterio.open(REAL / 'rgb_unmasked.tif') as rgb,
        rasterio.open(REAL / 'sar_masked.tif') as s,
    ):
        pair = np.concatenate([rgb.read().astype(np.float32), s.read([1])])
    assert 0.38 < np.isnan(pair[3]).mean() < 0.40
    pair = torch.from_numpy(pair)
    tiles = torch.stack([pair[:, t : t + 96, x : x + 96] for t in (0, 96) for x in (0, 52, 104)])
    mean, std = torch.tensor([80.0, 80, 80, 5]), torch.tensor([50.0, 50, 50, 8])
    tiles = (tiles - mean[:, None, None]) / std[:, None, None]
    model = build().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    totals = []
    for _ in range(8):
        losses, _ = run(model, tiles)
        optimizer.step()
        totals.append(sum(losses.values()).item())
    assert np.mean(totals[-3:]) < np.mean(totals[:3])


# ---- masks and randomness


def test_the_mask_follows_from_the_noise_and_is_rounded_up():
    model, given = build(), samples()
    mask = model.make_mask(3, SIZE, given)
    assert mask.shape == (3, 3, 2)
    assert mask.flatten(1).sum(1).tolist() == [4, 4, 4]  # ceil(0.6 * 6)
    for row, sample in zip(mask.flatten(1), given, strict=True):
        order = sample.mask_noise[0].argsort()
        assert row[order].tolist() == [False] * 2 + [True] * 4
    assert model.make_mask(1, (512, 512)).sum() == 154


def test_without_noise_torchs_generator_decides():
    model = build()
    torch.manual_seed(5)
    mask = model.make_mask(3, SIZE)
    torch.manual_seed(5)
    noise = torch.rand(3, UNITS)
    given = [BaseDataElement(mask_noise=row[None]) for row in noise]
    assert torch.equal(mask, model.make_mask(3, SIZE, given))


def test_one_mask_for_all_and_hidden_pixels_are_not_seen():
    model = build().eval()
    inputs, given = images(), samples()
    batch = model.encode(inputs, given)
    hidden = batch.mask.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, None]
    changed = inputs.where(~hidden, 7.0)
    for name, encoded in model.encode(changed, given).encoded.items():
        torch.testing.assert_close(encoded, batch.encoded[name])
    assert torch.equal(model.teach(model.encode(changed, given)), model.teach(batch))
    # As published, something else: nothing is hidden.
    model.mask_mode = 'reference_int'
    published = model.encode(inputs, given).encoded['rgb']
    assert not torch.allclose(model.encode(changed, given).encoded['rgb'], published)


def test_only_hidden_pixels_are_targets():
    model = build().eval()
    inputs, given = images(), samples()
    hidden = model.encode(inputs, given).mask.repeat_interleave(32, 1).repeat_interleave(32, 2)
    pred = torch.zeros(3, 1, *SIZE)
    image = torch.full((3, 1, *SIZE), 2.0).where(hidden[:, None], 100.0)
    torch.testing.assert_close(masked_pixel_loss(pred, image, hidden[:, None]), torch.tensor(2.0))


# ---- the teacher


def test_the_teacher_never_trains():
    model = build().train()
    assert not model.teacher.training
    assert model.backbone.training
    assert not any(p.requires_grad for p in model.teacher.parameters())
    model.train(False).train()
    assert not any(module.training for module in model.teacher.modules())
    # It has the arguments of the first modality's encoder, and weights of its own.
    assert set(model.teacher.state_dict()) == set(model.backbone.branches['rgb'].state_dict())
    assert build(teacher_modality='sar').teacher.in_channels == 1


def test_the_teacher_may_see_the_whole_image():
    model = build(teacher_masked=False).eval()
    batch = model.encode(images(), samples())
    torch.testing.assert_close(model.teach(batch), model.teacher(images()[:, :3])[-1])


@pytest.mark.parametrize('axis', ['token', 'channel'])
def test_axes_of_the_teacher(axis):
    student, teacher = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    over = 1 if axis == 'token' else 2
    cosines = (student * teacher).sum(over) / student.norm(dim=over) / teacher.norm(dim=over)
    torch.testing.assert_close(teacher_loss(student, teacher, None, axis), -cosines.mean())
    full = torch.ones(2, 5).bool()
    torch.testing.assert_close(teacher_loss(student, teacher, full, axis), -cosines.mean())
    # Invalid tokens are as if they were not there; an image without any has no say.
    valid = torch.tensor([[1, 1, 0, 1, 0], [0] * 5]).bool()
    kept = student[:1, valid[0]], teacher[:1, valid[0]]
    torch.testing.assert_close(
        teacher_loss(student, teacher, valid, axis), teacher_loss(*kept, None, axis)
    )


# ---- around it


def test_features_are_those_of_the_encoders():
    model = build().eval()
    rgb, sar = model(images(), mode='tensor')
    assert rgb.shape == sar.shape == (3, 64, 3, 2)
    torch.testing.assert_close(sar, model.backbone.branches['sar'](images()[:, 3:])[-1])


def test_reconstructions():
    model = build().eval()
    inputs = images()
    inputs[0, 3, :10] = math.nan
    found = model.reconstruct(inputs, samples())
    for name, channels in PAIR.items():
        part = found[name]
        assert part['pred'].shape == part['image'].shape == (3, channels, *SIZE)
        assert part['mask'].shape == (3, 1, *SIZE)
        assert part['pred'].isfinite().all()
    assert torch.equal(found['sar']['image'].isnan(), inputs[:, 3:].isnan())
    torch.testing.assert_close(found['rgb']['image'], inputs[:, :3])
    given = model(inputs, samples(), mode='predict')
    torch.testing.assert_close(given[1].reconstruction['sar']['pred'], found['sar']['pred'][1])
    assert len(model(inputs, mode='predict')) == 3


def test_mixed_precision():
    model = build().train()
    inputs = images()
    inputs[0, 3] = math.nan
    with torch.autocast('cpu', torch.bfloat16):
        losses = model.loss(inputs, samples())
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    model.parse_losses(losses)[0].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_it_learns():
    model = build().train()
    torch.manual_seed(4)
    base = torch.nn.functional.interpolate(torch.randn(4, 1, 3, 2), size=SIZE, mode='bilinear')
    inputs = torch.cat([base, -base, 0.5 * base, base], dim=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    history = []
    for _ in range(15):
        losses, _ = run(model, inputs)
        optimizer.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    for name in history[0]:
        assert history[-1][name] < history[0][name], name


def test_imagenet_weights_of_mmpretrain(tmp_path):
    """As the base config says: for a SAR band the columns are added up; the mask token is new."""
    from mmpretrain.models import SwinTransformerV2

    source = SwinTransformerV2(arch={**ARCH, 'extra_norm_every_n_blocks': 0}, window_size=4)
    state = {f'backbone.{name}': value for name, value in source.state_dict().items()}
    state['head.fc.weight'] = torch.zeros(5, 64)
    torch.save(dict(state_dict=state, meta={}), tmp_path / 'imagenet.pth')
    config = Config.fromfile(REPO / 'configs/_base_/models/mars_swinv2-base.py')
    init = dict(config.backbone.init_cfg, checkpoint=str(tmp_path / 'imagenet.pth'))
    backbone = dict(type='mmrsfm.SwinV2', arch=ARCH, window_size=4, init_cfg=init)
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='mmrsfm.MaRS',
            modalities=PAIR,
            backbone=backbone,
            neck=dict(num_heads=4),
            teacher={},
        )
    )
    model.init_weights()
    stem = state['backbone.patch_embed.projection.weight']
    branches = model.backbone.branches
    assert torch.equal(branches['rgb'].patch_embed.projection.weight, stem)
    torch.testing.assert_close(
        branches['sar'].patch_embed.projection.weight, stem.sum(1, keepdim=True)
    )
    for encoder in (*branches.values(), model.teacher):
        for name in ('stages.3.blocks.0.ffn.layers.1.weight', 'norm3.weight'):
            assert torch.equal(encoder.state_dict()[name], state[f'backbone.{name}'])


def test_optical_stage_continues_from_pairs(tmp_path):
    paired = build()
    torch.save(
        dict(state_dict=paired.state_dict(), meta=dict(mmrsfm_traits={})), tmp_path / 'pairs.pth'
    )
    init = dict(type='mmrsfm.Pretrained', checkpoint=str(tmp_path / 'pairs.pth'))
    optical = MODELS.build(
        dict(
            type='mmrsfm.MaRS',
            modalities=dict(rgb=3),
            backbone=dict(type='mmrsfm.SwinV2', arch=ARCH, window_size=4),
            neck=dict(num_heads=4),
            teacher={},
            init_cfg=init,
        )
    )
    optical.init_weights()
    state = paired.state_dict()
    for name, value in optical.state_dict().items():
        assert torch.equal(value, state[name]), name
    run(optical.train(), images(channels=3))


@pytest.mark.parametrize('size', ['base', 'large'])
def test_published_sizes_and_decay(size, monkeypatch):
    """All but the classifiers, and the temperature of CLIP, which nothing uses."""
    config = Config.fromfile(REPO / f'configs/_base_/models/mars_swinv2-{size}.py')
    schedule = Config.fromfile(REPO / 'configs/_base_/schedules/mars_adamw_coslr_12e.py')
    config.model.backbone.init_cfg = None
    # mmpretrain takes numbers out of this one.
    linspace = torch.linspace
    monkeypatch.setattr(torch, 'linspace', lambda *args: linspace(*args, device='cpu'))
    with torch.device('meta'):
        model = MODELS.build(config.model)
    width = {'base': 1024, 'large': 1536}[size]
    classifier = width * 1000 + 1000
    total, trained = {
        'base': (318_327_841, 230_408_897),
        'large': (709_823_573, 513_083_449),
    }[size]
    assert sum(p.numel() for p in model.parameters()) == total - 3 * classifier - 1
    assert (
        sum(p.numel() for p in model.parameters() if p.requires_grad)
        == trained - 2 * classifier - 1
    )
    settings = schedule.optim_wrapper
    optimizer = dict(optimizer=settings.optimizer, paramwise_cfg=settings.paramwise_cfg)
    wrapper = build_optim_wrapper(model, dict(type='OptimWrapper', **optimizer))
    groups = [g for g in wrapper.param_groups if g['params'][0].requires_grad]
    decayed = [g for g in groups if g['weight_decay'] > 0]
    assert {g['weight_decay'] for g in decayed} == {0.05}
    # Published: 366 and 531, with two classifiers (a weight and a bias each) and the temperature.
    assert (len(decayed), len(groups) - len(decayed)) == (366 - 2, 531 - 2 - 1)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(modalities={}), 'modalities'),
        (dict(modalities={'keys': 3}), 'plain word'),
        (dict(backbone=dict(rgb=dict(type='mmrsfm.SwinV2'))), 'config for each'),
        (dict(backbone=dict(type='mmrsfm.SwinV2', arch=ARCH, in_channels=3)), 'in_channels=1'),
        (dict(backbone=dict(type='mmrsfm.SwinV2', arch=ARCH, final_norm=False)), 'final_norm'),
        (dict(teacher_modality='nir'), 'teacher_modality'),
        (dict(teacher_axis='image'), 'teacher_axis'),
        (dict(teacher=dict(arch=dict(ARCH, embed_dims=16))), 'teacher have 128 channels'),
        (dict(mask_mode='random'), 'mask_mode'),
        (dict(mask_unit=30), 'mask_unit'),
        (dict(mask_ratio=1.0), 'mask_ratio'),
        (dict(min_valid=0.0), 'min_valid'),
        (dict(loss_weights=dict(mim_nir=1.0)), 'mim_nir'),
        (dict(modalities=dict(rgb=3), contrast={}), 'contrast'),
    ],
)
def test_contradictions_are_named(arguments, message):
    arguments = dict(arguments)
    modalities = arguments.pop('modalities', PAIR)
    with pytest.raises(ConfigError, match=message):
        MODELS.build(
            {
                'type': 'mmrsfm.MaRS',
                'modalities': modalities,
                'backbone': dict(type='mmrsfm.SwinV2', arch=ARCH),
                'teacher': {},
                **arguments,
            }
        )


def test_encoders_must_fit_together():
    wide = dict(ARCH, embed_dims=16)
    backbone = {
        name: dict(type='mmrsfm.SwinV2', arch=arch)
        for name, arch in zip(PAIR, (ARCH, wide), strict=True)
    }
    with pytest.raises(ConfigError, match='differ'):
        build(backbone=backbone)


@pytest.mark.parametrize(
    ('inputs', 'fields', 'message'),
    [
        (torch.randn(3, 3, *SIZE), {}, 'rgb=3, sar=1'),
        (torch.randn(3, 4, 80, 64), {}, 'whole patches'),
        (torch.randn(3, 4, *SIZE), dict(mask_noise=torch.rand(3, 1, 24)), 'mask_noise of shape'),
        (torch.randn(3, 4, *SIZE), dict(valid_mask=torch.ones(3, 4, 8, 8)), 'valid_mask'),
    ],
)
def test_wrong_inputs_are_named(inputs, fields, message):
    with pytest.raises(ConfigError, match=message):
        build().loss(inputs, samples(**fields))


def test_no_teacher_to_ask():
    model = build(teacher=None).eval()
    with pytest.raises(ConfigError, match='no teacher'):
        model.teach(model.encode(images(), samples()))


def _rank(rank):
    model = DistributedDataParallel(build(modality_dropout=0.5).train())
    for step in range(2):
        inputs = images(2)
        # Each rank lacks something else, once all of it.
        inputs[: 2 - step, 3 if rank else 0] = math.nan
        model.zero_grad()
        losses = model(inputs, samples(2), mode='loss')
        model.module.parse_losses(losses)[0].backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def test_plain_distributed_data_parallel(tmp_path):
    """No parameter is waited for, whatever each rank lacks, and all have the same gradients."""
    first, second = run_ranks(_rank, tmp_path)
    for name, gradient in first.items():
        assert gradient is not None, name
        torch.testing.assert_close(gradient, second[name])
