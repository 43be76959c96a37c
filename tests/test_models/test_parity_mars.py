# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""MaRS against arrays that its reference code computed."""

import pytest
import torch
from mmengine.structures import BaseDataElement

from mmrsfm.checkpoints import convert_state_dict
from mmrsfm.registry import MODELS
from tests.parity import Fixture, assert_parity, parity_files

MODALITIES = ('rgb', 'sar')
MASK_MODES = {'int': 'reference_int', 'bool': 'simmim'}
# Described by the fixture, without effect on the model in evaluation mode.
WITHOUT_EFFECT = {
    'img_size', 'batch', 'seed', 'iseed', 'mseed', 'timm', 'torch', 'weights', 'drop_path_rate',
    'contrast_type', 'model_name',
}  # fmt: skip
PUBLISHED = dict(drop_first_token=True, gather=False, max_elements=500)
CONTRASTS = {
    'cross': dict(
        type='mmrsfm.CrossGranularityContrastiveLoss', patch_image_targets='as_coded', **PUBLISHED
    ),
    'clip': dict(type='mmrsfm.TokenCLIPLoss', **PUBLISHED),
    'none': None,
}
MAPS, LOSSES = 1e-4, 1e-5


class Case:
    """A fixture, and our model made from the arguments that are stored in it."""

    def __init__(self, path):
        self.fixture = fixture = Fixture(path)
        self.kwargs = fixture.json()
        self.state = fixture.group('sd')
        self.image = fixture.tensor('in/image')
        self.mask = fixture.tensor('in/mask')
        arguments = self._arguments()
        self.models = {}
        for tag, mode in MASK_MODES.items():
            model = MODELS.build(dict(arguments, mask_mode=mode)).eval()
            model.load_state_dict(self.converted(self.state), strict=True)
            self.models[tag] = model
        # Whichever of them the model has, the fixture may hold the values of both.
        self.contrasts = {name: MODELS.build(CONTRASTS[name]) for name in ('cross', 'clip')}
        self.contrasts['clip'].log_scale.data = self.state['contrast_temp']

    def _arguments(self):
        kwargs = {k: v for k, v in self.kwargs.items() if k not in WITHOUT_EFFECT}
        arch = dict(
            embed_dims=kwargs.pop('embed_dim'),
            depths=kwargs.pop('depths'),
            num_heads=kwargs.pop('num_heads'),
        )
        mma = kwargs.pop('mma')
        channels = kwargs.pop('in_chans')
        self.log_scale = kwargs.pop('temp')
        self.contrast = kwargs.pop('contrast')
        arguments = dict(
            type='mmrsfm.MaRS',
            modalities={name: channels[name] for name in MODALITIES},
            backbone=dict(
                type='mmrsfm.SwinV2',
                arch=arch,
                window_size=kwargs.pop('window_size'),
                pretrained_window_sizes=kwargs.pop('pretrained_window_sizes'),
            ),
            neck=dict(
                depth=mma['num_layers'], num_heads=mma['num_heads'], mlp_ratio=mma['mlp_ratio']
            ),
            head=dict(stride=kwargs.pop('encoder_stride')),
            teacher={},
            contrast=CONTRASTS[self.contrast],
            mask_unit=kwargs.pop('mask_patch_size'),
            mask_ratio=float(self.mask.float().mean()) - 1e-6,
        )
        assert not kwargs, f'the test knows nothing of {sorted(kwargs)}'
        return arguments

    def converted(self, tensors):
        found = convert_state_dict(tensors, source='mars_model')
        # The temperature of 'clip' is in every checkpoint.
        return {
            name: value
            for name, value in found.items()
            if self.contrast == 'clip' or name != 'contrast.log_scale'
        }

    @property
    def data_samples(self):
        unit = self.kwargs['mask_patch_size'] // 4
        noise = self.mask[:, ::unit, ::unit].float().flatten(1)
        return [BaseDataElement(mask_noise=row[None]) for row in noise]


def compare(case, key, value, axes=(2, 3)):
    """One array, whole or thinned out along ``axes``, unless the fixture does not have it."""
    for name in case.fixture.arrays:
        base, _, step = name.partition('@s')
        if base != key:
            continue
        ours = value
        for axis in axes if step else ():
            ours = ours.index_select(axis, torch.arange(0, ours.shape[axis], int(step)))
        assert_parity(ours, case.fixture.tensor(name), name, MAPS)


def compare_stages(case, tag, model, batch):
    """Each stage of each encoder, from the modules' own outputs."""
    encoders = {f'encoder_{name}': model.backbone.branches[name] for name in MODALITIES}
    encoders['teacher_encoder'] = model.teacher
    for name, encoder in encoders.items():
        modality = 'rgb' if name == 'teacher_encoder' else name.removeprefix('encoder_')
        image = batch.inputs[modality].image
        x, grid = encoder.patch_embed(image)
        x = x.view(len(image), *grid, -1)
        compare(case, f'{tag}/{name}/patch_embed', x, (1, 2))
        x = encoder._mask(x, case.mask, model.mask_mode)
        for number, stage in enumerate(encoder.stages):
            x = encoder._run_stage(x, stage)
            compare(case, f'{tag}/{name}/stage{number}', x, (1, 2))


def compare_forward(case, tag):
    fixture, model = case.fixture, case.models[tag]
    batch = model.encode(case.image, case.data_samples)
    assert torch.equal(batch.mask.repeat_interleave(8, 1).repeat_interleave(8, 2), case.mask.bool())
    for name in MODALITIES:
        compare(case, f'{tag}/encoder_{name}', batch.encoded[name])
        compare(case, f'{tag}/mma_{name}', batch.mixed[name])
        compare(case, f'{tag}/rec_{name}', model.heads[name](batch.mixed[name]))
    compare(case, f'{tag}/teacher_encoder', model.teach(batch))
    tokens = [x.flatten(2).transpose(1, 2) for x in batch.encoded.values()]
    layers = model.neck.layers(torch.cat(tokens, 1), [x.shape[1] for x in tokens])
    for number, both in enumerate(layers):
        compare(case, f'{tag}/mma_inter{number}', torch.cat(both, dim=2))
    compare_stages(case, tag, model, batch)

    losses = model.loss(case.image, case.data_samples)
    tokens = [x.flatten(2).transpose(1, 2) for x in batch.mixed.values()]
    cgcl = case.contrasts['cross'](*tokens)
    weights = case.contrasts['cross'].weights
    ours = {
        'mim_rgb': losses['loss_mim_rgb'],
        'mim_sar': losses['loss_mim_sar'],
        'teacher': losses['loss_teacher'],
        'cgcl_patch': cgcl['cgcl_patch'] / weights['patch'],
        'cgcl_image': cgcl['cgcl_image'] / weights['image'],
        'cgcl_hier': cgcl['cgcl_patch_image'] / weights['patch_image'],
        'cgcl': sum(cgcl.values()),
        'clip': case.contrasts['clip'](*tokens)['clip'],
        'total': model.parse_losses(losses)[0],
    }
    for name, value in ours.items():
        key = f'{tag}/loss/{name}'
        if key in fixture:
            assert_parity(value, fixture.tensor(key), key, LOSSES)


def compare_gradients(case, tag):
    fixture, model = case.fixture, case.models[tag]
    model.zero_grad()
    model.parse_losses(model.loss(case.image, case.data_samples))[0].backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    # What trains is used, so that plain DistributedDataParallel works.
    assert set(gradients) == {n for n, p in model.named_parameters() if p.requires_grad}
    for name, gradient in case.converted(fixture.group(f'{tag}/grad')).items():
        assert_parity(gradients[name], gradient, f'{tag}/grad of {name}', MAPS)
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    assert_parity(norm, fixture.tensor(f'{tag}/gradnorm_total'), f'{tag}/gradnorm_total', MAPS)


def compare_released_encoders(case):
    """Whole images, without the last normalisation, as the released files are used."""
    arch = case.models['bool'].backbone
    for name in MODALITIES:
        kwargs = case.kwargs
        encoder = MODELS.build(
            dict(
                type='mmrsfm.SwinV2',
                arch=dict(
                    embed_dims=kwargs['embed_dim'],
                    depths=kwargs['depths'],
                    num_heads=kwargs['num_heads'],
                ),
                window_size=kwargs['window_size'],
                pretrained_window_sizes=kwargs['pretrained_window_sizes'],
                in_channels=kwargs['in_chans'][name],
            )
        ).eval()
        state = arch.branches[name].state_dict()
        encoder.load_state_dict({k: v for k, v in state.items() if k in encoder.state_dict()})
        part = case.models['bool'].split(case.image)[name]
        for number, feature in enumerate(encoder(part.image)):
            compare(case, f'swin/{name}/feat{number}', feature.permute(0, 2, 3, 1), (1, 2))


@pytest.mark.parametrize('path', parity_files('mars_tiny_*.npz'))
def test_parity_mars(path):
    case = Case(path)
    with torch.no_grad():
        for tag in MASK_MODES:
            compare_forward(case, tag)
        compare_released_encoders(case)
    for tag in MASK_MODES:
        compare_gradients(case, tag)
    assert float(case.state['contrast_temp']) == pytest.approx(case.log_scale)
    # Those of the reference without a gradient are those that our model does not have.
    for name in case.fixture.json('nograd_json'):
        assert name == 'contrast_temp' or '.head.fc.' in name
    case.fixture.json('conv_keys_json')  # of the converter: see the tests of the layouts
    assert case.fixture.unused == []
