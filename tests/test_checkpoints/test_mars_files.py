# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The files of MaRS, and those of SwinV2 that it starts from, in our backbones."""

import re
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from timm.models.swin_transformer_v2 import SwinTransformerV2 as TimmSwin

from mmrsfm.checkpoints import (
    describe_model,
    export_checkpoint,
    load_pretrained,
    read_checkpoint,
)
from mmrsfm.engine.hooks import PretrainedGuardHook
from mmrsfm.errors import CheckpointError, CheckpointReadError, ContractError, IncompleteLoadError
from mmrsfm.registry import MODELS

ARCH = dict(embed_dims=8, depths=[1, 2, 1, 1], num_heads=[1, 2, 2, 4])
SWIN = dict(type='mmrsfm.SwinV2', arch=ARCH, window_size=4)
MODALITIES = dict(rgb=3, sar=1)


def swin(seed=0, **changes):
    torch.manual_seed(seed)
    return MODELS.build({**SWIN, **changes}).eval()


def timm_swin(bands=3, classes=5, seed=7):
    torch.manual_seed(seed)
    model = TimmSwin(
        img_size=64, in_chans=bands, num_classes=classes, embed_dim=8, depths=(1, 2, 1, 1),
        num_heads=(1, 2, 2, 4), window_size=4,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def mars(**changes):
    torch.manual_seed(1)
    model = dict(
        type='mmrsfm.MaRS', modalities=MODALITIES, backbone=SWIN, neck={}, teacher={}, contrast={}
    )
    return MODELS.build({**model, **changes})


def raw_checkpoint(wrapped=''):
    """As a run of MaRS saves it: the model, the optimizer, and a pickled Namespace."""
    state = {f'{wrapped}contrast_temp': torch.ones(())}
    for name, bands in (('encoder_rgb', 3), ('encoder_sar', 1), ('teacher_encoder', 3)):
        encoder = timm_swin(bands, 1000, seed=len(state))
        state[f'{wrapped}{name}.mask_token'] = torch.randn(1, 1, 8)
        for key, value in encoder.state_dict().items():
            state[f'{wrapped}{name}.encoder.{key}'] = value
    for name, value in mars().neck.state_dict().items():
        for ours, theirs in (('.norm.', '.0.'), ('.attn.', '.1.'), ('.mlp.', '.3.')):
            name = name.replace(ours, theirs)
        state[f'{wrapped}alternating_attn.{name}'] = torch.randn_like(value)
    for name, bands in MODALITIES.items():
        state[f'{wrapped}decoder_{name}.0.weight'] = torch.randn(bands * 32**2, 64, 1, 1)
        state[f'{wrapped}decoder_{name}.0.bias'] = torch.randn(bands * 32**2)
    return dict(
        model=state,
        optimizer={'state': {0: {'step': torch.tensor(1.0)}}, 'param_groups': [{'lr': 5e-5}]},
        epoch=11,
        scaler={'scale': 65536.0},
        args=Namespace(batch_size=16, model='mars_base'),
    )


def released(modality):
    """What the published converter makes of it."""
    prefix = f'encoder_{modality}.encoder.'
    return {
        name.removeprefix(prefix).replace('layers.', 'layers_'): value
        for name, value in raw_checkpoint()['model'].items()
        if name.startswith(prefix) and not name.startswith((f'{prefix}norm.', f'{prefix}head.'))
    }


def saved(content, folder):
    torch.save(content, folder / 'file.pth')
    return folder / 'file.pth'


def stem(model):
    return model.patch_embed.projection.weight


@pytest.mark.parametrize('wrapped', ['', 'module.'])
def test_whole_checkpoint_fills_the_whole_model(wrapped, tmp_path):
    content, model = raw_checkpoint(wrapped), mars()
    report = load_pretrained(model, saved(content, tmp_path))
    assert report.layout == 'mars_model'
    assert not report.missing
    assert not report.unexpected
    assert len(report.matched) == len(model.state_dict())
    assert len(report.dropped) == 7
    assert 'contrast' in report.summary()
    assert 'never runs' in report.summary()
    state = content['model']
    assert torch.equal(
        stem(model.backbone.branches['sar']),
        state[f'{wrapped}encoder_sar.encoder.patch_embed.proj.weight'],
    )
    assert torch.equal(
        model.neck.global_blocks[1].mlp.fc2.bias,
        state[f'{wrapped}alternating_attn.global_blocks.1.3.fc2.bias'],
    )
    back = export_checkpoint({'state_dict': model.state_dict(), 'meta': {'mmrsfm_traits': {}}},
                             'mars_model').content['model']  # fmt: skip
    unused = {n for n in content['model'] if 'head.fc' in n or 'contrast_temp' in n}
    assert {wrapped + name for name in back} == set(content['model']) - unused
    assert all(torch.equal(value, state[wrapped + name]) for name, value in back.items())


def test_the_unused_temperature_is_that_of_clip():
    model = mars(contrast=dict(type='mmrsfm.TokenCLIPLoss'))
    report = load_pretrained(model, raw_checkpoint())
    assert 'contrast.log_scale' in report.matched
    assert model.contrast.log_scale.item() == 1.0


@pytest.mark.parametrize(('bands', 'encoder'), [(3, 'rgb'), (1, 'sar')])
def test_a_backbone_gets_the_encoder_of_its_bands(bands, encoder, tmp_path):
    model = swin(in_channels=bands)
    report = load_pretrained(model, saved(raw_checkpoint(), tmp_path))
    expected = swin(in_channels=bands, seed=5)
    assert load_pretrained(expected, released(encoder)).layout == 'mars_encoder'
    assert not report.missing
    assert not report.unexpected
    assert f"that of '{encoder}'" in report.summary()
    for name, value in expected.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_a_part_by_name():
    model = swin()
    load_pretrained(model, raw_checkpoint(), part='teacher')
    teacher = raw_checkpoint()['model']['teacher_encoder.encoder.patch_embed.proj.weight']
    assert torch.equal(stem(model), teacher)
    load_pretrained(model, raw_checkpoint(), part='backbone.branches.sar', adapt='mean')
    sar = raw_checkpoint()['model']['encoder_sar.encoder.patch_embed.proj.weight']
    torch.testing.assert_close(stem(model), sar.expand(-1, 3, -1, -1) / 3)
    with pytest.raises(ContractError, match='takes 1 bands'):
        load_pretrained(model, raw_checkpoint(), part='backbone.branches.sar')
    with pytest.raises(IncompleteLoadError, match=r'backbone\.branches\.lidar'):
        load_pretrained(model, raw_checkpoint(), part='backbone.branches.lidar')


def test_which_encoder_must_be_told_where_none_fits():
    with pytest.raises(IncompleteLoadError, match=r"0 of them take 4 bands.*part='backbone\.b"):
        load_pretrained(swin(in_channels=4), raw_checkpoint(), adapt='mean')


def test_task_models_take_an_encoder_too():
    model = MODELS.build(
        dict(type='mmpretrain.ImageClassifier', backbone={**SWIN, 'in_channels': 1})
    )
    report = load_pretrained(model, raw_checkpoint())
    assert len([name for name in report.matched if name.startswith('backbone.')]) == len(
        model.backbone.state_dict()
    )
    model = MODELS.build(dict(type='mmpretrain.ImageClassifier', backbone=SWIN))
    load_pretrained(model, raw_checkpoint(), part='backbone.branches.rgb')


@pytest.mark.parametrize('own', [False, True])
def test_dual_backbone_gets_both(own):
    """From the published checkpoint, and from one of ours."""
    content = raw_checkpoint()
    if own:
        pretrained = mars()
        load_pretrained(pretrained, content)
        content = {'state_dict': pretrained.state_dict(), 'meta': {'mmrsfm_traits': {}}}
    dual = MODELS.build(
        dict(
            type='mmrsfm.DualModalityBackbone', backbone=SWIN, fusion='add',
            modalities={name: dict(channels=bands) for name, bands in MODALITIES.items()},
        )
    )  # fmt: skip
    report = load_pretrained(dual, content)
    assert not report.missing
    assert not report.unexpected
    single = swin(in_channels=1)
    load_pretrained(single, content)
    for name, value in single.state_dict().items():
        assert torch.equal(value, dual.branches['sar'].state_dict()[name])


@pytest.mark.parametrize('late', [False, True])
def test_classifiers_of_imagenet(late):
    """timm's, and the release with the merging at the end of a stage and with its tables."""
    source = timm_swin()
    state = dict(source.state_dict())
    if late:
        for stage in (1, 2, 3):
            for name in ('reduction.weight', 'norm.weight', 'norm.bias'):
                state[f'layers.{stage - 1}.downsample.{name}'] = state.pop(
                    f'layers.{stage}.downsample.{name}'
                )
        for kind in ('weight', 'bias'):
            state[f'head.{kind}'] = state.pop(f'head.fc.{kind}')
        state['layers.0.blocks.0.attn.relative_position_index'] = torch.zeros(16, 16)
        state['layers.1.blocks.1.attn_mask'] = torch.zeros(4, 16, 16)
        state = dict(model=dict(sorted(state.items(), reverse=True)))
    model = swin(final_norm=True)
    report = load_pretrained(model, state)
    assert report.layout == ('swin_v2' if late else 'timm_swin_v2')
    assert not report.missing
    assert not report.unexpected
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours = model(images)[-1]
        expected = source.forward_features(images).permute(0, 3, 1, 2)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_pretraining_starts_from_a_classifier():
    """One band from three by their sum, as timm does; the mask token keeps its initial values."""
    source = timm_swin()
    model = swin(in_channels=1, mask_token=True, final_norm=True, out_indices=(3,))
    report = load_pretrained(model, source.state_dict(), adapt='mean')
    assert list(report.missing) == ['mask_token']
    expected = source.state_dict()['patch_embed.proj.weight'].sum(1, keepdim=True)
    torch.testing.assert_close(stem(model), expected)


def test_pretraining_starts_from_the_model_zoo_of_mmpretrain():
    """Its files hold tables that follow from the architecture, a norm and a classifier."""
    zoo = MODELS.build(
        dict(
            type='mmpretrain.SwinTransformerV2', window_size=4, img_size=64,
            arch={**ARCH, 'extra_norm_every_n_blocks': 0},
        )
    )  # fmt: skip
    state = {f'backbone.{name}': value for name, value in zoo.state_dict().items()}
    content = dict(meta={}, state_dict={**state, 'head.fc.weight': torch.ones(5, 64)})
    zoo.eval()
    images = torch.randn(1, 3, 128, 128)
    for file in (content, zoo.state_dict()):
        model = swin(mask_token=True, final_norm=True, out_indices=(3,))
        report = load_pretrained(model, file)
        assert report.layout == 'mmpretrain_swin_v2'
        assert list(report.missing) == ['mask_token']
        assert not report.unexpected
        with torch.no_grad():
            torch.testing.assert_close(model(images)[-1], zoo(images)[-1])
    encoder = swin()
    assert not load_pretrained(encoder, content).missing


def test_more_blocks_than_the_model_has_are_refused():
    small = swin(arch={**ARCH, 'depths': [1, 1, 1, 1]})
    before = {name: value.clone() for name, value in small.state_dict().items()}
    with pytest.raises(IncompleteLoadError, match='Correct its arguments'):
        load_pretrained(small, released('rgb') | {'patch_embed.proj.bias': torch.zeros(8)})
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


def test_export_to_timm_and_to_the_released_form():
    model = mars()
    load_pretrained(model, raw_checkpoint())
    own = {'state_dict': model.state_dict(), 'meta': {'mmrsfm_traits': {}}}
    target = timm_swin(classes=0)
    content = export_checkpoint(own, 'timm', part='backbone.branches.rgb').content
    result = target.load_state_dict(content['model'], strict=True)
    assert not result.missing_keys
    images = torch.randn(2, 3, 64, 64)
    encoder = model.backbone.branches['rgb'].eval()
    with torch.no_grad():
        expected = encoder(images)[-1]
        found = target.forward_features(images).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for source in (own, raw_checkpoint()):
        export = export_checkpoint(source, 'mars_encoder', part='backbone.branches.sar')
        published = released('sar')
        assert set(export.content['model']) == set(published)
        for name, value in export.content['model'].items():
            assert torch.equal(value, published[name]), name
        assert 'backbone.mask_token' in export.left_out
    with pytest.raises(CheckpointError, match=r"part='backbone\.branches\.rgb'"):
        export_checkpoint(own, 'mars_encoder')


def test_converted_to_ours_without_what_nobody_uses():
    export = export_checkpoint(raw_checkpoint(), 'mmrsfm')
    names = set(export.content['state_dict'])
    assert names == set(mars().state_dict())
    assert len(export.left_out) == 7


@pytest.mark.parametrize('share', [0.999, 0.8, 0.3, 0.01])
def test_truncated_files_say_so(share, tmp_path):
    """The published large encoders are shorter than what they would hold."""
    path = saved(released('rgb'), tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointReadError, match=r'file\.pth.*damaged or truncated'):
        read_checkpoint(path)
    model = swin()
    before = stem(model).clone()
    with pytest.raises(CheckpointReadError):
        load_pretrained(model, path)
    assert torch.equal(stem(model), before)


# ---- what the bands of each encoder were


BANDS = dict(
    band_names=['R', 'G', 'B', 'SAR'], scale=1.0, gsd=0.35,
    sensors=dict(
        umbra=dict(mean=[80.0, 90, 70, 36], std=[60.0, 50, 55, 34]),
        capella=dict(mean=[80.0, 90, 70, 2353], std=[60.0, 50, 55, 4327]),
    ),
)  # fmt: skip
OPTICAL = dict(band_names=['R', 'G', 'B'], scale=1.0, mean=[80.0, 90, 70], std=[60.0, 50, 55])


def preprocessor(**contract):
    return dict(type='mmrsfm.MultiBandDataPreprocessor', **contract)


@pytest.fixture
def own(tmp_path):
    """A file as a run of ours writes it."""
    model = mars(data_preprocessor=preprocessor(**BANDS))
    content = dict(state_dict=model.state_dict(), meta=describe_model(model))
    assert content['meta']['mmrsfm_traits']['modalities'] == MODALITIES
    return saved(content, tmp_path)


def guarded(model):
    """What the hook says before the first step of a run with this model."""
    runner = SimpleNamespace(
        _has_loaded=False, model=model, logger=SimpleNamespace(info=lambda _: None)
    )
    PretrainedGuardHook().before_train(runner)


@pytest.mark.parametrize('part', ['backbone', 'backbone.branches.sar'])
def test_an_encoder_knows_its_own_bands(own, part):
    model = swin(in_channels=1)
    sar = dict(band_names=['SAR'], sensor='umbra', mean=[36.0], std=[34.0])
    report = load_pretrained(model, own, contract=sar, part=part)
    assert report.contract.band_names == ('SAR',)
    assert report.contract.sensors['capella']['std'] == (4327.0,)
    assert report.contract.gsd == 0.35
    with pytest.raises(ContractError, match=r"band_names: the checkpoint has \['SAR'\]"):
        load_pretrained(model, own, contract=dict(band_names=['VV']), part=part)
    with pytest.raises(ContractError, match='mean'):
        load_pretrained(model, own, contract={**sar, 'sensor': 'capella'}, part=part)


def test_an_exported_encoder_states_its_own_bands(own):
    content = read_checkpoint(own)
    for target in ('mmrsfm', 'timm'):
        found = export_checkpoint(content, target, part='backbone.branches.rgb').content['meta']
        assert found['mmrsfm_contract']['band_names'] == ['R', 'G', 'B']
        assert found['mmrsfm_contract']['sensors']['umbra']['mean'] == [80.0, 90.0, 70.0]
        assert 'modalities' not in found.get('mmrsfm_traits', {})
    # The whole, in the names of the authors, still says which bands are whose.
    whole = export_checkpoint(content, 'mars_model').content
    assert whole['meta']['mmrsfm_contract']['band_names'] == BANDS['band_names']
    report = load_pretrained(swin(in_channels=1), whole)
    assert report.contract.band_names == ('SAR',)


def test_branches_are_compared_with_the_bands_that_they_see(own, tmp_path):
    """From the whole file, from single exported encoders, by name, and wrong ones."""
    content = read_checkpoint(own)
    sar = tmp_path / 'sar.pth'
    torch.save(export_checkpoint(content, 'timm', part='backbone.branches.sar').content, sar)

    def dual(imagery=BANDS, **of_sar):
        init = dict(type='mmrsfm.Pretrained', checkpoint=str(own), part='backbone.branches.rgb')
        branches = dict(
            rgb=dict(channels=3, backbone=dict(init_cfg=init)),
            sar=dict(channels=1, backbone=dict(init_cfg=dict(type='mmrsfm.Pretrained', **of_sar))),
        )
        model = MODELS.build(
            dict(
                type='mmpretrain.ImageClassifier',
                backbone=dict(
                    type='mmrsfm.DualModalityBackbone', backbone=SWIN, modalities=branches
                ),
                data_preprocessor=preprocessor(**imagery),
            )
        )
        model.init_weights()
        return model

    guarded(dual(checkpoint=str(own), part='backbone.branches.sar'))
    guarded(dual(checkpoint=str(sar)))
    named = dict(adapt='by_name', contract=dict(band_names=['SAR']))
    guarded(dual(checkpoint=str(sar), **named))
    other = {**BANDS, 'band_names': ['R', 'G', 'B', 'VV']}
    with pytest.raises(ContractError, match=r"\['SAR'\], this run \['VV'\]"):
        guarded(dual(other, checkpoint=str(sar)))
    with pytest.raises(ContractError, match=r"\['VV'\], this run \['SAR'\]"):
        guarded(dual(checkpoint=str(sar), adapt='mean', contract=dict(band_names=['VV'])))


def test_pretraining_compares_its_encoders_and_its_teacher(own):
    init = dict(type='mmrsfm.Pretrained', checkpoint=str(own))
    encoders = {
        name: {**SWIN, 'init_cfg': {**init, 'part': f'backbone.branches.{name}'}}
        for name in MODALITIES
    }
    model = mars(backbone=encoders, data_preprocessor=preprocessor(**BANDS))
    model.init_weights()
    guarded(model)
    # Optical images alone go on from pairs.
    optical = dict(modalities=dict(rgb=3), contrast=None, init_cfg=init)
    model = mars(**optical, data_preprocessor=preprocessor(**OPTICAL))
    model.init_weights()
    guarded(model)
    model = mars(
        **optical, data_preprocessor=preprocessor(**{**OPTICAL, 'band_names': ['N', 'R', 'G']})
    )
    model.init_weights()
    with pytest.raises(ContractError, match='band_names'):
        guarded(model)


@pytest.mark.parametrize(
    ('part', 'message'),
    [('teacher', 'whole ImageClassifier'), ('backbone.branches.lidar', "encoders: ['rgb', 'sar']")],
)
def test_a_part_that_a_whole_model_cannot_get(part, message):
    model = MODELS.build(dict(type='mmpretrain.ImageClassifier', backbone=SWIN))
    before = stem(model.backbone).clone()
    with pytest.raises(IncompleteLoadError, match=re.escape(message)):
        load_pretrained(model, raw_checkpoint(), part=part)
    assert torch.equal(stem(model.backbone), before)
    with pytest.raises(IncompleteLoadError, match='encoders of its own'):
        load_pretrained(mars(), raw_checkpoint(), part='backbone.branches.rgb')
