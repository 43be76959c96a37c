# Copyright (c) mmrsfm contributors. Licensed under the Apache License 2.0.
"""tools/model_converters: what they print, write and refuse."""

import importlib.util
import json

import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmrsfm.checkpoints import convert_state_dict, file_digests, load_pretrained, read_checkpoint
from mmrsfm.engine.command_line import run_command
from tests.parity import REPO
from tests.test_checkpoints.test_layouts import assert_same, cross_scale, facebook_mae, timm_vit
from tests.test_checkpoints.test_loading import vit
from tests.test_checkpoints.test_mars_files import raw_checkpoint
from tests.test_checkpoints.test_mars_files import released as released_encoder


def command(name, *arguments):
    path = REPO / 'tools' / 'model_converters' / f'{name}_checkpoint.py'
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return run_command(module.main, module.build_parser(), [str(item) for item in arguments])


@pytest.fixture
def released(tmp_path):
    """As the published code writes it: weights beside an optimizer and the arguments."""
    from argparse import Namespace

    path = tmp_path / 'released.pth'
    state = cross_scale()
    torch.save({'model': state, 'epoch': 399, 'args': Namespace(lr=1e-3)}, path)
    return path, state


def test_convert_to_ours_and_back_is_exact(released, tmp_path, capsys):
    path, state = released
    ours = tmp_path / 'ours.pth'
    digest = file_digests(path)['sha256']
    contract = [
        'band_names=R,G,B',
        'scale=1.0',
        'offset=0,-0.1,0',
        'mean=1,2,3',
        'std=1,1,1',
        'sensor=fMoW RGB',
    ]
    assert command('convert', path, ours, '--sha256', digest[:8], '--contract', *contract) == 0
    shown = capsys.readouterr().out
    count = len(state)
    assert f"cross_scale_mae (['model']) -> mmrsfm: {count} entries" in shown
    assert file_digests(ours)['sha256'] in shown and 'left out' not in shown
    content = read_checkpoint(ours)
    assert_same(content['state_dict'], convert_state_dict(state))
    assert content['meta']['mmrsfm_contract']['sensor'] == 'fMoW RGB'
    assert content['meta']['mmrsfm_contract']['offset'] == [0.0, -0.1, 0.0]
    assert content['meta']['mmrsfm_traits'] == {'norm_style': 'pre'}
    assert content['meta']['mmrsfm_source']['sha256'] == digest
    back = tmp_path / 'back.pth'
    assert command('convert', ours, back, '--to', 'cross_scale_mae') == 0
    assert_same(read_checkpoint(back)['model'], state)
    assert 'band_names' in read_checkpoint(back)['meta']['mmrsfm_contract']
    # What it writes can be loaded.
    load_pretrained(vit(), ours)
    load_pretrained(vit(), back)


def test_convert_one_encoder_of_several(tmp_path, capsys):
    source, target = tmp_path / 'checkpoint-11.pth', tmp_path / 'sar.pth'
    torch.save(raw_checkpoint(), source)
    part = ('--part', 'backbone.branches.sar')
    assert command('convert', source, target, '--to', 'mars_encoder', *part) == 0
    assert 'mars_model' in capsys.readouterr().out
    assert_same(read_checkpoint(target)['model'], released_encoder('sar'))
    assert command('convert', source, tmp_path / 'x.pth', '--part', 'backbone.branches.lidar') != 0
    shown = capsys.readouterr()
    assert 'backbone.branches.sar' in shown.out + shown.err
    assert not (tmp_path / 'x.pth').exists()


def test_convert_to_timm_and_mmpretrain_names_what_has_no_place(released, tmp_path, capsys):
    path, state = released
    assert command('convert', path, tmp_path / 't.pth', '--to', 'timm') == 0
    shown = capsys.readouterr().out
    assert 'left out' in shown and 'neck.decoder_embed.weight' in shown
    timm = read_checkpoint(tmp_path / 't.pth')['model']
    assert set(timm) == set(timm_vit())
    assert torch.equal(timm['blocks.1.mlp.fc2.weight'], state['encoder.1.mlp.fc2.weight'])
    assert command('convert', path, tmp_path / 'm.pth', '--to', 'mmpretrain') == 0
    shown = capsys.readouterr().out
    assert 'left out, 8: predictor' in shown
    found = read_checkpoint(tmp_path / 'm.pth')['state_dict']
    assert {name.split('.')[0] for name in found} == {'backbone', 'neck'}
    assert command('convert', path, tmp_path / 's.pth', '--to', 'timm', '--strict') == 1
    assert not (tmp_path / 's.pth').exists()


def test_post_norm_travels_with_the_converted_file(tmp_path, capsys):
    path, ours = tmp_path / 'x.pth', tmp_path / 'ours.pth'
    torch.save({'model': cross_scale(xformers=True)}, path)
    assert command('convert', path, ours) == 0
    assert read_checkpoint(ours)['meta']['mmrsfm_traits']['norm_style'] == 'post'
    for target in ('timm', 'mmpretrain', 'cross_scale_mae'):
        for source in (path, ours):
            assert command('convert', source, tmp_path / 'y.pth', '--to', target) == 1
            assert 'post-norm' in capsys.readouterr().err
    assert command('convert', ours, tmp_path / 'y.pth', '--to', 'cross_scale_mae_xformers') == 0
    assert_same(read_checkpoint(tmp_path / 'y.pth')['model'], read_checkpoint(path)['model'])


def test_safetensors_keep_the_contract(released, tmp_path):
    path, state = released
    target = tmp_path / 'ours.safetensors'
    contract = tmp_path / 'contract.json'
    contract.write_text(json.dumps({'band_names': ['R', 'G', 'B'], 'gsd': 0.3}))
    assert command('convert', path, target, '--contract', contract) == 0
    content = read_checkpoint(target)
    assert content['meta']['mmrsfm_contract'] == {'band_names': ['R', 'G', 'B'], 'gsd': 0.3}
    assert_same(content['state_dict'], convert_state_dict(state))
    report = load_pretrained(vit(), target)
    assert report.contract.gsd == 0.3 and report.layout == 'mmrsfm'


def test_convert_refuses_and_leaves_no_file(released, tmp_path, capsys):
    path, _ = released
    target = tmp_path / 'ours.pth'
    for arguments, message in (
        (['--sha256', '0' * 8], 'sha256'),
        (['--contract', 'colour=1'], 'colour'),
        (['--contract', 'R,G,B'], 'key=value'),
        (['--contract', 'scale=x'], 'not a number'),
        (['--from', 'nonsense'], 'no layout'),
        (['--weights', 'ema'], "'ema'"),
    ):
        assert command('convert', path, target, *arguments) in (1, 2)
        assert message in capsys.readouterr().err
        assert not target.exists()
    target.write_bytes(b'precious')
    assert command('convert', path, target) == 1
    assert target.read_bytes() == b'precious'
    assert command('convert', path, target, '--overwrite') == 0


def test_converted_files_hold_no_hidden_storage(tmp_path):
    path, target = tmp_path / 'x.pth', tmp_path / 'ours.pth'
    state = facebook_mae()
    big = torch.randn(1000, 1000)
    state['cls_token'] = big[:1, :4].reshape(1, 1, 4).detach()
    state['cls_token'] = big.view(-1)[:4].view(1, 1, 4)
    torch.save(state, path)
    assert path.stat().st_size > 4e6
    assert command('convert', path, target) == 0
    assert target.stat().st_size < 2e5


def test_inspect_shows_everything_and_runs_nothing(tmp_path, capsys):
    mark = tmp_path / 'mark'
    path = tmp_path / 'x.pth'
    text = f'open({str(mark)!r}, "w")\nmodel = 1'
    state = convert_state_dict(facebook_mae())
    meta = {
        'mmrsfm_contract': {'band_names': ['R', 'G', 'B'], 'scale': 1.0},
        'mmrsfm_traits': {'norm_style': 'pre', 'grid': [2, 2]},
        'cfg': text,
        'epoch': 3,
    }
    hub = {'log_scalars': {'loss': HistoryBuffer([1.0], [1])}}
    torch.save({'state_dict': state, 'meta': meta, 'message_hub': hub}, path)
    assert command('inspect', path) == 0
    shown = capsys.readouterr().out
    numbers = sum(value.numel() for value in state.values())
    for part in ('layout     mmrsfm', f'{numbers:,} numbers', '"band_names": ["R", "G", "B"]',
                 file_digests(path)['sha256'], file_digests(path)['md5'], 'epoch: 3',
                 '2 lines of text', 'backbone ', 'norm style pre', 'message_hub'):  # fmt: skip
        assert part in shown, part
    assert 'blocks.0' not in shown and 'layers.0' not in shown
    assert command('inspect', path, '--keys') == 0
    assert 'backbone.layers.0.attn.qkv.weight (12, 4) float32' in capsys.readouterr().out
    assert command('inspect', path, '--config') == 0
    assert capsys.readouterr().out == f'{text}\n'
    assert command('inspect', path, '--json') == 0
    found = json.loads(capsys.readouterr().out)
    assert found['parameters'] == numbers and found['tensors']['backbone.cls_token']['shape']
    assert not mark.exists()


def test_inspect_of_an_unknown_layout_and_of_no_checkpoint(tmp_path, capsys):
    torch.save({'conv.weight': torch.ones(2)}, tmp_path / 'x.pth')
    assert command('inspect', tmp_path / 'x.pth') == 0
    assert 'unknown (no layout fits' in capsys.readouterr().out
    assert command('inspect', tmp_path / 'none.pth') == 1
    assert 'does not exist' in capsys.readouterr().err
