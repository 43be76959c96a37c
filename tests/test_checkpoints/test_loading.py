# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""Loading: what fits is loaded bit by bit, everything else is reported or refused."""

import pytest
import torch
from mmpretrain.models import VisionTransformer
from torch import nn

from mmrsfm.checkpoints import (
    convert_state_dict,
    describe_model,
    load_pretrained,
    report_of,
    unwrap,
)
from mmrsfm.checkpoints.adaptation import Adaptation, check_contract
from mmrsfm.checkpoints.position import fit_table, resize_table
from mmrsfm.checkpoints.report import compact
from mmrsfm.checkpoints.stem import adapt_stem, find_stem
from mmrsfm.contract import ImageryContract
from mmrsfm.errors import (
    CheckpointError,
    CheckpointReadError,
    ConfigError,
    ContractError,
    IncompleteLoadError,
    UnknownLayoutError,
)
from tests.test_checkpoints.test_layouts import cross_scale, facebook_mae, timm_vit

ARCH = dict(embed_dims=4, num_layers=2, num_heads=2, feedforward_channels=16)


def vit(size=4, channels=3, **kwargs):
    return VisionTransformer(arch=ARCH, img_size=size, patch_size=2, in_channels=channels, **kwargs)


def backbone_part(state):
    ours = convert_state_dict(state)
    return {k.removeprefix('backbone.'): v for k, v in ours.items() if k.startswith('backbone.')}


def assert_holds(module, state):
    now = module.state_dict()
    assert set(now) == set(state)
    for name, value in state.items():
        assert torch.equal(now[name], value), name


class Whole(nn.Module):
    """A task model: a backbone, a head."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(4, 2)


@pytest.mark.parametrize('make', [timm_vit, facebook_mae, cross_scale])
def test_complete_load_into_a_backbone(tmp_path, make):
    state = make()
    torch.save({'model': {f'module.{k}': v for k, v in state.items()}, 'epoch': 1}, tmp_path / 'w')
    module = vit()
    report = load_pretrained(module, tmp_path / 'w')
    assert_holds(module, backbone_part(state))
    assert report_of(module) is report
    assert report.steps == ["['model']", "prefix 'module.'"]
    assert sorted(report.matched) == sorted(module.state_dict())
    assert not report.missing and not report.unexpected and not report.resized
    assert len(report.dropped) == len(convert_state_dict(state)) - len(report.matched)
    assert not report.changed(module.state_dict())


def test_missing_is_an_error_unless_a_pattern_covers_it():
    state = timm_vit()
    del state['blocks.1.mlp.fc1.bias']
    module = vit()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    message = (
        r'does not fill 1 of the 30 entries.*layers\.1\.ffn\.layers\.0\.0\.bias.*allow_missing'
    )
    with pytest.raises(IncompleteLoadError, match=message):
        load_pretrained(module, state)
    assert_holds(module, before)  # nothing was loaded
    assert report_of(module) is None
    report = load_pretrained(module, state, allow_missing='layers.*.ffn.layers.0.0.bias')
    assert report.missing == {'layers.1.ffn.layers.0.0.bias': 'allowed'} and not report.notes
    report = load_pretrained(module, timm_vit(), allow_missing=['ln7.*'])
    assert 'matches nothing' in report.notes[0] and 'ln7.*' in report.summary()


def test_other_shapes_are_missing_with_the_reason():
    wide = VisionTransformer(
        arch={**ARCH, 'feedforward_channels': 8}, img_size=4, patch_size=2, in_channels=3
    )
    with pytest.raises(IncompleteLoadError, match=r'\(16, 4\) in the checkpoint, \(8, 4\) in the'):
        load_pretrained(wide, timm_vit())
    with pytest.raises(IncompleteLoadError, match='4 channels in the checkpoint, 8 in the module'):
        load_pretrained(
            VisionTransformer(arch={**ARCH, 'embed_dims': 8}, img_size=4, patch_size=2), timm_vit()
        )
    with pytest.raises(IncompleteLoadError, match=r'layers\.\{2-3\}'):
        load_pretrained(
            VisionTransformer(arch={**ARCH, 'num_layers': 4}, img_size=4, patch_size=2), timm_vit()
        )


def test_unexpected_entries_are_reported():
    state = {**timm_vit(depth=3), 'strange.weight': torch.ones(1)}
    report = load_pretrained(vit(), state)
    assert 'strange.weight' in report.unexpected
    assert 'layers.2.ln1.weight' in report.unexpected
    text = report.summary()
    assert 'unexpected: strange.weight, layers.2.ln1.weight' in text
    assert report.to_dict()['unexpected'] == report.unexpected


def test_nothing_fits():
    with pytest.raises(UnknownLayoutError):
        load_pretrained(vit(), {'x': torch.ones(1)})
    with pytest.raises(IncompleteLoadError, match="has no 'backbone'"):
        load_pretrained(nn.Linear(2, 2), {'head.weight': torch.ones(1)}, layout='mmrsfm')
    with pytest.raises(CheckpointReadError, match='no weights found'):
        load_pretrained(vit(), {'epoch': 1})


def test_errors_name_the_file(tmp_path):
    path = tmp_path / 'weights.pth'
    for content, error in (
        ({'x': torch.ones(1)}, UnknownLayoutError),
        ({'epoch': 1}, CheckpointReadError),
        ({**timm_vit(), 'pos_embed': torch.ones(1, 5, 6)}, IncompleteLoadError),
    ):
        torch.save(content, path)
        with pytest.raises(error, match=r'weights\.pth') as caught:
            load_pretrained(vit(), path)
        assert str(caught.value).count('weights.pth') == 1


def test_whole_models_need_their_backbone_only():
    state = convert_state_dict(timm_vit(head='head'))
    model = Whole(vit())
    report = load_pretrained(model, {'state_dict': state, 'meta': {'mmrsfm_traits': {}}})
    assert set(report.missing) == {'head.weight', 'head.bias'}
    assert report.unexpected == ['head.fc.weight', 'head.fc.bias']
    parts = {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}
    assert_holds(model.backbone, parts)
    del state['backbone.ln1.bias']
    with pytest.raises(IncompleteLoadError, match=r'backbone\.ln1\.bias'):
        load_pretrained(Whole(vit()), state)


def test_a_neck_can_be_loaded_by_name():
    state = cross_scale()
    neck = nn.Module()
    neck.decoder_embed = nn.Linear(4, 4)
    report = load_pretrained(neck, state, part='neck')
    assert torch.equal(neck.decoder_embed.weight, state['decoder_embed.weight'])
    assert 'mask_token' in report.unexpected and 'backbone.cls_token' in report.dropped


def test_native_names():
    source, target = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), None
    source[1].running_mean += 1
    for prefix in ('', 'backbone.'):
        target = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        state = {prefix + name: value for name, value in source.state_dict().items()}
        report = load_pretrained(target, {'state_dict': {**state, 'neck.x': torch.ones(1)}})
        assert report.layout == 'native'
        assert_holds(target, source.state_dict())
    # Running statistics matter, the count of batches does not.
    state = source.state_dict()
    del state['1.num_batches_tracked']
    load_pretrained(target, state)
    del state['1.running_var']
    with pytest.raises(IncompleteLoadError, match=r'1\.running_var'):
        load_pretrained(target, state)


def test_post_norm_weights_do_not_go_into_pre_norm_blocks():
    state = cross_scale(xformers=True)
    with pytest.raises(CheckpointError, match=r"post-norm.*pre-norm.*norm_style='post'"):
        load_pretrained(vit(), state)
    module = vit()
    module.norm_style = 'post'
    load_pretrained(module, state)
    # After conversion the names don't tell any more: the meta does.
    converted = {'state_dict': convert_state_dict(state), 'meta': describe_model(module)}
    assert converted['meta']['mmrsfm_traits'] == {'norm_style': 'post', 'grid': [2, 2]}
    with pytest.raises(CheckpointError, match='post-norm'):
        load_pretrained(vit(), converted)
    load_pretrained(module, converted)
    with pytest.raises(CheckpointError, match='pre-norm'):
        load_pretrained(module, timm_vit())


def test_a_hook_that_changes_values_is_noticed():
    module = vit()

    def tamper(state_dict, prefix, *_):
        state_dict[f'{prefix}cls_token'] = state_dict[f'{prefix}cls_token'] + 1

    module._register_load_state_dict_pre_hook(tamper)
    with pytest.raises(IncompleteLoadError, match=r'does not hold the numbers.*cls_token'):
        load_pretrained(module, timm_vit())


def test_half_precision_checkpoints_load():
    state = {name: value.half() for name, value in timm_vit().items()}
    module = vit()
    load_pretrained(module, state)
    assert_holds(module, {k: v.float() for k, v in backbone_part(state).items()})


# Containers.


def test_unwrapping_is_explicit():
    state = timm_vit()
    found = unwrap({'state_dict': {'model': state}, 'meta': {'epoch': 1}, 'optimizer': {}})
    assert found.steps == ["['state_dict']", "['model']"] and found.meta == {'epoch': 1}
    found = unwrap({'model': state, 'model_ema': {'module.x': torch.ones(1)}})
    assert list(found.state) == list(state) and 'model_ema' in found.notes[0]
    found = unwrap({'model': state, 'model_ema': {'module.x': torch.ones(1)}}, weights='model_ema')
    assert list(found.state) == ['x'] and found.steps == ["['model_ema']", "prefix 'module.'"]
    averaged = {'steps': torch.tensor(3), **{f'module.{k}': v for k, v in state.items()}}
    found = unwrap({'ema_state_dict': averaged})
    assert list(found.state) == list(state) and 'only averaged' in found.notes[0]
    found = unwrap({'a': torch.ones(1), 'n': 3})
    assert list(found.state) == ['a'] and 'no tensors' in found.notes[0]
    with pytest.raises(CheckpointReadError, match=r"no weights under 'x'.*'model'"):
        unwrap({'model': state}, weights='x')


# Position tables.


def test_position_tables_are_resized_and_the_class_row_kept():
    state = timm_vit(grid=(4, 4))
    for size, grid in ((16, (8, 8)), ((4, 12), (2, 6)), ((16, 4), (8, 2))):
        module = vit(size)
        report = load_pretrained(module, state)
        assert report.resized == {'pos_embed': f'4x4 -> {grid[0]}x{grid[1]}, bicubic'}
        assert torch.equal(module.pos_embed[:, 0], state['pos_embed'][:, 0])
        assert module.pos_embed.shape == (1, 1 + grid[0] * grid[1], 4)
    # (8, 2) has as many patches as (4, 4), in other places.


def test_position_tables_agree_with_mmpretrain():
    from mmpretrain.models.utils import resize_pos_embed

    table = torch.randn(1, 1 + 12, 5)
    ours = resize_table(table, (3, 4), (5, 2))
    assert torch.equal(ours, resize_pos_embed(table, (3, 4), (5, 2), 'bicubic', 1))
    constant = resize_table(torch.ones(1, 17, 3), (4, 4), (7, 3))
    torch.testing.assert_close(constant, torch.ones(1, 22, 3))


def test_grids_that_are_not_square_must_be_known():
    table, wanted = torch.randn(1, 1 + 6, 4), torch.zeros(1, 1 + 4, 4)
    with pytest.raises(IncompleteLoadError, match='source_grid'):
        fit_table('pos_embed', table, wanted, (2, 2))
    fitted, done = fit_table('pos_embed', table, wanted, (2, 2), source=(2, 3))
    assert fitted.shape == wanted.shape and '2x3 -> 2x2' in done
    with pytest.raises(IncompleteLoadError, match='are not a grid of 3x3'):
        fit_table('pos_embed', table, wanted, (2, 2), source=(3, 3))
    # The same number of tokens, and nothing known: taken as it is.
    same, done = fit_table('pos_embed', table, torch.zeros(1, 7, 4), None)
    assert torch.equal(same, table) and done is None
    # 5 x 10 tokens, not 7 x 7 and one for a class that the module has not.
    table = torch.randn(1, 50, 4)
    same, done = fit_table('pos_embed', table, torch.zeros(1, 50, 4), (5, 10))
    assert torch.equal(same, table) and done is None
    # A checkpoint of ours states its grid.
    state = convert_state_dict(timm_vit(grid=(2, 6)))
    module = vit((8, 8))
    with pytest.raises(IncompleteLoadError, match='source_grid'):
        load_pretrained(module, state)
    load_pretrained(module, state, source_grid=(2, 6))
    meta = {'mmrsfm_traits': {'grid': [2, 6]}}
    report = load_pretrained(module, {'state_dict': state, 'meta': meta})
    assert report.resized == {'pos_embed': '2x6 -> 4x4, bicubic'}


def test_class_row_is_cut_for_a_module_without_one():
    module = vit(with_cls_token=False, out_type='avg_featmap', final_norm=True)
    state = timm_vit()
    report = load_pretrained(module, state, allow_missing='ln2.*')
    assert torch.equal(module.pos_embed, state['pos_embed'][:, 1:])
    assert 'cut off' in report.resized['pos_embed'] and report.unexpected == ['cls_token']
    with_class = {k: v for k, v in state.items() if k != 'cls_token'}
    with_class['pos_embed'] = state['pos_embed'][:, 1:]
    with pytest.raises(IncompleteLoadError, match='further token'):
        load_pretrained(vit(), with_class)


# Bands.


def test_stem_by_name_numbers():
    weight = torch.arange(3.0).view(1, 3, 1, 1) + 1  # R=1 G=2 B=3
    new, text = adapt_stem(weight, 2, 'by_name', ['R', 'G', 'B'], ['B', 'R'])
    assert new.flatten().tolist() == [3, 1]  # chosen and reordered, not scaled
    assert 'not used: G' in text
    new, text = adapt_stem(weight, 4, 'by_name', ['R', 'G', 'B'], ['R', 'G', 'B', 'NIR'])
    # The mean is 2; three of four are known: all times 3/4.
    assert new.flatten().tolist() == [0.75, 1.5, 2.25, 1.5]
    assert 'mean of those for NIR, all times 0.75' in text
    assert new.sum() == weight.sum()  # a grey image is answered as before
    new, _ = adapt_stem(weight, 3, 'by_name', ['R', 'G', 'B'], ['X', 'B', 'Y'])
    assert torch.allclose(new.flatten(), torch.ones(3))


def test_stem_mean_and_repeat_numbers():
    weight = torch.arange(3.0).view(1, 3, 1, 1) + 1
    new, _ = adapt_stem(weight, 6, 'mean')
    assert new.flatten().tolist() == [1] * 6
    new, _ = adapt_stem(weight, 6, 'repeat')
    assert new.flatten().tolist() == [0.5, 1, 1.5, 0.5, 1, 1.5]
    new, _ = adapt_stem(weight, 1, 'mean')
    assert new.flatten().tolist() == [6]
    half, _ = adapt_stem(weight.half(), 2, 'mean')
    assert half.dtype == torch.half


def test_stem_by_name_needs_names():
    weight = torch.ones(1, 3, 1, 1)
    with pytest.raises(ContractError, match='source_bands'):
        adapt_stem(weight, 2, 'by_name', None, ['R', 'G'])
    with pytest.raises(ContractError, match=r'contract=dict\(band_names'):
        adapt_stem(weight, 2, 'by_name', ['R', 'G', 'B'], None)
    with pytest.raises(ContractError, match=r'2 band names.*3 inputs'):
        adapt_stem(weight, 2, 'by_name', ['R', 'G'], ['R', 'G'])
    with pytest.raises(ContractError, match='no band of'):
        adapt_stem(weight, 1, 'by_name', ['R', 'G', 'B'], ['VV'])


def test_the_stem_is_found():
    assert find_stem(vit()) == 'patch_embed.projection.weight'
    assert find_stem(nn.Sequential(nn.ReLU(), nn.Conv2d(2, 2, 1))) == '1.weight'
    assert find_stem(nn.Conv2d(2, 2, 1)) == 'weight'
    assert find_stem(nn.Linear(2, 2)) is None
    module = vit()
    module.stem_weight = 'x.weight'
    assert find_stem(module) == 'x.weight'


RGB = {'band_names': ['R', 'G', 'B'], 'scale': 1.0, 'mean': [1.0, 2.0, 3.0], 'std': [1.0] * 3}
FOUR = {
    'band_names': ['B', 'G', 'R', 'N'],
    'scale': 1.0,
    'mean': [3.0, 2.0, 1.0, 9.0],
    'std': [1.0] * 4,
}


def with_contract(state, contract=None):
    return {'state_dict': state, 'meta': {'mmrsfm_contract': contract or RGB}}


def test_other_channel_counts_need_a_decision():
    state = timm_vit()
    for choice in ('by_name', 'mean', 'repeat', 'random', 'ignore'):
        with pytest.raises(ContractError, match=f'takes 3 bands, this model has 4.*{choice}'):
            load_pretrained(vit(channels=4), state)
    with pytest.raises(ContractError, match=r'takes 3 bands \(R, G, B\)'):
        load_pretrained(vit(channels=4), with_contract(convert_state_dict(state)))


def test_bands_by_name_through_the_contract():
    ours = convert_state_dict(timm_vit())
    stem = ours['backbone.patch_embed.projection.weight']
    module = vit(channels=4)
    report = load_pretrained(
        module, with_contract(ours), adapt='by_name', contract=FOUR
    )  # fmt: skip
    new = module.patch_embed.projection.weight
    torch.testing.assert_close(new[:, 0], stem[:, 2] * 0.75)
    torch.testing.assert_close(new[:, 3], stem.mean(dim=1) * 0.75)
    assert 'mean of those for N' in report.adapted['patch_embed.projection.weight']
    assert report.contract == ImageryContract.from_dict(RGB)
    assert any(note.startswith('band_names') for note in report.notes)
    # The same bands in another order are another stem, though the shape is the same.
    swapped = {'band_names': ['B', 'G', 'R']}
    with pytest.raises(ContractError, match='band_names'):
        load_pretrained(vit(), with_contract(ours), contract=swapped)
    module = vit()
    load_pretrained(module, with_contract(ours), contract=swapped, adapt='by_name')
    assert torch.equal(module.patch_embed.projection.weight, stem.flip(1))


def test_released_checkpoints_get_their_band_names_from_the_config():
    state = timm_vit()
    module = vit(channels=1)
    load_pretrained(
        module,
        state,
        adapt=dict(bands='by_name', source_bands=['R', 'G', 'B']),
        contract=dict(band_names=['G']),
    )
    stem = state['patch_embed.proj.weight']
    assert torch.equal(module.patch_embed.projection.weight, stem[:, 1:2])


def test_random_leaves_the_stem_alone():
    module = vit(channels=2)
    before = module.patch_embed.projection.weight.clone()
    report = load_pretrained(module, timm_vit(), adapt='random')
    assert torch.equal(module.patch_embed.projection.weight, before)
    assert report.adapted == {'patch_embed.projection.weight': 'left as it was initialised'}
    assert list(report.missing) == ['patch_embed.projection.weight']


@pytest.mark.parametrize('method', ['mean', 'repeat'])
def test_equal_counts_are_not_touched_by_mean_and_repeat(method):
    module = vit()
    state = timm_vit()
    assert not load_pretrained(module, state, adapt=method).adapted
    assert_holds(module, backbone_part(state))


# Contracts.


def check(theirs, ours, **adapt):
    return check_contract(
        ImageryContract.from_dict(theirs),
        ImageryContract.from_dict(ours),
        Adaptation.parse(adapt or None),
        'file.pth',
    )


def test_contract_differences_are_named_with_both_values_and_the_choices():
    with pytest.raises(ContractError) as error:
        check({**RGB, 'gsd': 10.0}, {**RGB, 'scale': 1e-4, 'gsd': 30.0})
    text = str(error.value)
    for part in ('file.pth', 'scale: the checkpoint has 1.0, this run 0.0001', 'gsd', '10.0',
                 '30.0', "adapt='by_name'", 'ignore='):  # fmt: skip
        assert part in text
    with pytest.raises(ContractError, match='scale'):
        check({**RGB, 'gsd': 10.0}, {**RGB, 'scale': 1e-4, 'gsd': 30.0}, ignore=['gsd'])
    assert len(check(RGB, {**RGB, 'scale': 1e-4}, ignore='scale')) == 1
    assert check({**RGB, 'licence': 'A'}, {**RGB, 'licence': 'B'}) == []
    assert check({'gsd': 1.0}, {'scale': 1.0}) == []


def test_by_name_still_compares_constants_of_common_bands():
    assert len(check(RGB, FOUR, bands='by_name')) >= 1
    with pytest.raises(ContractError, match=r'mean: the checkpoint has \[3.0, 2.0, 1.0\]'):
        check(RGB, {**FOUR, 'mean': [3.0, 2.5, 1.0, 9.0]}, bands='by_name')
    check(RGB, {**FOUR, 'mean': [3.0, 2.5, 1.0, 9.0]}, bands='by_name', ignore=['mean'])
    check(RGB, {**FOUR, 'mean': [0.0] * 4}, bands='mean')
    with pytest.raises(ContractError, match='mean'):
        check(RGB, {**RGB, 'mean': [0.0] * 3}, bands='mean')
    with pytest.raises(ContractError, match='scale'):
        check(RGB, {**FOUR, 'scale': 2.0}, bands='mean')


def test_offset_is_compared_and_by_band_where_it_is_stated_so():
    with pytest.raises(ContractError, match=r'offset: the checkpoint has -0\.1, this run 0\.0'):
        check({**RGB, 'offset': -0.1}, {**RGB, 'offset': 0.0})
    assert check({**RGB, 'offset': -0.1}, RGB) == []
    assert len(check({**RGB, 'offset': -0.1}, {**RGB, 'offset': 0}, ignore='offset')) == 1
    theirs = {**RGB, 'offset': [1.0, 2.0, 3.0]}
    ours = {**FOUR, 'offset': [3.0, 2.0, 1.0, 9.0]}
    check(theirs, ours, bands='by_name')
    check(theirs, ours, bands='mean')  # nothing to compare band by band
    with pytest.raises(ContractError, match='offset'):
        check(theirs, {**ours, 'offset': 0.0}, bands='by_name')
    with pytest.raises(ContractError, match='offset'):
        check({**RGB, 'offset': 1.0}, {**FOUR, 'offset': 2.0}, bands='mean')


def test_adapt_is_checked():
    for wrong in ('nearest', {'band': 'mean'}, {'ignore': ['colour']}, 3):
        with pytest.raises(ConfigError, match='adapt'):
            Adaptation.parse(wrong)
    parsed = Adaptation.parse({'bands': 'mean', 'ignore': 'gsd', 'source_bands': ['R']})
    assert parsed == Adaptation('mean', ('gsd',), ('R',))
    assert Adaptation.parse(parsed) is parsed


def test_a_damaged_contract_is_an_error():
    state = convert_state_dict(timm_vit())
    with pytest.raises(ContractError, match='colour'):
        load_pretrained(vit(), with_contract(state, {'colour': 1}))


def test_compact_names():
    names = [f'layers.{i}.ln1.weight' for i in range(12)] + ['x', 'layers.0.ln2.weight']
    assert compact(names) == 'layers.{0-11}.ln1.weight, x, layers.0.ln2.weight'
    assert compact(['a.1.b', 'a.3.b']) == 'a.{1,3}.b'
    assert compact([f'n{i}' for i in range(20)], limit=2) == 'n0, n1, and 18 more'
