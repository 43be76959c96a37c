# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""SAR-W-MixMAE against arrays that its reference code computed."""

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

from mmrsfm.checkpoints import convert_state_dict
from mmrsfm.layers.patches import patchify, unpatchify
from mmrsfm.models.backbones.mixmim import _merge
from mmrsfm.models.losses import SARWeightedReconstructionLoss
from mmrsfm.models.losses.backscatter_weights import backscatter_weights
from mmrsfm.models.losses.masked_reconstruction_loss import min_max_scaled
from mmrsfm.registry import MODELS
from mmrsfm.utils.decibels import db_to_linear
from tests.parity import Fixture, assert_parity, parity_files

# Of the arrays' names: mode and domain of the weights.
WEIGHTS = {
    'ones': ('none', 'db'),
    'pc_norm': ('per_channel', 'normalized'),
    'sa_norm': ('shared_avg', 'normalized'),
    'pc_db': ('per_channel', 'db'),
    'sa_db': ('shared_avg', 'db'),
}
DOMAINS = {'db': 'db', 'norm': 'normalized'}
PATCH = (32, 32)
# Described by the fixture, without effect on the encoder and the decoder.
WITHOUT_EFFECT = {'num_classes', 'norm_pix_loss', 'range_mask_ratio', 'patch_norm'}


@pytest.mark.parametrize('path', parity_files('sarw_weighting_*.npz'))
def test_parity_sarw_weighting(path):
    fixture = Fixture(path)
    meta = fixture.json('meta')
    images, decibels = fixture.tensor('in/x'), fixture.tensor('in/db')
    mean, std = (torch.tensor(meta[f'norm_{key}'])[:, None, None] for key in ('mean', 'std'))
    assert_parity((decibels - mean) / std, images, 'in/x')
    sources = {'db': decibels, 'norm': images}
    weights = {}
    for name in fixture.arrays:
        if not name.startswith('w/'):
            continue
        _, mode, domain, scale = name.split('/')
        reference = fixture.tensor(name)
        loss = SARWeightedReconstructionLoss(mode, DOMAINS[domain], float(scale))
        ours = loss.weights(images, decibels)[: len(reference)]
        assert_parity(ours, reference.expand_as(ours), name)
        direct = backscatter_weights(sources[domain][: len(ours)], mode, float(scale))
        assert_parity(direct, reference.expand_as(ours), f'{name}, from the function')
        weights[f'{mode}_{domain}', float(scale)] = ours
    power = db_to_linear(decibels[:1])
    assert_parity(power, fixture.tensor('lin/db_img0'), 'lin/db_img0')
    scaled = torch.stack([min_max_scaled(channel) for channel in power[0]])[None]
    assert_parity(scaled, fixture.tensor('linnorm/db_img0'), 'linnorm/db_img0')
    name = 'patchified/per_channel_norm_img0'
    assert_parity(patchify(weights['per_channel_norm', 1.0][:1], PATCH), fixture.tensor(name), name)
    for name, reference in fixture.group('token_mean').items():
        assert_parity(patchify(weights[name, 1.0], PATCH).mean(-1), reference, name)
    assert fixture.unused == []


class Case:
    """A fixture, and our model made from the arguments that are stored in it."""

    def __init__(self, path):
        self.fixture = fixture = Fixture(path)
        self.meta = fixture.json('meta')
        kwargs = {k: v for k, v in fixture.json('kwargs').items() if k not in WITHOUT_EFFECT}
        self.images, self.decibels = fixture.tensor('in/x'), fixture.tensor('in/db')
        arch = dict(
            embed_dims=kwargs.pop('embed_dim'),
            depths=kwargs.pop('depths'),
            num_heads=kwargs.pop('num_heads'),
        )
        backbone = dict(
            type='mmrsfm.MixMIM',
            arch=arch,
            img_size=kwargs.pop('img_size'),
            in_channels=kwargs.pop('in_chans'),
            window_size=kwargs.pop('window_size'),
        )
        neck = dict(
            decoder_embed_dim=kwargs.pop('decoder_dim'),
            decoder_depth=kwargs.pop('decoder_depth'),
            decoder_num_heads=kwargs.pop('decoder_num_heads'),
            mlp_ratio=kwargs.pop('mlp_ratio'),
        )
        assert kwargs.pop('patch_size') == 4
        assert kwargs.pop('qkv_bias') is True
        assert not kwargs, f'the test knows nothing of {sorted(kwargs)}'
        self.model = MODELS.build(
            dict(
                type='mmrsfm.SARWMixMAE',
                backbone=backbone,
                neck=neck,
                mask_ratio=self.meta['mask_ratio'],
                data_preprocessor=dict(
                    type='mmrsfm.MultiBandDataPreprocessor',
                    mean=self.meta['norm_mean'],
                    std=self.meta['norm_std'],
                ),
            )
        ).eval()
        self.model.init_weights()
        self.check_tables()  # those of the checkpoint are random numbers
        self.model.load_state_dict(self.converted(fixture.group('sd')), strict=True)
        noise = fixture.tensor('in/noise')[0]
        self.data_samples = [BaseDataElement(mask_noise=noise) for _ in self.images]

    def converted(self, tensors):
        return convert_state_dict(tensors, source='sar_w_mixmae')

    def check_tables(self):
        tables = {
            'absolute_pos_embed': self.model.backbone.absolute_pos_embed,
            'decoder_pos_embed': self.model.neck.decoder_pos_embed,
        }
        for name, table in tables.items():
            assert_parity(table, self.fixture.tensor(f'sincos/{name}'), f'a fresh {name}')


def compare_losses(case):
    """Each kind of weights, with and without normalised patches."""
    model, fixture = case.model, case.fixture
    for name in [name for name in fixture.arrays if name.startswith('loss/')]:
        _, tag, norm = name.split('/')
        mode, domain = WEIGHTS[tag]
        model.recon_loss = SARWeightedReconstructionLoss(
            mode, domain, norm_pix=norm == 'norm_pix=1'
        )
        ours = model.loss(case.images, case.data_samples)['loss_recon']
        assert_parity(ours, fixture.tensor(name), name)
        assert float(fixture.tensor(name)) == case.meta['losses'][name]


def compare_weights(case):
    for tag, (mode, domain) in WEIGHTS.items():
        weights = SARWeightedReconstructionLoss(mode, domain).weights(case.images, case.decibels)
        means = patchify(weights, PATCH).mean(-1)
        for name, ours in ((f'w/{tag}', weights), (f'w_token_mean/{tag}', means)):
            if name in case.fixture:
                assert_parity(ours, case.fixture.tensor(name), name)


def compare_forward(case):
    model, fixture = case.model, case.fixture
    mixtures = model.mix(case.images, case.data_samples)
    for stage in range(1, 5):
        factor = 2 ** (4 - stage)
        mask = mixtures.mask.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        name = f'in/mask_s{stage}'
        assert_parity(mask.float().flatten(1)[..., None], fixture.tensor(name), name)
    (encoded,) = model.backbone(mixtures.images, mixtures.mask)
    assert_parity(encoded.flatten(2).transpose(1, 2), fixture.tensor('out/encoder'), 'out/encoder')
    embedding = model.decode(mixtures)
    assert_parity(model.neck.predict(embedding), fixture.tensor('out/pred'), 'out/pred')
    patches = model.neck.predict(model.unmix(embedding, mixtures.mask))
    # Unmixing before or after the last layer is the same.
    after = model.unmix(model.neck.predict(embedding), mixtures.mask)
    assert_parity(patches, after, 'unmixed before or after')
    moments = torch.stack([patches.mean(-1), patches.std(-1)], dim=-1)
    assert_parity(moments, fixture.tensor('out/unmix_mean_std'), 'out/unmix_mean_std')
    grid = (mixtures.mask.shape[1], mixtures.mask.shape[2])
    picture = unpatchify(patches[:1], grid, PATCH)
    reference = fixture.tensor('out/unpatchify_img0')
    # Stored in half precision.
    assert reference.dtype == torch.float16
    assert_parity(picture, reference.float(), 'out/unpatchify_img0', 2**-11)


def compare_stages(case):
    """The encoder step by step, with the parts of its forward pass."""
    backbone, fixture = case.model.backbone, case.fixture
    mask = case.model.mix(case.images, case.data_samples).mask
    x, grid = backbone.patch_embed(case.images)
    assert_parity(x[:1], fixture.tensor('out/patch_embed'), 'out/patch_embed')
    cells = mask.repeat_interleave(8, 1).repeat_interleave(8, 2).flatten(1)[..., None]
    x = torch.where(cells, x.flip(0), x) + backbone.absolute_pos_embed
    x = x.view(len(x), *grid, -1)
    for number, (stage, window) in enumerate(
        zip(backbone.layers, backbone.windows(grid), strict=True)
    ):
        x = backbone._run_stage(x, stage, window, mask, 2 ** (3 - number))
        x = _merge(stage.downsample, x) if number < 3 else x
        name = f'out/layer{number}'
        assert_parity(x.flatten(1, 2), fixture.tensor(name), name)


def compare_gradients(case):
    """The norm of the gradient of every parameter, and that every one has a gradient."""
    model = case.model
    (name,) = [key for key in case.meta if key.startswith('grad_norm[')]
    _, tag, norm = name[len('grad_norm[') : -1].split('/')
    mode, domain = WEIGHTS[tag]
    model.recon_loss = SARWeightedReconstructionLoss(mode, domain, norm_pix=norm == 'norm_pix=1')
    model.loss(case.images, case.data_samples)['loss_recon'].backward()
    ours = {key: float(p.grad.norm()) for key, p in model.named_parameters() if p.requires_grad}
    # Put each norm through the conversion of its parameter: they are renamed alike.
    tensors = {
        key: torch.full(case.fixture.arrays[f'sd/{key}'].shape, value)
        for key, value in case.meta[name].items()
    }
    reference = {key: float(np.ravel(value)[0]) for key, value in case.converted(tensors).items()}
    assert set(ours) == set(reference)
    for key, value in ours.items():
        assert value == pytest.approx(reference[key], rel=1e-5), key


@pytest.mark.parametrize('path', parity_files('sarw_mixmae_tiny_*.npz'))
def test_parity_sarw_mixmae(path):
    case = Case(path)
    with torch.no_grad():
        compare_weights(case)
        compare_forward(case)
        compare_stages(case)
        compare_losses(case)
    compare_gradients(case)
    assert case.fixture.unused == []
