# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""MP-MAE against arrays that its reference code computed."""

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

from mmrsfm.checkpoints import convert_state_dict
from mmrsfm.registry import MODELS
from tests.parity import Fixture, assert_parity, parity_files

# Of the reference's modalities: those that are maps, and how they are compared.
MAPS = {'sentinel2', 'sentinel1', 'aster', 'canopy_height_eth'}
CLASS_MAPS = {'dynamic_world': 9, 'esa_worldcover': 11}
CLASSES = {'biome', 'eco_region'}
# Of tiny_a and zeropix the arrays agree to 3e-6.
TOLERANCE = 1e-4
WITHOUT_EFFECT = {'img_size', 'dataset_modalities', 'source'}


def declared(name, array, norm_pix):
    """A modality as the config of our model declares it."""
    if name in CLASS_MAPS:
        return dict(type='class_map', classes=CLASS_MAPS[name])
    if name in CLASSES:
        return dict(type='class', classes=array.shape[1])
    if name in MAPS:
        # Of maps only Sentinel-2 is normalised patch by patch.
        norm_pix = norm_pix and name == 'sentinel2'
        return dict(type='map', channels=array.shape[1], norm_pix=norm_pix)
    assert array.ndim == 2, f'the test knows nothing of {name}'
    return dict(type='vector', channels=array.shape[1])


def target_of(name, row):
    if name in CLASSES:
        return row.argmax()
    return row[0] if name in CLASS_MAPS else row


class Case:
    """A fixture, and our model made from the arguments that are stored in it."""

    def __init__(self, path):
        self.fixture = fixture = Fixture(path)
        kwargs = {k: v for k, v in fixture.json('kwargs').items() if k not in WITHOUT_EFFECT}
        inputs = fixture.group('in')
        names = kwargs.pop('out_modalities')
        norm_pix = kwargs.pop('norm_pix_loss')
        backbone = dict(
            type='mmrsfm.ConvNeXtV2',
            arch=dict(depths=kwargs.pop('depths'), channels=kwargs.pop('dims')),
            in_channels=kwargs.pop('in_chans'),
            patch_size=kwargs.pop('patch_size'),
            stem='original' if kwargs.pop('use_orig_stem') else 'mmearth',
            grn_statistics='batch',
            out_indices=(0, 1, 2, 3),
            stem_maps=True,
        )
        neck = dict(depth=kwargs.pop('decoder_depth'), embed_dims=kwargs.pop('decoder_embed_dim'))
        self.model = MODELS.build(
            dict(
                type='mmrsfm.MPMAE',
                backbone=backbone,
                neck=neck,
                head=dict(
                    targets={name: declared(name, inputs[name], norm_pix) for name in names},
                    weighting=kwargs.pop('loss_aggr'),
                    missing='as_published',
                ),
                mask_ratio=kwargs.pop('mask_ratio'),
            )
        ).eval()
        assert not kwargs, f'the test knows nothing of {sorted(kwargs)}'
        ours = self.converted(fixture.group('sd'))
        missing, unexpected = self.model.load_state_dict(ours, strict=False)
        assert not unexpected
        assert set(missing) <= {name for name in missing if name.startswith('backbone.norm')}
        self.images = inputs['sentinel2']
        self.samples = [
            BaseDataElement(
                # As noise it keeps the patches that the reference kept.
                mask_noise=row[None],
                targets={name: target_of(name, inputs[name][number]) for name in names},
            )
            for number, row in enumerate(fixture.tensor('mask'))
        ]

    def converted(self, tensors):
        """In our names; the reference has a norm for values even where it predicts maps alone."""
        ours = convert_state_dict(tensors, source='mp_mae')
        if not hasattr(self.model.head, 'pooled_norm'):
            ours = {key: value for key, value in ours.items() if 'pooled_norm' not in key}
        return ours


def compare_forward(case):
    model, fixture = case.model, case.fixture
    masked = model.hide(case.images, case.samples)
    assert_parity(masked.mask, fixture.tensor('mask'), 'mask')
    maps = model.backbone(masked.images, masked.mask)
    names = ['stem', 'stage0', 'stage1', 'stage2', 'stage3']
    for name, ours in zip(names, maps[-5:], strict=True):
        assert_parity(ours, fixture.tensor(f'feat/{name}'), name, TOLERANCE)
    assert_parity(maps[-1], fixture.tensor('feat/encoder'), 'encoder', TOLERANCE)
    embedding = model.neck(maps[-1], masked.mask)
    reference = fixture.tensor('feat/decoder')
    assert_parity(embedding, reference.flatten(2).transpose(1, 2), 'decoder', TOLERANCE)
    predicted = model.head.predict(embedding)
    for name, reference in fixture.group('pred').items():
        if reference.ndim == 4:  # (B, P * P * C, h, w)
            reference = reference.flatten(2).transpose(1, 2)
        assert_parity(predicted[name], reference, f'pred/{name}', TOLERANCE)


def compare_losses(case):
    model, fixture = case.model, case.fixture
    found = model.loss(case.images, case.samples)
    total, _ = model.parse_losses(dict(found))
    references = fixture.group('loss')
    assert_parity(total, references.pop('total'), 'loss/total', TOLERANCE)
    weighted = model.head.weighting.mode == 'uncertainty'
    for name, reference in references.items():
        ours = found[f'raw_{name}'] if weighted else found[f'loss_{name}']
        assert_parity(ours, reference, f'loss/{name}', TOLERANCE)
    if 'weighted_losses' in fixture:
        ours = torch.stack([found[f'loss_{name}'] for name in model.targets])
        assert_parity(ours, fixture.tensor('weighted_losses'), 'weighted_losses', TOLERANCE)
    return total


def compare_gradients(case, total):
    """Those that are stored, and the norms of all others."""
    model, fixture = case.model, case.fixture
    model.zero_grad()
    total.backward()
    parameters = dict(model.named_parameters())
    ours = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    stored = fixture.group('grad')
    for name, reference in case.converted(filled(fixture, stored)).items():
        if reference.isinf().any():  # not stored
            continue
        assert_parity(ours[name], reference, f'grad/{name}', TOLERANCE)
    norms = fixture.json('grad_norms_json')
    # Put each norm through the conversion of its parameter: they are renamed alike.
    tensors = {
        key: torch.full(fixture.arrays[f'sd/{key}'].shape, value) for key, value in norms.items()
    }
    reference = {
        name: float(np.ravel(value)[0])
        for name, value in case.converted(filled(fixture, tensors)).items()
        if not value.isinf().any()
    }
    assert set(reference) == set(ours)
    for name, value in reference.items():
        assert float(ours[name].norm()) == pytest.approx(value, rel=TOLERANCE), name


def filled(fixture, tensors):
    """A whole state dict, infinite where unknown: the decoder is stored once a modality."""
    state = {
        key[3:]: torch.full(array.shape, torch.inf)
        for key, array in fixture.arrays.items()
        if key.startswith('sd/')
    }
    state.update(tensors)
    for key in state:
        kind, _, rest = key.partition('.')
        if kind == 'decoder_dict':
            _, rest = rest.split('.', 1)
            known = [k for k in tensors if k.startswith('decoder_dict.') and k.endswith(rest)]
            if known:
                state[key] = tensors[known[0]]
    return state


@pytest.mark.parametrize('path', parity_files('mpmae_*.npz'))
@pytest.mark.parametrize('masked_path', ['dense', 'packed'])
def test_parity_mpmae(path, masked_path):
    case = Case(path)
    case.model.backbone.masked_path = masked_path
    with torch.no_grad():
        compare_forward(case)
    total = compare_losses(case)
    compare_gradients(case, total)
    case.model.decoder_calls = 'per_modality'
    compare_losses(case)
    assert case.fixture.unused == []
