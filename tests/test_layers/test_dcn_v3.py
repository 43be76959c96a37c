# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""DCNv3: the operator against a loop over pixels, its gradients, the module, the extension."""

import math
import sys
import types
import warnings

import pytest
import torch
from torch import nn

from mmrsfm.errors import ConfigError, MissingDependencyError
from mmrsfm.layers import dcn_v3 as module_of_dcn
from mmrsfm.layers.channel_norm import channel_norm
from mmrsfm.layers.dcn_v3 import DCNv3
from mmrsfm.layers.dcn_v3_compiled import dcn_v3_compiled, extension_available
from mmrsfm.layers.dcn_v3_sampling import DCNv3Geometry, dcn_v3_sampling

GEOMETRIES = {
    'published': DCNv3Geometry(groups=2, offset_scale=2.0),
    'plain scale': DCNv3Geometry(groups=1),
    'stride': DCNv3Geometry(stride=2, groups=2, offset_scale=0.7),
    'dilation': DCNv3Geometry(dilation=2, pad=2, groups=1, offset_scale=1.5),
    'large kernel': DCNv3Geometry(kernel_size=5, pad=2, groups=2),
    'no padding': DCNv3Geometry(pad=0, groups=2, offset_scale=1.3),
    'more padding': DCNv3Geometry(pad=2, groups=1),
    'even kernel': DCNv3Geometry(kernel_size=2, pad=1, groups=2),
    'a single tap': DCNv3Geometry(kernel_size=1, pad=0, groups=2),
}


def arguments(geometry, size=(5, 7), batch=2, channels=4, spread=1.0, dtype=torch.float64):
    torch.manual_seed(0)
    rows, columns = geometry.output_size(size)
    taps = geometry.kernel_size**2
    value = torch.randn(batch, *size, channels, dtype=dtype)
    offset = spread * torch.randn(batch, rows, columns, geometry.groups * taps * 2, dtype=dtype)
    mask = torch.rand(batch, rows, columns, geometry.groups * taps, dtype=dtype)
    return value, offset, mask


def pixel_by_pixel(value, offset, mask, geometry):
    """The definition, tap by tap, written with nothing but indexing."""
    kernel, stride, pad, dilation, groups, scale = geometry
    batch, height, width, channels = value.shape
    per_group, reach = channels // groups, dilation * (kernel - 1) // 2
    rows, columns = offset.shape[1:3]
    result = torch.zeros(batch, rows, columns, channels, dtype=value.dtype)

    def pixel(n, y, x, group):
        part = slice(group * per_group, (group + 1) * per_group)
        inside = 0 <= y < height and 0 <= x < width
        return value[n, y, x, part] if inside else torch.zeros(per_group, dtype=value.dtype)

    for n in range(batch):
        for v in range(rows):
            for u in range(columns):
                for g in range(groups):
                    total = torch.zeros(per_group, dtype=value.dtype)
                    for p in range(kernel * kernel):
                        i, j = p // kernel, p % kernel
                        at = 2 * (g * kernel * kernel + p)
                        dx, dy = offset[n, v, u, at].item(), offset[n, v, u, at + 1].item()
                        x = u * stride - pad + reach + scale * (i * dilation - reach + dx)
                        y = v * stride - pad + reach + scale * (j * dilation - reach + dy)
                        x0, y0 = math.floor(x), math.floor(y)
                        sample = (
                            pixel(n, y0, x0, g) * (x0 + 1 - x) * (y0 + 1 - y)
                            + pixel(n, y0, x0 + 1, g) * (x - x0) * (y0 + 1 - y)
                            + pixel(n, y0 + 1, x0, g) * (x0 + 1 - x) * (y - y0)
                            + pixel(n, y0 + 1, x0 + 1, g) * (x - x0) * (y - y0)
                        )
                        total += mask[n, v, u, g * kernel * kernel + p] * sample
                    result[n, v, u, g * per_group : (g + 1) * per_group] = total
    return result


@pytest.mark.parametrize('name', GEOMETRIES)
@pytest.mark.parametrize('spread', [0.0, 1.0, 20.0])
def test_operator_is_its_definition(name, spread):
    given = arguments(GEOMETRIES[name], size=(4, 5), spread=spread)
    expected = pixel_by_pixel(*given, GEOMETRIES[name])
    result = dcn_v3_sampling(*given, GEOMETRIES[name])
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('name', GEOMETRIES)
@pytest.mark.parametrize('spread', [1.0, 8.0])
def test_gradients_of_the_operator(name, spread):
    """In double precision, with samples inside, on the rim and far outside."""
    published = name == 'published'
    size, batch = ((2, 3), 2) if published else ((2, 3), 1)
    given = arguments(GEOMETRIES[name], size=size, batch=batch, spread=spread)
    assert torch.autograd.gradcheck(
        lambda *args: dcn_v3_sampling(*args, GEOMETRIES[name]),
        [value.requires_grad_() for value in given],
        eps=1e-7,
        atol=1e-5,
        fast_mode=not published,
    )


@pytest.mark.parametrize('wanted', [(0,), (1,), (2,), (1, 2)])
def test_gradients_that_nobody_wants_are_left_out(wanted):
    geometry = GEOMETRIES['published']
    given, every = arguments(geometry), arguments(geometry)
    for index, value in enumerate(given):
        value.requires_grad_(index in wanted)
    dcn_v3_sampling(*given, geometry).square().sum().backward()
    for value in every:
        value.requires_grad_()
    dcn_v3_sampling(*every, geometry).square().sum().backward()
    for index in range(3):
        assert (given[index].grad is not None) == (index in wanted)
        if index in wanted:
            torch.testing.assert_close(given[index].grad, every[index].grad)


def test_zero_offsets_and_equal_masks_are_a_mean_filter():
    geometry = DCNv3Geometry(groups=2)
    value, offset, mask = arguments(geometry, spread=0.0)
    result = dcn_v3_sampling(value, offset, torch.full_like(mask, 1 / 9), geometry)
    expected = nn.functional.avg_pool2d(value.permute(0, 3, 1, 2), 3, 1, 1)
    torch.testing.assert_close(result, expected.permute(0, 2, 3, 1))


def test_inputs_may_lie_in_memory_as_they_like():
    geometry = GEOMETRIES['published']
    given = arguments(geometry)
    expected = dcn_v3_sampling(*given, geometry)
    strided = [value.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) for value in given]
    assert not strided[1].is_contiguous()
    leaves = [value.detach().requires_grad_() for value in strided]
    result = dcn_v3_sampling(*leaves, geometry)
    torch.testing.assert_close(result, expected)
    result.permute(0, 3, 1, 2).square().sum().backward()


def test_half_precision_computes_in_single():
    geometry = GEOMETRIES['published']
    given = arguments(geometry, dtype=torch.float32)
    half = [value.bfloat16() for value in given]
    result = dcn_v3_sampling(*half, geometry)
    assert result.dtype == torch.bfloat16
    expected = dcn_v3_sampling(*(value.float() for value in half), geometry)
    assert torch.equal(result, expected.bfloat16())


def test_offsets_that_are_no_numbers_stay_so_and_break_nothing():
    geometry = GEOMETRIES['published']
    value, offset, mask = arguments(geometry, dtype=torch.float32)
    offset[0, 1, 1, 3], offset[0, 2, 2, 5] = float('nan'), float('inf')
    leaves = [tensor.requires_grad_() for tensor in (value, offset, mask)]
    result = dcn_v3_sampling(*leaves, geometry)
    assert result[0, 1, 1, :2].isnan().all()
    assert result.isfinite().sum() == result.numel() - 2
    result.sum().backward()


def test_no_images_give_no_images():
    geometry = GEOMETRIES['published']
    leaves = [value.requires_grad_() for value in arguments(geometry, batch=0)]
    result = dcn_v3_sampling(*leaves, geometry)
    assert result.shape == (0, 5, 7, 4)
    result.sum().backward()


@pytest.mark.parametrize(
    ('index', 'message'), [(0, 'multiple of 2 groups'), (1, 'offset must'), (2, 'mask must')]
)
def test_wrong_shapes_are_named(index, message):
    given = list(arguments(GEOMETRIES['published']))
    given[index] = given[index][..., :-1]
    with pytest.raises(ConfigError, match=message):
        dcn_v3_sampling(*given, GEOMETRIES['published'])


# The module.


def dcn(seed=0, **changes):
    torch.manual_seed(seed)
    module = DCNv3(**{'channels': 8, 'groups': 2, **changes})
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def test_initial_values():
    module = DCNv3(16, groups=4, center_feature_scale=True)
    for layer in (module.offset, module.mask):
        assert not layer.weight.any() and not layer.bias.any()
    bound = math.sqrt(6 / 32)
    for layer in (module.input_proj, module.output_proj):
        assert 0.8 * bound < layer.weight.abs().max() <= bound and not layer.bias.any()
    # Not zero weights, but an even blend: the gate is the sigmoid of zero.
    assert not module.center_feature_scale_proj_weight.any()


@pytest.mark.parametrize('size', [(1, 1), (2, 5), (9, 6)])
@pytest.mark.parametrize(
    'changes',
    [{}, dict(stride=2), dict(kernel_size=5, pad=2), dict(dilation=3, pad=3),
     dict(dw_kernel_size=7), dict(norm_type='BN', act_type='SiLU'), dict(kernel_size=1, pad=0),
     dict(center_feature_scale=True), dict(center_feature_scale=True, stride=3)],
)  # fmt: skip
def test_module_shapes(changes, size):
    module = dcn(**changes).eval()
    stride = changes.get('stride', 1)
    result = module(torch.randn(2, *size, 8))
    assert result.shape == (2, math.ceil(size[0] / stride), math.ceil(size[1] / stride), 8)
    assert result.isfinite().all()


def test_module_is_its_formula():
    module, x = dcn(center_feature_scale=True, offset_scale=2.0), torch.randn(1, 4, 5, 8)
    conv, norm, _ = module.dw_conv
    z = conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    z = nn.functional.gelu(nn.functional.layer_norm(z, (8,), norm[1].weight, norm[1].bias, 1e-6))
    value = module.input_proj(x)
    mask = module.mask(z).view(1, 4, 5, 2, 9).softmax(-1).view(1, 4, 5, 18)
    sampled = pixel_by_pixel(value, module.offset(z), mask, module.geometry)
    weight, bias = module.center_feature_scale_proj_weight, module.center_feature_scale_proj_bias
    gate = (z @ weight.T + bias).sigmoid().repeat_interleave(4, dim=-1)
    expected = module.output_proj(sampled * (1 - gate) + value * gate)
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)


def test_module_in_mixed_precision():
    module, x = dcn(center_feature_scale=True), torch.randn(1, 6, 6, 8)
    with torch.autocast('cpu', torch.bfloat16):
        result = module(x)
    torch.testing.assert_close(result.float(), module(x), rtol=0.1, atol=0.3)
    result.float().sum().backward()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(groups=3), 'do not divide into 3 groups'),
        (dict(pad=0), 'need pad=1, got 0'),
        (dict(kernel_size=4, pad=1), r'need pad=1\.5'),
        (dict(dw_kernel_size=4), 'must be odd'),
        (dict(impl='cuda'), 'impl'),
        (dict(act_type='Tanh'), 'act_type'),
        (dict(norm_type='GN'), 'norm_type'),
    ],
)
def test_contradictions_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        dcn(**changes)


def test_position_of_the_norm_among_permutations():
    """It is part of the released names."""
    for norm_type, source, target, position in (
        ('LN', 'last', 'last', 0), ('LN', 'first', 'last', 1), ('LN', 'first', 'first', 1),
        ('BN', 'last', 'last', 1), ('BN', 'first', 'last', 0), ('BN', 'first', 'first', 0),
    ):  # fmt: skip
        norm = channel_norm(4, norm_type, source, target)
        assert hasattr(norm[position], 'weight'), (norm_type, source, target)
        x = torch.randn(2, 3, 5, 4) if source == 'last' else torch.randn(2, 4, 3, 5)
        assert norm(x).shape == ((2, 3, 5, 4) if target == 'last' else (2, 4, 3, 5))


# The extension, with a stand-in: there is no device for the true one here.


@pytest.fixture
def extension(monkeypatch):
    """A package DCNv3 whose functions compute what the true ones do."""
    package = types.ModuleType('DCNv3')
    package.calls = []

    def forward(
        value, offset, mask, kh, kw, sh, sw, ph, pw, dh, dw, groups, per_group, scale, *rest
    ):
        package.calls.append(('forward', rest))
        assert (kh, sh, ph, dh) == (kw, sw, pw, dw) and groups * per_group == value.shape[3]
        assert value.shape[0] % rest[0] == 0
        return dcn_v3_sampling(value, offset, mask, DCNv3Geometry(kh, sh, ph, dh, groups, scale))

    def backward(
        value, offset, mask, kh, kw, sh, sw, ph, pw, dh, dw, groups, per_group, scale, grad, *rest
    ):
        package.calls.append(('backward', rest))
        with torch.enable_grad():
            leaves = [tensor.detach().requires_grad_() for tensor in (value, offset, mask)]
            geometry = DCNv3Geometry(kh, sh, ph, dh, groups, scale)
            return torch.autograd.grad(dcn_v3_sampling(*leaves, geometry), leaves, grad)

    package.dcnv3_forward, package.dcnv3_backward = forward, backward
    monkeypatch.setitem(sys.modules, 'DCNv3', package)
    monkeypatch.setattr(module_of_dcn._Extension, 'state', None)
    return package


def test_compiled_operator_is_called_as_it_wants(extension):
    geometry = GEOMETRIES['dilation']
    leaves = [value.requires_grad_() for value in arguments(geometry, batch=3)]
    expected = [value.detach().clone().requires_grad_() for value in leaves]
    dcn_v3_compiled(*leaves, geometry).square().sum().backward()
    dcn_v3_sampling(*expected, geometry).square().sum().backward()
    for a, b in zip(leaves, expected, strict=True):
        assert torch.equal(a.grad, b.grad)
    # No version is known of the stand-in: the shorter list of arguments.
    assert extension.calls == [('forward', (3,)), ('backward', (3,))]


def test_later_versions_of_the_extension_take_one_more_argument(extension, monkeypatch):
    geometry = GEOMETRIES['published']
    for version, tail in (('1.0', (2,)), ('1.1', (2, 0)), ('1.0+cu118', (2,)), ('odd', (2,))):
        monkeypatch.setattr('importlib.metadata.version', lambda name, v=version: v)
        dcn_v3_compiled(*arguments(geometry), geometry)
        assert extension.calls.pop()[1] == tail


def test_compiled_by_name(extension):
    module = dcn(impl='compiled')
    x = torch.randn(1, 4, 4, 8)
    expected = dcn(impl='pytorch')(x)
    torch.testing.assert_close(module(x), expected)
    assert [name for name, _ in extension.calls] == ['forward']


def test_without_the_extension(monkeypatch):
    monkeypatch.setitem(sys.modules, 'DCNv3', None)
    assert not extension_available()
    with pytest.raises(MissingDependencyError, match="impl='auto' or 'pytorch'"):
        dcn(impl='compiled')
    assert dcn(impl='auto')(torch.randn(1, 4, 4, 8)).isfinite().all()


def test_another_package_of_that_name(monkeypatch):
    monkeypatch.setitem(sys.modules, 'DCNv3', types.ModuleType('DCNv3'))
    with pytest.raises(MissingDependencyError, match='has no dcnv3_forward'):
        dcn(impl='compiled')


def test_auto_leaves_the_cpu_to_pytorch(extension):
    dcn(impl='auto')(torch.randn(1, 4, 4, 8))
    assert not extension.calls


def test_auto_gives_up_an_extension_that_fails_with_one_warning(extension, monkeypatch):
    monkeypatch.setattr(module_of_dcn, '_on_its_device', lambda value: True)
    module, x = dcn(impl='auto'), torch.randn(1, 4, 4, 8)
    module(x)
    assert len(extension.calls) == 1

    def broken(*args):
        raise RuntimeError('no kernel image is available')

    monkeypatch.setattr(extension, 'dcnv3_forward', broken)
    with pytest.warns(UserWarning, match='no kernel image'):
        result = module(x)
    torch.testing.assert_close(result, dcn(impl='pytorch')(x))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        dcn(impl='auto')(x)
    with pytest.raises(RuntimeError, match='no kernel image'):
        dcn(impl='compiled')(x)
