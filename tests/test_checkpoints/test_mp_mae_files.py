# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The files of MP-MAE and ConvNeXtV2: key tables, loads, bands, export, layer decay."""

import json
from argparse import Namespace

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmrsfm.checkpoints import (
    convert_state_dict,
    detect_layout,
    export_checkpoint,
    load_pretrained,
)
from mmrsfm.errors import CheckpointError, ContractError, IncompleteLoadError
from mmrsfm.models.backbones import ConvNeXtV2
from tests.parity import Fixture, assert_parity, parity_files

ARCH = dict(depths=[1, 1, 2, 1], channels=[4, 8, 16, 32])
PRETRAINED = ['B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B8A', 'B08', 'B09', 'B11', 'B12']
SWAPPED = [*PRETRAINED[:7], 'B08', 'B8A', *PRETRAINED[9:]]


def empty(shapes):
    return {name: torch.empty(shape, device='meta') for name, shape in shapes.items()}


def shapes_of(state):
    return {name: list(value.shape) for name, value in state.items()}


def tables(*patterns):
    """Every table of names in the files that match, with the architecture that it is of."""
    found = []
    for parameter in parity_files(*patterns):
        path = parameter.values[0]
        if path is None:  # absent: one entry, which is skipped, with a value for each name
            return [pytest.param(None, None, None, id=parameter.id, marks=parameter.marks)]
        content = json.loads(path.read_text())
        for name, table in content.get('configs', content).items():
            if isinstance(table, dict):
                arch = next(a for a in ConvNeXtV2.arch_settings if a in path.stem + name)
                patch = int(name.rpartition('patch')[2])
                shapes = table.get('keys', table)
                found.append(pytest.param(arch, patch, shapes, id=f'{path.stem}-{name}'))
    return found


def round_trip(shapes, name):
    state = empty(shapes)
    layout = detect_layout(state)
    assert layout.name == name
    ours, unknown = layout.to_mmrsfm(state)
    assert not unknown
    back, homeless = layout.from_mmrsfm(ours)
    assert not homeless
    assert shapes_of(back) == {key: list(shape) for key, shape in shapes.items()}
    return ours


def backbone_shapes(arch, patch, like, **options):
    """Of our model, with the bands and the stem that a table has."""
    stem = 'mmearth' if 'backbone.initial_conv.0.weight' in like else 'original'
    first = 'initial_conv.0' if stem == 'mmearth' else 'downsample_layers.0.0'
    bands = like[f'backbone.{first}.weight'][1]
    with torch.device('meta'):
        backbone = ConvNeXtV2(arch, bands, patch, stem, **options)
    return {f'backbone.{name}': list(v.shape) for name, v in backbone.state_dict().items()}


@pytest.fixture
def _meta_depths(monkeypatch):
    """Stochastic depth is made of numbers, which tensors without memory don't have."""
    line = torch.linspace
    monkeypatch.setattr(torch, 'linspace', lambda *args: line(*args, device='cpu'))


@pytest.mark.usefixtures('_meta_depths')
@pytest.mark.parametrize(
    ('arch', 'patch', 'shapes'), tables('keys/mpmae_[!f]*.json', 'keys/mpmae_femto*.json')
)
def test_parity_key_tables_of_the_pretraining(arch, patch, shapes):
    ours = shapes_of(round_trip(shapes, 'mp_mae'))
    encoder = {name: shape for name, shape in ours.items() if name.startswith('backbone.')}
    assert encoder == backbone_shapes(arch, patch, ours, out_indices=(3,))
    blocks = {name.split('.')[2] for name in ours if name.startswith('neck.blocks.')}
    assert blocks == {'0'}  # of twelve copies


@pytest.mark.usefixtures('_meta_depths')
@pytest.mark.parametrize(('arch', 'patch', 'shapes'), tables('keys/mpmae_finetune*.json'))
def test_parity_key_tables_of_the_fine_tunings(arch, patch, shapes):
    ours = shapes_of(round_trip(shapes, 'mp_mae_finetuned'))
    encoder = {name: shape for name, shape in ours.items() if name.startswith('backbone.')}
    assert encoder == backbone_shapes(arch, patch, ours)
    if len(shapes['head.weight']) == 2:
        assert ours['head.fc.weight'] == shapes['head.weight']
        return
    pytest.importorskip('mmseg')
    from mmrsfm.models.segmentation import ConvNeXtUNetHead

    widths = ConvNeXtV2.arch_settings[arch]['channels']
    original = 'stem_orig.0.weight' in shapes
    head = ConvNeXtUNetHead(
        widths if original else [widths[0], *widths],
        last_scale=patch // 8 if original else None,
        num_classes=shapes['head.bias'][0],
    )
    decoder = {f'decode_head.{name}': shape for name, shape in shapes_of(head.state_dict()).items()}
    assert {name: shape for name, shape in ours.items() if name not in encoder} == decoder


@pytest.mark.parametrize('path', parity_files('mpmae_*.npz'))
def test_parity_export_of_the_pretraining(path, tmp_path):
    """A file as it is released loads into a backbone, and comes back as it was."""
    fixture = Fixture(path)
    kwargs, state = fixture.json('kwargs'), fixture.group('sd')
    torch.save(dict(model=state, epoch=3, args=Namespace(blr=1.5e-4)), tmp_path / 'w.pth')
    stem = 'original' if kwargs['use_orig_stem'] else 'mmearth'
    backbone = ConvNeXtV2(
        dict(depths=kwargs['depths'], channels=kwargs['dims']), kwargs['in_chans'],
        kwargs['patch_size'], stem,
    )  # fmt: skip
    report = load_pretrained(backbone, tmp_path / 'w.pth')
    assert report.layout == 'mp_mae'
    assert not report.unexpected
    assert set(report.missing) == {'norm3.weight', 'norm3.bias'}
    ours = convert_state_dict(state)
    made = export_checkpoint(
        dict(state_dict=ours, meta=dict(mmrsfm_traits={})), 'mp_mae', strict=True
    )
    assert set(made.content['model']) == set(state)
    for name, value in state.items():
        assert torch.equal(made.content['model'][name], value), name


@pytest.mark.parametrize('path', parity_files('convnextv2_*.npz'))
def test_parity_export_of_the_fine_tunings(path):
    state = Fixture(path).group('sd')
    made = export_checkpoint(
        dict(state_dict=convert_state_dict(state), meta=dict(mmrsfm_traits={})),
        'mp_mae_finetuned', strict=True,
    )  # fmt: skip
    assert set(made.content['model']) == set(state)
    for name, value in state.items():
        if name.startswith('norm.') and 'upsample_layers.0.norm.bias' in state:
            continue  # of no use in a UNet, and written as it begins
        assert_parity(made.content['model'][name], value, name)


def small(stem='mmearth', **options):
    torch.manual_seed(0)
    backbone = ConvNeXtV2(**{'arch': ARCH, 'stem': stem, **options})
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_()
    return backbone.eval()


def published(backbone, layout='mp_mae'):
    state = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
    if layout == 'mp_mae':
        state = {name: value for name, value in state.items() if '.norm3.' not in name}
    return convert_state_dict(state, 'mmrsfm', layout)


@pytest.mark.parametrize('stem', ['mmearth', 'original'])
@pytest.mark.parametrize('patch', [8, 16, 32])
def test_sparse_kernels_come_back_whatever_the_stem(stem, patch):
    source = small(stem, patch_size=patch, out_indices=(3,), in_channels=5)
    state = published(source)
    kernel = state[f'encoder.{"stem" if stem == "mmearth" else "stem_orig"}.0.kernel']
    assert kernel.ndim == (2 if stem == 'mmearth' or patch == 8 else 3)
    target = small(stem, patch_size=patch, out_indices=(3,), in_channels=5)
    nn.init.zeros_(target.stages[0][0].depthwise_conv.weight)
    assert load_pretrained(target, dict(model=state)).layout == 'mp_mae'
    for name, value in source.state_dict().items():
        assert torch.equal(value, target.state_dict()[name]), name


def test_rows_of_a_sparse_kernel_count_fastest():
    source = small(out_indices=(3,))
    kernel = published(source)['encoder.initial_conv.0.kernel']
    weight = source.initial_conv[0].weight
    for row, column in ((0, 1), (2, 0), (1, 2)):
        assert torch.equal(kernel[row + 3 * column], weight[:, :, row, column].T)
    kernel = published(source)['encoder.stages.2.1.dwconv.kernel']
    assert torch.equal(kernel[2 + 7 * 5], source.stages[2][1].depthwise_conv.weight[:, 0, 2, 5])


@pytest.mark.parametrize(
    ('name', 'damage'),
    [
        ('encoder.initial_conv.0.kernel', lambda kernel: kernel[:8]),
        ('encoder.downsample_layers.0.1.kernel', torch.flatten),
        ('encoder.stages.0.0.dwconv.kernel', lambda kernel: kernel[:48]),
        ('encoder.stem.0.kernel', lambda kernel: kernel[:, None]),
    ],
)
def test_kernels_of_another_shape_are_told(name, damage):
    state = published(small(out_indices=(3,)))
    state[name] = damage(state[name])
    with pytest.raises(CheckpointError, match='sparse kernel'):
        convert_state_dict(state)


def test_the_decoder_of_a_unet_alone_is_exported():
    part = {'decode_head.initial_conv_upsample.0.bias': torch.zeros(2)}
    assert list(convert_state_dict(part, 'mmrsfm', 'mp_mae_finetuned')) == [
        'initial_conv_upsample.0.bias'
    ]


def test_decoders_that_differ_are_told():
    state = published(small(out_indices=(3,)))
    for number, modality in enumerate(('sentinel2', 'biome')):
        state[f'decoder_dict.{modality}.0.norm.weight'] = torch.full((4,), float(number))
    with pytest.raises(CheckpointError, match=r'decoder_dict\.biome.*differs'):
        convert_state_dict(state)


def test_bands_in_another_order_are_an_error_and_found_by_name():
    """The published fine-tunings fed B08 and B8A in the wrong order; names put it right."""
    source = small(out_indices=(3,))
    state = published(source)
    x = torch.randn(1, 12, 16, 16)
    swapped = x[:, [*range(7), 8, 7, *range(9, 12)]]
    with pytest.raises(ContractError, match='B8A'):
        load_pretrained(small(), dict(model=state), contract=dict(band_names=SWAPPED))
    for names, images in ((SWAPPED, swapped), (PRETRAINED, x)):
        for spelled in (names, [n.replace('B0', 'B') for n in names]):
            backbone = small(out_indices=(3,))
            load_pretrained(
                backbone, dict(model=state), adapt='by_name', contract=dict(band_names=spelled)
            )
            with torch.no_grad():
                torch.testing.assert_close(backbone(images), source(x), rtol=1e-4, atol=1e-4)


def test_channels_of_imagenet_are_no_bands():
    """Three channels with MMEarth's stem are B02, B03, B04; with the original one red is first."""
    names = ['B04', 'B03', 'B02']
    for stem in ('mmearth', 'original'):
        source, target = (small(stem, out_indices=(3,), in_channels=3) for _ in range(2))
        options = dict(adapt='by_name', contract=dict(band_names=names))
        if stem == 'original':
            with pytest.raises(ContractError, match='source_bands'):
                load_pretrained(target, dict(model=published(source)), **options)
            options['adapt'] = dict(bands='by_name', source_bands=names)
        load_pretrained(target, dict(model=published(source)), **options)
        weights = [module.get_parameter(module.stem_weight) for module in (source, target)]
        order = [2, 1, 0] if stem == 'mmearth' else [0, 1, 2]
        assert torch.equal(weights[0][:, order], weights[1])


def test_the_published_model_has_a_norm_for_vectors_even_without_any():
    state = {
        'neck.mask_token': torch.zeros(1, 4, 1, 1),
        'head.predictors.aster.bias': torch.ones(8),
    }
    made = convert_state_dict(state, 'mmrsfm', 'mp_mae')
    assert torch.equal(made['layer_norm_tmp.weight'], torch.ones(4))
    assert torch.equal(made['layer_norm_tmp.bias'], torch.zeros(4))
    assert 'layer_norm_tmp.weight' not in published(small(out_indices=(3,)))  # an encoder alone


def test_some_bands_of_a_pretraining():
    source = small(out_indices=(3,))
    target = small(out_indices=(3,), in_channels=4)
    report = load_pretrained(
        target, dict(model=published(source)), adapt='by_name',
        contract=dict(band_names=['B04', 'B03', 'B02', 'B08']),
    )  # fmt: skip
    assert list(report.adapted) == ['initial_conv.0.weight']
    expected = source.initial_conv[0].weight[:, [3, 2, 1, 8]]
    assert torch.equal(target.initial_conv[0].weight, expected)


def test_weights_of_another_stem_or_depth_are_refused():
    state = published(small(out_indices=(3,)))
    for other in (
        small('original', out_indices=(3,)),
        small(arch={**ARCH, 'depths': [1, 1, 1, 1]}, out_indices=(3,)),
        small(patch_size=16, out_indices=(3,)),
    ):
        with pytest.raises(IncompleteLoadError):
            load_pretrained(other, dict(model=state))


def test_files_of_imagenet():
    source = small('original', patch_size=32, in_channels=3)
    state = published(source, 'conv_next_v2')
    assert state['stages.0.0.grn.gamma'].shape == (1, 1, 1, 16)
    assert 'downsample_layers.3.1.weight' in state
    for whole in (state, {name: v for name, v in state.items() if not name.startswith('norm.')}):
        target = small('original', patch_size=32, in_channels=3, out_indices=(3,))
        nn.init.zeros_(target.stages[0][0].norm.weight)
        report = load_pretrained(target, dict(model={**whole, 'head.weight': torch.ones(2, 32)}))
        assert report.layout == 'conv_next_v2'
        assert torch.equal(target.stages[0][0].norm.weight, source.stages[0][0].norm.weight)


def scales(model, **paramwise):
    optimizer = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.3),
            constructor='mmrsfm.ConvNeXtLayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.9, **paramwise),
        ),
    ).optimizer
    group = {id(p): group for group in optimizer.param_groups for p in group['params']}
    return {
        name: (group[id(p)]['lr'], group[id(p)]['weight_decay'])
        for name, p in model.named_parameters()
    }


def classifier():
    model = nn.Module()
    model.backbone = small()
    model.head = nn.Module()
    model.head.fc = nn.Linear(32, 2)
    return model


def test_layer_decay():
    model = classifier()
    found = scales(model, depths=[1, 1, 2, 1])
    for name, (rate, decay) in found.items():
        depth, total = model.backbone.get_layer_depth(name, 'backbone.')
        assert total == 7
        assert rate == pytest.approx(0.9 ** (6 - depth)), name
        flat = name.endswith('.bias') or 'norm' in name or '.grn.' in name
        # The norms of what is between the stages are numbered.
        flat = flat or dict(model.named_parameters())[name].ndim == 1
        assert decay == (0.0 if flat else 0.3), name
    first = 'backbone.initial_conv.0.weight'
    assert found[first][0] == pytest.approx(0.9**6)
    assert found['backbone.downsample_layers.2.1.weight'][0] == pytest.approx(0.9**3)


def test_layer_decay_as_published():
    """What is between two stages is as its first block; stem, norm and head are last."""
    found = scales(classifier(), faithful=True)
    expected = {
        'backbone.initial_conv.0.weight': 6,
        'backbone.downsample_layers.0.0.weight': 6,
        'backbone.stages.0.0.depthwise_conv.weight': 1,
        'backbone.downsample_layers.1.1.weight': 1,
        'backbone.stages.1.0.depthwise_conv.weight': 2,
        'backbone.downsample_layers.2.1.weight': 2,
        'backbone.stages.2.1.depthwise_conv.weight': 4,
        'backbone.downsample_layers.3.1.weight': 3,
        'backbone.stages.3.0.pointwise_conv1.weight': 5,
        'backbone.norm3.weight': 6,
        'head.fc.weight': 6,
    }
    for name, depth in expected.items():
        assert found[name][0] == pytest.approx(0.9 ** (6 - depth)), name
