# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""The encoders of MaRS against arrays that the reference computed, and the released names."""

import json
from functools import partial

import pytest
import torch

from mmrsfm.checkpoints import detect_layout, load_pretrained
from mmrsfm.models.backbones import SwinV2
from mmrsfm.registry import MODELS
from tests.parity import Fixture, assert_parity, parity_files

TOLERANCE = 1e-4
MODES = {'int': 'reference_int', 'bool': 'simmim'}


def build(kwargs, channels, **changes):
    """Our encoder from the arguments of the reference."""
    return SwinV2(
        arch=dict(
            embed_dims=kwargs['embed_dim'], depths=kwargs['depths'], num_heads=kwargs['num_heads']
        ),
        img_size=kwargs['img_size'],
        in_channels=channels,
        window_size=kwargs['window_size'],
        pretrained_window_sizes=kwargs['pretrained_window_sizes'],
        **changes,
    ).eval()


def encoders(fixture):
    """Name in the fixture -> part of the model, and the channels of the image that it sees."""
    first = 0
    found = {}
    for name, count in fixture.json()['in_chans'].items():
        found[f'encoder_{name}'] = (f'backbone.branches.{name}', slice(first, first + count))
        first += count
    found['teacher_encoder'] = ('teacher', found[next(iter(found))][1])
    return found


def compare(value, fixture, names, prefix):
    """Compares (B, C, h, w) with every array of that name, sampled as its suffix says."""
    compared = 0
    for name in names:
        stem, _, step = name.partition('@s')
        if stem != prefix:
            continue
        reference = fixture.tensor(name)
        if prefix.count('/') > 1:  # inner maps are stored with the channels last
            reference = reference.permute(0, 3, 1, 2)
        step = int(step or 1)
        assert_parity(value[:, :, ::step, ::step], reference, name, TOLERANCE)
        compared += 1
    return compared


@pytest.mark.parametrize('path', parity_files('mars_tiny_*.npz'))
@pytest.mark.parametrize('tag', MODES)
def test_parity_mars_encoders(path, tag):
    fixture = Fixture(path)
    kwargs, weights = fixture.json(), dict(model=fixture.group('sd'))
    image, mask = fixture.tensor('in/image'), fixture.tensor('in/mask').bool()
    wanted = set()
    compared = 0
    for name, (part, channels) in encoders(fixture).items():
        names = [n for n in fixture.arrays if n.split('@')[0].startswith(f'{tag}/{name}')]
        wanted.update(names)
        count = channels.stop - channels.start
        raw = build(kwargs, count, mask_token=True)
        final = build(kwargs, count, mask_token=True, final_norm=True, out_indices=(3,))
        for model in (raw, final):
            report = load_pretrained(model, weights, part=part)
            assert report.layout == 'mars_model'
            assert not report.missing
            assert not report.unexpected
        with torch.no_grad():
            embedded, grid = raw.patch_embed(image[:, channels])
            maps = raw(image[:, channels], mask, MODES[tag])
            out = final(image[:, channels], mask, MODES[tag])[-1]
        embedded = embedded.transpose(1, 2).unflatten(2, grid)
        for number, value in enumerate(maps):
            compared += compare(value, fixture, names, f'{tag}/{name}/stage{number}')
        compared += compare(embedded, fixture, names, f'{tag}/{name}/patch_embed')
        compared += compare(out, fixture, names, f'{tag}/{name}')
    assert compared == len(wanted) > 0


@pytest.mark.parametrize('path', parity_files('mars_tiny_*.npz'))
def test_parity_mars_released_encoders(path):
    """The encoders as they are released: timm's names, four maps without a norm, no mask."""
    fixture = Fixture(path)
    kwargs, state = fixture.json(), fixture.group('sd')
    tables = fixture.json('conv_keys_json')
    for name, (_, channels) in encoders(fixture).items():
        modality = name.removeprefix('encoder_')
        if modality not in tables:
            continue
        released = {
            key: state[f'{name}.encoder.{key.replace("layers_", "layers.")}']
            for key in tables[modality]
        }
        model = build(kwargs, channels.stop - channels.start)
        report = load_pretrained(model, released)
        assert report.layout == 'mars_encoder'
        assert len(report.matched) == len(model.state_dict()) == len(released)
        compared = 0
        # Everything but gradients: the result is the same.
        maps = model(fixture.tensor('in/image')[:, channels])
        with torch.no_grad():
            again = model(fixture.tensor('in/image')[:, channels])
        for number, values in enumerate(zip(maps, again, strict=True)):
            names = [n for n in fixture.arrays if n.startswith(f'swin/{modality}/feat{number}')]
            for value in values:
                compared += compare(value, fixture, names, f'swin/{modality}/feat{number}')
        assert compared == 2 * len(maps)


@pytest.fixture(params=parity_files('keys/mars_*[!d].json'))
def table(request, monkeypatch):
    """A published table of names, our model of that size, and the table of the released files."""
    arch = request.param.stem.split('_')[1]
    # mmpretrain reads the rates of stochastic depth from a tensor, which on 'meta' has no values.
    monkeypatch.setattr(torch, 'linspace', partial(torch.linspace, device='cpu'))
    with torch.device('meta'):
        model = MODELS.build(
            dict(
                type='mmrsfm.MaRS', modalities=dict(rgb=3, sar=1), neck={}, teacher={},
                backbone=dict(type='mmrsfm.SwinV2', arch=arch), contrast={},
            )
        )  # fmt: skip
    released = request.param.with_name(f'{request.param.stem}_swin_converted.json')
    return json.loads(request.param.read_text()), model, json.loads(released.read_text())


def shapes(state):
    return {name: list(value.shape) for name, value in state.items()}


def empty(shapes):
    return {name: torch.empty(shape, device='meta') for name, shape in shapes.items()}


def test_parity_key_tables_are_exactly_the_model(table):
    keys, model, released = table
    layout = detect_layout(empty(keys))
    assert layout.name == 'mars_model'
    ours, unknown = layout.to_mmrsfm(empty(keys))
    assert unknown == []
    back, homeless = layout.from_mmrsfm(ours)
    assert shapes(back) == keys
    assert homeless == []
    found = shapes(ours)
    idle = {'contrast.log_scale'} | {
        f'unused.{name}.head.fc.{kind}'
        for name in ('rgb', 'sar', 'teacher') for kind in ('weight', 'bias')
    }  # fmt: skip
    assert set(found) - set(model.state_dict()) == idle
    assert {n: s for n, s in found.items() if n not in idle} == shapes(model.state_dict())
    for modality, names in released.items():
        layout = detect_layout(empty(names))
        assert layout.name == 'mars_encoder'
        ours, unknown = layout.to_mmrsfm(empty(names))
        assert unknown == []
        assert shapes(layout.from_mmrsfm(ours)[0]) == names
        encoder = shapes(model.backbone.branches[modality].state_dict())
        for name in ('mask_token', 'norm3.weight', 'norm3.bias'):
            encoder.pop(name)
        assert shapes(ours) == {f'backbone.{name}': shape for name, shape in encoder.items()}
