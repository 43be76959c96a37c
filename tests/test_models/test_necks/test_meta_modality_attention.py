# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Meta-modality attention: the formula, any number of modalities, and missing ones."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrsfm.errors import ConfigError
from mmrsfm.models.necks import MetaModalityAttention
from mmrsfm.registry import MODELS

C = 16


def build(**changes):
    torch.manual_seed(0)
    config = dict(type='mmrsfm.MetaModalityAttention', channels=C, num_heads=4)
    model = MODELS.build({**config, **changes})
    model.init_weights()
    for parameter in model.parameters():  # biases and normalisations too
        nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def tokens(*lengths, batch=2):
    torch.manual_seed(1)
    return [torch.randn(batch, n, C, dtype=torch.float64).requires_grad_() for n in lengths]


def torchs_attention(attention, x, padding=None):
    reference = nn.MultiheadAttention(C, attention.num_heads, batch_first=True).double()
    reference.load_state_dict(attention.state_dict())
    return reference(x, x, x, key_padding_mask=padding)[0]


def written_out(model, parts, block):
    """With torch's own attention, one modality after the other."""

    def run(one, x):
        attended = torchs_attention(one.attn, one.norm(x))
        if block == 'published':
            return x + one.mlp(attended)
        x = x + attended
        return x + one.mlp(one.mlp_norm(x))

    for own, shared in zip(model.modality_blocks, model.global_blocks, strict=True):
        parts = [run(own, part) for part in parts]
        whole = run(shared, torch.cat(parts, dim=1))
        parts = whole.split([part.shape[1] for part in parts], dim=1)
    return parts


@pytest.mark.parametrize('block', ['published', 'pre_norm'])
@pytest.mark.parametrize('lengths', [(6,), (6, 6), (6, 9), (4, 5, 6)])
def test_is_the_formula(block, lengths):
    model, parts = build(block=block), tokens(*lengths)
    ours = model(parts)
    assert len(ours) == len(parts)
    for a, b in zip(ours, written_out(model, parts, block), strict=True):
        torch.testing.assert_close(a, b)


def test_names_of_the_published_parts():
    names = set(build(depth=1).modality_blocks[0].state_dict())
    mlp = {f'mlp.fc{n}.{kind}' for n in (1, 2) for kind in ('weight', 'bias')}
    attention = {'in_proj_weight', 'in_proj_bias', 'out_proj.weight', 'out_proj.bias'}
    assert names == {'norm.weight', 'norm.bias', *mlp, *(f'attn.{name}' for name in attention)}


def test_published_sizes():
    with torch.device('meta'):
        for channels, expected in ((1024, 50_376_704), (1536, 113_313_792)):
            model = MetaModalityAttention(channels)
            assert sum(p.numel() for p in model.parameters()) == expected


def test_maps_and_tokens():
    model = build()
    maps = [torch.randn(2, C, 3, 4).double(), torch.randn(2, C, 2, 2).double()]
    out = model(maps)
    as_tokens = model([x.flatten(2).transpose(1, 2) for x in maps])
    for x, y, z in zip(maps, out, as_tokens, strict=True):
        assert y.shape == x.shape
        torch.testing.assert_close(y.flatten(2).transpose(1, 2), z)


def test_all_valid_is_as_without_masks():
    model, parts = build(), tokens(6, 6)
    for valid in ([None, None], [None, torch.ones(2, 6).bool()]):
        for a, b in zip(model(parts, valid), model(parts), strict=True):
            torch.testing.assert_close(a, b)


def test_no_one_attends_to_what_is_missing():
    model, parts = build(), tokens(6, 6)
    valid = [None, torch.ones(2, 6, dtype=torch.bool)]
    valid[1][0] = False  # one modality is missing in a sample
    valid[1][1, 4:] = False  # and partly in another
    out = model(parts, valid)
    (gradient,) = torch.autograd.grad(out[0].sum() + out[1][1, :4].sum(), parts[1])
    assert not gradient[0].any()
    assert not gradient[1, 4:].any()
    assert gradient[1, :4].abs().sum() > 0
    # What is left is as if there were no others.
    alone = model([parts[0][:1]])[0]
    torch.testing.assert_close(out[0][:1], alone)
    both = model([parts[0][1:], parts[1][1:, :4]])
    torch.testing.assert_close(out[0][1:], both[0])
    torch.testing.assert_close(out[1][1:, :4], both[1])
    # Tokens that are missing learn from the others all the same.
    (gradient,) = torch.autograd.grad(model(parts, valid)[1][0].sum(), parts[0])
    assert gradient[0].abs().sum() > 0


def test_padding_masks_are_those_of_torch():
    attention = build().modality_blocks[0].attn
    (x,) = tokens(6)
    valid = torch.tensor([[1, 1, 0, 1, 0, 1], [0, 0, 0, 0, 0, 1]]).bool()
    torch.testing.assert_close(attention(x, [6], [valid]), torchs_attention(attention, x, ~valid))


@pytest.mark.parametrize('block', ['published', 'pre_norm'])
def test_nothing_valid_is_finite(block):
    model, parts = build(block=block), tokens(5, 6)
    out = model(parts, [torch.zeros(2, 5).bool(), torch.zeros(2, 6).bool()])
    sum(x.square().sum() for x in out).backward()
    assert all(x.isfinite().all() for x in out)
    assert all(x.grad.isfinite().all() for x in (*parts, *model.parameters()))


def test_masks_in_the_form_of_maps():
    model = build()
    maps = [torch.randn(2, C, 2, 3).double(), torch.randn(2, C, 2, 3).double()]
    valid = torch.rand(2, 1, 2, 3) < 0.5
    ours = model(maps, [None, valid])
    for other in (valid[:, 0], valid.flatten(1)):
        for a, b in zip(ours, model(maps, [None, other]), strict=True):
            assert torch.equal(a, b)


def test_drop_path():
    model, parts = build(drop_path_rate=0.999).train(), tokens(4, 4)
    for a, b in zip(model(parts), parts, strict=True):
        assert torch.equal(a, b)
    plain = build(drop_path_rate=0.0)
    assert set(plain.state_dict()) == set(model.state_dict())


def test_mixed_precision():
    model = build().float()
    parts = [x.detach().float() for x in tokens(4, 4)]
    valid = [None, torch.tensor([[True] * 4, [False] * 4])]
    with torch.autocast('cpu', torch.bfloat16):
        out = model(parts, valid)
    assert F.mse_loss(out[0].float(), model(parts, valid)[0]) < 0.01


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [(dict(block='post'), 'block'), (dict(num_heads=5), 'heads'), (dict(depth=0), 'depth')],
)
def test_contradictions_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        build(**arguments)


@pytest.mark.parametrize(
    ('parts', 'valid', 'message'),
    [
        ([], None, 'takes tokens'),
        ([torch.randn(2, 3, C + 1)], None, 'takes tokens'),
        ([torch.randn(2, 3, C), torch.randn(1, 3, C)], None, 'takes tokens'),
        ([torch.randn(2, 3, C)], [torch.ones(2, 4).bool()], 'valid of shapes'),
        ([torch.randn(2, 3, C)], [None, torch.ones(2, 3).bool()], 'valid of shapes'),
    ],
)
def test_wrong_inputs_are_named(parts, valid, message):
    with pytest.raises(ConfigError, match=message):
        build().float()(parts, valid)
