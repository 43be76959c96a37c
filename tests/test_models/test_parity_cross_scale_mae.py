# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Cross-Scale MAE against arrays that its reference code computed."""

import pytest
import torch
from mmengine.structures import BaseDataElement

from mmrsfm.checkpoints import convert_state_dict, detect_layout
from mmrsfm.layers.position import sincos_position_table
from mmrsfm.models.backbones import CrossScaleViT
from mmrsfm.models.losses import MaskedReconstructionLoss
from mmrsfm.models.losses.masked_reconstruction_loss import pointwise_loss
from mmrsfm.models.pretext import CrossScaleMAE
from mmrsfm.models.pretext.scale_crop import enlarge
from mmrsfm.registry import MODELS
from tests.parity import Fixture, assert_parity, parity_files

# Arguments of the reference that don't change its maths here.
WITHOUT_EFFECT = {'use_xformers', 'attn_name', 'mask_ratio', 'contr_bs', 'mask_seed'}


class Case:
    """A fixture, and our model made from the arguments that are stored in it."""

    def __init__(self, path):
        self.fixture = fixture = Fixture(path)
        stated = fixture.json()
        self.kwargs = dict(stated['kwargs'])
        self.forward = stated.get('forward', {})
        self.name = stated['model'].removeprefix('MAE_ViT_')
        self.variant = self.name.removesuffix('_PAIRED')
        self.state = fixture.group('sd')
        self.layout = detect_layout(self.state).name
        self.backbone = self._backbone()
        self.model = self._model()
        assert not self.kwargs, f'the test knows nothing of {sorted(self.kwargs)}'
        self.model.load_state_dict(self.converted(self.state), strict=True)
        self.images = fixture.tensor('in/imgs')
        self.views = ['orig'] if self.variant == 'Baseline' else ['orig', 'crop']

    def converted(self, tensors):
        return convert_state_dict(tensors, source=self.layout)

    def _backbone(self):
        take = self.kwargs.pop
        xformers = self.kwargs.get('use_xformers', False)
        post_norm = take('residual_norm_style', 'post') == 'post' and xformers
        for name in WITHOUT_EFFECT & set(self.kwargs):
            take(name)
        width = take('dim_model')
        return dict(
            img_size=take('input_size'),
            patch_size=take('patch_size', 16),
            in_channels=take('input_channels', 3),
            arch=dict(
                embed_dims=width,
                num_layers=take('encoder_num_layers'),
                num_heads=take('encoder_num_heads'),
                feedforward_channels=4 * width,
            ),
            norm_style='post' if post_norm else 'pre',
            norm_cfg=dict(type='LN', eps=1e-5 if xformers else 1e-6),
        )

    def _model(self):
        take, backbone = self.kwargs.pop, self.backbone
        options = dict(
            loss_cd=take('loss_cd', None),
            loss_e=take('loss_e', None) or take('loss_ce', None),
            recon_reduction=take('ms_decoder_loss_reduction', 'sum'),
            recon_loss=dict(kind=take('loss', 'mse'), norm_pix=take('norm_pix_loss', False)),
            predictor=dict(hidden_channels=take('predictor_hidden_size', 2048)),
            scale_range=take('ms_range', (0.25, 0.75)),
            consistent_mask=self.forward.get('consistent_mask', False)
            or self.forward.get('mask_seed') is not None,
        )
        return CrossScaleMAE(
            backbone=dict(
                type='mmrsfm.CrossScaleViT', pos_embed_trainable=False, out_type='raw', **backbone
            ),
            neck=dict(
                type='mmrsfm.CrossScaleMAEDecoder',
                img_size=backbone['img_size'],
                patch_size=backbone['patch_size'],
                in_chans=backbone['in_channels'],
                embed_dim=backbone['arch']['embed_dims'],
                decoder_embed_dim=take('decoder_embed_dim', 512),
                decoder_depth=take('decoder_num_layers', 8),
                decoder_num_heads=take('decoder_num_heads', 16),
                norm_style=backbone['norm_style'],
                norm_cfg=backbone['norm_cfg'],
            ),
            terms=self.variant,
            mask_ratio=self.forward.get('mask_ratio', 0.75),
            **options,
        )

    @property
    def data_samples(self):
        names = [f'in/noise_{view}' for view in self.views]
        # With a consistent mask both views have the first one's.
        names = [name if name in self.fixture else names[0] for name in names]
        noise = [self.fixture.tensor(name) for name in names]
        samples = []
        for number in range(len(self.images)):
            sample = BaseDataElement(mask_noise=torch.stack([row[number] for row in noise]))
            if 'in/crop_ijhw' in self.fixture:
                sample.scale_crop = self.fixture.tensor('in/crop_ijhw').tolist()
            samples.append(sample)
        return samples

    @property
    def inputs(self):
        if self.name.endswith('_PAIRED'):
            return [self.images, self.fixture.tensor('in/imgs_crop')]
        return self.images


def compare_forward(case, mode):
    """One forward pass, compared with everything under ``mode/``; returns the losses."""
    fixture, model = case.fixture, case.model
    views = model.make_views(case.inputs, case.data_samples)
    if 'in/imgs_crop' in fixture:
        assert_parity(views.view(1).images, fixture.tensor('in/imgs_crop'), 'in/imgs_crop')
    latent = model.encode(views)
    embedding = model.decode(latent, views)
    ours = dict(
        latent=latent,
        mask=views.mask,
        ids_restore=views.ids_restore,
        dec_emb=embedding,
        pred=model.neck.predict(embedding),
        pooled=latent[:, 1:].mean(1),
    )
    for name, value in ours.items():
        for view, part in zip(case.views, views.split(value), strict=True):
            key = f'{mode}/{name}_{view}'
            if key in fixture:
                assert_parity(part, fixture.tensor(key), key)
    if f'{mode}/cross_pred' in fixture:
        # In a copy of the statistics: the forward of the losses is the one that moves them.
        kept = {name: value.clone() for name, value in model.predictor.state_dict().items()}
        assert_parity(
            model.predictor(views.split(embedding)[1][:, 1:]),
            fixture.tensor(f'{mode}/cross_pred'),
            f'{mode}/cross_pred',
        )
        model.predictor.load_state_dict(kept)
    losses = model.loss(case.inputs, case.data_samples)
    compare_losses(case, mode, losses)
    return losses


def compare_losses(case, mode, losses):
    latent_names = ('loss_e', 'loss_le', 'loss_latent')
    names = dict(
        loss_recon_orig=('loss_recon_orig',),
        loss_recon_crop=('loss_recon_crop',),
        loss_cross_pred=('loss_cd',),
        loss_contrastive=('loss_ce',),
        loss_latent=(*latent_names, 'loss_ce'),
    )
    for ours, value in losses.items():
        weight = case.model.loss_weights[ours.removeprefix('loss_')]
        keys = [f'{mode}/{name}' for name in names[ours] if f'{mode}/{name}' in case.fixture]
        for key in keys:
            assert_parity(value / weight, case.fixture.tensor(key), key)
    total, _ = case.model.parse_losses(losses)
    assert_parity(total, case.fixture.tensor(f'{mode}/loss_total'), f'{mode}/loss_total')
    for absent in ('loss_cd', 'loss_ce', *latent_names):
        key = f'{mode}/{absent}'
        if key in case.fixture and key not in case.fixture.used:
            value = case.fixture.tensor(key)
            assert not value.isfinite() or value == 0, f'{key} is a term that our model lacks'


def compare_training(case):
    fixture, model = case.fixture, case.model.train()
    losses = compare_forward(case, 'train')
    model.zero_grad()
    sum(losses.values()).backward()
    for name in ('mean', 'var'):
        key = f'train/bn_running_{name}_after'
        if key in fixture:
            norm = getattr(model.predictor, '1')
            assert_parity(getattr(norm, f'running_{name}'), fixture.tensor(key), key)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    reference = case.converted(fixture.group('train/grad'))
    assert set(gradients) == set(reference)
    for name, gradient in reference.items():
        assert_parity(gradients[name], gradient, f'train/grad of {name}')
    if 'train/params_without_grad' in fixture:
        names = fixture.json('train/params_without_grad')
        without = set(case.converted({name: case.state[name] for name in names}))
        parameters = dict(model.named_parameters())
        assert {name for name, p in parameters.items() if p.grad is None} == without
        # So that plain DistributedDataParallel does not wait for them.
        assert {name for name, p in parameters.items() if not p.requires_grad} == without


def compare_extra_losses(case):
    fixture = case.fixture
    for key in [name for name in fixture.arrays if name.startswith('extra/')]:
        pred, mask = fixture.tensor('eval/pred_orig'), fixture.tensor('eval/mask_orig')
        which, kind = key.removeprefix('extra/').rsplit('_normpix', 1)[0].split('_', 1)
        module = MaskedReconstructionLoss(
            kind, norm_pix=key.endswith('1'), patch_size=case.model.patch_size
        )
        loss = module(pred, case.images, mask if which == 'recon' else None)
        assert_parity(loss, fixture.tensor(key), key)


def compare_downstream(case):
    for group, out_type in (('vit_gap', 'avg_featmap'), ('vit_cls', 'cls_token')):
        if f'{group}/feat' not in case.fixture:
            continue
        extra = case.fixture.group(f'{group}/sd')
        vit = CrossScaleViT(out_type=out_type, **case.backbone).eval()
        state = {
            name.removeprefix('backbone.'): value
            for name, value in case.converted(case.state).items()
            if name.startswith('backbone.') and not name.startswith('backbone.ln1')
        }
        norm, ours = ('fc_norm', 'ln2') if group == 'vit_gap' else ('norm', 'ln1')
        for part in ('weight', 'bias'):
            state[f'{ours}.{part}'] = extra[f'{norm}.{part}']
        vit.load_state_dict(state, strict=True)
        (feature,) = vit(case.images)
        assert_parity(feature, case.fixture.tensor(f'{group}/feat'), f'{group}/feat')
        logits = feature @ extra['head.weight'].T + extra['head.bias']
        assert_parity(logits, case.fixture.tensor(f'{group}/logits'), f'{group}/logits')


@pytest.mark.parametrize('path', parity_files('crossscale_mae_tiny_*.npz'))
def test_parity_cross_scale_mae(path):
    case = Case(path)
    with torch.no_grad():
        case.model.eval()
        compare_forward(case, 'eval')
        compare_extra_losses(case)
        compare_downstream(case)
    compare_training(case)
    assert case.fixture.unused == []


@pytest.mark.parametrize('path', parity_files('crossscale_mae_tiny_*.npz'))
def test_parity_position_tables(path):
    """Our own tables, not only the loaded ones."""
    case = Case(path)
    fresh = MODELS.build(dict(type='mmrsfm.CrossScaleViT', **case.backbone))
    assert_parity(fresh.pos_embed, case.state['encoder_pos_embed'], 'encoder_pos_embed', 1e-6)
    table = sincos_position_table(case.model.neck.grid, case.model.neck.decoder_embed_dim)
    assert_parity(table, case.state['decoder_pos_embed'], 'decoder_pos_embed', 1e-6)


@pytest.mark.parametrize('path', parity_files('crossscale_mae_tiny_*.npz'))
def test_parity_crop(path):
    fixture = Fixture(path)
    if 'in/crop_ijhw' not in fixture:
        pytest.skip('the second view of this fixture is not a crop')
    ours = enlarge(fixture.tensor('in/imgs'), fixture.tensor('in/crop_ijhw').tolist())
    assert_parity(ours, fixture.tensor('in/imgs_crop'), 'in/imgs_crop', 1e-6)


def test_pointwise_loss_is_the_published_formula():
    pred, target = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    mask = torch.tensor([[1.0, 0, 1], [0, 1, 1]])
    expected = ((pred - target).square().mean(-1) * mask).sum() / mask.sum()
    assert_parity(pointwise_loss(pred, target, 'mse', mask), expected, 'mse')
